"""What listens: the gRPC engine with its TLS, the HTTP side, the debug side."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from ratelimit_svc.admin import debug, http
from ratelimit_svc.errors import SettingsError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.metrics.page import Page
from ratelimit_svc.model import MICROSECONDS, Code
from ratelimit_svc.recent import MOST_SHOWN, Recent, Wanted
from ratelimit_svc.server.store import Opened
from ratelimit_svc.settings import Settings
from ratelimit_svc.state import State
from ratelimit_svc.wire import rls
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


def engine(settings: Settings, state: State, limiter: Limiter, watched: WireHealth) -> Engine:
    """Make the gRPC side.

    Raises:
        SettingsError: the certificates cannot be used.
    """
    options = EngineOptions(
        max_message_bytes=settings.max_message_bytes,
        max_connection_age_s=settings.grpc_max_connection_age_us / MICROSECONDS or None,
        max_connection_age_grace_s=settings.grpc_max_connection_age_grace_us / MICROSECONDS or None,
        tls=_tls(settings, state),
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
async def sides(settings: Settings, state: State, page: Page, limiter: Limiter, store: Opened) -> AsyncIterator[Ports]:
    """Serve what is not gRPC for as long as the context lasts.

    Error handling: OSError if an address cannot be had.
    """
    app = http.make_app(
        unready=state.health.reasons,
        detail=state.detail,
        decide=_decide_json(limiter),
        render_metrics=page.render,
    )
    debug_app = debug.make_app(recent=_recent(limiter, store), most=MOST_SHOWN)
    async with AsyncExitStack() as listening:
        yield Ports(
            http=await listening.enter_async_context(http.serving(app, settings.host, settings.port)),
            debug=await listening.enter_async_context(
                http.serving(debug_app, settings.debug_host, settings.debug_port)
            ),
        )


def _decide_json(limiter: Limiter) -> Callable[[bytes], Awaitable[tuple[Code, str]]]:
    async def decide(text: bytes) -> tuple[Code, str]:
        return rls.response_to_json(await limiter.ask(rls.request_from_json(text)))

    return decide


def _recent(limiter: Limiter, store: Opened) -> Callable[[int, str, str, bool], Awaitable[Mapping[str, Any]]]:
    requests = Recent(limiter, store, rls.decode)

    async def recent(limit: int, domain: str, entry: str, unmatched: bool) -> Mapping[str, Any]:  # noqa: FBT001 — a query's
        return await requests.look(Wanted(limit, domain, entry, unmatched))

    return recent
