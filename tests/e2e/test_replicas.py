"""Two replicas, one store, fifty callers at once: each tenant gets its limit, and in no window one hit more."""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field

import grpc
import pytest

from ratelimit_svc.demo.parts import Replica, redis, valkey
from ratelimit_svc.demo.proof import Hit, fullest, got, least
from ratelimit_svc.model import Entry
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from ratelimit_svc.wire.client import request
from tests.waiting import PATIENCE

SECOND = 1_000_000
LIMITS = {"a": 1, "b": 5, "c": 20, "d": 50, "e": 100}
"""Per second. Ten callers each, who ask again as soon as they are answered."""

CALLERS = 50

RULES = "domain: shop\ntenant: tenant\ndescriptors:\n" + "".join(
    # error: what is judged here is the store's answers, and an answer by policy would show
    f"- {{key: tenant, value: {name}, rate_limit: {{unit: second, requests_per_unit: {limit}, on_store_failure: error}}}}\n"
    for name, limit in LIMITS.items()
)


@dataclass
class Run:
    """What all callers have seen."""

    passed: dict[str, list[Hit]] = field(default_factory=lambda: defaultdict(list))
    denied: int = 0
    errors: int = 0


async def caller(run: Run, tenant: str, stubs, until: float) -> None:
    """Ask until the end, half of the time each replica; one that is gone is not asked again."""
    message = request("shop", [[Entry("tenant", tenant)]])
    turn = 0
    while time.monotonic() < until:
        stub = stubs[turn % len(stubs)]
        turn += 1
        sent = time.time_ns() // 1000
        try:
            response = await stub.ShouldRateLimit(message, timeout=10)
        except grpc.aio.AioRpcError:
            run.errors += 1
            stubs = [other for other in stubs if other is not stub]
            continue
        if response.overall_code == rls_pb2.RateLimitResponse.OK:
            run.passed[tenant].append(Hit(sent, time.time_ns() // 1000))
        else:
            run.denied += 1


@pytest.mark.slow
@pytest.mark.parametrize(("server", "seconds", "kill"), [(valkey, 20, False), (redis, 12, True)])
async def test_no_tenant_gets_more_than_its_limit_and_none_starves(tmp_path, engine, server, seconds, kill):
    """Fifty callers on two replicas; in the second run one replica is killed in the middle."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    env = PATIENCE | {"ENGINE": engine}
    run = Run()
    async with (
        server(tmp_path / "store") as store,
        Replica(tmp_path / "one", rules=rules, redis_url=store.url, env=env) as one,
        Replica(tmp_path / "two", rules=rules, redis_url=store.url, env=env) as two,
        grpc.aio.insecure_channel(one.address) as channel,
        grpc.aio.insecure_channel(two.address) as other,
    ):
        stubs = [rls_pb2_grpc.RateLimitServiceStub(channel), rls_pb2_grpc.RateLimitServiceStub(other)]
        start, until = time.time_ns() // 1000, time.monotonic() + seconds
        tenants = [*LIMITS] * (CALLERS // len(LIMITS))
        calls = asyncio.gather(*(caller(run, tenant, stubs, until) for tenant in tenants))
        if kill:
            await asyncio.wait([calls], timeout=seconds / 2)
            await two.kill()
        await calls
        end = time.time_ns() // 1000
    assert run.denied > 0
    assert (run.errors > 0) is kill
    for tenant, limit in LIMITS.items():
        hits = run.passed[tenant]
        assert fullest(hits, SECOND) <= limit, tenant
        assert got(hits, start, end) >= least(end - start, limit=limit, window_us=SECOND, slices=60), tenant
        print(f"{tenant}: {len(hits)} passed in {seconds} s, fullest window {fullest(hits, SECOND)} of {limit}")
