"""Replicas behind a real Envoy that lets nobody pass without an answer, callers who never pause for long, and who tells whom what.

Who learns that a replica goes differs (`Told`): Envoy by its own health checks; or whoever keeps its list of endpoints, as a
control plane does that watches readiness probes; or only kube-proxy, behind whose address Envoy keeps the connection it has.
"""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from ratelimit_svc.demo import envoy, istio, shipped
from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import LOOPBACK, Envoy, RedisServer, Replica, get, valkey
from ratelimit_svc.demo.traffic import Upstream, call
from ratelimit_svc.settings import TABLE
from tests.e2e.cluster_ip import ClusterIp
from tests.waiting import PATIENCE

CALLERS = 6
PAUSE_S = 0.01
"""Of a caller, between two requests: some hundred a second are load enough, and leave the machine something."""
ENV = PATIENCE | {
    # as it is by default: what a demo does not want to wait for is what this is about
    "DRAIN_DELAY": next(setting.default for setting in TABLE if setting.variable == "DRAIN_DELAY"),
}
FILTER = (
    shipped("istio/envoyfilter-gateway.yaml")
    .read_text()
    .replace("failure_mode_deny: false", "failure_mode_deny: true")
    .replace("timeout: 0.25s", "timeout: 10s")
)
"""The shipped one, but without an answer a request is a 500; and an answer may take as long as this machine does."""


class Told(ABC):
    """How Envoy hears of replicas."""

    @abstractmethod
    def configure(self, cluster: istio.Json) -> None:
        """Change what Envoy is told of the rate-limit service."""

    @abstractmethod
    def publish(self, ports: Sequence[int]) -> None:
        """Tell of the replicas that are ready."""


class HealthChecks(Told):
    """Envoy asks each of two replicas every second how it is, whatever anyone else knows."""

    def configure(self, cluster: istio.Json) -> None:
        # without traffic it would ask once a minute by default, and learn of a replica long after that went
        often = {"interval": "1s", "no_traffic_interval": "1s", "timeout": "1s"}
        cluster["health_checks"] = [
            {**often, "unhealthy_threshold": 2, "healthy_threshold": 1, "grpc_health_check": {}}
        ]

    def publish(self, ports: Sequence[int]) -> None:
        pass


class Endpoints(Told):
    """A control plane tells Envoy."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def configure(self, cluster: istio.Json) -> None:
        del cluster["load_assignment"]
        cluster["type"] = "EDS"
        source = {"path_config_source": {"path": str(self._file)}, "resource_api_version": "V3"}
        cluster["eds_cluster_config"] = {"eds_config": source}

    def publish(self, ports: Sequence[int]) -> None:
        hosts = [{"endpoint": {"address": _address(port)}} for port in ports]
        resource = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": envoy.RATE_LIMIT_CLUSTER,
            "endpoints": [{"lb_endpoints": hosts}],
        }
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps({"version_info": str(time.monotonic_ns()), "resources": [resource]}))
        written.replace(self._file)


class Service(Told):
    """Envoy knows the Service's address and nothing else."""

    def __init__(self, service: ClusterIp) -> None:
        self.service = service

    def configure(self, cluster: istio.Json) -> None:
        hosts = [{"endpoint": {"address": _address(self.service.port)}}]
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": hosts}]

    def publish(self, ports: Sequence[int]) -> None:
        self.service.endpoints = list(ports)


def _address(port: int) -> istio.Json:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


@dataclass
class Fleet:
    """The replicas, and what Envoy's callers have seen so far."""

    folder: Path
    store: RedisServer
    told: Told
    running: list[Replica] = field(default_factory=list)
    """All that are to be stopped in the end."""
    statuses: Counter[int] = field(default_factory=Counter)

    async def add(self, name: str) -> Replica:
        """Start one more, which nobody knows yet."""
        rules = self.folder / "rules.yaml"
        new = Replica(self.folder / name, rules=rules, redis_url=self.store.url, env=ENV, name=name)
        self.running.append(new)
        await new.start()
        return new

    def publish(self, *replicas: Replica) -> None:
        """Tell of those that are ready."""
        self.told.publish([one.grpc_port for one in replicas])


class Proxied:
    """The callers of a fleet's Envoy."""

    def __init__(self, fleet: Fleet, proxy: Envoy, session: aiohttp.ClientSession) -> None:
        self.fleet, self.proxy = fleet, proxy
        self._session = session

    async def asks(self, *replicas: Replica) -> None:
        """Wait until Envoy asks these and no others."""
        ports = {one.grpc_port for one in replicas}

        async def so() -> bool:
            return await self._in_use() == ports

        await until(so, f"Envoy asks {replicas}", within=60)

    async def _in_use(self) -> set[int]:
        _, text = await get(f"{self.proxy.admin}/clusters?format=json")
        (cluster,) = [one for one in json.loads(text)["cluster_statuses"] if one["name"] == envoy.RATE_LIMIT_CLUSTER]
        return {
            host["address"]["socket_address"]["port_value"]
            for host in cluster.get("host_statuses", [])
            if not host["health_status"].get("failed_active_health_check")
        }

    async def calls(self, tenant: str, count: int) -> list[int]:
        """The statuses of so many requests of a tenant, one after the other."""
        return [(await call(self._session, self.proxy.url, {"x-tenant": tenant})).status for _ in range(count)]

    @asynccontextmanager
    async def load(self, tenant: str) -> AsyncIterator[None]:
        """Callers who ask again and again, for as long as the context lasts."""
        end = asyncio.Event()
        tasks = [asyncio.create_task(self._ask_until(end, tenant)) for _ in range(CALLERS)]
        try:
            yield
        finally:
            end.set()
            await asyncio.gather(*tasks)

    async def _ask_until(self, end: asyncio.Event, tenant: str) -> None:
        while not end.is_set():
            self.fleet.statuses.update(await self.calls(tenant, 1))
            await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def fleet_of_two(folder: Path, rules: str, told: Told) -> AsyncIterator[Proxied]:
    """Everything up, and both replicas told of."""
    (folder / "rules.yaml").write_text(rules)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(valkey(folder / "valkey"))
        upstream = await stack.enter_async_context(Upstream())
        fleet = Fleet(folder, store, told)
        stack.push_async_callback(_kill_all, fleet)
        both = await asyncio.gather(fleet.add("first"), fleet.add("second"))
        fleet.publish(*both)
        proxy = await stack.enter_async_context(_gateway(folder / "envoy", fleet, upstream))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Proxied(fleet, proxy, session)


def _gateway(folder: Path, fleet: Fleet, upstream: Upstream) -> Envoy:
    port, admin_port = free_port(), free_port()
    ports = [one.grpc_port for one in fleet.running]
    config = envoy.build(envoy.GATEWAY, port=port, admin_port=admin_port, replicas=ports, upstream=upstream.port)
    config = istio.apply(config, istio.read(FILTER), envoy.GATEWAY)
    config["node"] = {"id": "gateway", "cluster": "gateway"}
    (cluster,) = [one for one in config["static_resources"]["clusters"] if one["name"] == envoy.RATE_LIMIT_CLUSTER]
    fleet.told.configure(cluster)
    folder.mkdir()
    return Envoy(folder, envoy.write(config, folder / "envoy.json"), port=port, admin_port=admin_port)


async def _kill_all(fleet: Fleet) -> None:
    await asyncio.gather(*(one.kill() for one in fleet.running))
