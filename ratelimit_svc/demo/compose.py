"""The Envoy of docker-compose.yml: the configuration that the shipped gateway's EnvoyFilter makes, without Istio.

    python -m ratelimit_svc.demo.compose deploy/envoy/envoy.yaml      (`make envoy-config`)

Names are those that Istio would give, so that the filter is, to the letter, the one that users copy. What differs from
a gateway of Istio's is what Istio itself would know: where the clusters' endpoints are, and whether they are well.
"""

import sys
from pathlib import Path

import yaml

from ratelimit_svc.demo import envoy, istio, shipped
from ratelimit_svc.demo.istio import Json

EVERYWHERE = "0.0.0.0"  # of a container, whose ports nobody reaches unless the compose file publishes them
ENVOY_FILTER = "istio/envoyfilter-gateway.yaml"
HOSTS = {envoy.RATE_LIMIT_CLUSTER: "ratelimit", envoy.GATEWAY.upstream: "upstream"}
"""For each cluster, the service of docker-compose.yml that it is. DNS has an address for each replica."""

HEADER = f"""\
# A plain Envoy, without Istio, that asks the rate-limit service. `docker compose up` runs this file.
#
# Generated from ../{ENVOY_FILTER}, where each line of the filter is explained, by `make envoy-config`
# (ratelimit_svc/demo/compose.py). Do not edit: a test compares.
"""
HEALTH_CHECK = {
    "timeout": "1s",
    "interval": "2s",
    "no_traffic_interval": "2s",  # by default 60 s: after a quiet while Envoy would not notice in DRAIN_DELAY that one goes
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
    "grpc_health_check": {},
}
"""DNS may name a replica that is gone; its own health service says so sooner than a request would."""


def configuration() -> Json:
    """Return the bootstrap of a gateway with the shipped filter applied, for the network of the compose file."""
    gateway = envoy.GATEWAY
    bootstrap = envoy.build(gateway, port=8000, admin_port=9901, replicas=[8081], upstream=8000)
    bootstrap = istio.apply(bootstrap, istio.read(shipped(ENVOY_FILTER).read_text()), gateway)
    for reached in (bootstrap["admin"], *bootstrap["static_resources"]["listeners"]):
        _move(reached["address"], EVERYWHERE)
    for cluster in bootstrap["static_resources"]["clusters"]:
        cluster["type"] = "STRICT_DNS"
        for locality in cluster["load_assignment"]["endpoints"]:
            for one in locality["lb_endpoints"]:
                _move(one["endpoint"]["address"], HOSTS[cluster["name"]])
        if cluster["name"] == envoy.RATE_LIMIT_CLUSTER:
            cluster["health_checks"] = [HEALTH_CHECK]
    return bootstrap


def _move(address: Json, host: str) -> None:
    address["socket_address"]["address"] = host


def text() -> str:
    """Return the file's text."""
    return HEADER + yaml.safe_dump(configuration(), sort_keys=False, width=120)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
