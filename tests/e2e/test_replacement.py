"""Replicas replaced under load behind a real Envoy that lets nobody pass without an answer: no request may notice.

Told to stop, a replica is not ready at once, serves on for DRAIN_DELAY, and then asks whoever is still connected to go.
"""

import time

import pytest

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import Replica, get
from ratelimit_svc.demo.traffic import LIMITED, PASSED
from tests.e2e.cluster_ip import ClusterIp
from tests.e2e.fleet import Endpoints, HealthChecks, Proxied, Service, fleet_of_two

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RULES = """\
domain: shop
tenant: tenant
descriptors:
  - {key: tenant, value: load, rate_limit: {unit: hour, requests_per_unit: 1000000}}
  - {key: tenant, value: few, rate_limit: {unit: hour, requests_per_unit: 8}}
"""


async def test_replaced_behind_health_checks(tmp_path):
    """Both replicas in turn, on their own ports: told to go, unhealthy, gone, started again, healthy."""
    async with fleet_of_two(tmp_path, RULES, HealthChecks()) as proxied:
        first, second = proxied.fleet.running
        await proxied.asks(first, second)
        async with proxied.load("load"):
            assert await proxied.calls("few", 3) == [PASSED] * 3
            for leaving, staying in ((first, second), (second, first)):
                begun = time.monotonic()
                terminate(leaving)
                await proxied.asks(staying)
                print(f"\nEnvoy asked {leaving.name} no more after {time.monotonic() - begun:.1f} s")
                await ends_well(leaving)
                await leaving.start()
                await proxied.asks(first, second)
            assert await proxied.calls("few", 7) == [PASSED] * 5 + [LIMITED] * 2  # nothing that was counted is lost
        await judge(proxied)


async def test_replaced_behind_a_list_of_endpoints(tmp_path):
    """A rolling update: a new replica on an address of its own, then an old one is told to go, leaves the list and ends."""
    async with fleet_of_two(tmp_path, RULES, Endpoints(tmp_path / "endpoints.json")) as proxied:
        first, second = proxied.fleet.running
        async with proxied.load("load"):
            third = await replaced(proxied, first, second, name="third")
            await proxied.asks(second, third)
            fourth = await replaced(proxied, second, third, name="fourth")
            await proxied.asks(third, fourth)
        await judge(proxied)


async def test_replaced_behind_a_services_address(tmp_path):
    """The same where Envoy keeps its connection to the old replica, until that one asks it to go."""
    async with ClusterIp() as address, fleet_of_two(tmp_path, RULES, Service(address)) as proxied:
        first, second = proxied.fleet.running
        async with proxied.load("load"):
            third = await replaced(proxied, first, second, name="third")
            await replaced(proxied, second, third, name="fourth")
        await judge(proxied)


async def replaced(proxied: Proxied, old: Replica, other: Replica, *, name: str) -> Replica:
    """Do what a Deployment does with maxUnavailable 0, and return the new replica once the old one has ended."""
    fleet = proxied.fleet
    new = await fleet.add(name)
    fleet.publish(old, other, new)
    terminate(old)

    async def unready() -> bool:
        return (await get(f"{old.http}/healthcheck"))[0] == 500

    await until(unready, "a readiness probe sees that it goes")
    fleet.publish(other, new)
    await ends_well(old)
    return new


def terminate(replica: Replica) -> None:
    """What a kubelet does first."""
    assert replica._process is not None
    replica._process.terminate()


async def ends_well(replica: Replica) -> None:
    """Wait for the end of its drain."""

    async def ended() -> bool:
        return not replica.running

    await until(ended, "it ends", within=60)
    assert replica._process is not None
    assert replica._process.returncode == 0


async def judge(proxied: Proxied) -> None:
    """Every request was answered by the service: none failed, and none was refused for want of an answer."""
    stats = await proxied.proxy.rate_limit_stats()
    statuses = proxied.fleet.statuses
    assert statuses.keys() == {PASSED}, statuses
    assert statuses[PASSED] > 100
    assert (stats.get("error", 0), stats.get("failure_mode_allowed", 0)) == (0, 0)
