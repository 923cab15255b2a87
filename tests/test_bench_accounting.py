"""What `make bench` says of cost: processes, cores, Redis, and what is made of these."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from redis import Redis

from ratelimit_svc.demo.child import Child
from ratelimit_svc.demo.parts import valkey
from tests.bench import cost, report
from tests.bench.arguments import NOT_RUN
from tests.bench.cell import Bench, cores, measure, on_core
from tests.bench.figures import Books, Figures, figures, middle, percentile
from tests.bench.load import answers
from tests.bench.servers import DEFAULT_ENGINE, POLICY_DECISIONS, Server, engine, metric, peer
from tests.bench.soak import soak
from tests.bench.watching import FILES_LEFT, GROWTH, Sample, findings, table
from tests.bench.workloads import WORKLOADS


class Script(Child):
    """A child that runs some Python and is ready when it has made a file."""

    def __init__(self, folder, code):
        super().__init__("script", [sys.executable, "-c", code], folder=folder)

    async def ready(self):
        return (self.folder / "ready").exists()


FAMILY = """
import os, signal, time
memory = b"x" * 60_000_000
del memory
files = [open("/dev/null") for _ in range(40)]
def burn(seconds):
    while time.process_time() < seconds:
        pass
child = os.fork()
burn(0.4)
if child:
    open("ready", "w").close()
signal.pause()
"""


async def test_a_server_is_its_whole_tree_of_processes(tmp_path):
    """CPU, files and memory are those of the process and of the child that it has forked; the peak is remembered."""
    async with Script(tmp_path, FAMILY) as family:
        assert len(cost.tree(family.pid)) == 2
        begun = time.monotonic()
        while cost.cpu_s(family.pid) < 0.75 and time.monotonic() < begun + 10:
            os.sched_yield()
        assert 0.75 <= cost.cpu_s(family.pid) <= 1.2
        assert 80 <= cost.open_files(family.pid) <= 100
        assert cost.memory_mb(family.pid) < 60
        assert cost.peak_memory_mb(family.pid) - cost.memory_mb(family.pid) > 40
        (child,) = cost.tree(family.pid)[1:]
        os.kill(child, 9)


def test_a_core_that_is_used_is_not_idle():
    """By whomever: here by this very process."""
    core, _ = cores()
    with on_core(core):
        before, spent = cost.core_s(core), time.process_time()
        while time.process_time() < spent + 0.3:
            pass
        assert cost.core_s(core) - before >= 0.27


def test_commands_are_those_of_scripts_too_and_not_our_own(redis_server):
    """A script is one command, and each that it calls is another; asking for them is none."""
    with Redis(port=redis_server.port, host="127.0.0.1") as client:
        client.ping()
        before = cost.commands(redis_server)
        client.set("a", 1)
        client.eval("redis.call('INCR', KEYS[1]) redis.call('INCR', KEYS[1])", 1, "a")
        assert cost.commands(redis_server) - before == {"set": 1, "eval": 1, "incr": 2}
    assert cost.version(redis_server).startswith("redis 6.2")


USED = Books(
    wall_s=2.0,
    server_cpu_s=1.9,
    redis_cpu_s=0.5,
    generator_cpu_s=0.25,
    server_core_s=1.98,
    generator_core_s=0.8,
    commands=Counter(evalsha=20, get=80),
)


def counted(used: Books = USED, answers=(3, 900, 100)) -> Figures:
    latencies = [number / 1000 for number in range(sum(answers), 0, -1)]
    return figures(used, answers=answers, latencies_s=latencies, silence_s=0.02, peak_mb=50, by_policy=0)


def test_costs_are_per_decision():
    """A decision is an answer, OK or OVER_LIMIT; an error is none."""
    one = counted()
    assert (one.requests_per_s, one.server_us, one.redis_us, one.generator_us) == (500, 1900, 500, 250)
    assert (one.redis_operations, one.ok, one.over_limit, one.errors) == (0.1, 900, 100, 3)
    assert (one.server_busy, one.server_core, one.generator_busy, one.generator_core) == (0.95, 0.99, 0.375, 0.4)
    assert (one.p50_ms, one.longest_ms, one.silence_ms) == pytest.approx((502, 1003, 20))
    with pytest.raises(ValueError, match=r"no decision in 2\.0 s, 7 errors"):
        counted(answers=(7, 0, 0))


def test_books_are_read_twice():
    """Of everything, the difference counts."""
    later = Books(5.0, 2.9, 0.75, 1.25, 4.0, 3.0, Counter(evalsha=21, get=80, set=1))
    assert later - USED == Books(3.0, 1.0, 0.25, 1.0, 2.02, 2.2, Counter(evalsha=1, set=1))


@pytest.mark.parametrize(("part", "expected"), [(0.5, 2), (0.51, 3), (0.75, 3), (0.99, 4), (1, 4), (0, 1)])
def test_a_percentile_is_one_of_the_values(part, expected):
    """Of four, half are at most the second."""
    assert percentile([1, 2, 3, 4], part) == expected


def test_the_middle_is_the_median_of_each_figure_and_the_sum_of_errors():
    """One odd round changes nothing, but an error in it does."""
    rounds = [replace(counted(), server_us=cpu, p50_ms=p50) for cpu, p50 in ((10, 3), (11, 900), (500, 2))]
    one = middle([*rounds[:2], replace(rounds[2], errors=9)])
    assert (one.server_us, one.p50_ms, one.errors) == (11, 3, 15)


async def test_answers_without_redis_are_told(tmp_path):
    """What a policy answers is no decision of Redis's, and costs less: the line says how many there were."""
    core, others = cores()
    with on_core(others):
        async with valkey(tmp_path / "store") as away:
            server = Server(engine(DEFAULT_ENGINE), [away], folder=tmp_path / "server", core=core)
            await server.start()
        try:
            assert await server.by_policy() == 0
            assert await answers(server.port)
            assert await server.by_policy() == 1
        finally:
            await server.stop()
    assert metric("404 page not found\n", POLICY_DECISIONS) == 0
    told = report.note([replace(counted(), by_policy=1), counted()])
    assert told == "1 were decided without Redis"


@pytest.mark.parametrize(
    ("server", "generator", "others", "limited"),
    [
        (0.6, 0.99, 0.0, True),
        (0.94, 0.95, 0.05, True),
        (0.99, 0.99, 0.0, False),
        (0.6, 0.9, 0.0, False),
        (0.99, 0.5, 0.0, False),
        (0.6, 0.99, 0.5, False),
    ],
)
def test_the_generator_was_the_limit_when_only_its_core_was_full(server, generator, others, limited):
    """A server that was full was the limit; where neither was, the way between them; and others, where they were."""
    one = replace(
        counted(), server_core=server, server_busy=server, generator_core=generator, generator_busy=generator - others
    )
    assert one.generator_limited is limited
    shown = report.table({("hot", "go"): [counted()], ("hot", "ours"): [one]}, "go")
    assert ("the generator was the limit (1 of 1)" in shown) is limited
    assert ("\\*" in report.markdown({("hot", "go"): [one]}, "go")) is limited


def test_ratios_are_against_the_first_and_a_shared_core_is_told():
    """In the table, in Markdown; and JSON has every round."""
    ours = replace(counted(), server_us=190.0, server_busy=0.7, generator_busy=0.2)
    rounds = {("hot", "go"): [counted()], ("hot", "ours"): [ours] * 3, ("idle", "ours"): [ours]}
    head, go, hot, idle = report.table(rounds, "go").splitlines()
    assert head.split()[-2:] == ["go", "÷"]
    assert go.split()[-1] == "1.0"
    assert hot.endswith("10.0  others took 29% of the server's core; others took 20% of the generator's core")
    assert "–" in idle
    assert report.markdown(rounds, "go").splitlines() == [
        "|  | go: server µs (req/s; p99 ms) | ours: server µs (req/s; p99 ms) | go ÷ ours |",
        "| --- | ---: | ---: | ---: |",
        "| one hot descriptor | 1900.0 (500; 993.00) | 190.0 (500; 993.00) | 10.0 |",
        "| one caller, one request at a time | – | 190.0 (500; 993.00) | – |",
    ]
    written = json.loads(json.dumps(report.as_json(rounds, seconds=5), allow_nan=False))
    assert [len(cell["rounds"]) for cell in written["cells"]] == [1, 3, 1]
    assert written["machine"]["cores"] == os.cpu_count()
    assert {"cpu", "kernel", "python", "packages"} < written["machine"].keys()


def samples(*memory_mb: float, errors: int = 0, files_after: int = 10, calls_after: int = 0) -> list[Sample]:
    """One before, some during, one after the load."""
    asked = [100 * number // len(memory_mb) for number in range(1, len(memory_mb) + 1)]
    during = [Sample(one, one, 5, errors, mb, 200) for one, mb in zip(asked, memory_mb, strict=True)]
    return [Sample(0, 0, 0, 0, 20, 10), *during, replace(during[-1], files=files_after, calls=calls_after)]


FLAT = (30, 60, 80, 80, 80, 81, 80, 80)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (samples(*FLAT), []),
        (samples(*FLAT[:-1], 80 * (1 + GROWTH) - 0.1), []),
        (samples(*FLAT[:-1], 90), [r"memory grows: 80\.0 MB in the second quarter, 90\.0 MB in the last"]),
        (samples(*FLAT, errors=2), ["2 requests met an error"]),
        (samples(*FLAT, files_after=10 + FILES_LEFT), []),
        (samples(*FLAT, files_after=27), ["27 files are open after the load, 10 were before it"]),
        (samples(*FLAT, calls_after=3), ["3 calls are under way after the load"]),
        (samples(80), ["too few samples"]),
        (samples(30, 160, 80, 80, 80, 80, 80, 80), [r"memory: 160\.0 MB, more than 150 MB"]),
    ],
)
def test_what_is_wrong_with_samples(seen, said):
    """Errors, files left open, calls that have not ended, memory that grows after the first quarter, or is too much at any time."""
    found = findings(seen, most_mb=150)
    assert len(found) == len(said)
    for sentence, pattern in zip(found, said, strict=True):
        assert re.match(pattern, sentence)
    assert len(table(seen).splitlines()) == len(seen) + 1


def test_a_peer_is_a_name_and_a_command():
    """Folders of this machine stay out of what is written."""
    parsed = peer("go=env GOMAXPROCS=1 '/opt/some where/ratelimit' -v")
    assert parsed.name == "go"
    assert parsed.command == ("env", "GOMAXPROCS=1", "/opt/some where/ratelimit", "-v")
    assert parsed.shown == "env GOMAXPROCS=1 ratelimit -v"
    for text in ("go", "go=", "=ratelimit"):
        with pytest.raises(ValueError, match="NAME=COMMAND"):
            peer(text)


@pytest.mark.parametrize(
    ("command", "argument", "why"),
    [
        ("tests.bench", "--engine=http3", "invalid choice: 'http3'"),
        ("tests.bench", "--peer=go", "--peer"),
        ("tests.bench", "--rounds=0", "must be a whole number from 1"),
        ("tests.bench", "--seconds=-1", "must be a number of seconds"),
        ("tests.bench", "--json=nowhere/bench.json", "must be a file in a folder that exists"),
        ("tests.bench.soak", "--requests=1e6", "must be a whole number from 1"),
        ("tests.bench.soak", "--peer=none=/no/such/server", "none ended with status 127 before it was ready"),
        ("tests.bench.distinct", "--engine=http3", "invalid choice: 'http3'"),
    ],
)
def test_what_cannot_be_run_is_told_at_once(command, argument, why):
    """In a sentence, with the exit status for it."""
    done = subprocess.run([sys.executable, "-m", command, argument], capture_output=True, text=True, check=False)
    assert done.returncode == NOT_RUN
    assert why in done.stderr
    assert "Traceback" not in done.stderr


async def test_one_cell_is_measured(tmp_path):
    """The whole of it, shortly: a real engine, a real Valkey; every cost is there and none is absurd."""
    core, others = cores()
    with on_core(others):
        bench = Bench(tmp_path, seconds=0.6, warm_up_s=0.2, core=core, others=others, store="valkey")
        one = await measure(bench, engine(DEFAULT_ENGINE), WORKLOADS["denials"])
        other = await measure(bench, engine(DEFAULT_ENGINE), WORKLOADS["unique"])
    assert one.errors == other.errors == 0
    assert one.over_limit > 100 > one.ok - 100  # a hundred a second; most of them went by while it was warmed up
    assert 0.2 <= one.server_busy <= 1.1
    assert one.server_us * one.requests_per_s == pytest.approx(one.server_busy * 1e6)
    assert other.redis_us > 0
    assert one.generator_us > 0
    assert one.redis_operations < 0.1 < other.redis_operations < 10  # denials are remembered
    assert 0 < one.p50_ms <= one.p99_ms <= one.p999_ms <= one.longest_ms
    assert one.peak_mb > 40


@pytest.mark.slow
async def test_connections_come_and_go(tmp_path):
    """Shortly: all that are to be answered are, all connections leave in all three ways, and the server lets go of them."""
    core, others = cores()
    with on_core(others):
        seen = await soak(
            engine(DEFAULT_ENGINE), store="valkey", requests=3000, seed=1, core=core, folder=tmp_path / "soak"
        )
    before, *_, after = seen
    assert after.errors == 0
    assert after.connections == 3000
    assert 1800 <= after.requests <= 2200  # a third is abandoned
    assert after.files <= before.files + FILES_LEFT
