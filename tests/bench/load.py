"""Connections to one server, all asking from the same feed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import repeat

from ratelimit_svc.demo.parts import LOOPBACK
from tests.bench.connection import Connection, Tally
from tests.bench.workloads import Feed, Workload, asking

REPLIES_WITHIN_S = 10.0
"""How long replies to what is under way are waited for when a load ends."""


async def connect(port: int, make: Callable[[], Connection]) -> Connection:
    """Open one connection, which starts to ask as soon as the server has said what it allows."""
    _, connection = await asyncio.get_running_loop().create_connection(make, LOOPBACK, port)
    return connection


@asynccontextmanager
async def loaded(port: int, workload: Workload, feed: Feed, tally: Tally) -> AsyncIterator[list[Connection]]:
    """Ask for as long as the context lasts; at its end wait for what is under way, and close.

    Error handling: ConnectionError if a connection was lost meanwhile, or was told to go: the load was not what it should be.
    """
    connections: list[Connection] = []
    try:
        while len(connections) < workload.connections:
            connections.append(await connect(port, lambda: Connection(feed, tally, in_flight=workload.in_flight)))
        yield connections
        if tally.lost:
            raise ConnectionError(f"{workload.name}: the server ended {tally.lost} of {len(connections)} connections")
        await rest(connections)
    finally:
        for connection in connections:
            connection.close()


async def rest(connections: list[Connection]) -> None:
    """Send nothing more, and wait for the replies."""
    for connection in connections:
        connection.stop()
    async with asyncio.timeout(REPLIES_WITHIN_S):
        await asyncio.gather(*(connection.quiet.wait() for connection in connections))


async def answers(port: int) -> bool:
    """Say whether a server answers a request; never raises for one that is not there yet."""
    tally, only = Tally(), asking("tenant=t00000")
    feed = Feed(repeat(only), repeat(b""), len(only), 0)
    try:
        async with asyncio.timeout(2):
            connection = await connect(port, lambda: Connection(feed, tally, in_flight=1, requests=1))
            await connection.quiet.wait()
    except (OSError, TimeoutError):
        return False
    connection.close()
    return tally.answers[0] == 0 and tally.total == 1
