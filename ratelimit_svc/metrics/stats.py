"""The reference implementation's names, as statsd has them, and where their numbers come from.

    ratelimit.service.rate_limit.<full key>.<count>          `reference.KeyCounts`, by its fields' names
    ratelimit.service.call.should_rate_limit.<error>         redis_error, service_error
    ratelimit.service.<count>                                config_load_success, config_load_error, global_shadow_mode
    ratelimit_server.<method>.total_requests, .response_time
    ratelimit.redis_pool.cx_active, ratelimit.redis_per_second_pool.cx_active, ratelimit.localcache.<count>

A counter that is 0 is not told, as there. What describes the Go process (`ratelimit.go.*`, `runtime.*`) has no equal here.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import NamedTuple

from ratelimit_svc.metrics import Metrics
from ratelimit_svc.metrics.reference import KeyCounts
from ratelimit_svc.metrics.times import TimesRead

_COUNTS = tuple(each.name for each in fields(KeyCounts))


class Counter(NamedTuple):
    """What only grows."""

    name: str
    value: int


class Gauge(NamedTuple):
    """What goes up and down."""

    name: str
    value: float


class Timer(NamedTuple):
    """How long things took."""

    name: str
    times: TimesRead


Stat = Counter | Gauge | Timer


def stats(metrics: Metrics, *, shadow_mode: bool = False) -> Iterator[Stat]:
    """Return all numbers that are not 0. In any thread.

    Args:
        metrics: has them, if it counts for the reference implementation; else there are none.
        shadow_mode: whether nobody is denied (SHADOW_MODE).
    """
    for stat in _all(metrics, shadow_mode=shadow_mode):
        if not isinstance(stat, Counter) or stat.value:
            yield stat


def _all(metrics: Metrics, *, shadow_mode: bool) -> Iterator[Stat]:
    reference = metrics.reference
    if reference is None:
        return
    for key, counts in list(reference.keys.items()):  # a copy: another thread may add a key meanwhile
        for name in _COUNTS:
            if value := getattr(counts, name):
                yield Counter(f"ratelimit.service.rate_limit.{key}.{name}", value)
    decided = metrics.policy_decisions
    errors = decided.local + decided.allow + decided.deny + decided.error
    yield Counter("ratelimit.service.call.should_rate_limit.redis_error", errors)
    yield Counter("ratelimit.service.call.should_rate_limit.service_error", metrics.bad_requests)
    yield Counter("ratelimit.service.config_load_success", metrics.rules_loads.ok)
    yield Counter("ratelimit.service.config_load_error", metrics.rules_loads.failed)
    yield Counter("ratelimit.service.global_shadow_mode", metrics.over_limit if shadow_mode else 0)
    yield from _method("ShouldRateLimit", metrics.requests, reference.times.read(metrics.bad_requests))
    checks = metrics.gauges.health_checks()
    yield from _method("Check", checks, TimesRead({0: checks}))
    nodes = metrics.gauges.nodes().values()
    for pool, short in (("redis_pool", False), ("redis_per_second_pool", True)):
        if ups := [node.up for node in nodes if node.short is short]:
            yield Gauge(f"ratelimit.{pool}.cx_active", sum(ups))
    if reference.local_cache:
        yield Gauge("ratelimit.localcache.entryCount", metrics.gauges.denials_remembered())
        yield Gauge("ratelimit.localcache.hitCount", metrics.denied_from_memory)


def _method(name: str, requests: int, times: TimesRead) -> Iterator[Stat]:
    if requests:
        yield Counter(f"ratelimit_server.{name}.total_requests", requests)
        yield Timer(f"ratelimit_server.{name}.response_time", times)
