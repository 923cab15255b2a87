"""Tracing, if it is asked for: OpenTelemetry is imported only then."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.settings import Settings
from ratelimit_svc.tracing.traces import Traces


@asynccontextmanager
async def traced(settings: Settings, limiter: Limiter) -> AsyncIterator[Traces | None]:
    """Yield what decides which requests are sampled; None: none is. Spans that are left are sent at the end.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    if not settings.tracing_enabled:
        yield None
        return
    try:
        from ratelimit_svc.tracing.spans import Spans, service  # noqa: PLC0415
        from ratelimit_svc.wire.spans import NAME, describing  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SettingsError(
            "TRACING_ENABLED is true, but OpenTelemetry is not installed: pip install 'ratelimit-svc[tracing]'"
        ) from error

    def rules(request: bytes) -> Sequence[str]:
        return [charge.rule.id for charge in limiter.plans.get(request).charges]

    spans = Spans(
        NAME,
        service(
            settings.tracing_service_name, settings.tracing_service_namespace, settings.tracing_service_instance_id
        ),
        settings.tracing_exporter_protocol,
        describing(rules),
    )
    try:
        yield Traces(settings.tracing_sampling_rate, spans.record)
    finally:
        await spans.close()
