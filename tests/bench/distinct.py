"""`make distinct`: a million descriptors that nobody has asked before. Memory must end flat and small; the loop must not stall.

A probe asks every 2 ms on a connection of its own: what keeps its reply waiting keeps everybody's. The load beside it is small,
so that its own queue is not what the probe measures; the probe's timer is late where this process or this machine stalls, and
how late at most is said beside it.
"""

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import uvloop

from tests.bench.arguments import add_contender, add_store, chosen, count, in_words
from tests.bench.cell import STORES, cores, on_core, steady
from tests.bench.connection import Connection, Tally
from tests.bench.figures import percentile
from tests.bench.load import connect, loaded, rest
from tests.bench.servers import Contender, Server
from tests.bench.watching import Sample, judge, sample
from tests.bench.workloads import Feed, Workload, asking, unique

LOAD = Workload("distinct", "every request a new descriptor", unique, 2, 8)
PROBE_EVERY_S = 0.002
SAMPLES = 40
AT_MOST_S = 1_800.0
MOST_MB = 150
"""DESIGN's figure for a million."""


class Probe(Connection):
    """Asks when told, one request at a time."""

    def ask(self) -> None:
        """Send one, if the last is answered."""
        if not self._started:
            self._in_flight = 1
            self._send()
            self._in_flight = 0


@dataclass
class Stalls:
    """What the probe has seen."""

    tally: Tally = field(default_factory=Tally)
    latest_s: float = 0.0
    """The most that its own timer was late."""

    def __str__(self) -> str:
        """A sentence for people."""
        ordered = sorted(self.tally.latencies_s)
        parts = [f"{name} {percentile(ordered, part) * 1e3:.2f} ms" for name, part in (("p50", 0.5), ("p99.9", 0.999))]
        return (
            f"a probe every 2 ms, {len(ordered):,} replies: {', '.join(parts)}, longest {ordered[-1] * 1e3:.1f} ms"
            f" (the probe itself was at most {self.latest_s * 1e3:.1f} ms late)"
        )


async def probe(port: int, stalls: Stalls) -> None:
    """Ask until cancelled."""
    only = asking("tenant=probe0")
    feed = Feed(repeat(only), repeat(b""), len(only), 0)
    asker = await connect(port, lambda: Probe(feed, stalls.tally, in_flight=0))
    assert isinstance(asker, Probe)
    due = time.perf_counter()
    try:
        while True:
            due = max(due + PROBE_EVERY_S, time.perf_counter())
            await asyncio.sleep(due - time.perf_counter())
            stalls.latest_s = max(stalls.latest_s, time.perf_counter() - due)
            asker.ask()
    finally:
        asker.close()


async def distinct(
    contender: Contender, *, store: str, requests: int, core: int, folder: Path
) -> tuple[list[Sample], Stalls]:
    """Run it; return what was seen of the server, and of its stalls."""
    tally, stalls = Tally(), Stalls()
    async with (
        STORES[store](folder / "store") as redis,
        Server(contender, [redis], folder=folder / "server", core=core) as server,
    ):
        began = time.monotonic()

        def look() -> Sample:
            tally.latencies_s.clear()
            at_s = time.monotonic() - began
            return sample(
                server.pid, at_s=at_s, requests=tally.total, connections=LOAD.connections + 1, errors=tally.answers[0]
            )

        samples = [look()]
        with steady():
            probing = asyncio.create_task(probe(server.port, stalls))
            async with loaded(server.port, LOAD, LOAD.feed(), tally) as connections:
                async with asyncio.timeout(AT_MOST_S):
                    for number in range(1, SAMPLES + 1):
                        while tally.total < requests * number // SAMPLES:
                            await asyncio.sleep(0.01)
                        samples.append(look())
                await rest(connections)
            probing.cancel()
            await asyncio.wait([probing])
        return [*samples, look()], stalls


def main() -> None:
    """Read the arguments, run, judge."""
    parser = argparse.ArgumentParser(prog="make distinct ARGS=…", description="Many descriptors, each asked once.")
    add_contender(parser)
    parser.add_argument("--requests", type=count, default=1_000_000, metavar="N", help="[1000000]")
    add_store(parser)
    arguments = parser.parse_args()
    core, others = cores()
    with in_words(), tempfile.TemporaryDirectory(prefix="distinct-") as folder, on_core(others):
        watched = distinct(
            chosen(arguments), store=arguments.store, requests=arguments.requests, core=core, folder=Path(folder)
        )
        samples, stalls = uvloop.run(watched)
    print(stalls)
    judge(samples, most_mb=MOST_MB)


if __name__ == "__main__":
    main()
