"""What listens: the gRPC engine with its TLS, the HTTP side, the debug side."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ratelimit_svc import logs
from ratelimit_svc.admin import compare, control, debug, http, process, recent
from ratelimit_svc.admin.token import Token
from ratelimit_svc.errors import SettingsError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.comparison.page import describe
from ratelimit_svc.metrics.page import Page
from ratelimit_svc.model import MICROSECONDS, Code
from ratelimit_svc.recent import MOST_SHOWN, Recent, Wanted
from ratelimit_svc.rules import listing
from ratelimit_svc.server.store import Opened
from ratelimit_svc.settings import Settings
from ratelimit_svc.state import State
from ratelimit_svc.tracing.traces import Traces
from ratelimit_svc.wire import rls, unix
from ratelimit_svc.wire.engine import Engine, EngineOptions
from ratelimit_svc.wire.health import Health as WireHealth
from ratelimit_svc.wire.methods import methods
from ratelimit_svc.wire.tls import ServerTls, TlsFilesError


class Ports(NamedTuple):
    """Where it listens beside gRPC."""

    http: int
    debug: int


def engine_named(name: str) -> type[Engine]:
    """Return the engine that the setting ENGINE names. Only the one that serves is imported."""
    if name == "http2":
        from ratelimit_svc.wire.http2.engine import Http2Engine  # noqa: PLC0415

        return Http2Engine
    from ratelimit_svc.wire.grpcio import GrpcioEngine  # noqa: PLC0415

    return GrpcioEngine


def engine(
    settings: Settings, state: State, limiter: Limiter, watched: WireHealth, traces: Traces | None = None
) -> Engine:
    """Make the gRPC side.

    Raises:
        SettingsError: the certificates cannot be used.
    """
    options = EngineOptions(
        max_message_bytes=settings.max_message_bytes,
        max_connection_age_s=settings.grpc_max_connection_age_us / MICROSECONDS or None,
        max_connection_age_grace_s=settings.grpc_max_connection_age_grace_us / MICROSECONDS or None,
        tls=_tls(settings, state),
        traces=traces,
    )
    return engine_named(settings.engine)(limiter, methods(watched), options)


def _tls(settings: Settings, state: State) -> ServerTls | None:
    files = settings.tls_files
    if files is None:
        return None
    try:
        return ServerTls(**files._asdict(), on_renewed=state.on_tls_renewed, on_failure=state.on_tls_failure)
    except TlsFilesError as error:
        raise SettingsError(f"GRPC_SERVER_USE_TLS is true, but {error}") from error


@asynccontextmanager
async def grpc_side(settings: Settings, engine: Engine) -> AsyncIterator[str]:
    """Serve gRPC for as long as the context lasts. Yields where: `host:port`, or the path of a unix socket.

    Error handling: OSError if the address cannot be had.
    """
    path = Path(settings.grpc_uds) if settings.grpc_uds else None
    with unix.place(path) if path else nullcontext():
        if path:
            await engine.start_unix(path)
            where = str(path)
        else:
            where = f"{settings.grpc_host}:{await engine.start(settings.grpc_host, settings.grpc_port)}"
        try:
            yield where
        finally:
            await engine.stop(0)


@asynccontextmanager
async def sides(
    settings: Settings, state: State, limiter: Limiter, store: Opened, *, page: Page, look: asyncio.Event
) -> AsyncIterator[Ports]:
    """Serve what is not gRPC for as long as the context lasts. `page` is for Prometheus; `look` has the rules looked at.

    Error handling: OSError if an address cannot be had.
    """
    app = http.make_app(
        unready=state.health.reasons,
        detail=state.detail,
        decide=_decide_json(limiter),
        render_metrics=page.render,
    )
    token = Token(settings.debug_token, settings.debug_token_path)
    debug_app = debug.make_app(_endpoints(state, limiter, store, page.render, look), token)
    async with AsyncExitStack() as listening:
        yield Ports(
            http=await listening.enter_async_context(http.serving(app, settings.host, settings.port)),
            debug=await listening.enter_async_context(
                http.serving(debug_app, settings.debug_host, settings.debug_port)
            ),
        )


def _endpoints(
    state: State, limiter: Limiter, store: Opened, render_metrics: Callable[[], tuple[bytes, str]], look: asyncio.Event
) -> Iterator[debug.Endpoint]:
    """What there is on the debug side."""
    yield recent.requests(recent=_recent(limiter, store), most=MOST_SHOWN)
    yield from compare.endpoints(describe=partial(describe, limiter.comparison), reset=limiter.comparison.reset)
    yield from process.endpoints(
        limits=lambda: listing.lines(state.rules) if state.rules else (), render_metrics=render_metrics
    )
    yield from control.endpoints(
        levels=tuple(logs.LEVELS), level=lambda: state.log_level, set_level=state.set_log_level, look=look.set
    )


def _decide_json(limiter: Limiter) -> Callable[[bytes], Awaitable[tuple[Code, str]]]:
    async def decide(text: bytes) -> tuple[Code, str]:
        return rls.response_to_json(await limiter.ask(rls.request_from_json(text)))

    return decide


def _recent(limiter: Limiter, store: Opened) -> Callable[[int, str, str, bool], Awaitable[Mapping[str, Any]]]:
    requests = Recent(limiter, store, rls.decode)

    async def look(limit: int, domain: str, entry: str, unmatched: bool) -> Mapping[str, Any]:  # noqa: FBT001 — a query's
        return await requests.look(Wanted(limit, domain, entry, unmatched))

    return look
