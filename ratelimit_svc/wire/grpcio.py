"""The `grpcio` engine: gRPC by `grpc.aio`. Every feature of gRPC, and nothing to distrust.

A request's bytes go to the limiter as they came and the verdict's bytes back as they are: messages are neither parsed nor
built here. The price is ~250 µs of CPU per call.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.tracing.traces import Trace
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.calls import CallError, GrpcStatus, Method
from ratelimit_svc.wire.engine import EngineOptions
from ratelimit_svc.wire.tls import ServerTls

_LONGEST_MS = 2**31 - 1
"""grpcio's numbers are no longer, and mean for ever by this one."""

_STATUS = {GrpcStatus(code.value[0]): code for code in grpc.StatusCode}

if TYPE_CHECKING:  # generic in its types only
    Context = grpc.aio.ServicerContext[bytes, bytes]
    Handler = grpc.RpcMethodHandler[bytes, bytes]
else:
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler


class GrpcioEngine:
    """One gRPC server; see `engine.Engine`."""

    def __init__(self, limiter: Limiter, methods: Mapping[str, Method], options: EngineOptions) -> None:
        self._limiter = limiter
        self._tls, self._traces = options.tls, options.traces
        self._server = grpc.aio.server(options=_channel_arguments(options))
        unary, streaming = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        handlers: dict[str, Handler] = {path: streaming(self._answering(_with(each))) for path, each in methods.items()}
        handlers[f"/{rls.SERVICE}/{rls.METHOD}"] = unary(self._answering(self._should_rate_limit))
        self._server.add_generic_rpc_handlers((_Handlers(handlers),))

    async def start(self, host: str, port: int) -> int:
        """Listen; see `engine.Engine`."""
        return await self._start(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    async def start_unix(self, path: Path) -> None:
        """Listen on a unix socket; see `engine.Engine`."""
        await self._start(f"unix:{path}")

    async def _start(self, address: str) -> int:
        try:
            if self._tls is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, _credentials(self._tls))
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: {error}") from error
        await self._server.start()
        return bound

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more and wait; see `engine.Engine`."""
        await self._server.stop(grace_s)

    def wire(self) -> None:
        """Return nothing: the library does not tell."""

    async def _should_rate_limit(self, data: bytes, context: Context) -> bytes:
        trace = None if self._traces is None else self._traces.begun(_fields(context).get)
        try:
            answer = await self._limiter.ask(data, timeout_s=context.time_remaining())
        except RateLimitError as error:
            self._note(trace, data, error)
            raise CallError(*rls.status_of(error)) from error
        self._note(trace, data, answer)
        return answer

    def _note(self, trace: Trace | None, data: bytes, answer: bytes | RateLimitError) -> None:
        if trace is not None and self._traces is not None:
            self._traces.answered(trace, data, answer)

    def _answering(self, answer: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        """Let a call in if its client is, and end it by CallError."""

        async def answer_or_fail(asked: Any, context: Context) -> Any:
            try:
                self._admit(context)
                return await answer(asked, context)
            except CallError as error:
                await _abort(context, _STATUS[error.status], error.text)

        return answer_or_fail

    def _admit(self, context: Context) -> None:
        """Refuse a client whom TLS does not admit. The library shows certificates to calls only, not at the handshake."""
        if self._tls is not None and not self._tls.admits(_peercert(context)):
            raise CallError(
                GrpcStatus.UNAUTHENTICATED, "the client's certificate does not have the name that is let in"
            )


async def _abort(context: Context, status: grpc.StatusCode, text: str) -> None:
    """End a call, once its handler has returned. The library keeps the exception: with all that led to it, it would hold itself."""
    try:
        await context.abort(status, text)
    except grpc.aio.AbortError as aborted:
        aborted.__traceback__ = aborted.__context__ = None


class _Handlers(grpc.GenericRpcHandler):
    """Finds handlers by path; the library's own finder wants them by service and name."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a call, None for UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)


def _with(method: Method) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
    async def answer(requests: AsyncIterator[bytes], context: Context) -> None:
        async with aclosing(method(requests)) as answers:
            async for message in answers:
                try:
                    await context.write(message)
                except grpc.aio.BaseError:  # the caller has gone: nobody's error
                    return

    return answer


def _channel_arguments(options: EngineOptions) -> list[tuple[str, int]]:
    arguments = [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        # one port is one process: with SO_REUSEPORT a forgotten process would go on taking a part of the requests
        ("grpc.so_reuseport", 0),
    ]
    for name, age_s in (
        ("grpc.max_connection_age_ms", options.max_connection_age_s),  # it adds ± 10 % by itself
        ("grpc.max_connection_age_grace_ms", options.max_connection_age_grace_s),
    ):
        if age_s is not None:
            arguments.append((name, min(round(age_s * 1000), _LONGEST_MS)))
    return arguments


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return credentials that ask, at every handshake, what the files hold."""

    def now() -> grpc.ServerCertificateConfiguration:
        pem = tls.pem()
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], root_certificates=pem.client_ca)

    return grpc.dynamic_ssl_server_credentials(now(), now, require_client_authentication=tls.clients_are_asked)


def _fields(context: Context) -> Mapping[str, str]:
    """Return a call's headers that are text."""
    found = context.invocation_metadata() or ()
    return {name: value for name, value in found if isinstance(value, str)}


def _peercert(context: Context) -> Mapping[str, Any]:
    """Return what the client is called, as `ssl` would."""
    return {"subjectAltName": [("DNS", name.decode()) for name in context.auth_context().get("peer_dns", ())]}
