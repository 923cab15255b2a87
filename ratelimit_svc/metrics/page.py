"""The page: every metric's name, once, and where its numbers come from.

`TABLE` is all there is of ours: name, labels, one sentence. What the process, the interpreter and its garbage collector say is
added under the Prometheus library's own names.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ratelimit_svc.metrics import Metrics
from ratelimit_svc.metrics.counts import (
    LATENCY_BOUNDS_US,
    Compared,
    Decisions,
    Latency,
    Loads,
    PolicyDecisions,
    RuleCounts,
    StoreFailures,
    StoreNode,
    Wire,
    XdsServer,
)
from ratelimit_svc.model import MICROSECONDS

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


def _each(counts: StoreFailures | PolicyDecisions | Loads | Decisions | Compared, *before: str) -> Samples:
    """Read a class of counts: the name of each is its label."""
    return [((*before, each.name), getattr(counts, each.name)) for each in fields(counts)]


def _wire(read: Callable[[Wire], Samples]) -> Callable[[Metrics], Samples]:
    """Read what the engine says; nothing where it does not know."""
    return lambda metrics: () if (wire := metrics.gauges.wire()) is None else read(wire)


def _xds(read: Callable[[XdsServer], float]) -> Callable[[Metrics], Samples]:
    """Read what is known of the xDS server; nothing where rules are in files."""
    return lambda metrics: () if (server := metrics.gauges.xds()) is None else [((), read(server))]


def _each_node(read: Callable[[StoreNode], float]) -> Callable[[Metrics], Samples]:
    """Read what the store says of its servers, under their addresses; nothing where it has none."""
    return lambda metrics: [((address,), read(node)) for address, node in metrics.gauges.nodes().items()]


def _each_rule(read: Callable[[RuleCounts], Decisions]) -> Callable[[Metrics], Samples]:
    def samples(metrics: Metrics) -> Iterator[tuple[tuple[str, ...], float]]:
        for rule, counts in list(metrics.rules.items()):  # a copy: another thread may add a rule meanwhile
            yield from _each(read(counts), rule)

    return samples


def _compared(metrics: Metrics) -> Iterator[tuple[tuple[str, ...], float]]:
    for rule, counts in list(metrics.rules.items()):
        if counts.compared is not None:
            yield from _each(counts.compared, rule)


COUNTERS = (
    Row("ratelimit_svc_requests_total", "Requests received.", _one(lambda m: m.requests)),
    Row("ratelimit_svc_bad_requests_total", "Requests refused for what they say.", _one(lambda m: m.bad_requests)),
    Row(
        "ratelimit_svc_over_limit_total",
        "Requests over their limits: denied, unless SHADOW_MODE lets them pass.",
        _one(lambda m: m.over_limit),
    ),
    Row(
        "ratelimit_svc_denied_from_memory_total",
        "Requests denied without asking the store: it had just denied as much (DENIAL_MEMORY_KEYS).",
        _one(lambda m: m.denied_from_memory),
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
        "ratelimit_svc_compare_decisions_total",
        "Requests of a rule that is compared with another algorithm (compare): what the two say; the enforced one decides.",
        _compared,
        ("rule", "decision"),
    ),
    Row(
        "ratelimit_svc_policy_decisions_total",
        "Requests decided without the store, by on_store_failure; shed: at once, since too many waited, or too long, or the loop lags.",
        lambda m: _each(m.policy_decisions),
        ("policy",),
    ),
    Row(
        "ratelimit_svc_store_failures_total",
        "Requests that the store did not decide: timeout, unavailable, late (nobody waited any more), bad_key (it holds something else).",
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
    Row(
        "ratelimit_svc_breaker_opened_total",
        "How often a server of the store was no longer called since it failed, or was slow.",
        _each_node(lambda node: node.opened),
        ("node",),
    ),
    Row(
        "ratelimit_svc_store_late_answers_total",
        "Answers of a server of the store that came when nobody waited for them any more.",
        _each_node(lambda node: node.late),
        ("node",),
    ),
    Row(
        "ratelimit_svc_store_late_seconds_total",
        "How much later than that they came, all together.",
        _each_node(lambda node: node.late_s),
        ("node",),
    ),
    Row(
        "ratelimit_svc_owed_hits_total",
        "Hits let pass without the store that it was told of since (charged), or that were too many to be kept for it (dropped).",
        lambda m: [((outcome,), hits) for outcome, hits in m.gauges.owed_hits()._asdict().items()],
        ("outcome",),
    ),
    Row(
        "ratelimit_svc_replica_beats_failed_total",
        "Times that Redis did not hear that this replica is there: what was counted last stays.",
        _one(lambda m: m.gauges.beats_failed()),
    ),
    Row(
        "ratelimit_svc_loop_late_seconds_total",
        "How late the event loop was, all together.",
        _one(lambda m: m.gauges.loop().late_s),
    ),
    Row("ratelimit_svc_rules_loads_total", "Attempts to load rules.", lambda m: _each(m.rules_loads), ("result",)),
    Row(
        "ratelimit_svc_xds_streams_total",
        "Streams that the xDS server took (CONFIG_TYPE=GRPC_XDS_SOTW).",
        _xds(lambda server: server.streams),
    ),
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
    Row(
        "ratelimit_svc_denials_remembered",
        "Windows that are remembered to be full (DENIAL_MEMORY_KEYS).",
        _one(lambda m: m.gauges.denials_remembered()),
    ),
    Row("ratelimit_svc_grpc_connections", "Open (ENGINE=http2).", _wire(lambda wire: [((), wire.connections)])),
    Row("ratelimit_svc_grpc_calls", "Under way (ENGINE=http2).", _wire(lambda wire: [((), wire.calls)])),
    Row(
        "ratelimit_svc_breaker_state",
        "0 while a server of the store is called; 2: it is not, and the policies answer; 1: neither, but a probe is under way.",
        _each_node(lambda node: node.breaker),
        ("node",),
    ),
    Row(
        "ratelimit_svc_owed_windows",
        "Windows in which hits were let pass that the store has yet to be told of.",
        _one(lambda m: m.gauges.owed_windows()),
    ),
    Row(
        "ratelimit_svc_replicas",
        "Replicas that share each limit while the store is away: those counted, or REPLICAS if that is more.",
        _one(lambda m: m.gauges.replicas()),
    ),
    Row(
        "ratelimit_svc_loop_lag_seconds",
        "How late the event loop was at worst in the last one to two seconds.",
        _one(lambda m: m.gauges.loop().lag_s),
    ),
    Row(
        "ratelimit_svc_shedding",
        "1 while the event loop is so late that requests are answered without the store.",
        _one(lambda m: m.gauges.loop().shedding),
    ),
    Row("ratelimit_svc_store_up", "1 if the store answers.", _one(lambda m: m.gauges.store_up())),
    Row(
        "ratelimit_svc_xds_connected",
        "1 while there is a stream with the xDS server (CONFIG_TYPE=GRPC_XDS_SOTW).",
        _xds(lambda server: server.connected),
    ),
    Row("ratelimit_svc_ready", "1 if this replica is ready.", _one(lambda m: m.gauges.ready())),
)
STORE_LATENCY = ("ratelimit_svc_store_latency_seconds", "Time from a call of the store to its answer.")
TABLE = (*((row.name, row.help) for row in (*COUNTERS, *GAUGES)), STORE_LATENCY)
"""Every metric of ours: its name and its sentence."""


class Page:
    """What Prometheus reads of one process's metrics.

    Args:
        metrics: ours.
        more: what stands behind them, as text: the reference implementation's (`exposition`), where they are counted.
    """

    def __init__(self, metrics: Metrics, more: Callable[[], str] = str) -> None:
        self._more = more
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Reader(metrics))
        for collect in (ProcessCollector, PlatformCollector, GCCollector):
            collect(registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        """Return the page and its content type. May be called in another thread."""
        return generate_latest(self._registry) + self._more().encode(), CONTENT_TYPE_LATEST


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
