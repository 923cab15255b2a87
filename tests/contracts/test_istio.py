"""Istio's sample and its task: the manifest's environment, its ConfigMap and its EnvoyFilters, through a real Envoy."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ratelimit_svc.demo import envoy, istio
from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import Envoy, RedisServer, get, valkey
from ratelimit_svc.demo.traffic import LIMITED, PASSED, Upstream, call
from tests.contracts.manifests import ISTIO, ISTIO_MOUNT, ISTIO_RULES
from tests.contracts.pod import ConfigMap, Pod

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

FILTERS = (Path(__file__).parent / "istio-sample.yaml").read_text()
API = "/api/v1/products/"


@dataclass
class Mesh:
    """What is running."""

    store: RedisServer
    pod: Pod
    rules: ConfigMap
    proxy: Envoy
    session: aiohttp.ClientSession

    async def statuses(self, path: str, count: int) -> list[int]:
        """The statuses of so many requests for a path, one after the other."""
        return [(await call(self.session, f"{self.proxy.url}{path}", {})).status for _ in range(count)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """The sample applied, and a gateway with the task's filters."""
    folder = tmp_path_factory.mktemp("istio")
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(valkey(folder / "redis"))
        pod = Pod(folder / "pod", ISTIO, {"redis:6379": store.address})
        rules = ConfigMap(Path(pod.here(ISTIO_MOUNT)), {"config.yaml": ISTIO_RULES})
        await stack.enter_async_context(pod)
        upstream = await stack.enter_async_context(Upstream())
        proxy = await stack.enter_async_context(gateway(folder / "envoy", pod, upstream))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Mesh(store, pod, rules, proxy, session)


def gateway(folder: Path, pod: Pod, upstream: Upstream) -> Envoy:
    """An ingress gateway that has a route of its own for the task's `api`."""
    port, admin_port = free_port(), free_port()
    config = envoy.build(
        envoy.GATEWAY, port=port, admin_port=admin_port, replicas=[pod.grpc_port], upstream=upstream.port
    )
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    routes.insert(0, {"name": "api", "match": {"prefix": API}, "route": {"cluster": envoy.GATEWAY.upstream}})
    config = istio.apply(config, istio.read(FILTERS), envoy.GATEWAY)
    envoy.check(config)
    folder.mkdir()
    return Envoy(folder, envoy.write(config, folder / "envoy.json"), port=port, admin_port=admin_port)


async def test_the_manifests_environment_starts_it(mesh):
    """Unchanged: every variable of the sample. It listens where the Service's three ports lead, on IPv4 and IPv6."""
    assert mesh.pod.running
    assert await mesh.pod.probe() == (200, "OK")
    assert await mesh.pod.probe("[::1]") == (200, "OK")
    assert (await get(f"http://127.0.0.1:{mesh.pod.debug_port}/"))[0] != 0


async def test_grpc_health_is_served(mesh):
    """By the names that callers may ask for."""
    async with grpc.aio.insecure_channel(mesh.pod.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "ratelimit"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


async def test_the_tasks_limits_hold(mesh):
    """One request a minute for the product page, then 429; a hundred for any other path, each for itself."""
    assert await mesh.statuses("/productpage", 3) == [PASSED] + [LIMITED] * 2
    assert await mesh.statuses("/login", 10) == [PASSED] * 10
    assert await mesh.statuses("/busy", 101) == [PASSED] * 100 + [LIMITED]


async def test_the_tasks_route_has_a_limit_of_its_own(mesh):
    """Two requests a minute for all of its paths together, whatever their own would allow; what does not match is not asked for."""
    assert [*await mesh.statuses(f"{API}1", 1), *await mesh.statuses(f"{API}2", 2)] == [PASSED] * 2 + [LIMITED]
    assert await mesh.statuses(f"{API}none", 3) == [PASSED] * 3


async def test_an_edited_config_map_acts(mesh):
    """The kubelet swaps the link `..data`: the new limit is in force, and what was counted stays counted."""
    assert await mesh.statuses("/productpage", 1) == [LIMITED]
    mesh.rules.put({"config.yaml": ISTIO_RULES.replace("requests_per_unit: 1\n", "requests_per_unit: 3\n")})

    async def loaded() -> bool:
        _, text = await get(f"http://127.0.0.1:{mesh.pod.port}/metrics")
        return 'ratelimit_svc_rules_loads_total{result="ok"} 2.0' in text

    await until(loaded, "the edited rules are in force")
    assert await mesh.statuses("/productpage", 3) == [PASSED] * 2 + [LIMITED]


async def test_no_answer_is_a_failure_and_an_outage_of_redis_is_none(mesh):
    """With `failure_mode_deny: true` a request without an answer is a 500. There was none, and there is none without Redis."""
    await mesh.store.kill()
    assert set(await mesh.statuses("/outage", 20)) == {PASSED}
    stats = await mesh.proxy.rate_limit_stats()
    assert stats.get("error", 0) == 0
    assert stats["ok"] > 0
    assert stats["over_limit"] > 0
