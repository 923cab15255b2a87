"""A real Envoy that traces: its spans and ours are one trace."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ratelimit_svc.demo import envoy, istio
from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.istio import HCM
from ratelimit_svc.demo.parts import Envoy, Replica
from ratelimit_svc.demo.traffic import Upstream, call
from tests.collecting import http_collector
from tests.e2e.conftest import GATEWAY_RULES
from tests.e2e.fleet import FILTER
from tests.engines import ENGINES
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow


def trace(bootstrap: Any, port: int, percent: int) -> None:
    """Let Envoy trace so many requests of a hundred, and send its spans to a collector."""
    service = {"http_uri": {"uri": f"http://127.0.0.1:{port}/v1/traces", "cluster": "collector", "timeout": "5s"}}
    provider = {
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "service_name": "envoy",
            "http_service": service,
        },
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    bootstrap["static_resources"]["clusters"].append(
        {
            "name": "collector",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "collector", "endpoints": endpoints},
        }
    )
    (listener,) = bootstrap["static_resources"]["listeners"]
    (manager,) = [each for each in listener["filter_chains"][0]["filters"] if each["name"] == HCM]
    manager["typed_config"]["tracing"] = {"provider": provider, "random_sampling": {"value": percent}}


def gateway(folder: Path, replica: Replica, upstream: Upstream, collector_port: int, percent: int) -> Envoy:
    """Istio's gateway with the shipped filter (which waits for longer here), which traces."""
    port, admin_port = free_port(), free_port()
    config = envoy.build(
        envoy.GATEWAY, port=port, admin_port=admin_port, replicas=[replica.grpc_port], upstream=upstream.port
    )
    config = istio.apply(config, istio.read(FILTER), envoy.GATEWAY)
    trace(config, collector_port, percent)
    folder.mkdir()
    return Envoy(folder, envoy.write(config, folder / "envoy.json"), port=port, admin_port=admin_port)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("percent", [100, 0])
async def test_our_spans_are_below_envoys(tmp_path, engine, percent):
    """Each request that Envoy traces has a span of ours below its own for the question; one that it does not has none."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(GATEWAY_RULES)
    async with http_collector() as (collector, collector_port):
        env = PATIENCE | {
            "ENGINE": engine,
            "TRACING_ENABLED": "true",
            "TRACING_SAMPLING_RATE": "0",
            "TRACING_SERVICE_NAME": "limits",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        async with Upstream() as upstream, Replica(tmp_path / "replica", rules=rules, env=env) as replica:
            proxied = gateway(tmp_path / "envoy", replica, upstream, collector_port, percent)
            async with proxied, aiohttp.ClientSession() as session:
                statuses = [
                    (await call(session, f"{proxied.url}/", {"x-tenant": "one-by-one"})).status for _ in range(12)
                ]
                assert statuses == [200] * 10 + [429] * 2

                async def came() -> bool:
                    return len(collector.spans_of("limits")) == 12 and len(collector.spans_of("envoy")) >= 24

                if percent:
                    await until(came, "the spans come")
    ours = collector.spans_of("limits")
    if not percent:
        assert ours == []
        return
    above = {(span.trace_id, span.span_id) for span in collector.spans_of("envoy")}
    assert {(span.trace_id, span.parent_span_id) for span in ours} <= above
    assert len({span.trace_id for span in ours}) == len(ours) == 12
