"""Where an engine listens, how it ends, and how old its connections get."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2_grpc
from ratelimit_svc.server.listeners import engine_named
from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.engine import EngineOptions
from tests.conformance.frames import connected, framed
from tests.conformance.served import BIG, ECHO, HANG, OK, Served, asks, serving
from tests.waiting import until

# ── listening ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("host", "asked"), [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "[::1]")])
async def test_it_listens_on_every_address(engine, clock, host, asked):
    """`::` is every address, IPv4 as well, as in manifests written for the reference."""
    async with (
        serving(engine, clock, host=host) as served,
        grpc.aio.insecure_channel(f"{asked}:{served.port}") as channel,
    ):
        assert (await rls_pb2_grpc.RateLimitServiceStub(channel).ShouldRateLimit(asks(), timeout=5)).overall_code == OK


async def test_an_address_that_is_taken_is_an_error(served, engine):
    """Two processes never share a port without knowing."""
    other = engine_named(engine)(served.limiter, {}, EngineOptions(max_message_bytes=1000))
    with pytest.raises(OSError, match=r"gRPC cannot listen on 127\.0\.0\.1"):
        await other.start("127.0.0.1", served.port)
    await other.stop(0)


# ── drain ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def connects(port: int) -> bool:
    """Whether somebody listens."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_what_was_accepted_is_answered_and_nobody_else_gets_in(served):
    """A stop waits for calls under way, of either kind, and refuses connections at once."""
    served.store.go.clear()
    verdict = asyncio.ensure_future(served.ask())
    stream = served.stream(ECHO)
    await stream.write(b"one")
    assert await stream.read() == b"one"
    await served.store.asked.wait()
    stopping = asyncio.ensure_future(served.engine.stop(60))
    async with asyncio.timeout(10):
        while await connects(served.port):
            await asyncio.sleep(0.01)
    await stream.write(b"two")
    assert await stream.read() == b"two"
    assert not stopping.done()
    served.store.go.set()
    assert (await verdict).overall_code == OK
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    async with asyncio.timeout(5):
        await stopping


async def test_idle_connections_are_told_and_closed(served):
    """With nothing under way a stop takes no time, however many are connected; each gets a GOAWAY without an error."""
    async with connected(served.port) as one, connected(served.port) as other:
        for connection in (one, other):
            assert (await connection.until_over(connection.begin(framed(BIG.SerializeToString())))).status == 0
        async with asyncio.timeout(5):
            await asyncio.gather(served.engine.stop(60), one.until_closed(), other.until_closed())
        assert (one.goaway, other.goaway) == (0, 0)


@pytest.mark.parametrize("first_gives_up", [False, True])
async def test_a_stop_can_be_cut_short(served, first_gives_up):
    """A second stop with less grace ends what the first would wait for, or has ceased to wait for."""
    call = served.stream(HANG)
    await call.write(b"")
    await until(lambda: served.methods.hanging == 1)
    patient = asyncio.ensure_future(served.engine.stop(600))
    await asyncio.wait([patient], timeout=0.1)
    assert not patient.done()
    if first_gives_up:
        patient.cancel()
    async with asyncio.timeout(5):
        await served.engine.stop(0)
        await asyncio.gather(patient, return_exceptions=True)
    assert await call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    await until(lambda: served.methods.hanging == 0)


async def test_grace_is_no_longer_than_it_says(served):
    """Who hangs is cancelled."""
    call = served.stream(HANG)
    await call.write(b"")
    await until(lambda: served.methods.hanging == 1)
    async with asyncio.timeout(5):
        await served.engine.stop(0.2)
    await until(lambda: served.methods.hanging == 0)


async def test_an_open_watch_does_not_hold_the_stop(served):
    """A watcher is told that its stream has ended, at once: a drain waits for decisions only."""
    watch = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    async with asyncio.timeout(5):
        served.health.end_watches()
        await served.engine.stop(60)
    assert await watch.code() is grpc.StatusCode.UNAVAILABLE


class Callers:
    """Twenty callers who ask again as soon as they are answered. Use them as a context manager.

    An error ends them, unless it has one of the statuses in `borne`: those are counted.
    """

    def __init__(self, address: str, *, borne: Sequence[grpc.StatusCode] = ()) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.answers = self.errors = 0
        self._borne = borne
        self._stub = rls_pb2_grpc.RateLimitServiceStub(self.channel)
        self._tasks = [asyncio.ensure_future(self._ask()) for _ in range(20)]

    async def _ask(self) -> None:
        while True:
            try:
                assert (await self._stub.ShouldRateLimit(BIG, timeout=10)).overall_code == OK
                self.answers += 1
            except grpc.aio.AioRpcError as error:
                if error.code() not in self._borne:
                    raise
                self.errors += 1

    async def more(self, count: int) -> None:
        """Wait for so many more answers, or for an error, which raises."""
        enough = self.answers + count
        await until(lambda: self.answers >= enough or any(task.done() for task in self._tasks))
        for task in self._tasks:
            if task.done():
                task.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.channel.close()


async def test_callers_go_elsewhere_without_an_error(engine, clock):
    """One of two replicas stops under load: each of its calls is answered or, unseen, asked of the other.

    The library cancels calls that come in the moment of the stop: at most one of each caller.
    """
    borne = [grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE] if engine == "grpcio" else []
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(serving(engine, clock)) for _ in range(2)]
        callers = await stack.enter_async_context(Callers(f"ipv4:{one.address},{other.address}", borne=borne))
        await callers.more(200)
        first, second = (one, other) if one.limiter.timeouts_s else (other, one)
        assert not second.limiter.timeouts_s
        await first.engine.stop(10)
        asked = len(first.limiter.timeouts_s)
        await callers.more(200)
        assert len(first.limiter.timeouts_s) == asked
        assert second.limiter.timeouts_s
        assert callers.errors <= 20


# ── age ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_old_connection_is_told_to_end_and_one_that_works_on_has_a_grace(engine, clock):
    """GOAWAY at the age; what is under way is answered within the grace; then it is closed, whoever hangs on it."""
    ages: dict[str, Any] = {"max_connection_age_s": 0.3, "max_connection_age_grace_s": 1.0}
    async with serving(engine, clock, **ages) as served, connected(served.port) as idle, connected(served.port) as busy:
        served.store.go.clear()
        call = busy.begin(framed(asks().SerializeToString()))
        busy.begin(framed(b""), HANG, end=False)
        await until(lambda: served.methods.hanging == 1)
        await idle.until_closed()
        assert idle.goaway == 0
        async with asyncio.timeout(10):
            while busy.goaway is None:
                await busy.read()
        served.store.go.set()
        assert (await busy.until_over(call)).status is GrpcStatus.OK
        assert not busy.closed
        await busy.until_closed()
        await until(lambda: served.methods.hanging == 0)


async def test_callers_do_not_notice_the_age_of_their_connections(engine, clock):
    """Under load, over many ages: no error, and connections do end."""
    ages: dict[str, Any] = {"max_connection_age_s": 0.2, "max_connection_age_grace_s": 10.0}
    async with serving(engine, clock, **ages) as served, Callers(served.address) as callers:
        await asyncio.gather(*(aged(served) for _ in range(3)), callers.more(500))
        await callers.more(100)


async def aged(served: Served) -> None:
    """Wait until a connection has ended by its age, five times in turn."""
    for _ in range(5):
        async with connected(served.port) as connection:
            await connection.until_closed()


async def test_without_an_age_connections_stay(engine, clock):
    """None is never: a connection without any traffic is still good later."""
    async with serving(engine, clock) as served, connected(served.port) as connection:
        async with serving(engine, clock, max_connection_age_s=0.2) as other, connected(other.port) as old:
            await old.until_closed()
        reply = await connection.until_over(connection.begin(framed(BIG.SerializeToString())))
        assert (reply.status, connection.goaway) == (GrpcStatus.OK, None)
