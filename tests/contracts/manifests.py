"""The environments that others' manifests give to `/bin/ratelimit`, to the letter, and what they mount.

Istio's sample: samples/ratelimit/rate-limit-service.yaml of istio/istio. Envoy Gateway's Deployment: what its package
internal/infrastructure/kubernetes/ratelimit makes (default, and with Redis over TLS and with tracing).
"""

from typing import Any

import yaml

ISTIO = {
    "LOG_LEVEL": "debug",
    "REDIS_SOCKET_TYPE": "tcp",
    "REDIS_URL": "redis:6379",
    "USE_STATSD": "false",
    "RUNTIME_ROOT": "/data",
    "RUNTIME_SUBDIRECTORY": "ratelimit",
    "RUNTIME_WATCH_ROOT": "false",
    "RUNTIME_IGNOREDOTFILES": "true",
    "HOST": "::",
    "GRPC_HOST": "::",
}
ISTIO_MOUNT = "/data/ratelimit/config"
"""Where the ConfigMap is mounted."""
ISTIO_RULES = """\
domain: ratelimit
descriptors:
  - key: PATH
    value: "/productpage"
    rate_limit:
      unit: minute
      requests_per_unit: 1
  - key: PATH
    value: "api"
    rate_limit:
      unit: minute
      requests_per_unit: 2
  - key: PATH
    rate_limit:
      unit: minute
      requests_per_unit: 100
"""
"""The task's ConfigMap."""

ENVOY_GATEWAY = {
    "RUNTIME_ROOT": "/data",
    "RUNTIME_SUBDIRECTORY": "ratelimit",
    "RUNTIME_IGNOREDOTFILES": "true",
    "RUNTIME_WATCH_ROOT": "false",
    "LOG_LEVEL": "info",
    "USE_STATSD": "false",
    "CONFIG_TYPE": "GRPC_XDS_SOTW",
    "CONFIG_GRPC_XDS_SERVER_URL": "envoy-gateway:18001",
    "CONFIG_GRPC_XDS_NODE_ID": "envoy-ratelimit",
    "GRPC_SERVER_USE_TLS": "true",
    "GRPC_SERVER_TLS_CERT": "/certs/tls.crt",
    "GRPC_SERVER_TLS_KEY": "/certs/tls.key",
    "GRPC_SERVER_TLS_CA_CERT": "/certs/ca.crt",
    "CONFIG_GRPC_XDS_SERVER_USE_TLS": "true",
    "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": "/certs/tls.crt",
    "CONFIG_GRPC_XDS_CLIENT_TLS_KEY": "/certs/tls.key",
    "CONFIG_GRPC_XDS_SERVER_TLS_CACERT": "/certs/ca.crt",
    "FORCE_START_WITHOUT_INITIAL_CONFIG": "true",
    "REDIS_SOCKET_TYPE": "tcp",
    "REDIS_URL": "redis.redis.svc:6379",
    "USE_PROMETHEUS": "true",
    "PROMETHEUS_ADDR": ":19001",
    "PROMETHEUS_MAPPER_YAML": "/etc/statsd-exporter/conf.yaml",
}
ENVOY_GATEWAY_REDIS_TLS = {
    "REDIS_TLS": "true",
    "REDIS_TLS_CLIENT_CERT": "/redis-certs/tls.crt",
    "REDIS_TLS_CLIENT_KEY": "/redis-certs/tls.key",
    "REDIS_AUTH": "redis_auth_password",
}
ENVOY_GATEWAY_TRACING = {
    "TRACING_ENABLED": "true",
    "TRACING_SERVICE_NAME": "envoy-ratelimit",
    "TRACING_SERVICE_NAMESPACE": "envoy-gateway-system",
    "TRACING_SERVICE_INSTANCE_ID": "envoy-ratelimit-6f7c8d-x2x4z",
    "TRACING_SAMPLING_RATE": "0.6",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://trace-collector.envoy-gateway-system.svc.cluster.local:4317",
}


def statsd_mapper() -> str:
    """The mapping file that Envoy Gateway mounts: the usual names, one level of a rule's path as key1, two and more as key1 and key2."""
    numbers = ("near_limit", "over_limit", "total_hits", "within_limit", "shadow_mode")
    rule, level = "ratelimit.service.rate_limit", r"\.([^\.]*)"
    named = {
        number: {"name": f"ratelimit_service_rate_limit_{number}", "timer_type": "histogram"} for number in numbers
    }
    one = {"domain": "$1", "key1": "$2"}
    short = [{**named[number], "match": f"{rule}.*.*.{number}", "labels": one} for number in numbers]
    long = [
        {
            **named[number],
            "match": rule.replace(".", r"\.") + 3 * level + r"(\..*)?\." + number,
            "match_type": "regex",
            "labels": {**one, "key2": "$3"},
        }
        for number in numbers
    ]
    method = {"grpc_method": "$1"}
    others: list[tuple[str, str, dict[str, Any]]] = [
        ("ratelimit.service.call.should_rate_limit.*", "should_rate_limit_error", {"labels": {"err_type": "$1"}}),
        ("ratelimit_server.*.total_requests", "total_requests", {"labels": method}),
        ("ratelimit_server.*.response_time", "response_time_seconds", {"labels": method, "timer_type": "histogram"}),
        ("ratelimit.service.config_load_success", "config_load_success", {"match_metric_type": "counter"}),
        ("ratelimit.service.config_load_error", "config_load_error", {"match_metric_type": "counter"}),
    ]
    rest = [{"match": match, "name": f"ratelimit_service_{name}", **more} for match, name, more in others]
    return yaml.safe_dump({"mappings": [*short, *long, *rest]})
