"""The whole picture for a test module: a real Envoy with a shipped EnvoyFilter, two replicas, one Valkey."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from ratelimit_svc.demo import envoy, shipped
from ratelimit_svc.demo.istio import Proxy
from ratelimit_svc.demo.stage import Scene, stage
from ratelimit_svc.demo.traffic import Answer, call
from tests.engines import ENGINES

GATEWAY_RULES = """
domain: shop
tenant: tenant
descriptors:
  - {key: tenant, value: one-by-one, rate_limit: {unit: minute, requests_per_unit: 10}}
  - {key: tenant, value: at-once, rate_limit: {unit: minute, requests_per_unit: 10}}
  - {key: tenant, value: fast, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: tenant, value: named, rate_limit: {unit: hour, requests_per_unit: 7, name: for-people}}
  - {key: tenant, value: headed, rate_limit: {unit: hour, requests_per_unit: 4}}
  - {key: tenant, value: none, rate_limit: {unit: minute, requests_per_unit: 0}}
  - {key: tenant, value: free, rate_limit: {unlimited: true}}
  - {key: tenant, value: watched, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: tenant, value: growing, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: tenant, value: unlucky, rate_limit: {unit: minute, requests_per_unit: 8}}
  - {key: tenant, value: afterwards, rate_limit: {unit: minute, requests_per_unit: 6}}
"""
SIDECAR_RULES = """
domain: shop
tenant: tenant
descriptors:
  - key: route
    value: checkout
    rate_limit: {unit: minute, requests_per_unit: 4}
    descriptors:
      - {key: tenant, rate_limit: {unit: minute, requests_per_unit: 3}}
"""


class Client:
    """Sends requests through the scene's Envoy."""

    def __init__(self, scene: Scene, session: aiohttp.ClientSession) -> None:
        self.scene = scene
        self._session = session

    async def call(self, tenant: str = "", path: str = "/", method: str = "GET") -> Answer:
        """One request, of a tenant or of nobody."""
        headers = {"x-tenant": tenant} if tenant else {}
        return await call(self._session, self.scene.envoy.url + path, headers, method=method)

    async def statuses(self, count: int, *args: str, **options: str) -> list[int]:
        """The statuses of so many requests, one after the other."""
        return [(await self.call(*args, **options)).status for _ in range(count)]


async def client_of(
    folder: Path, rules: str, kind: str = "gateway", proxy: Proxy = envoy.GATEWAY, **options: Any
) -> AsyncIterator[Client]:
    """Callers of a proxy that runs a shipped EnvoyFilter, under these rules; `options` are the stage's."""
    file = folder / "rules.yaml"
    file.write_text(rules)
    envoy_filter = shipped(f"istio/envoyfilter-{kind}.yaml").read_text()
    async with (
        stage(folder, rules=file, envoy_filter=envoy_filter, proxy=proxy, **options) as scene,
        aiohttp.ClientSession() as session,
    ):
        yield Client(scene, session)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn, where a module asks for it: a replica's ENGINE."""
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, engine: str) -> AsyncIterator[Client]:
    """Callers of an ingress gateway that runs the shipped EnvoyFilter."""
    env = {"ENGINE": engine, "LIMIT_RESPONSE_HEADERS_ENABLED": "true"}
    async for client in client_of(tmp_path_factory.mktemp("gateway"), GATEWAY_RULES, env=env):
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sidecar(tmp_path_factory: pytest.TempPathFactory, engine: str) -> AsyncIterator[Client]:
    """Callers of an application whose sidecar runs the shipped EnvoyFilter."""
    folder, env = tmp_path_factory.mktemp("sidecar"), {"ENGINE": engine}
    async for client in client_of(folder, SIDECAR_RULES, "sidecar", envoy.SIDECAR, env=env):
        yield client
