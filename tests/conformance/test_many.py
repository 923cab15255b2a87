"""Many callers, many connections, large answers, slow readers."""

import asyncio
from typing import Any

import grpc

from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2_grpc
from tests.conformance.frames import connected, framed
from tests.conformance.served import BIG, CHUNK, CHUNKS, ECHO, OK, OVER_LIMIT, POUR, asks
from tests.waiting import until

FIRST_WINDOW = 65_535
"""Bytes that a stream may send before the other side asks for more, unless it says otherwise."""


async def test_a_thousand_calls_at_once_on_one_connection(served):
    """Each gets an answer; five pass."""
    responses = await asyncio.gather(*(served.stub.ShouldRateLimit(asks(), timeout=30) for _ in range(1000)))
    assert sorted(response.overall_code for response in responses) == [OK] * 5 + [OVER_LIMIT] * 995


async def test_fifty_connections(served):
    """Twenty calls on each, all at once: each tenant gets its limit and no more."""
    # connections to one address are shared unless they differ in an option
    channels = [
        grpc.aio.insecure_channel(served.address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(50)
    ]
    stubs = [rls_pb2_grpc.RateLimitServiceStub(channel) for channel in channels]
    try:
        answers = await asyncio.gather(
            *(stub.ShouldRateLimit(asks(tenant), timeout=30) for stub in stubs for tenant in "abcde" * 4)
        )
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
    assert sorted(answer.overall_code for answer in answers) == [OK] * 25 + [OVER_LIMIT] * 975


async def test_methods_and_verdicts_at_once(served):
    """Streams that are open hold no verdict up."""
    streams = [served.stream(ECHO) for _ in range(50)]
    for number, stream in enumerate(streams):
        await stream.write(b"%d" % number)
    assert (await served.ask()).overall_code == OK
    assert [await stream.read() for stream in streams] == [b"%d" % number for number in range(50)]
    for stream in streams:
        stream.cancel()


async def test_a_reader_who_is_slow_holds_up_only_itself(served):
    """It gets all in the end; meanwhile others on its connection are answered, and the method waits for it."""
    # a client that probes how fast its connection is grants more and more before anybody reads, up to all there is
    options = [("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(served.address, options=options) as channel:
        call: Any = channel.stream_stream(POUR)(timeout=20)
        await call.write(b"")
        assert await call.read() == CHUNK
        stub = rls_pb2_grpc.RateLimitServiceStub(channel)
        for _ in range(20):
            assert (await stub.ShouldRateLimit(BIG, timeout=10)).overall_code == OK
        assert served.methods.poured < CHUNKS / 10
        received = 1
        while (chunk := await call.read()) is not grpc.aio.EOF:
            assert chunk == CHUNK
            received += 1
        assert received == CHUNKS


async def test_a_reader_who_never_reads_costs_little(served):
    """A client that grants no more than the first window gets no more, and the method is not asked for more."""
    async with connected(served.port) as connection:
        reply = connection.begin(framed(b""), POUR)
        async with asyncio.timeout(10):
            while len(reply.data) < FIRST_WINDOW:
                await connection.read()
        await until(lambda: served.methods.poured > 1)
        for _ in range(20):
            assert (await served.stub.ShouldRateLimit(BIG, timeout=10)).overall_code == OK
        assert len(reply.data) == FIRST_WINDOW
        assert served.methods.poured < CHUNKS / 2


async def test_verdicts_wait_for_nobodys_window(served):
    """A client that grants no window at all is waited for; it is answered once it grants one, and others are meanwhile."""
    async with connected(served.port) as connection:
        connection.h2.update_settings({4: 0})  # SETTINGS_INITIAL_WINDOW_SIZE
        replies = [connection.begin(framed(BIG.SerializeToString())) for _ in range(10)]
        await until(lambda: len(served.limiter.timeouts_s) == 10)
        assert (await served.ask()).overall_code == OK
        assert not any(reply.over for reply in replies)
        connection.h2.update_settings({4: FIRST_WINDOW})
        connection._writer.write(connection.h2.data_to_send())
        for reply in replies:
            await connection.until_over(reply)
    assert all(reply.trailers["grpc-status"] == "0" for reply in replies)
