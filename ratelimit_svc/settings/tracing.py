"""The settings of tracing. Where spans are sent is OpenTelemetry's own: OTEL_EXPORTER_OTLP_ENDPOINT and others, as in the reference
implementation.
"""

from dataclasses import dataclass, replace

from ratelimit_svc.settings.kinds import BOOLEAN, TEXT, choice, decimal
from ratelimit_svc.settings.row import row

_RATE = replace(decimal(-1e9, 1e9), rule="a decimal number, 0 … 1", short="a decimal number")
"""As in the reference implementation, less than 0 is 0, and more than 1 is 1."""


@dataclass(frozen=True)
class TracingSettings:
    """Spans of sampled requests, for OpenTelemetry."""

    tracing_enabled: bool = row(
        "TRACING_ENABLED",
        BOOLEAN,
        "false",
        "Send spans of sampled requests by OTLP, to where OTEL_EXPORTER_OTLP_ENDPOINT says.",
    )
    tracing_service_name: str = row("TRACING_SERVICE_NAME", TEXT, "RateLimit", "Spans' service.name.")
    tracing_service_namespace: str = row("TRACING_SERVICE_NAMESPACE", TEXT, "", "Spans' service.namespace.")
    tracing_service_instance_id: str = row(
        "TRACING_SERVICE_INSTANCE_ID", TEXT, "", "Spans' service.instance.id. Empty: a new one at each start."
    )
    tracing_exporter_protocol: str = row(
        "TRACING_EXPORTER_PROTOCOL", choice("http", "grpc"), "http", "How spans are sent: OTLP over HTTP or over gRPC."
    )
    tracing_sampling_rate: float = row(
        "TRACING_SAMPLING_RATE",
        _RATE,
        "1",
        "The share of requests without a trace that begin one, 0 … 1. Those with one are sampled if their callers' spans are.",
    )
