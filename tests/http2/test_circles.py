"""What is over is freed at once: what goes round in a circle waits for the collector, which a busy service does not call."""

import asyncio
import gc
import weakref

import pytest
from grpc_reflection.v1alpha import reflection_pb2

from ratelimit_svc.wire.http2.engine import Http2Engine
from ratelimit_svc.wire.http2.frames import Kind, frame
from tests.conformance.served import CHECK, FAIL, HANG, WATCH, asks, serving
from tests.http2.client import HELLO, block, body, head, message, prioritized, request, reset
from tests.limiting import settled
from tests.waiting import until

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LIST = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
ASK = asks("a").SerializeToString()


def call(path: str, data: bytes = b"", *, end: bool = True, **fields: str) -> bytes:
    """A call that has a task of its own."""
    return head(1, block({":path": path}, **fields)) + body(1, message(data), end=end)


@pytest.mark.parametrize("away", [False, True], ids=["store is there", "store is away"])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([request(1, ASK)], id="answered"),
        pytest.param([request(1, ASK), reset(1)], id="cancelled"),
        pytest.param([call(CHECK)], id="check"),
        pytest.param([call(CHECK, b"\xff")], id="check of what is none"),
        pytest.param([call(WATCH)], id="watch"),
        pytest.param([call(WATCH), reset(1)], id="watch, cancelled"),
        pytest.param([call(WATCH) + reset(1)], id="watch, cancelled before it began"),
        pytest.param([call(HANG, grpc_timeout="5m")], id="too late"),
        pytest.param([call(FAIL, b"7 text")], id="error"),
        pytest.param([call(REFLECTION, LIST)], id="reflection"),
        pytest.param([call(REFLECTION, LIST, end=False)], id="reflection, open"),
        pytest.param([prioritized(1, block(), 1)], id="a stream that depends on itself"),
        pytest.param([request(1, ASK), frame(Kind.PRIORITY, 0, 1, b"\0\0\0\1\0")], id="and by PRIORITY"),
    ],
)
async def test_a_connection_that_has_gone_leaves_nothing(clock, sent, away):
    """Whatever was asked on it, and however that ended."""
    async with serving("http2", clock) as served:
        assert isinstance(served.engine, Http2Engine)
        served.store.away = away
        gc.collect()
        gc.disable()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(HELLO)
            await reader.readexactly(9)  # the server's hello has come, so there is a peer
            (peer,) = map(weakref.ref, served.engine._shared.peers)
            for each in sent:
                writer.write(each + frame(Kind.PING, 0, 0, b"12345678"))
                await reader.readuntil(b"12345678")
            writer.transport.abort()
            await settled(served.limiter)
            served.limiter.close()  # its deadlines know of a request until it would be over
            await until(lambda: peer() is None)
        finally:
            gc.enable()
