"""Replicas replaced under load behind a real Envoy that lets nobody pass without an answer: no request may notice.

Twice Envoy hears that a replica goes: by its own health checks, or by whoever keeps its list of endpoints, as a control plane
does that watches readiness probes. Either takes its time, and meanwhile the replica serves on (DRAIN_DELAY).
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from ratelimit_svc.demo import envoy, istio, shipped
from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import LOOPBACK, Envoy, RedisServer, Replica, get, valkey
from ratelimit_svc.demo.traffic import LIMITED, PASSED, Upstream, call
from ratelimit_svc.settings import TABLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RULES = """\
domain: shop
tenant: tenant
descriptors:
  - {key: tenant, value: load, rate_limit: {unit: hour, requests_per_unit: 1000000}}
  - {key: tenant, value: few, rate_limit: {unit: hour, requests_per_unit: 8}}
"""
CALLERS = 6
PAUSE_S = 0.01
"""Of a caller, between two requests: some hundred a second are load enough, and leave the machine something."""

HEALTH_CHECK = {
    "interval": "1s",
    "no_traffic_interval": "1s",  # 60 s by default: after a quiet while Envoy would ask a replica long after it went
    "timeout": "1s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
    "grpc_health_check": {},
}
ENV = {
    # as it is by default: what a demo does not want to wait for is what this is about
    "DRAIN_DELAY": next(setting.default for setting in TABLE if setting.variable == "DRAIN_DELAY"),
    "STORE_TIMEOUT": "5s",  # a stall of this machine is nobody's failure
    "LOOP_LAG": "0s",
    "QUEUE_AGE": "10s",
}


@dataclass
class Fleet:
    """Two replicas behind an Envoy, and what its callers have seen so far."""

    folder: Path
    store: RedisServer
    endpoints: Path
    """The list that Envoy reads where it does not check by itself."""
    proxy: Envoy | None = None
    running: list[Replica] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def replica(self, name: str) -> Replica:
        """One more, which nobody knows yet."""
        rules = self.folder / "rules.yaml"
        return Replica(self.folder / name, rules=rules, redis_url=self.store.url, env=ENV, name=name)

    def publish(self) -> None:
        """Tell Envoy of the replicas that are ready, as a control plane does."""
        hosts = [{"endpoint": {"address": _address(one.grpc_port)}} for one in self.running]
        resource = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": envoy.RATE_LIMIT_CLUSTER,
            "endpoints": [{"lb_endpoints": hosts}],
        }
        written = self.endpoints.with_suffix(".new")
        written.write_text(json.dumps({"version_info": str(time.monotonic_ns()), "resources": [resource]}))
        written.replace(self.endpoints)

    async def in_use(self) -> set[int]:
        """The ports of the replicas that Envoy sends requests to."""
        assert self.proxy is not None
        _, text = await get(f"{self.proxy.admin}/clusters?format=json")
        (cluster,) = [one for one in json.loads(text)["cluster_statuses"] if one["name"] == envoy.RATE_LIMIT_CLUSTER]
        return {
            host["address"]["socket_address"]["port_value"]
            for host in cluster.get("host_statuses", [])
            if not host["health_status"].get("failed_active_health_check")
        }

    async def known(self, *replicas: Replica) -> None:
        """Wait until Envoy asks these and no others."""

        async def so() -> bool:
            return await self.in_use() == {one.grpc_port for one in replicas}

        await until(so, f"Envoy asks {replicas}", within=60)

    async def calls(self, tenant: str, count: int) -> list[int]:
        """The statuses of so many requests of a tenant, one after the other."""
        assert self.proxy is not None
        async with aiohttp.ClientSession() as session:
            return [(await call(session, self.proxy.url, {"x-tenant": tenant})).status for _ in range(count)]

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Callers who ask again and again, for as long as the context lasts."""
        end = asyncio.Event()
        tasks = [asyncio.create_task(self._ask_until(end)) for _ in range(CALLERS)]
        try:
            yield
        finally:
            end.set()
            await asyncio.gather(*tasks)

    async def _ask_until(self, end: asyncio.Event) -> None:
        assert self.proxy is not None
        async with aiohttp.ClientSession() as session:
            while not end.is_set():
                answer = await call(session, self.proxy.url, {"x-tenant": "load"})
                self.statuses[answer.status] += 1
                await asyncio.sleep(PAUSE_S)


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def configuration(fleet: Fleet, upstream: Upstream, *, checks: bool, port: int, admin_port: int) -> istio.Json:
    """The shipped gateway, but one that denies where it gets no answer, and that hears of replicas in one of the two ways."""
    ports = [one.grpc_port for one in fleet.running]
    config = envoy.build(envoy.GATEWAY, port=port, admin_port=admin_port, replicas=ports, upstream=upstream.port)
    text = shipped("istio/envoyfilter-gateway.yaml").read_text()
    strict = text.replace("failure_mode_deny: false", "failure_mode_deny: true").replace(
        "timeout: 0.25s", "timeout: 10s"
    )
    assert strict.count("failure_mode_deny: true") == strict.count("timeout: 10s") == 1
    config = istio.apply(config, istio.read(strict), envoy.GATEWAY)
    config["node"] = {"id": "gateway", "cluster": "gateway"}
    (cluster,) = [one for one in config["static_resources"]["clusters"] if one["name"] == envoy.RATE_LIMIT_CLUSTER]
    if checks:
        cluster["health_checks"] = [HEALTH_CHECK]
    else:
        del cluster["load_assignment"]
        cluster["type"] = "EDS"
        source = {"path_config_source": {"path": str(fleet.endpoints)}, "resource_api_version": "V3"}
        cluster["eds_cluster_config"] = {"eds_config": source}
    return config


@asynccontextmanager
async def fleet_of_two(folder: Path, *, checks: bool) -> AsyncIterator[Fleet]:
    """Everything up, and Envoy asks both replicas."""
    (folder / "rules.yaml").write_text(RULES)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(valkey(folder / "valkey"))
        upstream = await stack.enter_async_context(Upstream())
        fleet = Fleet(folder, store, folder / "endpoints.json")
        stack.push_async_callback(_stop_all, fleet)
        fleet.running = [fleet.replica("first"), fleet.replica("second")]
        await asyncio.gather(*(one.start() for one in fleet.running))
        fleet.publish()
        port, admin_port = free_port(), free_port()
        config = configuration(fleet, upstream, checks=checks, port=port, admin_port=admin_port)
        fleet.proxy = Envoy(folder, envoy.write(config, folder / "envoy.json"), port=port, admin_port=admin_port)
        await stack.enter_async_context(fleet.proxy)
        await fleet.known(*fleet.running)
        yield fleet


async def _stop_all(fleet: Fleet) -> None:
    await asyncio.gather(*(one.kill() for one in fleet.running))


async def ends_well(replica: Replica) -> None:
    """Wait for the end of its drain."""

    async def ended() -> bool:
        return not replica.running

    await until(ended, "it ends", within=60)
    assert replica._process is not None
    assert replica._process.returncode == 0


def terminate(replica: Replica) -> None:
    """What a kubelet does first."""
    assert replica._process is not None
    replica._process.terminate()


async def test_replaced_behind_health_checks(tmp_path):
    """Both replicas in turn, on their own ports: told to go, unhealthy, gone, started again, healthy."""
    async with fleet_of_two(tmp_path, checks=True) as fleet, fleet.load():
        assert await fleet.calls("few", 3) == [PASSED] * 3
        for leaving, staying in (fleet.running, fleet.running[::-1]):
            begun = time.monotonic()
            terminate(leaving)
            await fleet.known(staying)
            print(f"\nEnvoy stopped to ask {leaving.name} after {time.monotonic() - begun:.1f} s")
            await ends_well(leaving)
            print(f"it ended after {time.monotonic() - begun:.1f} s")
            await leaving.start()
            await fleet.known(leaving, staying)
        assert await fleet.calls("few", 7) == [PASSED] * 5 + [LIMITED] * 2  # nothing that was counted is lost
        await judge(fleet)


async def test_replaced_behind_a_list_of_endpoints(tmp_path):
    """A rolling update: a new replica on an address of its own, then an old one is told to go, leaves the list and ends."""
    async with fleet_of_two(tmp_path, checks=False) as fleet, fleet.load():
        assert await fleet.calls("few", 3) == [PASSED] * 3
        for old, name in zip(list(fleet.running), ("third", "fourth"), strict=True):
            new = fleet.replica(name)
            fleet.running.append(new)  # first, so that it is stopped whatever happens
            await new.start()
            fleet.publish()
            await fleet.known(*fleet.running)
            terminate(old)

            async def unready(old: Replica = old) -> bool:
                return (await get(f"{old.http}/healthcheck"))[0] == 500

            await until(unready, "a readiness probe sees that it goes")
            fleet.running.remove(old)
            fleet.publish()
            await fleet.known(*fleet.running)
            await ends_well(old)
        assert await fleet.calls("few", 7) == [PASSED] * 5 + [LIMITED] * 2
        await judge(fleet)


async def judge(fleet: Fleet) -> None:
    """Every request was answered by the service: none failed, and none was refused for want of an answer."""
    assert fleet.proxy is not None
    stats = await fleet.proxy.rate_limit_stats()
    assert fleet.statuses.keys() == {PASSED}, fleet.statuses
    assert fleet.statuses[PASSED] > 100
    assert (stats.get("error", 0), stats.get("failure_mode_allowed", 0)) == (0, 0)
