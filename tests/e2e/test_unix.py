"""A real Envoy asks on a unix socket (GRPC_UDS)."""

from pathlib import Path

import aiohttp
import pytest

from ratelimit_svc.demo import envoy, istio, shipped
from ratelimit_svc.demo.child import free_port
from ratelimit_svc.demo.parts import Envoy, Replica
from ratelimit_svc.demo.traffic import LIMITED, PASSED, Upstream, call

RULES = "domain: shop\ndescriptors: [{key: tenant, rate_limit: {unit: hour, requests_per_unit: 3}}]\n"


def proxy_in_front_of(folder: Path, place: Path, upstream: Upstream) -> Envoy:
    """An ingress gateway whose cluster of the service is a pipe, as docs/tls.md has it."""
    port, admin_port = free_port(), free_port()
    config = envoy.build(envoy.GATEWAY, port=port, admin_port=admin_port, replicas=[1], upstream=upstream.port)
    config = istio.apply(config, istio.read(shipped("istio/envoyfilter-gateway.yaml").read_text()), envoy.GATEWAY)
    (cluster,) = [each for each in config["static_resources"]["clusters"] if each["name"] == envoy.RATE_LIMIT_CLUSTER]
    (locality,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = locality["lb_endpoints"]
    endpoint["endpoint"]["address"] = {"pipe": {"path": str(place)}}
    folder.mkdir()
    return Envoy(folder, envoy.write(config, folder / "envoy.json"), port=port, admin_port=admin_port)


@pytest.mark.slow
async def test_envoy_asks_on_a_unix_socket(tmp_path, engine):
    """Its requests are limited, and no call of it has failed."""
    rules, place = tmp_path / "rules.yaml", tmp_path / "s"
    rules.write_text(RULES)
    async with (
        Replica(tmp_path / "replica", rules=rules, env={"ENGINE": engine, "GRPC_UDS": str(place)}),
        Upstream() as upstream,
        proxy_in_front_of(tmp_path / "envoy", place, upstream) as proxy,
        aiohttp.ClientSession() as session,
    ):
        statuses = [(await call(session, proxy.url, {"x-tenant": "acme"})).status for _ in range(5)]
        stats = await proxy.rate_limit_stats()
    assert statuses == [PASSED] * 3 + [LIMITED] * 2
    assert stats.get("error", 0) == 0
