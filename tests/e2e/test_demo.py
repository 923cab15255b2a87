"""The demo as a user starts it: it proves what it claims, and leaves nothing, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit_svc.demo.child import until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def living(folder):
    """The demo's children by name: the processes whose working directory is below a folder, each in its own."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            place = (process / "cwd").readlink()
        except OSError:  # no process, or it ended meanwhile, or is not ours
            continue
        if process.name.isdecimal() and place.is_relative_to(folder):
            found[place.name] = int(process.name)
    return found


@pytest.fixture
def folder(tmp_path):
    """Where the demo keeps its temporary files."""
    made = tmp_path / "demo"
    made.mkdir()
    return made


@pytest.fixture
def start(folder):
    """Starts the demo with its temporary files below the folder; whatever a failed test leaves of it is killed."""
    started = []

    def start(*args):
        with (folder.parent / "out").open("wb") as out:
            demo = subprocess.Popen(
                [sys.executable, "-m", "ratelimit_svc", "demo", "--seconds", "2.5", *args],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(folder)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        started.append(demo)
        return demo

    yield start
    for demo in started:
        demo.kill()
        demo.wait()


async def ended(process, *, within):
    """Wait for a process and return its exit status."""

    async def is_over():
        return process.poll() is not None

    await until(is_over, "the demo has ended", within=within)
    return process.returncode


async def says(folder, words):
    """Wait until the demo has printed these words."""

    async def said():
        return words in (folder.parent / "out").read_text()

    await until(said, f"the demo says {words!r}", within=60)


async def playing(folder):
    """Wait until the demo is on the stage: Valkey, two replicas and Envoy run, and callers send."""
    await says(folder, " sent, ")  # the first line of numbers, whenever a busy machine comes to print it
    assert living(folder).keys() == {"valkey", "replica-1", "replica-2", "envoy"}


async def nothing_left(folder):
    """Wait until no process of the demo lives."""

    async def gone():
        return not living(folder)

    await until(gone, "all of the demo's processes are gone", within=10)


async def test_the_demo_proves_its_claims_and_leaves_nothing(folder, start):
    """All claims hold, the exit status is 0, and neither a process nor a file is left."""
    demo = start()
    assert await ended(demo, within=60) == 0, (folder.parent / "out").read_text()
    told = (folder.parent / "out").read_text()
    assert "All 24 held." in told
    assert "BROKEN" not in told
    assert living(folder) == {}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_the_demo_can_be_stopped(folder, start, how):
    """Ctrl-C or SIGTERM in the middle stops everything in order and removes the files."""
    demo = start()
    await playing(folder)
    demo.send_signal(how)
    assert await ended(demo, within=20) == 130
    assert living(folder) == {}
    assert list(folder.iterdir()) == []
    assert "Traceback" not in (folder.parent / "out").read_text()


async def test_children_die_with_a_killed_demo(folder, start):
    """Even kill -9, which lets nobody clean up, leaves no process."""
    demo = start()
    await playing(folder)
    demo.kill()
    await ended(demo, within=5)
    await nothing_left(folder)


async def test_keep_leaves_it_up_until_it_is_told_to_stop(folder, start):
    """With --keep everything still runs after the proof, Valkey comes back when it is killed, and Ctrl-C ends it all."""
    demo = start("--keep")

    await says(folder, "Ctrl-C stops it all.")
    before = living(folder)
    assert len(before) == 4
    os.kill(before["valkey"], signal.SIGKILL)
    await says(folder, "Valkey runs again")
    assert len(living(folder)) == 4
    demo.send_signal(signal.SIGINT)
    assert await ended(demo, within=20) == 0
    assert living(folder) == {}
    assert list(folder.iterdir()) == []
