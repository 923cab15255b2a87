"""The store that the settings name, opened; and the replicas that share it, counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.reference_keys import not_shared
from ratelimit_svc.model import MICROSECONDS
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.server.background import running
from ratelimit_svc.settings import Settings
from ratelimit_svc.state import State
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.store.redis.replicas import Replicas
from ratelimit_svc.store.redis.spread import SpreadStore
from ratelimit_svc.store.redis.which import store_at

MOST_TOLD = 20
"""Rules that one line of the log names."""

Opened = MemoryStore | RedisStore | SpreadStore

log = structlog.get_logger()


@asynccontextmanager
async def opened(settings: Settings, state: State, local: MemoryStore) -> AsyncIterator[Opened]:
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


def tell_not_shared(rules: RuleSet) -> None:
    """Tell of rules whose windows the reference implementation has not, so that nobody takes them for shared with it."""
    found = not_shared(rules)
    if found:
        log.warning(
            "REDIS_KEY_FORMAT=reference: these rules count in keys of their own, for the reference implementation has no such windows",
            rules=found[:MOST_TOLD],
            others=len(found[MOST_TOLD:]),
        )


def counting(settings: Settings, state: State, limiter: Limiter, store: Opened) -> Replicas | None:
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
async def announced(replicas: Replicas, stop: asyncio.Event) -> AsyncIterator[None]:
    """Count the replicas, and be one of them, for as long as the context lasts."""
    await replicas.beat()
    try:
        async with running("replicas", replicas.keep(), stop):
            yield
    finally:
        await replicas.leave()
