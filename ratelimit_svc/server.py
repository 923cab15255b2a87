"""The server: one life, top to bottom: build → start → ready → drain → close."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic_ns, time
from typing import Any

import structlog

from ratelimit_svc import __version__
from ratelimit_svc.admin import http
from ratelimit_svc.errors import RulesError
from ratelimit_svc.health import Health
from ratelimit_svc.limiter import Limiter, Options
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import MICROSECONDS, Code
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.rules.watch import watch
from ratelimit_svc.settings import Settings
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.grpcio import GrpcioEngine

NO_RULES, DRAINING, STORE_AWAY = "no rules loaded", "draining", "the store is away"

EXPIRE_EVERY_S = 0.1
"""How often windows in memory that hold nothing are forgotten, if no request does it."""

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
        metrics = Metrics()
        state = State(settings, Health(NO_RULES), metrics, store_up=settings.redis_url is None)
        local = MemoryStore(_monotonic_us, most_keys=settings.memory_store_keys)
        store = await life.enter_async_context(_store(settings, state, local))
        limiter = Limiter(
            store=store, local=local, decode=rls.decode, encode=rls.encode, metrics=metrics, options=_options(settings)
        )
        life.callback(limiter.close)
        engine = GrpcioEngine(limiter, max_message_bytes=settings.max_message_bytes)
        state.measure(limiter, local)

        # start
        await life.enter_async_context(_running("expiry", _expire(local), stop))
        await life.enter_async_context(_running("rules watch", _watch_rules(settings, state, limiter, look), stop))
        await _either(state.rules_seen.wait(), stop.wait())
        if stop.is_set():
            return
        _spare_the_loop_full_collections()
        grpc_port = await engine.start(settings.grpc_host, settings.grpc_port)
        life.push_async_callback(engine.stop, 0)
        app = http.make_app(
            unready=state.health.reasons,
            detail=state.detail,
            decide=_decide_json(limiter),
            render_metrics=metrics.render,
        )
        port = await life.enter_async_context(http.serving(app, settings.host, settings.port))
        await life.enter_async_context(_running("health", _publish_health(state.health, engine), stop))

        # ready
        log.info(
            "listening", grpc=f"{settings.grpc_host}:{grpc_port}", http=f"{settings.host}:{port}", version=__version__
        )
        await stop.wait()

        # drain
        state.health.note(DRAINING, holds=True)
        log.info("draining", delay_s=settings.drain_delay_us / MICROSECONDS)
        stop.clear()
        await _either(asyncio.sleep(settings.drain_delay_us / MICROSECONDS), stop.wait())
        await _either(engine.stop(settings.drain_timeout_us / MICROSECONDS), stop.wait())

        # close
    log.info("stopped")


@dataclass(slots=True)
class State:
    """What the process knows of itself, and tells health, log and metrics."""

    settings: Settings
    health: Health
    metrics: Metrics
    store_up: bool
    store_reason: str = ""
    rules: RuleSet | None = None
    rules_error: RulesError | None = None
    rules_seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the rules were looked at: good or not, there is something to say."""

    def on_store_up(self, warnings: list[str]) -> None:
        """Note that the store answers."""
        self._store(up=True)
        log.info("store is up", url=self.settings.redis_url_shown)
        for warning in warnings:
            log.warning(warning)

    def on_store_down(self, reason: str) -> None:
        """Note that the store is away: from now on the rules' policies answer."""
        self._store(up=False, reason=reason)
        log.error("store is away: answering by on_store_failure", url=self.settings.redis_url_shown, reason=reason)

    def _store(self, *, up: bool, reason: str = "") -> None:
        self.store_up, self.store_reason = up, reason
        if self.settings.ready_requires_redis:
            self.health.note(STORE_AWAY, holds=not up)

    def on_rules(self, rules: RuleSet, files: tuple[RuleFile, ...]) -> None:
        """Note rules that are now in force."""
        self.rules, self.rules_error = rules, None
        self.metrics.rules_loads.ok += 1
        self.metrics.rules_loaded_at = time()
        self.health.note(NO_RULES, holds=False)
        self.rules_seen.set()
        log.info("rules loaded", files=len(files), domains=len(rules.domains), rules=len(rules.rules))

    def on_rules_error(self, error: RulesError) -> None:
        """Note rules that cannot be used; those in force stay."""
        self.rules_error = error
        self.metrics.rules_loads.failed += 1
        self.rules_seen.set()
        kept = "nothing is limited yet" if self.rules is None else "the rules in force stay"
        for finding in error.findings:
            log.error("rules not loaded", finding=str(finding), kept=kept)

    def detail(self) -> Mapping[str, object]:
        """Return what `/healthcheck?verbose` shows."""
        return {
            "version": __version__,
            "store": {
                "kind": "redis" if self.settings.redis_url else "memory",
                "url": self.settings.redis_url_shown,
                "up": self.store_up,
                "reason": self.store_reason,
            },
            "rules": {
                "count": len(self.rules.rules) if self.rules else 0,
                "domains": sorted(self.rules.domains) if self.rules else [],
                "loaded_at": self.metrics.rules_loaded_at,
                "findings": [str(finding) for finding in self.rules_error.findings] if self.rules_error else [],
            },
        }

    def measure(self, limiter: Limiter, local: MemoryStore) -> None:
        """Tell the metrics where their gauges are read."""
        gauges = self.metrics.gauges
        gauges.queue_length = lambda: limiter.waiting.requests
        gauges.plan_memory_bytes = lambda: limiter.plans.bytes
        gauges.plan_memory_entries = lambda: len(limiter.plans)
        gauges.memory_windows = lambda: len(local)
        gauges.memory_windows_forgotten = lambda: local.forgotten
        gauges.store_up = lambda: self.store_up
        gauges.ready = lambda: self.health.ready


def _options(settings: Settings) -> Options:
    return Options(
        store_timeout_s=settings.store_timeout_us / MICROSECONDS,
        deadline_margin_s=settings.deadline_margin_us / MICROSECONDS,
        replicas=settings.replicas,
        queue_limit=settings.queue_limit,
        plan_memory_bytes=settings.plan_memory_bytes,
        key_prefix=settings.cache_key_prefix,
    )


@asynccontextmanager
async def _store(settings: Settings, state: State, local: MemoryStore) -> AsyncIterator[MemoryStore | RedisStore]:
    """Open the store that the settings name."""
    if settings.redis_url is None:
        log.warning("REDIS_URL is not set: windows are kept in this process's memory, right for one replica only")
        yield local
        return
    async with RedisStore(
        settings.redis_url,
        timeout_s=settings.store_timeout_us / MICROSECONDS,
        key_prefix=settings.cache_key_prefix,
        on_up=state.on_store_up,
        on_down=state.on_store_down,
    ) as store:
        yield store


def _spare_the_loop_full_collections() -> None:
    """Take all that is there now, modules above all, out of the collector's sight.

    A full pass over it takes 40 to 90 ms (measured: 70 000 objects), some seconds after the start and then again and again,
    and stands between every request under way and its deadline.
    """
    gc.collect()
    gc.freeze()


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

    await watch(settings.rules_path, on_rules, state.on_rules_error, wake=look)


async def _expire(windows: MemoryStore) -> None:
    while True:
        await asyncio.sleep(EXPIRE_EVERY_S)
        windows.expire(_monotonic_us())


async def _publish_health(health: Health, engine: GrpcioEngine) -> None:
    while True:
        engine.set_ready(ready=health.ready)
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


def _monotonic_us() -> int:
    """Return a time that no one can step, for windows that only this process sees."""
    return monotonic_ns() // 1000
