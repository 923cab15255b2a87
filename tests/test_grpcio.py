"""The grpcio engine, asked by real clients over a real connection."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ratelimit_svc.limiter import Limiter, Options
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import Entry
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.client import request
from ratelimit_svc.wire.engine import EngineOptions
from ratelimit_svc.wire.grpcio import GrpcioEngine
from ratelimit_svc.wire.health import NAMES, Health
from ratelimit_svc.wire.methods import methods
from tests.limiting import RULES, Recording
from tests.waiting import until

OK, OVER_LIMIT = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT


@dataclass
class Served:
    """A running engine, its limiter and a channel to it."""

    engine: GrpcioEngine
    health: Health
    limiter: Limiter
    store: Recording
    port: int
    channel: Any

    @property
    def stub(self) -> rls_pb2_grpc.RateLimitServiceStub:
        return rls_pb2_grpc.RateLimitServiceStub(self.channel)

    async def send(self, data: bytes, timeout: float = 5) -> bytes:
        """Send these very bytes."""
        method = self.channel.unary_unary(f"/{rls.SERVICE}/{rls.METHOD}")
        reply: bytes = await method(data, timeout=timeout)
        return reply


@pytest.fixture(params=["127.0.0.1", "::"])
def host(request) -> str:
    """Addresses to listen on."""
    return str(request.param)


async def serve(host: str, clock) -> AsyncIterator[Served]:
    store = Recording(MemoryStore(clock))
    limiter = Limiter(
        store=store,
        local=MemoryStore(clock),
        decode=rls.decode,
        encode=rls.encode,
        metrics=Metrics(),
        options=Options(store_timeout_s=10, deadline_margin_s=2),
    )
    limiter.use(load([RuleFile("rules.yaml", RULES.encode())]))
    health = Health()
    engine = GrpcioEngine(limiter, methods(health), EngineOptions(max_message_bytes=100_000))
    port = await engine.start(host, 0)
    health.set_ready(ready=True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(engine, health, limiter, store, port, channel)
    await engine.stop(0)
    limiter.close()


@pytest.fixture
async def served(clock) -> AsyncIterator[Served]:
    """An engine on loopback."""
    async for one in serve("127.0.0.1", clock):
        yield one


def asks(tenant: str = "a", hits: int = 0) -> rls_pb2.RateLimitRequest:
    return request("shop", [[Entry("tenant", tenant)]], hits=hits)


async def test_it_listens_on_every_address(clock, host):
    """`::` is every address, IPv4 as well, as in manifests written for the reference."""
    async for served in serve(host, clock):
        assert (await served.stub.ShouldRateLimit(asks(), timeout=5)).overall_code == OK


async def test_a_verdict_in_full(served):
    """Code, limit, remaining and reset of each descriptor come over the wire, and nothing that is not set."""
    response = await served.stub.ShouldRateLimit(
        request("shop", [[Entry("tenant", "a")], [Entry("x", "y")]]), timeout=5
    )
    assert response == rls_pb2.RateLimitResponse(
        overall_code=OK,
        statuses=[
            rls_pb2.RateLimitResponse.DescriptorStatus(
                code=OK,
                current_limit=rls_pb2.RateLimitResponse.RateLimit(
                    requests_per_unit=5, unit=rls_pb2.RateLimitResponse.RateLimit.MINUTE
                ),
                limit_remaining=4,
                duration_until_reset={"seconds": 61},
            ),
            rls_pb2.RateLimitResponse.DescriptorStatus(code=OK),
        ],
    )
    denied = await served.stub.ShouldRateLimit(asks(hits=6), timeout=5)
    assert denied.overall_code == OVER_LIMIT


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"", grpc.StatusCode.UNKNOWN, "rate limit domain must not be empty"),
        (
            request("", [[Entry("a", "b")]]).SerializeToString(),
            grpc.StatusCode.UNKNOWN,
            "rate limit domain must not be empty",
        ),
        (
            request("shop", []).SerializeToString(),
            grpc.StatusCode.UNKNOWN,
            "rate limit descriptor list must not be empty",
        ),
        (b"\xff\xff\xff", grpc.StatusCode.INTERNAL, "grpc: error unmarshalling request:"),
        (b"\x0a\x02\xff\xfe", grpc.StatusCode.INTERNAL, "grpc: error unmarshalling request:"),
    ],
)
async def test_bad_requests_are_told_as_by_the_reference(served, data, code, text):
    """Empty domain, no descriptors, undecodable bytes: the reference's status and text."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.send(data)
    assert caught.value.code() is code
    assert (caught.value.details() or "").startswith(text)


async def test_a_message_that_is_too_large_is_refused(served):
    """More than MAX_MESSAGE_BYTES is RESOURCE_EXHAUSTED, and the next request is answered."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.send(b"\0" * 100_001)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await served.stub.ShouldRateLimit(asks(), timeout=5)).overall_code == OK


async def test_the_callers_deadline_is_kept(served):
    """A held store is answered for before the deadline in grpc-timeout: the caller gets an answer, not an error."""
    served.store.go.clear()
    response = await served.stub.ShouldRateLimit(asks(), timeout=3)
    assert response.overall_code == OK
    assert served.limiter._metrics.policy_decisions.local == 1


async def test_a_store_error_under_policy_error_is_a_grpc_error(served):
    """So that Envoy's failure_mode_deny decides."""
    served.store.away = True
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ShouldRateLimit(request("shop", [[Entry("error", "1")]]), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_who_goes_is_not_counted(served):
    """A cancelled call that the store has not seen yet leaves the window as it was."""
    served.store.go.clear()
    first = served.stub.ShouldRateLimit(asks("other"), timeout=5)
    waiting = asyncio.ensure_future(first)
    await served.store.asked.wait()
    call = served.stub.ShouldRateLimit(asks(), timeout=5)
    await until(lambda: served.limiter.waiting.requests == 1)
    call.cancel()
    await until(lambda: served.limiter.waiting._lines[0].requests[0].done)
    served.store.go.set()
    await waiting
    assert (await served.stub.ShouldRateLimit(asks(), timeout=5)).statuses[0].limit_remaining == 4


async def test_many_callers_at_once_get_the_limit_and_no_more(served):
    """200 calls in flight on one connection: five pass."""
    responses = await asyncio.gather(*(served.stub.ShouldRateLimit(asks(), timeout=10) for _ in range(200)))
    assert sorted(response.overall_code for response in responses) == [OK] * 5 + [OVER_LIMIT] * 195


async def test_health_follows_readiness_under_every_name(served):
    """SERVING when ready and NOT_SERVING when not, for whoever asks or watches; unknown names are NOT_FOUND."""
    health = health_pb2_grpc.HealthStub(served.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="ratelimit"))
    seen = [(await watch.read()).status]
    for ready in (True, False):
        served.health.set_ready(ready=ready)
        for name in NAMES:
            status = (await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status
            assert status == (1 if ready else 2)
    seen.append((await watch.read()).status)
    watch.cancel()
    assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_open_watch_does_not_hold_the_stop(served):
    """A watcher is told that its stream has ended, at once: a drain waits for decisions only."""
    watch = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    async with asyncio.timeout(5):
        served.health.end_watches()
        await served.engine.stop(60)
    assert await watch.code() is grpc.StatusCode.UNAVAILABLE


async def test_reflection_lists_the_services_and_describes_ours(served):
    """grpcurl and its like need no proto files."""
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)

    async def questions():
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=rls.SERVICE)

    answers = [answer async for answer in stub.ServerReflectionInfo(questions(), timeout=5)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert names == {rls.SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert b"ShouldRateLimit" in answers[1].file_descriptor_response.file_descriptor_proto[0]


async def test_an_address_that_is_taken_is_an_error(served):
    """Two processes never share a port without knowing."""
    other = GrpcioEngine(served.limiter, {}, EngineOptions(max_message_bytes=1000))
    with pytest.raises(OSError, match=r"gRPC cannot listen on 127\.0\.0\.1"):
        await other.start("127.0.0.1", served.port)
    await other.stop(0)
