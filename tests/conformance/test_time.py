"""Deadlines and cancellation: what callers grant, and what becomes of calls whose callers go."""

import asyncio

import grpc
import pytest

from ratelimit_svc.wire.calls import GrpcStatus
from tests.conformance.frames import connected, framed, reply_to
from tests.conformance.served import ECHO, HANG, OK, asks
from tests.waiting import until

ASKED = asks().SerializeToString()


async def test_the_callers_deadline_is_kept(served):
    """A held store is answered for before the deadline in grpc-timeout: the caller gets an answer, not an error."""
    served.store.go.clear()
    response = await served.stub.ShouldRateLimit(asks(), timeout=2)
    assert response.overall_code == OK
    assert served.limiter._metrics.policy_decisions.local == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4000m", 4),
        ("5000000u", 5),
        ("90000000n", 0.09),
        ("00000007S", 7),
    ],
)
async def test_units_of_grpc_timeout(served, text, seconds):
    """Hours to nanoseconds, counted from when the call comes."""
    assert (await reply_to(served.port, framed(ASKED), grpc_timeout=text)).status is GrpcStatus.OK
    (left,) = served.limiter.timeouts_s
    assert left is not None
    assert seconds / 2 < left <= seconds * 1.05  # the library rounds up


async def test_without_grpc_timeout_the_service_has_its_own_patience(served):
    """No deadline is None, not 0 and not for ever."""
    assert (await reply_to(served.port, framed(ASKED))).status is GrpcStatus.OK
    assert served.limiter.timeouts_s == [None]


@pytest.mark.parametrize("text", ["", "5", "S", "5x", "-1S", "1.5S"])
async def test_a_grpc_timeout_that_is_none_is_an_error(served, text):
    """Better told than guessed; on the next call all is well."""
    async with connected(served.port) as connection:
        reply = await connection.until_over(connection.begin(framed(ASKED), grpc_timeout=text))
        again = await connection.until_over(connection.begin(framed(ASKED)))
    assert reply.status is not GrpcStatus.OK
    assert again.status is GrpcStatus.OK
    assert served.limiter.timeouts_s == [None]


async def test_a_method_that_takes_too_long_ends_with_its_deadline(served):
    """The client sees DEADLINE_EXCEEDED, and here nothing goes on for it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.send(b"", HANG, timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: served.methods.hanging == 0)


async def test_the_service_ends_a_method_at_its_deadline_by_itself(served):
    """Also where the client does not: it may have gone without a word."""
    async with connected(served.port) as connection:
        reply = connection.begin(framed(b""), HANG, end=False, grpc_timeout="200m")
        await connection.until_over(reply)
    assert reply.status in {GrpcStatus.DEADLINE_EXCEEDED, None}  # the library resets the stream
    assert reply.over
    await until(lambda: served.methods.hanging == 0)


async def test_a_caller_who_goes_is_not_counted(served):
    """A cancelled call that the store has not seen yet leaves the window as it was."""
    served.store.go.clear()
    waiting = asyncio.ensure_future(served.ask("other"))
    await served.store.asked.wait()
    call = served.stub.ShouldRateLimit(asks(), timeout=5)
    await until(lambda: served.limiter.waiting.requests == 1)
    call.cancel()
    await until(lambda: served.limiter.waiting._lines[0].requests[0].done)
    served.store.go.set()
    await waiting
    assert (await served.ask()).statuses[0].limit_remaining == 4


async def test_callers_whose_connection_breaks_are_not_counted(served):
    """A proxy that is killed takes its calls with it; others on other connections are answered."""
    served.store.go.clear()
    waiting = asyncio.ensure_future(served.ask("other"))
    await served.store.asked.wait()
    async with connected(served.port) as connection:
        for _ in range(3):
            connection.begin(framed(ASKED))
        await until(lambda: served.limiter.waiting.requests == 3)
        await connection.abort()
        await until(lambda: all(each.done for each in served.limiter.waiting._lines[0].requests))
    served.store.go.set()
    assert (await waiting).overall_code == OK
    assert (await served.ask()).statuses[0].limit_remaining == 4


async def test_a_stream_that_is_cancelled_ends_its_method(served):
    """By the client, by a broken connection: the method's `finally` runs."""
    call = served.stream(HANG)
    await call.write(b"x")
    await until(lambda: served.methods.hanging == 1)
    call.cancel()
    await until(lambda: served.methods.hanging == 0)
    async with connected(served.port) as connection:
        for _ in range(5):
            connection.begin(framed(b"x"), HANG, end=False)
        await until(lambda: served.methods.hanging == 5)
        await connection.abort()
    await until(lambda: served.methods.hanging == 0)
    assert await served.send(b"x", ECHO) == b"x"
