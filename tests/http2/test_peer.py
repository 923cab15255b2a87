"""What a connection's socket side does beyond what its core says."""

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import Any, cast

from ratelimit_svc.wire.http2.engine import Http2Engine
from ratelimit_svc.wire.http2.peer import MOST_READ, Peer
from tests.conformance.served import asks, serving
from tests.http2.client import HELLO, block, body, head, message
from tests.waiting import until


async def test_a_callers_time_runs_while_its_bytes_wait_for_their_turn(clock):
    """Of requests that came all at once, those that are seen to later have less time left."""
    data = message(asks("a").SerializeToString())
    timed = block(grpc_timeout="10S")
    burst = HELLO + b"".join(head(number, timed) + body(number, data) for number in range(1, 2000, 2))
    assert len(burst) > 5 * MOST_READ
    async with serving("http2", clock) as served:
        assert isinstance(served.engine, Http2Engine)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        await reader.readexactly(9)
        (peer,) = served.engine._shared.peers
        peer.data_received(burst)
        await until(lambda: len(served.limiter.timeouts_s) == 1000)
        writer.close()
    left = [each for each in served.limiter.timeouts_s if each is not None]
    assert all(before >= after for before, after in pairwise(left))
    assert left[-1] < left[0]


async def test_what_waits_for_its_turn_is_read_in_order(clock):
    """However it was cut when it came: no byte is lost, none comes twice."""
    data = message(asks("a").SerializeToString())
    burst = HELLO + b"".join(head(number) + body(number, data) for number in range(1, 2000, 2))
    async with serving("http2", clock) as served:
        assert isinstance(served.engine, Http2Engine)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        await reader.readexactly(9)
        (peer,) = served.engine._shared.peers
        at = 0
        for size in (MOST_READ + 1, 1, MOST_READ - 1, 3 * MOST_READ, 7, len(burst)):
            peer.data_received(burst[at : at + size])
            at += size
        await until(lambda: len(served.limiter.timeouts_s) == 1000)
        assert not peer.connection.over
        writer.close()


async def test_a_connection_that_cannot_write_harms_no_other(clock):
    """It is cut off, and told of; what others have to say in the same turn is said."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with serving("http2", clock) as served:
        assert isinstance(served.engine, Http2Engine)
        shared = served.engine._shared
        opened = []
        peers: list[Peer] = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            await reader.readexactly(9)
            peers += shared.peers - set(peers)
            opened.append((reader, writer))
        broken, good = peers
        broken._outgoing.parts.append(cast("bytes", "no bytes"))
        broken.flush()
        good.connection.control.ask_alive()
        good.flush()
        async with asyncio.timeout(10):
            await opened[1][0].readuntil(b"anybody?")
            with suppress(ConnectionError):  # it is cut off
                await opened[0][0].read()
        await until(lambda: shared.peers == {good})
        assert [type(context["exception"]) for context in told] == [TypeError]
        for _, writer in opened:
            writer.close()
