"""The server: one life, top to bottom: build → start → ready → drain → close.

store        the store that the settings name, and the replicas that share it
listeners    gRPC, HTTP, the debug side
stats        who reads the reference implementation's numbers
background   what runs beside the requests
rules        where rules come from: files, or an xDS server
traced       spans of sampled requests
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from math import inf

import structlog

from ratelimit_svc import __version__, garbage, pressure
from ratelimit_svc.limiter import Limiter, refusals
from ratelimit_svc.limiter.options import Options
from ratelimit_svc.limiter.plans import Planner
from ratelimit_svc.limiter.reference_keys import ReferencePlanner
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import MICROSECONDS
from ratelimit_svc.server import listeners, rules, stats, store
from ratelimit_svc.server.background import (
    allow_many_files,
    either,
    expire,
    on_signals,
    publish_health,
    running,
    steady_us,
)
from ratelimit_svc.server.traced import traced
from ratelimit_svc.settings import Settings
from ratelimit_svc.state import State
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.health import Health as WireHealth

DRAINING = "draining"

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
    for warning in settings.warnings:
        log.warning(warning)
    async with AsyncExitStack() as life:
        # build
        on_signals(stop, look)  # first: as process 1 of a container, a signal without a handler is lost
        allow_many_files()
        metrics = Metrics()
        page = stats.page(settings, metrics)
        state = State(settings, rules.health(settings), metrics, store_up=settings.redis is None)
        local = MemoryStore(steady_us, most_keys=settings.memory_store_keys)
        windows = await life.enter_async_context(store.opened(settings, state, local))
        lag = pressure.Pressure(
            settings.loop_lag_us / MICROSECONDS or inf, on_shedding=state.on_shedding, on_unwell=state.on_unwell
        )
        limiter = Limiter(
            store=windows,
            local=local,
            clock=steady_us,
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
        metrics.gauges.health_checks = lambda: watched.checks
        traces = await life.enter_async_context(traced(settings, limiter))
        engine = listeners.engine(settings, state, limiter, watched, traces)
        state.measure(limiter, local, engine, lag)
        replicas = store.counting(settings, state, limiter, windows)
        if settings.shadow_mode:
            log.warning("SHADOW_MODE: nobody is denied, all is counted as if it were enforced")

        # start
        await life.enter_async_context(running("expiry", expire(local, limiter.owed, limiter.refusals), stop))
        await life.enter_async_context(running("garbage", garbage.collect_when_quiet(lambda: metrics.requests), stop))
        await life.enter_async_context(running("pressure", pressure.watch(lag), stop))
        await life.enter_async_context(running("rules", rules.keep(settings, state, limiter, look), stop))
        if not settings.force_start_without_initial_config:
            await either(state.rules_seen.wait(), stop.wait())
        if stop.is_set():
            return
        garbage.spare_the_loop()
        sys.setswitchinterval(SWITCH_S)
        if replicas is not None:
            await life.enter_async_context(store.announced(replicas, stop))
        grpc = await life.enter_async_context(listeners.grpc_side(settings, engine))
        ports = await life.enter_async_context(listeners.sides(settings, state, limiter, windows, page=page, look=look))
        await life.enter_async_context(stats.told(settings, state, page, stop))
        await life.enter_async_context(running("health", publish_health(state.health, watched), stop))

        # ready
        log.info(
            "listening",
            grpc=grpc,
            http=f"{settings.host}:{ports.http}",
            debug=f"{settings.debug_host}:{ports.debug}",
            version=__version__,
        )
        await stop.wait()

        # drain
        state.health.note(DRAINING, holds=True)
        log.info("draining", delay_s=settings.drain_delay_us / MICROSECONDS)
        stop.clear()
        await either(asyncio.sleep(settings.drain_delay_us / MICROSECONDS), stop.wait())
        watched.end_watches()
        await either(engine.stop(settings.drain_timeout_us / MICROSECONDS), stop.wait())

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
        denial_memory_keys=refusals.most_in(settings.local_cache_bytes) or settings.denial_memory_keys,
        plan_memory_bytes=settings.plan_memory_bytes,
        key_prefix=settings.cache_key_prefix,
        planner=ReferencePlanner if settings.reference_keys else Planner,
        header_names=settings.header_names,
        shadow_mode=settings.shadow_mode,
        dynamic_metadata=settings.response_dynamic_metadata,
        denial_log_every_s=settings.denial_log_every_us / MICROSECONDS,
    )
