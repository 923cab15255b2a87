"""One cell of the table: a fresh Redis, a fresh server, one workload; warmed up, measured, gone."""

import asyncio
import gc
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ratelimit_svc.demo.parts import RedisServer, valkey
from ratelimit_svc.demo.parts import redis as redis_6
from tests.bench import cost
from tests.bench.connection import Tally
from tests.bench.figures import Books, Figures, figures
from tests.bench.load import loaded
from tests.bench.servers import Contender, Server
from tests.bench.workloads import Workload
from tests.clusters import MASTERS, ClusterServers

STORES = {"valkey": valkey, "redis": redis_6}


@dataclass(frozen=True)
class Bench:
    """How it is measured, the same for all."""

    folder: Path
    seconds: float
    warm_up_s: float
    core: int
    """The server's; nobody else of ours is on it."""
    others: int
    """The generator's and Redis's."""
    store: str
    """Of `STORES`."""


def cores() -> tuple[int, int]:
    """Return the server's core, and that of the generator and Redis: the last two that we may use.

    Raises:
        SystemExit: there are not two.
    """
    ours = sorted(os.sched_getaffinity(0))
    if len(ours) < 2:
        raise SystemExit("two cores are needed: one is the server's alone")
    return ours[-1], ours[-2]


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this process, and what it starts from now on, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def steady() -> Iterator[None]:
    """Let no collection of garbage of ours stand between a reply and its time."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def measure(bench: Bench, contender: Contender, workload: Workload) -> Figures:
    """Run one cell."""
    folder = bench.folder / f"{workload.name}-{contender.name}"
    async with (
        _store(bench, contender, folder / "store") as redis,
        Server(contender, redis, folder=folder / "server", core=bench.core) as server,
    ):
        tally = Tally()
        with steady():
            async with loaded(server.port, workload, workload.feed(), tally):
                await asyncio.sleep(bench.warm_up_s)
                before = books(bench, server, redis)
                tally.restart()
                await asyncio.sleep(bench.seconds)
                seen, used = tally.copy(), books(bench, server, redis) - before
        return figures(
            used,
            answers=seen.answers,
            latencies_s=seen.latencies_s,
            silence_s=seen.longest_silence_s,
            peak_mb=cost.peak_memory_mb(server.pid),
            by_policy=await server.by_policy(),
        )


@asynccontextmanager
async def _store(bench: Bench, contender: Contender, folder: Path) -> AsyncIterator[list[RedisServer]]:
    """Start what a contender keeps its windows in: one server, or the primaries of a Cluster."""
    if contender.cluster:
        # a folder of its own each time: servers of a Cluster remember each other
        with tempfile.TemporaryDirectory(dir=bench.folder) as own:
            async with ClusterServers(Path(own), make=STORES[bench.store]) as cluster:
                yield cluster.servers[:MASTERS]
    else:
        async with STORES[bench.store](folder) as redis:
            yield [redis]


def books(bench: Bench, server: Server, redis: Sequence[RedisServer]) -> Books:
    """Read what was used until now."""
    return Books(
        time.perf_counter(),
        cost.cpu_s(server.pid),
        sum(cost.cpu_s(one.pid) for one in redis),
        time.process_time(),
        cost.core_s(bench.core),
        cost.core_s(bench.others),
        sum(map(cost.commands, redis), Counter()),
    )
