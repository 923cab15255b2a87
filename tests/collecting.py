"""Collectors of spans: OTLP receivers on loopback, over HTTP and over gRPC, that keep what comes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span


class Collector:
    """What an OTLP receiver has received."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[str | None] = []

    @property
    def spans(self) -> list[Span]:
        """All spans, in the order they came."""
        return [span for _, span in self._all()]

    def spans_of(self, service: str) -> list[Span]:
        """Those that one service sent."""
        return [span for resource, span in self._all() if services(resource)["service.name"] == service]

    @property
    def service(self) -> dict[str, str]:
        """What sent the first of them."""
        return services(self.requests[0].resource_spans[0])

    def _all(self) -> Iterator[tuple[ResourceSpans, Span]]:
        for one in list(self.requests):
            for resource in one.resource_spans:
                for scope in resource.scope_spans:
                    yield from ((resource, span) for span in scope.spans)


def services(sent: ResourceSpans) -> dict[str, str]:
    """What is said of who sent some spans."""
    named = {each.key: each.value.string_value for each in sent.resource.attributes}
    return {key: text for key, text in named.items() if key.startswith("service.")}


@asynccontextmanager
async def http_collector() -> AsyncIterator[tuple[Collector, int]]:
    """Receive over HTTP."""
    collector = Collector()

    async def export(request: web.Request) -> web.Response:
        collector.headers.append(request.headers.get("x-team"))
        collector.requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", export)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield collector, runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def grpc_collector() -> AsyncIterator[tuple[Collector, int]]:
    """Receive over gRPC."""
    collector = Collector()

    async def export(message: ExportTraceServiceRequest, _: object) -> ExportTraceServiceResponse:
        collector.requests.append(message)
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    server = grpc.aio.server()
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector, port
    finally:
        await server.stop(0)


def attributes(span: Span) -> dict[str, object]:
    """A span's, as values of Python's."""

    def plain(value):
        kind = value.WhichOneof("value")
        return [plain(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {each.key: plain(each.value) for each in span.attributes}
