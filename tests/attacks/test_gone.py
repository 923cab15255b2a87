"""Clients that go in the middle of anything: nothing is left of them, and nothing is said in the log."""

import asyncio
import gzip
from random import Random

import pytest

from ratelimit_svc.wire.http2.engine import Http2Engine
from tests.attacks.honest import ASKED
from tests.conformance.served import ECHO, HANG, POUR, serving
from tests.http2.client import HELLO, block, body, head, message, ping, request, reset, settings, window
from tests.waiting import until

CONNECTIONS = 300


def says(source: Random) -> bytes:
    """What one client says: sound and unsound, of all kinds of calls."""
    said = [HELLO]
    if source.random() < 0.3:
        said.append(settings(INITIAL_WINDOW_SIZE=source.choice((0, 10, 2**30))) + window(0, 2**20))
    for number in range(1, source.choice((3, 21, 61)), 2):
        path = source.choice((None, None, ECHO, POUR, HANG))
        opened = head(number, block({":path": path, "grpc-encoding": "gzip"} if path else None))
        said.append(
            source.choice(
                (
                    opened + body(number, ASKED),
                    opened + body(number, ASKED[:-1], end=False),
                    opened + body(number, message(bytes(30_000))[:16_000], end=False),
                    opened + body(number, message(gzip.compress(bytes(50_000)), 1), end=False),
                    opened + body(number, ASKED * 3, end=False),
                    opened + body(number, ASKED) + reset(number),
                    opened + window(number, source.choice((0, 5, 2**31 - 1))),
                    opened,
                    request(number) + ping(),
                )
            )
        )
    if source.random() < 0.2:
        said.append(body(0, b""))
    return b"".join(said)


async def client(port: int, source: Random) -> None:
    """Say it, perhaps not all, hear something or nothing, and go, politely or not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = says(source)
    writer.write(data[: source.choice((len(data), len(data), source.randrange(len(data))))])
    if source.random() < 0.7:
        try:
            async with asyncio.timeout(source.random() / 10):
                while await reader.read(source.choice((1, 1000, 100_000))):
                    pass
        except (TimeoutError, ConnectionError):
            pass
    if source.random() < 0.5:
        writer.transport.abort()
    writer.close()


@pytest.mark.parametrize("held", [False, True])
async def test_nothing_is_left(clock, held):
    """Of connections, calls, streams, tasks and bytes; whether or not the store answers meanwhile."""
    errors: list[object] = []
    loop = asyncio.get_running_loop()
    async with serving("http2", clock) as served:
        assert isinstance(served.engine, Http2Engine)
        shared = served.engine._shared
        await served.ask()
        tasks = len(asyncio.all_tasks())
        before = len(shared.peers)
        loop.set_exception_handler(lambda _, context: errors.append(context))
        if held:
            served.store.go.clear()
        for start in range(0, CONNECTIONS, 50):
            await asyncio.gather(*(client(served.port, Random(start + each)) for each in range(50)))
        served.store.go.set()
        await until(lambda: len(shared.peers) == before)
        await until(lambda: not shared.calls)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert (shared.streams, shared.unfinished.bytes, served.methods.hanging) == (0, 0, 0)
        assert not served.limiter.waiting.requests
        assert (await served.ask("b")).overall_code == 1
    assert errors == []
