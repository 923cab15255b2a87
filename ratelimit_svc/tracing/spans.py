"""Spans, by OpenTelemetry's SDK: it sends them by OTLP, some at a time, in a thread of its own.

Where they are sent, and how, the SDK reads from its own variables (OTEL_EXPORTER_OTLP_ENDPOINT and others), as in the reference
implementation. What waits to be sent is bounded (OTEL_BSP_MAX_QUEUE_SIZE): beyond, spans are dropped.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import NamedTuple
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from ratelimit_svc import __version__
from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.tracing.traces import Trace

__all__ = ["AttributeValue", "Described", "Spans", "service"]
# AttributeValue for `wire`, which imports nothing of OpenTelemetry's

LAST_SPANS_S = 5
"""At the end, what is left is sent for so long at most."""

TOLD_EVERY_S = 60.0
"""What the SDK says of a collector that is away, it says each second; each kind of it is logged once in so long."""

_TALKERS = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
"""The SDK's loggers that do so."""


class Described(NamedTuple):
    """What a span says of its request."""

    attributes: Mapping[str, AttributeValue]
    error: str | None = None
    """Why it was not answered."""


Describe = Callable[[bytes, bytes | RateLimitError], Described]
"""Returns what a span says, from the request's bytes and what it was told."""


class Seldom(logging.Filter):
    """Lets each kind of record pass once in a while."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._told: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether it is this one's turn. A kind is what is the same each time: the text without its values."""
        now = self._clock()
        if now < self._told.get(record.msg, -TOLD_EVERY_S) + TOLD_EVERY_S:
            return False
        self._told[record.msg] = now
        return True


class Spans:
    """Spans of one service.

    Args:
        name: the spans' own.
        service: what sends them: `service.name` and more.
        protocol: http or grpc.
        describe: says what a span says.

    Resource handling: has a thread, which `close` ends.
    """

    def __init__(self, name: str, service: Mapping[str, str], protocol: str, describe: Describe) -> None:
        self._name, self._describe = name, describe
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # `traces` has decided
            resource=Resource.create({each: text for each, text in service.items() if text}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(protocol)))
        self._tracer = self._provider.get_tracer("ratelimit_svc", __version__)
        for each in _TALKERS:
            logging.getLogger(each).addFilter(Seldom())

    def record(self, trace: Trace, request: bytes, answer: bytes | RateLimitError, ended_ns: int) -> None:
        """Take a request that was answered; `traces.Record`."""
        described = self._describe(request, answer)
        span = self._tracer.start_span(
            self._name,
            context=_context(trace),
            kind=SpanKind.SERVER,
            attributes=described.attributes,
            start_time=trace.began_ns,
        )
        if described.error is not None:
            span.set_status(Status(StatusCode.ERROR, described.error))
        span.end(ended_ns)

    async def close(self) -> None:
        """Send what is left, if it can be sent soon."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            loop.call_soon_threadsafe(ended.set)

        # no thread of the loop's: it would be waited for, however long a collector does not answer
        threading.Thread(target=shut_down, name="last spans", daemon=True).start()
        try:
            async with asyncio.timeout(LAST_SPANS_S):
                await ended.wait()
        except TimeoutError:
            return


def service(name: str, namespace: str, instance_id: str) -> Mapping[str, str]:
    """Return what a service is called, as OpenTelemetry names it."""
    return {
        "service.name": name,
        "service.namespace": namespace,
        "service.instance.id": instance_id or str(uuid4()),
    }


def _exporter(protocol: str) -> SpanExporter:
    """Return what sends spans. Only the library that does is imported."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter()


def _context(trace: Trace) -> Context:
    if trace.parent is None:
        return Context()
    remote = SpanContext(trace.parent.trace_id, trace.parent.span_id, is_remote=True, trace_flags=TraceFlags(1))
    return set_span_in_context(NonRecordingSpan(remote), Context())
