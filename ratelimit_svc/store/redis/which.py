"""Which store: by where Redis is."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ratelimit_svc.breaker import BreakerState
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.store.redis.cluster import Cluster
from ratelimit_svc.store.redis.per_second import PerSecond
from ratelimit_svc.store.redis.spread import SpreadStore
from ratelimit_svc.store.redis.where import Kind, Where


def store_at(
    where: Where,
    per_second: Where | None = None,
    *,
    timeout_s: float,
    latency_s: float,
    key_prefix: str,
    on_up: Callable[[list[str]], None],
    on_down: Callable[[str], None],
    on_change: Callable[[str, BreakerState, str], None],
) -> RedisStore | SpreadStore:
    """Return the store, not opened yet.

    Args:
        where: the usual Redis.
        per_second: one for windows shorter than a minute; None: they are in the usual one, too.
        timeout_s: how long a take may be waited for.
        latency_s: the longest that an answer in time takes, for the breakers.
        key_prefix: put before the keys that are the store's own.
        on_up: called with a list of warnings when it begins to answer, and when what is away of it has changed.
        on_down: called with the reason when none of it answers any more.
        on_change: called with a node's address, and what its breaker tells, when that opens and closes.
    """
    of = partial(_of, timeout_s=timeout_s, latency_s=latency_s, key_prefix=key_prefix, on_change=on_change)
    if per_second is None:
        alone = of(where, on_up=on_up, on_down=on_down)
        return SpreadStore(alone) if isinstance(alone, Cluster) else alone

    untold: list[str] = []

    def tell() -> None:
        if not both.opened:
            return
        away = both.away()
        # a Cluster's warnings have what is away of it
        warnings = [each for each in untold if not any(one.endswith(each) for one in away)]
        untold.clear()
        if both.up:
            on_up([*warnings, *away])
        else:
            on_down("; ".join(away))

    def on_either_up(warnings: list[str]) -> None:
        untold.extend(warnings)
        tell()

    def on_either_down(_: str) -> None:
        tell()

    either = (of(each, on_up=on_either_up, on_down=on_either_down) for each in (where, per_second))
    both = PerSecond(*either, on_open=tell)
    return SpreadStore(both)


def _of(where: Where, **options: Any) -> RedisStore | Cluster:
    make: Callable[..., RedisStore | Cluster] = Cluster if where.kind is Kind.CLUSTER else RedisStore
    return make(where, **options)
