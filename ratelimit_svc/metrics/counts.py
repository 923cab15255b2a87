"""What is counted: plain numbers, each class a metric whose fields are the words of its label."""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ratelimit_svc.model import OnStoreFailure

LATENCY_BOUNDS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)
"""From a Redis next door to one second; Envoy gives up after 20 ms by default."""


@dataclass(slots=True)
class Decisions:
    """How often a rule said what."""

    allowed: int = 0
    """It had room, and was charged."""
    denied: int = 0
    """It had none, and the request was denied for it. A request denied for another rule's sake is not counted here."""
    would_deny: int = 0
    """It had none, and the request passed all the same: it is in shadow mode, or another of its quotas had room."""
    overdrawn: int = 0
    """It had too little, and was charged all the same: a budget's cost that was known only afterwards."""
    refunded: int = 0
    """It was given hits back."""


@dataclass(slots=True)
class Compared:
    """How often a rule, and the algorithm that it is compared with, said what of the same request."""

    both_allow: int = 0
    both_deny: int = 0
    only_enforced_denies: int = 0
    """The algorithm that decides has no room, and the other has."""
    only_compared_denies: int = 0
    """The other way round."""


@dataclass(slots=True)
class RuleCounts:
    """One rule's decisions, counted in requests and in hits."""

    requests: Decisions = field(default_factory=Decisions)
    hits: Decisions = field(default_factory=Decisions)
    compared: Compared | None = None
    """None: it never was."""


@dataclass(slots=True)
class StoreFailures:
    """Requests that the store did not decide."""

    timeout: int = 0
    """Its answer was not there in time."""
    unavailable: int = 0
    """There is no connection, or it refuses."""
    late: int = 0
    """It was asked too late, and charged nothing."""
    bad_key: int = 0
    """A key held something that is not ours."""


@dataclass(slots=True)
class PolicyDecisions:
    """Requests that were decided without the store, by their rules' `on_store_failure`."""

    local: int = 0
    allow: int = 0
    deny: int = 0
    error: int = 0
    shed: int = 0
    """By any of them, at once, because too many requests were waiting, or for too long, or the process could not keep up."""

    def count(self, policy: OnStoreFailure) -> None:
        """Count one decision. By name: an outage is no hot path."""
        name = policy.name.lower()
        setattr(self, name, getattr(self, name) + 1)


@dataclass(slots=True)
class Loads:
    """Attempts to load rules."""

    ok: int = 0
    failed: int = 0


@dataclass(slots=True)
class Latency:
    """A histogram."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_US) + 1))
    """One per bound, of what is at most that and more than the bound before; the last has the rest."""
    sum_us: int = 0

    def observe(self, length_us: int) -> None:
        self.counts[bisect_left(LATENCY_BOUNDS_US, length_us)] += 1
        self.sum_us += length_us


def _zero() -> float:
    return 0


class Wire(NamedTuple):
    """What an engine knows of its callers."""

    connections: int
    calls: int
    """Under way."""
    faults: Mapping[str, int]
    """Connections ended for what their peers did, by HTTP/2's error code."""


class Loop(NamedTuple):
    """How the event loop keeps up."""

    lag_s: float = 0
    """The longest lag of the last one to two seconds."""
    late_s: float = 0
    """The sum of all lags."""
    shedding: bool = False


class OwedHits(NamedTuple):
    """What became of hits that were let pass while the store was away."""

    charged: int = 0
    """The store was told of them."""
    dropped: int = 0
    """There were too many."""


class StoreNode(NamedTuple):
    """How it stands with one server of the store."""

    breaker: int
    """0: closed, 1: half-open, 2: open."""
    opened: int
    """How often the breaker has been."""
    late: int
    """Answers that came when nobody waited for them any more."""
    late_s: float
    """How much later than that, all together."""
    up: bool = True
    """Whether there is a connection."""
    short: bool = False
    """Whether it has short windows only (REDIS_PERSECOND)."""


class XdsServer(NamedTuple):
    """How it stands with the server that rules come from."""

    connected: bool
    streams: int
    """How many there were."""


@dataclass(slots=True)
class Gauges:
    """What is read where it lives, when asked; each may be called from another thread."""

    queue_length: Callable[[], float] = _zero
    plan_memory_bytes: Callable[[], float] = _zero
    plan_memory_entries: Callable[[], float] = _zero
    memory_windows: Callable[[], float] = _zero
    memory_windows_forgotten: Callable[[], float] = _zero
    denials_remembered: Callable[[], float] = _zero
    wire: Callable[[], Wire | None] = lambda: None
    store_up: Callable[[], float] = _zero
    nodes: Callable[[], Mapping[str, StoreNode]] = dict
    """By their addresses."""
    owed_windows: Callable[[], float] = _zero
    owed_hits: Callable[[], OwedHits] = OwedHits
    replicas: Callable[[], float] = _zero
    beats_failed: Callable[[], float] = _zero
    loop: Callable[[], Loop] = Loop
    ready: Callable[[], float] = _zero
    xds: Callable[[], XdsServer | None] = lambda: None
    """None: rules are in files."""
    health_checks: Callable[[], int] = int
    """How often `grpc.health.v1` was asked."""
