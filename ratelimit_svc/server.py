"""The server: one life, top to bottom: build → start → ready → drain → close."""

import asyncio
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from math import inf
from time import monotonic_ns, time_ns
from typing import Any

import structlog

from ratelimit_svc import __version__, garbage, pressure
from ratelimit_svc.admin import debug, http
from ratelimit_svc.errors import SettingsError
from ratelimit_svc.health import Health
from ratelimit_svc.limiter import Limiter, Options
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.metrics.page import Page
from ratelimit_svc.model import MICROSECONDS, Code
from ratelimit_svc.owed import Owed
from ratelimit_svc.recent import MOST_SHOWN, Recent, Wanted
from ratelimit_svc.refusals import Refusals
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.rules.watch import watch
from ratelimit_svc.settings import Settings
from ratelimit_svc.state import NO_RULES, State
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.store.redis.replicas import Replicas
from ratelimit_svc.store.redis.spread import SpreadStore
from ratelimit_svc.store.redis.which import store_at
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.engine import Engine, EngineOptions
from ratelimit_svc.wire.health import Health as WireHealth
from ratelimit_svc.wire.methods import methods
from ratelimit_svc.wire.tls import ServerTls, TlsFilesError

DRAINING = "draining"

EXPIRE_EVERY_S = 0.1
"""How often windows in memory that hold nothing are forgotten, if no request does it, hits owed that count no more, and denials that are over."""

SWITCH_S = 0.0005
"""How long another thread may keep the loop waiting for the interpreter: rules compile beside it, and pages of metrics are made.
Python's own 5 ms are a quarter of Envoy's deadline, and come one after another."""

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal cuts the drain short; SIGHUP looks at the rules now.

    Resource handling: everything opened here is closed here, in reverse order.

    Error handling: OSError if an address cannot be had. Rules that cannot be used and a store that is away are logged and
    shown by health; they end nothing.
    """
    stop, look = asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as life:
        # build
        _on_signals(stop, look)  # first: as process 1 of a container, a signal without a handler is lost
        _allow_many_files()
        metrics = Metrics()
        state = State(settings, Health(NO_RULES), metrics, store_up=settings.redis is None)
        local = MemoryStore(_steady_us, most_keys=settings.memory_store_keys)
        store = await life.enter_async_context(_store(settings, state, local))
        lag = pressure.Pressure(
            settings.loop_lag_us / MICROSECONDS or inf, on_shedding=state.on_shedding, on_unwell=state.on_unwell
        )
        limiter = Limiter(
            store=store,
            local=local,
            clock=_steady_us,
            decode=rls.decode,
            encode=rls.encode,
            metrics=metrics,
            options=_options(settings),
            pressure=lag,
            on_denial=state.on_denial,
            on_spoilt=state.on_spoilt,
        )
        life.callback(limiter.close)
        watched = WireHealth()
        engine = engine_named(settings.engine)(limiter, methods(watched), _engine_options(settings, state))
        state.measure(limiter, local, engine, lag)
        replicas = _replicas(settings, state, limiter, store)
        if settings.shadow_mode:
            log.warning("SHADOW_MODE: nobody is denied, all is counted as if it were enforced")

        # start
        await life.enter_async_context(_running("expiry", _expire(local, limiter.owed, limiter.refusals), stop))
        await life.enter_async_context(_running("garbage", garbage.collect_when_quiet(lambda: metrics.requests), stop))
        await life.enter_async_context(_running("pressure", pressure.watch(lag), stop))
        await life.enter_async_context(_running("rules watch", _watch_rules(settings, state, limiter, look), stop))
        await _either(state.rules_seen.wait(), stop.wait())
        if stop.is_set():
            return
        garbage.spare_the_loop()
        sys.setswitchinterval(SWITCH_S)
        if replicas is not None:
            await life.enter_async_context(_announced(replicas, stop))
        grpc_port = await engine.start(settings.grpc_host, settings.grpc_port)
        life.push_async_callback(engine.stop, 0)
        app = http.make_app(
            unready=state.health.reasons,
            detail=state.detail,
            decide=_decide_json(limiter),
            render_metrics=Page(metrics).render,
        )
        port = await life.enter_async_context(http.serving(app, settings.host, settings.port))
        debug_app = debug.make_app(recent=_recent(limiter, store), most=MOST_SHOWN)
        debug_port = await life.enter_async_context(http.serving(debug_app, settings.debug_host, settings.debug_port))
        await life.enter_async_context(_running("health", _publish_health(state.health, watched), stop))

        # ready
        log.info(
            "listening",
            grpc=f"{settings.grpc_host}:{grpc_port}",
            http=f"{settings.host}:{port}",
            debug=f"{settings.debug_host}:{debug_port}",
            version=__version__,
        )
        await stop.wait()

        # drain
        state.health.note(DRAINING, holds=True)
        log.info("draining", delay_s=settings.drain_delay_us / MICROSECONDS)
        stop.clear()
        await _either(asyncio.sleep(settings.drain_delay_us / MICROSECONDS), stop.wait())
        watched.end_watches()
        await _either(engine.stop(settings.drain_timeout_us / MICROSECONDS), stop.wait())

        # close
    log.info("stopped")


def _options(settings: Settings) -> Options:
    return Options(
        store_timeout_s=settings.store_timeout_us / MICROSECONDS,
        deadline_margin_s=settings.deadline_margin_us / MICROSECONDS,
        replicas=settings.replicas,
        owed_keys=settings.owed_keys,
        queue_limit=settings.queue_limit,
        queue_age_s=settings.queue_age_us / MICROSECONDS,
        denial_memory_keys=settings.denial_memory_keys,
        plan_memory_bytes=settings.plan_memory_bytes,
        key_prefix=settings.cache_key_prefix,
        shadow_mode=settings.shadow_mode,
        dynamic_metadata=settings.response_dynamic_metadata,
        denial_log_every_s=settings.denial_log_every_us / MICROSECONDS,
    )


def engine_named(name: str) -> type[Engine]:
    """Return the engine that the setting ENGINE names. Only the one that serves is imported."""
    if name == "http2":
        from ratelimit_svc.wire.http2.engine import Http2Engine  # noqa: PLC0415

        return Http2Engine
    from ratelimit_svc.wire.grpcio import GrpcioEngine  # noqa: PLC0415

    return GrpcioEngine


def _engine_options(settings: Settings, state: State) -> EngineOptions:
    return EngineOptions(
        max_message_bytes=settings.max_message_bytes,
        max_connection_age_s=settings.grpc_max_connection_age_us / MICROSECONDS or None,
        max_connection_age_grace_s=settings.grpc_max_connection_age_grace_us / MICROSECONDS or None,
        tls=_tls(settings, state),
    )


def _tls(settings: Settings, state: State) -> ServerTls | None:
    """Read the certificates.

    Raises:
        SettingsError: they cannot be used.
    """
    files = settings.tls_files
    if files is None:
        return None
    try:
        return ServerTls(**files._asdict(), on_renewed=state.on_tls_renewed, on_failure=state.on_tls_failure)
    except TlsFilesError as error:
        raise SettingsError(f"GRPC_SERVER_USE_TLS is true, but {error}") from error


@asynccontextmanager
async def _store(
    settings: Settings, state: State, local: MemoryStore
) -> AsyncIterator[MemoryStore | RedisStore | SpreadStore]:
    """Open the store that the settings name."""
    if settings.redis is None:
        log.warning("REDIS_URL is not set: windows are kept in this process's memory, right for one replica only")
        yield local
        return
    store = store_at(
        settings.redis,
        settings.redis_per_second,
        timeout_s=settings.store_timeout_us / MICROSECONDS,
        latency_s=settings.breaker_latency_us / MICROSECONDS,
        key_prefix=settings.cache_key_prefix,
        on_up=state.on_store_up,
        on_down=state.on_store_down,
        on_change=state.on_breaker,
    )
    state.nodes, state.away = store.nodes, store.away
    async with store:
        yield store


def _replicas(
    settings: Settings, state: State, limiter: Limiter, store: MemoryStore | RedisStore | SpreadStore
) -> Replicas | None:
    """Return what counts the replicas; None where nothing is shared."""
    if isinstance(store, MemoryStore):
        return None

    def on_count(count: int) -> None:
        limiter.share_among(count)
        state.on_replicas(count, limiter.replicas)

    state.replicas = Replicas(
        store.command,
        key_prefix=settings.cache_key_prefix,
        on_count=on_count,
        on_failure=state.on_replicas_uncounted,
    )
    return state.replicas


@asynccontextmanager
async def _announced(replicas: Replicas, stop: asyncio.Event) -> AsyncIterator[None]:
    """Count the replicas, and be one of them, for as long as the context lasts."""
    await replicas.beat()
    try:
        async with _running("replicas", replicas.keep(), stop):
            yield
    finally:
        await replicas.leave()


def _allow_many_files() -> None:
    """Let the process open as many files, and so connections, as it may at most: many systems begin with a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # it does without
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _on_signals(stop: asyncio.Event, look: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, look.set)


@asynccontextmanager
async def _running(part: str, work: Coroutine[Any, Any, None], stop: asyncio.Event) -> AsyncIterator[None]:
    """Run something in the background for as long as the context lasts. If it fails, the process stops, and says why."""
    task = asyncio.create_task(work, name=part)

    def on_end(_: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("stopping: a part has failed", part=part, exc_info=task.exception())
            stop.set()

    task.add_done_callback(on_end)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _watch_rules(settings: Settings, state: State, limiter: Limiter, look: asyncio.Event) -> None:
    def on_rules(rules: RuleSet, files: tuple[RuleFile, ...]) -> None:
        limiter.use(rules)
        state.on_rules(rules, files)

    loader = partial(
        load,
        strict=settings.strict,
        merge_domains=settings.merge_domain_config,
        algorithm=settings.algorithm,
    )
    await watch(settings.rules_path, on_rules, state.on_rules_error, loader=loader, wake=look)


async def _expire(windows: MemoryStore, owed: Owed, refusals: Refusals) -> None:
    while True:
        await asyncio.sleep(EXPIRE_EVERY_S)
        windows.expire(_steady_us())
        owed.expire()
        refusals.expire()


async def _publish_health(health: Health, watched: WireHealth) -> None:
    while True:
        watched.set_ready(ready=health.ready)
        await health.change()


async def _either(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until one of these is over, and let the others go. What failed raises."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


def _decide_json(limiter: Limiter) -> Callable[[bytes], Awaitable[tuple[Code, str]]]:
    async def decide(text: bytes) -> tuple[Code, str]:
        return rls.response_to_json(await limiter.ask(rls.request_from_json(text)))

    return decide


def _recent(
    limiter: Limiter, store: MemoryStore | RedisStore | SpreadStore
) -> Callable[[int, str, str, bool], Awaitable[Mapping[str, Any]]]:
    requests = Recent(limiter, store, rls.decode)

    async def recent(limit: int, domain: str, entry: str, unmatched: bool) -> Mapping[str, Any]:  # noqa: FBT001 — a query's
        return await requests.look(Wanted(limit, domain, entry, unmatched))

    return recent


_STARTED_NS = time_ns() - monotonic_ns()
"""What makes a monotonic time a time of day."""


def _steady_us() -> int:
    """Return the time for windows that only this process sees: of day, as fixed windows need it, but no one can step it."""
    return (_STARTED_NS + monotonic_ns()) // 1000
