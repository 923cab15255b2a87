"""`make soak`: many requests over connections that come and go, and a server that must be as it was, at the end.

Each connection asks a random number of requests, then leaves: politely, abruptly with requests under way, or in the middle of
a request's bytes. Requests that we abandon are nobody's; every other one must be answered.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import replace
from enum import Enum, auto
from itertools import count as numbers
from pathlib import Path

import uvloop

from ratelimit_svc.demo.child import until
from tests.bench import cost
from tests.bench.arguments import add_contender, add_store, chosen, count, in_words
from tests.bench.cell import STORES, cores, on_core
from tests.bench.connection import ERROR, Connection, Tally
from tests.bench.load import connect
from tests.bench.servers import Contender, Server
from tests.bench.watching import FILES_LEFT, Sample, judge, sample
from tests.bench.workloads import WORKLOADS

CONNECTIONS = 200
TURNOVER = 10_000
"""A connection asks at most this part of all requests: some 20 000 come and go, however long it takes."""
MOST_UNDER_WAY = 8
SAMPLES = 40
"""At least so many over the whole run, ten a quarter."""
CLOSED_WITHIN_S = 15
GONE_AFTER_S = 0.0005
AT_MOST_S = 3_600.0


class Leave(Enum):
    """How a connection ends."""

    POLITELY = auto()
    """After the last reply, with a GOAWAY."""
    ABRUPTLY = auto()
    """With requests under way, by a reset."""
    MID_STREAM = auto()
    """After a part of a request."""


class Abrupt(Connection):
    """Gone soon after its last request is sent: so soon that the server is at it."""

    def _send(self) -> None:
        last = self._left != 0
        super()._send()
        if last and self._left == 0:
            asyncio.get_running_loop().call_later(GONE_AFTER_S, self.abandon)


class Soak:
    """A load of connections that come and go until so many requests are sent."""

    def __init__(self, port: int, requests: int, seed: int) -> None:
        self._port = port
        self._left = requests
        self._most_each = max(requests // TURNOVER, 1)
        self._rng = random.Random(seed)
        self._feed = WORKLOADS["zipf"].feed()
        self.tally = Tally()
        self.connections = 0

    async def run(self) -> None:
        """Keep all connections coming."""
        async with asyncio.timeout(AT_MOST_S), asyncio.TaskGroup() as visitors:
            for _ in range(CONNECTIONS):
                visitors.create_task(self._visitors())

    async def _visitors(self) -> None:
        """One after the other."""
        while requests := min(self._left, self._rng.randint(1, self._most_each)):
            self._left -= requests
            await self._visit(requests, self._rng.choice([*Leave]))

    async def _visit(self, requests: int, leave: Leave) -> None:
        kind = Abrupt if leave is Leave.ABRUPTLY else Connection
        under_way = self._rng.randint(1, MOST_UNDER_WAY)
        self.connections += 1
        visitor = await connect(
            self._port, lambda: kind(self._feed, self.tally, in_flight=under_way, requests=requests)
        )
        await visitor.quiet.wait()
        if leave is Leave.MID_STREAM:
            visitor.break_off(self._rng.random())
        visitor.close()
        await visitor.closed.wait()

    def errors(self) -> int:
        """Requests without a proper answer, and connections that the server ended."""
        return self.tally.answers[ERROR] + self.tally.lost


async def soak(contender: Contender, *, store: str, requests: int, seed: int, core: int, folder: Path) -> list[Sample]:
    """Run it; return what was seen of the server."""
    async with (
        STORES[store](folder / "store") as redis,
        Server(contender, [redis], folder=folder / "server", core=core) as server,
    ):
        load, began = Soak(server.port, requests, seed), time.monotonic()

        def look() -> Sample:
            load.tally.latencies_s.clear()  # ten million of them would be the one leak here
            return sample(
                server.pid,
                at_s=time.monotonic() - began,
                requests=load.tally.total,
                connections=load.connections,
                errors=load.errors(),
            )

        samples = [look()]
        running = asyncio.create_task(load.run())
        for number in numbers(1):
            await _past(running, load, requests * number // SAMPLES)
            samples.append(look())
            if running.done():
                break
        await running  # raises what ended it early
        await _let_go(server, samples[0].files)
        return [*samples, replace(look(), calls=await server.calls())]


async def _past(running: asyncio.Task[None], load: Soak, requests: int) -> None:
    """Wait until so many requests are over, or all."""
    while not running.done() and load.tally.total < requests:
        await asyncio.wait([running], timeout=0.05)


async def _let_go(server: Server, files: int) -> None:
    """Give the server time to see that all are gone; whether it does is the samples' to say."""

    async def gone() -> bool:
        return cost.open_files(server.pid) <= files + FILES_LEFT

    try:
        await until(gone, "connections are closed", within=CLOSED_WITHIN_S)
    except TimeoutError as error:
        print(error, file=sys.stderr)


def main() -> None:
    """Read the arguments, run, judge."""
    parser = argparse.ArgumentParser(
        prog="make soak ARGS=…", description="A long load of connections that come and go."
    )
    add_contender(parser)
    parser.add_argument("--requests", type=count, default=10_000_000, metavar="N", help="[10000000]")
    parser.add_argument("--seed", type=int, default=17, metavar="N", help="of all that is random [17]")
    add_store(parser)
    arguments = parser.parse_args()
    core, others = cores()
    with in_words(), tempfile.TemporaryDirectory(prefix="soak-") as folder, on_core(others):
        watched = soak(
            chosen(arguments),
            store=arguments.store,
            requests=arguments.requests,
            seed=arguments.seed,
            core=core,
            folder=Path(folder),
        )
        samples = uvloop.run(watched)
    judge(samples)


if __name__ == "__main__":
    main()
