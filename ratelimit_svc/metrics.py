"""Every metric's name, once, and the counters behind them.

Rule 1: counting is adding to a plain int. Nothing on a request's way calls the Prometheus library; it reads when asked.
Rule 2: `TABLE` is all there is of ours: name, labels, one sentence, and where the numbers come from. What the process, the
        interpreter and its garbage collector say is added under the Prometheus library's own names.
Rule 3: labels are bounded: rules by `MOST_RULES`, those with callers' own values by `MOST_LABELS`, everything else by the words
        of its class below.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ratelimit_svc.model import MICROSECONDS, Charge, Grant, Kind, OnStoreFailure, Overdraft, Plan, Role

MOST_RULES = 2_000
"""Rules counted under their own id while the process lives, also those that a reload has removed. Each has six lines in a
page that takes 50 µs of CPU a rule: with 10 000 of them, half a second and 5 MB each time Prometheus asks."""

MOST_LABELS = 1_000
"""Labels with callers' own values in them (`detailed_metric`, `value_to_metric`): beyond, their rules are counted by their ids.
Callers choose these, so they have a number of their own, and take no other rule's place."""

OTHER_RULES = "other"
"""The label of the rules beyond."""

LATENCY_BOUNDS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)
"""From a Redis next door to one second; Envoy gives up after 20 ms by default."""


_GATE, _REFUND = Role.GATE, Kind.REFUND
"""By names of their own: to find a member in its class takes 50 ns, each time."""


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
class RuleCounts:
    """One rule's decisions, counted in requests and in hits."""

    requests: Decisions = field(default_factory=Decisions)
    hits: Decisions = field(default_factory=Decisions)


@dataclass(slots=True)
class StoreFailures:
    """Requests that the store did not decide."""

    timeout: int = 0
    """Its answer was not there in time."""
    unavailable: int = 0
    """There is no connection, or it refuses."""
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
    """By any of them, at once, because too many requests were waiting."""

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


@dataclass(slots=True)
class Gauges:
    """What is read where it lives, when asked; each may be called from another thread."""

    queue_length: Callable[[], float] = _zero
    plan_memory_bytes: Callable[[], float] = _zero
    plan_memory_entries: Callable[[], float] = _zero
    memory_windows: Callable[[], float] = _zero
    memory_windows_forgotten: Callable[[], float] = _zero
    wire: Callable[[], Wire | None] = lambda: None
    store_up: Callable[[], float] = _zero
    ready: Callable[[], float] = _zero


class Metrics:
    """All counters of the process. Whoever counts adds to them; `render` writes them out."""

    def __init__(self) -> None:
        self.requests = 0
        self.bad_requests = 0
        self.over_limit = 0
        self.batches = 0
        self.lines = 0
        self.plan_memory_misses = 0
        self.rules_loaded_at = 0.0
        """Unix time of the last rules that loaded."""
        self.store_latency = Latency()
        self.store_failures = StoreFailures()
        self.policy_decisions = PolicyDecisions()
        self.rules_loads = Loads()
        self.gauges = Gauges()
        self.rules: dict[str, RuleCounts] = {}
        self._labels = 0
        """How many of these are labels that hold callers' values."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Reader(self))
        for collect in (ProcessCollector, PlatformCollector, GCCollector):
            collect(registry=self._registry)

    def rule(self, label: str, rule_id: str = "") -> RuleCounts:
        """Return the counts of one rule, to be kept and added to: under its label while there is room, else under its id."""
        if (counts := self.rules.get(label)) is not None:
            return counts
        if rule_id and label != rule_id:
            if self._labels >= MOST_LABELS:
                return self.rule(rule_id)
            self._labels += 1
        elif len(self.rules) - self._labels >= MOST_RULES:
            return self._other()
        return self.rules.setdefault(label, RuleCounts())

    def _other(self) -> RuleCounts:
        if (counts := self.rules.get(OTHER_RULES)) is None:
            counts = self.rules[OTHER_RULES] = RuleCounts()
        return counts

    def granted(self, plan: Plan, grant: Grant, n: int = 1) -> None:
        """Count n requests that were charged, on each of their rules."""
        for place, charge in enumerate(plan.charges):
            fits = grant.outcomes[place].fits_in_us == 0
            if charge.kind is _REFUND:
                if charge.hits:  # else its rule forbids it
                    self._count(charge, "refunded", n)
            elif fits or (charge.role is _GATE and not grant.overdrawn):
                counts = self.rules.get(charge.label) or self.rule(charge.label, charge.rule.id)
                counts.requests.allowed += n
                counts.hits.allowed += n * charge.hits
            elif grant.overdrawn and charge.role is not Role.SHADOW and charge.overdraft is Overdraft.AUTO:
                self._count(charge, "overdrawn", n)
            else:
                self._count(charge, "would_deny", n)

    def denied(self, plan: Plan, places: Iterable[int], n: int = 1) -> None:
        """Count n requests that were denied on the rules that denied them (`verdicts.denying`); on the others nothing happened."""
        for place in places:
            self._count(plan.charges[place], "denied", n)

    def _count(self, charge: Charge, decision: str, n: int) -> None:
        """Count any decision by its name. The usual one is counted above, in half the time."""
        counts = self.rule(charge.label, charge.rule.id)
        setattr(counts.requests, decision, getattr(counts.requests, decision) + n)
        setattr(counts.hits, decision, getattr(counts.hits, decision) + n * charge.hits)

    def render(self) -> tuple[bytes, str]:
        """Return the page that Prometheus reads, and its content type. May be called in another thread."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values of labels, and the number."""


class Row(NamedTuple):
    """One metric."""

    name: str
    """As Prometheus shows it."""
    help: str
    read: Callable[[Metrics], Samples]
    labels: tuple[str, ...] = ()


def _one(read: Callable[[Metrics], float]) -> Callable[[Metrics], Samples]:
    return lambda metrics: [((), read(metrics))]


def _each(counts: StoreFailures | PolicyDecisions | Loads | Decisions, *before: str) -> Samples:
    """Read a class of counts: the name of each is its label."""
    return [((*before, each.name), getattr(counts, each.name)) for each in fields(counts)]


def _wire(read: Callable[[Wire], Samples]) -> Callable[["Metrics"], Samples]:
    """Read what the engine says; nothing where it does not know."""
    return lambda metrics: () if (wire := metrics.gauges.wire()) is None else read(wire)


def _each_rule(read: Callable[[RuleCounts], Decisions]) -> Callable[[Metrics], Samples]:
    def samples(metrics: Metrics) -> Iterator[tuple[tuple[str, ...], float]]:
        for rule, counts in list(metrics.rules.items()):  # a copy: another thread may add a rule meanwhile
            yield from _each(read(counts), rule)

    return samples


COUNTERS = (
    Row("ratelimit_svc_requests_total", "Requests received.", _one(lambda m: m.requests)),
    Row("ratelimit_svc_bad_requests_total", "Requests refused for what they say.", _one(lambda m: m.bad_requests)),
    Row(
        "ratelimit_svc_over_limit_total",
        "Requests over their limits: denied, unless SHADOW_MODE lets them pass.",
        _one(lambda m: m.over_limit),
    ),
    Row(
        "ratelimit_svc_rule_decisions_total",
        "Requests that a rule decided on: allowed, denied, would_deny (shadow mode, quotas), overdrawn, refunded.",
        _each_rule(lambda counts: counts.requests),
        ("rule", "decision"),
    ),
    Row(
        "ratelimit_svc_rule_hits_total",
        "Hits that a rule decided on: allowed, denied, would_deny (shadow mode, quotas), overdrawn, refunded.",
        _each_rule(lambda counts: counts.hits),
        ("rule", "decision"),
    ),
    Row(
        "ratelimit_svc_policy_decisions_total",
        "Requests decided without the store, by on_store_failure; shed: at once, since too many were waiting.",
        lambda m: _each(m.policy_decisions),
        ("policy",),
    ),
    Row(
        "ratelimit_svc_store_failures_total",
        "Requests that the store did not decide: timeout, unavailable, bad_key (it holds something else).",
        lambda m: _each(m.store_failures),
        ("kind",),
    ),
    Row("ratelimit_svc_store_batches_total", "Calls of the store.", _one(lambda m: m.batches)),
    Row("ratelimit_svc_store_lines_total", "Lines in these calls: equal requests share one.", _one(lambda m: m.lines)),
    Row(
        "ratelimit_svc_plan_memory_misses_total",
        "Requests whose meaning was not remembered, and had to be found.",
        _one(lambda m: m.plan_memory_misses),
    ),
    Row(
        "ratelimit_svc_grpc_faults_total",
        "Connections ended for what the caller did, by HTTP/2's error code (ENGINE=http2).",
        _wire(lambda wire: [((code,), ended) for code, ended in wire.faults.items()]),
        ("code",),
    ),
    Row("ratelimit_svc_rules_loads_total", "Attempts to load rules.", lambda m: _each(m.rules_loads), ("result",)),
)
GAUGES = (
    Row(
        "ratelimit_svc_rules_last_success_timestamp_seconds",
        "When the rules in force were loaded.",
        _one(lambda m: m.rules_loaded_at),
    ),
    Row("ratelimit_svc_queue_length", "Requests waiting for the store.", _one(lambda m: m.gauges.queue_length())),
    Row("ratelimit_svc_plan_memory_bytes", "Size of the plan memory.", _one(lambda m: m.gauges.plan_memory_bytes())),
    Row("ratelimit_svc_plan_memory_entries", "Plans remembered.", _one(lambda m: m.gauges.plan_memory_entries())),
    Row(
        "ratelimit_svc_memory_windows",
        "Windows in this process's memory: its share of the limits while the store is away, or all without Redis.",
        _one(lambda m: m.gauges.memory_windows()),
    ),
    Row(
        "ratelimit_svc_memory_windows_forgotten",
        "Windows forgotten before their end because there were too many (MEMORY_STORE_KEYS).",
        _one(lambda m: m.gauges.memory_windows_forgotten()),
    ),
    Row("ratelimit_svc_grpc_connections", "Open (ENGINE=http2).", _wire(lambda wire: [((), wire.connections)])),
    Row("ratelimit_svc_grpc_calls", "Under way (ENGINE=http2).", _wire(lambda wire: [((), wire.calls)])),
    Row("ratelimit_svc_store_up", "1 if the store answers.", _one(lambda m: m.gauges.store_up())),
    Row("ratelimit_svc_ready", "1 if this replica is ready.", _one(lambda m: m.gauges.ready())),
)
STORE_LATENCY = ("ratelimit_svc_store_latency_seconds", "Time from a call of the store to its answer.")
TABLE = (*((row.name, row.help) for row in (*COUNTERS, *GAUGES)), STORE_LATENCY)
"""Every metric of ours: its name and its sentence."""


class _Reader(Collector):
    """Hands the counters to the Prometheus library, each time it asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for kind, rows in ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES)):
            for row in rows:
                family = kind(row.name, row.help, labels=row.labels)
                for labels, value in row.read(self._metrics):
                    family.add_metric(labels, value)
                yield family
        yield self._latency(self._metrics.store_latency)

    def _latency(self, latency: Latency) -> Metric:
        bounds = [*(repr(bound / MICROSECONDS) for bound in LATENCY_BOUNDS_US), "+Inf"]
        family = HistogramMetricFamily(*STORE_LATENCY)
        family.add_metric([], list(zip(bounds, accumulate(latency.counts), strict=True)), latency.sum_us / MICROSECONDS)
        return family
