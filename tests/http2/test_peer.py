"""What a connection's socket side does beyond what its core says."""

import asyncio
from itertools import pairwise

from ratelimit_svc.wire.http2.engine import Http2Engine
from ratelimit_svc.wire.http2.peer import MOST_READ
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
