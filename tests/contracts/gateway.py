"""What Envoy Gateway makes of its policies: an Envoy's configuration and, over xDS, the rules for it. One table has both.

The shapes are those of its translator (internal/xds/translator: filters, routes, cluster, RateLimitConfig); paths and limits are
ours. All fields are written out, as it does, also those that hold nothing.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratelimit_svc.demo.istio import HCM, Json
from ratelimit_svc.demo.parts import LOOPBACK

TYPES = "type.googleapis.com/envoy.extensions"
FILTER = "envoy.filters.http.ratelimit"
LISTENER, SHARED = "envoy-gateway/eg/http", "default/shared-policy"
"""Two domains: what is not shared is of the listener, and a shared policy has a filter of its own."""
CLUSTER, UPSTREAM = "ratelimit_cluster", "httproute/default/backend/rule/0"
COST, TENANT_LIMIT = ("io.envoy.ai_gateway", "llm_total_token"), ("envoy.lb", "tenant_rate_limit")
"""Metadata: where costs are, and a limit."""


@dataclass(frozen=True)
class Route:
    """A route with one rule."""

    path: str
    actions: list[Json]
    """What follows the route's own generic_key."""
    keys: list[tuple[str, str]]
    """The descriptor that the rule's limit hangs on, below the route's."""
    limit: int
    """An hour."""
    domain: str = LISTENER
    shadow: bool = False
    request: Json = field(default_factory=dict)
    """What else the question before the request has: hits_addend, limit."""
    response: Json = field(default_factory=dict)
    """hits_addend of a question when the stream is done; empty: none is asked."""

    @property
    def name(self) -> str:
        """The route's name, which is key and value of its first entry; for every host it ends in a literal star."""
        return f"httproute/default/backend/rule{self.path}/match/0/*"

    def envoys(self) -> Json:
        """The route as Envoy is told."""
        actions = [{"generic_key": {"descriptor_key": self.name, "descriptor_value": self.name}}, *self.actions]
        asked = [{"actions": actions, **self.request}]
        if self.response:
            asked.append({"actions": actions, "apply_on_stream_done": True, "hits_addend": self.response})
        per_route = {"@type": f"{TYPES}.filters.http.ratelimit.v3.RateLimitPerRoute", "domain": self.domain}
        return {
            "name": self.name,
            "match": {"path": self.path},
            "route": {"cluster": UPSTREAM},
            "typed_per_filter_config": {filter_name(self.domain): {**per_route, "rate_limits": asked}},
        }

    def rule(self) -> Json:
        """The tree of descriptors, with the limit at its end."""
        limit = {"requests_per_unit": self.limit, "unit": "HOUR", "unlimited": False, "name": "", "replaces": []}
        made: Json | None = None
        for key, value in reversed([(self.name, self.name), *self.keys]):
            made = {
                "key": key,
                "value": value,
                "rate_limit": limit if made is None else None,
                "descriptors": [] if made is None else [made],
                "shadow_mode": self.shadow and made is None,
                "detailed_metric": False,
                "quota_mode": False,
            }
        assert made is not None
        return made


def _header(name: str, value: str, *, match: bool = True) -> Json:
    """A match of a header: one bucket for all that match."""
    headers = [{"name": name, "string_match": {"exact": value}}]
    rule = {"descriptor_key": "rule-0-match-0", "descriptor_value": "rule-0-match-0", "headers": headers}
    return {"header_value_match": {**rule, "expect_match": match}}


def _address(key: str, value: str) -> Json:
    ranges = {"ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}
    return {"remote_address_match": {"address_matcher": ranges, "descriptor_key": key, "descriptor_value": value}}


_MATCHED, _EACH = [("rule-0-match-0", "rule-0-match-0")], [("rule-0-match-0", "")]
_MASKED = _address("masked_remote_address", "127.0.0.0/8")
_ALL, _WHOLE = (
    {"generic_key": dict.fromkeys(("descriptor_key", "descriptor_value"), "rule-0-match--1")},
    "rule-0-match--1",
)
_TOLD_COST = {"format": f"%DYNAMIC_METADATA({COST[0]}:{COST[1]})%"}
_TENANT_LIMIT = {"dynamic_metadata": {"metadata_key": {"key": TENANT_LIMIT[0], "path": [{"key": TENANT_LIMIT[1]}]}}}

ROUTES = (
    Route("/matched", [_header("x-user-id", "one")], _MATCHED, 5),
    Route("/hurried", [_header("x-user-id", "one")], _MATCHED, 5),
    Route("/inverted", [_header("x-org-id", "admin", match=False)], _MATCHED, 2),
    Route(
        "/distinct", [{"request_headers": {"header_name": "x-user-id", "descriptor_key": "rule-0-match-0"}}], _EACH, 2
    ),
    Route("/everyone", [_ALL], [(_WHOLE, _WHOLE)], 3),
    Route("/network", [_MASKED], [("masked_remote_address", "127.0.0.0/8")], 3),
    Route(
        "/address",
        [_MASKED, _address("remote_address", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")],
        [("masked_remote_address", "127.0.0.0/8"), ("remote_address", "")],
        2,
    ),
    Route("/dear", [_ALL], [(_WHOLE, _WHOLE)], 10, request={"hits_addend": {"number": "4"}}),
    Route("/told", [_ALL], [(_WHOLE, _WHOLE)], 10, request={"hits_addend": _TOLD_COST}),
    Route("/tokens", [_ALL], [(_WHOLE, _WHOLE)], 100, request={"hits_addend": {"number": "0"}}, response=_TOLD_COST),
    Route("/tenant", [_ALL], [(_WHOLE, _WHOLE)], 9, request={"limit": _TENANT_LIMIT}),
    Route("/shadow", [_ALL], [(_WHOLE, _WHOLE)], 1, shadow=True),
    Route("/shared", [_header("x-user-id", "one")], _MATCHED, 3, domain=SHARED),
)


def rules() -> list[Json]:
    """Every RateLimitConfig, as its xDS server sends them: one a domain."""
    return [
        {"name": domain, "domain": domain, "descriptors": [one.rule() for one in ROUTES if one.domain == domain]}
        for domain in (LISTENER, SHARED)
    ]


def filter_name(domain: str) -> str:
    """What the filter is called that asks for a domain."""
    return FILTER if domain == LISTENER else f"{FILTER}/{domain}"


def configuration(
    *, port: int, hurried_port: int, admin_port: int, service: int, upstream: int, certificates: Path
) -> Json:
    """The bootstrap of a proxy of Envoy Gateway's.

    Args:
        port: of a listener whose filters wait for 10 s, as its setting `rateLimit.timeout` may say.
        hurried_port: of a listener whose filters say nothing of that: 20 ms.
        admin_port: of the admin side.
        service: the rate-limit service's gRPC port.
        upstream: the application's port.
        certificates: the folder of tls.crt, tls.key and ca.crt.
    """
    return {
        "admin": {"address": _socket(admin_port)},
        "static_resources": {
            "listeners": [
                _listener("http", port, {"timeout": "10s"}),
                _listener("hurried", hurried_port, {"stat_prefix": "hurried"}),
            ],
            "clusters": [_cluster(UPSTREAM, upstream), _cluster(CLUSTER, service, **_tls(certificates))],
        },
    }


def _socket(port: int) -> Json:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def _listener(name: str, port: int, waiting: Json) -> Json:
    asking = [_rate_limit(domain, waiting) for domain in (LISTENER, SHARED)]
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": True,
        "route_config": {
            "name": name,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [one.envoys() for one in ROUTES]}],
        },
        "http_filters": [*_metadata(), *asking, router],
    }
    return {
        "name": name,
        "address": _socket(port),
        "filter_chains": [{"filters": [{"name": HCM, "typed_config": manager}]}],
    }


def _rate_limit(domain: str, waiting: Json) -> Json:
    asked = {"grpc_service": {"envoy_grpc": {"cluster_name": CLUSTER}}, "transport_api_version": "V3"}
    settings = {
        "@type": f"{TYPES}.filters.http.ratelimit.v3.RateLimit",
        "domain": domain,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "disable_x_envoy_ratelimited_header": True,
        "rate_limit_service": asked,
        **waiting,
    }
    return {"name": filter_name(domain), "typed_config": settings}


def _metadata() -> list[Json]:
    """What an external processor of Envoy Gateway's would do: costs, in and out, and a tenant's own limit."""
    told = {
        "header": "x-tokens-used",
        "on_header_present": {"metadata_namespace": COST[0], "key": COST[1], "type": "NUMBER"},
    }
    costs = {
        "@type": f"{TYPES}.filters.http.header_to_metadata.v3.Config",
        "request_rules": [told],
        "response_rules": [told],
    }
    limit = {TENANT_LIMIT[1]: {"requests_per_unit": 2, "unit": "HOUR"}}
    limits = {
        "@type": f"{TYPES}.filters.http.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": TENANT_LIMIT[0], "value": limit}],
    }
    return [
        {"name": "envoy.filters.http.header_to_metadata", "typed_config": costs},
        {"name": "envoy.filters.http.set_metadata", "typed_config": limits},
    ]


def _cluster(name: str, port: int, **more: Any) -> Json:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _socket(port)}}]}]
    return {
        "name": name,
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "lb_policy": "LEAST_REQUEST",
        **more,
    }


def _tls(certificates: Path) -> Json:
    """The service is asked over HTTP/2 and TLS, with a certificate of the proxy's own."""
    own = {
        "certificate_chain": {"filename": str(certificates / "tls.crt")},
        "private_key": {"filename": str(certificates / "tls.key")},
    }
    common = {
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [own],
        "validation_context": {"trusted_ca": {"filename": str(certificates / "ca.crt")}},
    }
    context = {"@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": common}
    options = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {"initial_connection_window_size": 1048576, "initial_stream_window_size": 65536}
        },
    }
    return {
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }
