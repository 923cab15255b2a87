"""Metrics: all that are promised are there, nothing else is, and they add up."""

import re
from collections.abc import Iterable
from dataclasses import fields

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from ratelimit_svc.metrics import MOST_LABELS, MOST_RULES, OTHER_RULES, Metrics
from ratelimit_svc.metrics.counts import (
    LATENCY_BOUNDS_US,
    Compared,
    Decisions,
    Loop,
    OwedHits,
    StoreNode,
    Wire,
    XdsServer,
)
from ratelimit_svc.metrics.page import COUNTERS, GAUGES, STORE_LATENCY, TABLE, Page
from ratelimit_svc.model import Limit, Overdraft, Role, Rule, Unit
from tests.limiting import make, rules_of, sends, tell

FOREIGN = ("process_", "python_")


def families(metrics: Metrics) -> Iterable[Metric]:
    """Read the page as Prometheus does."""
    body, content_type = Page(metrics).render()
    assert content_type.startswith("text/plain; version=")
    return text_string_to_metric_families(body.decode())


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return all numbers by name and values of labels, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families(metrics)
        for sample in family.samples
    }


def test_the_table_is_what_is_exported() -> None:
    """Every metric of the table is exported under its name and sentence, and nothing else of ours is."""
    metrics = Metrics()
    metrics.rule("shop/tenant")
    exported = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.documentation
        for family in families(metrics)
        if not family.name.startswith(FOREIGN)
    }
    assert exported == dict(TABLE)
    assert len(TABLE) == len(dict(TABLE))


def test_every_metric_has_a_number() -> None:
    """Nothing is hidden until it happens for the first time: a rate over a counter that was not there is lost."""
    metrics = Metrics()
    metrics.rule("shop/tenant").compared = Compared()
    metrics.gauges.wire = lambda: Wire(connections=0, calls=0, faults={"PROTOCOL_ERROR": 0})
    metrics.gauges.nodes = lambda: {"redis:6379": StoreNode(0, 0, 0, 0)}
    metrics.gauges.xds = lambda: XdsServer(connected=False, streams=0)
    with_numbers = {family.name for family in families(metrics) if family.samples}
    assert {name.removesuffix("_total") for name, _ in TABLE} <= with_numbers


def test_names_follow_the_rules_of_prometheus() -> None:
    """Counters end in _total, others do not; what has a unit says a base unit."""
    for row in COUNTERS:
        assert re.fullmatch(r"ratelimit_svc_[a-z_]+_total", row.name)
    for row in GAUGES:
        assert re.fullmatch(r"ratelimit_svc_[a-z_]+(?<!_total)", row.name)
    assert STORE_LATENCY[0].endswith("_seconds")
    for name, text in TABLE:
        assert text.endswith("."), name
        assert not re.search("_(ms|us|milliseconds|microseconds)", name)


def test_process_is_there_too() -> None:
    """CPU, memory and garbage collection of the process are exported beside ours."""
    names = {family.name for family in families(Metrics())}
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "python_info", "python_gc_collections"} <= names


def test_two_do_not_meet() -> None:
    """Each Metrics has its own registry: two services in one process, as in tests, do not add up."""
    one, other = Metrics(), Metrics()
    one.requests += 1
    assert samples(one)["ratelimit_svc_requests_total",] == 1
    assert samples(other)["ratelimit_svc_requests_total",] == 0


def test_counters() -> None:
    """What was counted is what is shown, under the right name and label."""
    metrics = Metrics()
    metrics.requests, metrics.bad_requests, metrics.batches, metrics.lines = 1, 2, 3, 4
    metrics.plan_memory_misses, metrics.rules_loaded_at = 6, 1_700_000_000.5
    metrics.denied_from_memory = 5
    metrics.policy_decisions.local, metrics.policy_decisions.shed = 7, 8
    metrics.store_failures.timeout, metrics.store_failures.bad_key = 9, 10
    metrics.rules_loads.ok, metrics.rules_loads.failed = 11, 12
    found = {key: value for key, value in samples(metrics).items() if value and not key[0].startswith(FOREIGN)}
    assert found == {
        ("ratelimit_svc_requests_total",): 1,
        ("ratelimit_svc_bad_requests_total",): 2,
        ("ratelimit_svc_store_batches_total",): 3,
        ("ratelimit_svc_store_lines_total",): 4,
        ("ratelimit_svc_denied_from_memory_total",): 5,
        ("ratelimit_svc_plan_memory_misses_total",): 6,
        ("ratelimit_svc_rules_last_success_timestamp_seconds",): 1_700_000_000.5,
        ("ratelimit_svc_policy_decisions_total", "local"): 7,
        ("ratelimit_svc_policy_decisions_total", "shed"): 8,
        ("ratelimit_svc_store_failures_total", "timeout"): 9,
        ("ratelimit_svc_store_failures_total", "bad_key"): 10,
        ("ratelimit_svc_rules_loads_total", "ok"): 11,
        ("ratelimit_svc_rules_loads_total", "failed"): 12,
    }


def test_gauges_are_read_when_asked() -> None:
    """A gauge shows what its function says now."""
    metrics, waiting = Metrics(), [3]
    metrics.gauges.queue_length = lambda: len(waiting)
    metrics.gauges.plan_memory_bytes = lambda: 1024
    metrics.gauges.plan_memory_entries = lambda: 2
    metrics.gauges.store_up = lambda: True
    metrics.gauges.ready = lambda: False
    waiting.append(4)
    found = samples(metrics)
    assert found["ratelimit_svc_queue_length",] == 2
    assert found["ratelimit_svc_plan_memory_bytes",] == 1024
    assert found["ratelimit_svc_plan_memory_entries",] == 2
    assert found["ratelimit_svc_store_up",] == 1
    assert found["ratelimit_svc_ready",] == 0


def test_nodes_of_the_store() -> None:
    """Each server has its breaker's state and what came late, under its address; one that has left is not shown any more."""
    metrics = Metrics()
    nodes = {"one:6379": StoreNode(2, 3, 4, 0.5), "two:6379": StoreNode(0, 0, 0, 0)}
    metrics.gauges.nodes = lambda: nodes
    found = samples(metrics)
    assert found["ratelimit_svc_breaker_state", "one:6379"] == 2
    assert found["ratelimit_svc_breaker_opened_total", "one:6379"] == 3
    assert found["ratelimit_svc_store_late_answers_total", "one:6379"] == 4
    assert found["ratelimit_svc_store_late_seconds_total", "one:6379"] == 0.5
    assert found["ratelimit_svc_breaker_state", "two:6379"] == 0
    del nodes["one:6379"]
    assert [key[1] for key in samples(metrics) if key[0] == "ratelimit_svc_breaker_state"] == ["two:6379"]


def test_what_an_outage_leaves_and_how_the_loop_keeps_up() -> None:
    """Hits owed, replicas, and the loop's lag are shown as they are now, also those that only grow."""
    metrics = Metrics()
    metrics.gauges.owed_windows = lambda: 2
    metrics.gauges.owed_hits = lambda: OwedHits(charged=30, dropped=4)
    metrics.gauges.replicas = lambda: 5
    metrics.gauges.beats_failed = lambda: 6
    metrics.gauges.loop = lambda: Loop(lag_s=0.25, late_s=7.5, shedding=True)
    found = samples(metrics)
    assert found["ratelimit_svc_owed_windows",] == 2
    assert found["ratelimit_svc_owed_hits_total", "charged"] == 30
    assert found["ratelimit_svc_owed_hits_total", "dropped"] == 4
    assert found["ratelimit_svc_replicas",] == 5
    assert found["ratelimit_svc_replica_beats_failed_total",] == 6
    assert found["ratelimit_svc_loop_lag_seconds",] == 0.25
    assert found["ratelimit_svc_loop_late_seconds_total",] == 7.5
    assert found["ratelimit_svc_shedding",] == 1


def test_rules() -> None:
    """A rule's decisions are counted in requests and in hits, under its id whatever that holds."""
    metrics = Metrics()
    rule_id = 'shop/tenant="a\\b"\n'
    counts = metrics.rule(rule_id)
    counts.requests.allowed += 2
    counts.hits.allowed += 20
    counts.requests.denied += 1
    counts.hits.would_deny += 5
    assert metrics.rule(rule_id) is counts
    found = samples(metrics)
    assert found["ratelimit_svc_rule_decisions_total", "allowed", rule_id] == 2
    assert found["ratelimit_svc_rule_decisions_total", "denied", rule_id] == 1
    assert found["ratelimit_svc_rule_decisions_total", "would_deny", rule_id] == 0
    assert found["ratelimit_svc_rule_hits_total", "allowed", rule_id] == 20
    assert found["ratelimit_svc_rule_hits_total", "would_deny", rule_id] == 5


FIVE = Limit(5, Unit.MINUTE)
COUNTED = [
    ("gate", ["d0 2"], {"d0 allowed": (1, 2)}),
    ("gate, full", ["d0 5", "d0 2"], {"d0 allowed": (1, 5), "d0 denied": (1, 2)}),
    ("check", ["d0 check"], {"d0 allowed": (1, 0)}),
    ("check of a full one", ["d0 5", "d0 check"], {"d0 allowed": (1, 5), "d0 denied": (1, 0)}),
    ("refund", ["d0 5", "d0 refund 2"], {"d0 allowed": (1, 5), "d0 refunded": (1, 2)}),
    ("overdraft", ["d0 check", "d0 4", "d0 3"], {"d0 allowed": (2, 4), "d0 overdrawn": (1, 3)}),
    ("shadow", ["d1 5", "d1 2"], {"d1 allowed": (1, 5), "d1 would_deny": (1, 2)}),
    ("denied for another's sake", ["d0 5", "d0 1; d3 1"], {"d0 allowed": (1, 5), "d0 denied": (1, 1)}),
    (
        "quota beside one with room",
        ["d2 5", "d2 1; d4 1"],
        {"d2 allowed": (1, 5), "d2 would_deny": (1, 1), "d4 allowed": (1, 1)},
    ),
    ("quotas", ["d2 5", "d2 1"], {"d2 allowed": (1, 5), "d2 denied": (1, 1)}),
    (
        "a full gate beside quotas of which one has room",
        ["d2 5", "d0 5", "d0 1; d2 1; d4 1"],
        {"d0 allowed": (1, 5), "d2 allowed": (1, 5), "d0 denied": (1, 1)},
    ),
    ("always", ["d3 9"], {"d3 allowed": (1, 9)}),
    (
        "always beside a denial",
        ["d3 9", "d0 5", "d0 1; d3 1"],
        {"d3 allowed": (1, 9), "d0 allowed": (1, 5), "d0 denied": (1, 1)},
    ),
    ("brought along", ["d0 2 of own 3"], {"d0#override allowed": (1, 2)}),
]


@pytest.mark.parametrize(("requests", "expected"), [row[1:] for row in COUNTED], ids=[row[0] for row in COUNTED])
async def test_what_is_counted(held, requests: list[str], expected: dict[str, tuple[int, int]]) -> None:
    """Of each rule its decisions, in requests and in hits; a request that is denied counts on the rules that denied it."""
    rules = [
        Rule(f"d{place}", FIVE, role, overdraft=overdraft)
        for place, (role, overdraft) in enumerate(
            [
                (Role.GATE, Overdraft.AUTO),
                (Role.SHADOW, Overdraft.AUTO),
                (Role.QUOTA, Overdraft.AUTO),
                (Role.GATE, Overdraft.ALWAYS),
                (Role.QUOTA, Overdraft.AUTO),
            ]
        )
    ]
    limiter = make(held, rules=rules_of(*((rule,) for rule in rules)))
    for one in requests:
        await tell(limiter, sends(*one.split("; ")))
    found = {
        f"{rule} {each.name}": (getattr(counts.requests, each.name), getattr(counts.hits, each.name))
        for rule, counts in limiter._metrics.rules.items()
        for each in fields(Decisions)
    }
    assert {what: numbers for what, numbers in found.items() if numbers != (0, 0)} == expected


def test_rules_are_bounded() -> None:
    """Beyond the bound, rules are counted together as `other`; those before keep their own counts."""
    metrics = Metrics()
    for number in range(MOST_RULES + 10):
        metrics.rule(f"shop/{number}").requests.allowed += 1
    found = samples(metrics)
    assert len(metrics.rules) == MOST_RULES + 1
    assert found["ratelimit_svc_rule_decisions_total", "allowed", "shop/0"] == 1
    assert found["ratelimit_svc_rule_decisions_total", "allowed", OTHER_RULES] == 10


@pytest.mark.parametrize(
    ("length_us", "bucket"),
    [(0, "0.0001"), (100, "0.0001"), (101, "0.00025"), (1_000_000, "1.0"), (1_000_001, "+Inf"), (10**9, "+Inf")],
)
def test_latency_bucket(length_us: int, bucket: str) -> None:
    """A length falls into the first bucket that it does not exceed, and counts in all above."""
    metrics = Metrics()
    metrics.store_latency.observe(length_us)
    found = samples(metrics)
    buckets = [key[1] for key in found if key[0] == "ratelimit_svc_store_latency_seconds_bucket"]
    filled = [each for each in buckets if found["ratelimit_svc_store_latency_seconds_bucket", each]]
    assert filled == buckets[buckets.index(bucket) :]
    assert len(buckets) == len(LATENCY_BOUNDS_US) + 1


def test_latency_sum() -> None:
    """Sum and count are those of all lengths, in seconds."""
    metrics = Metrics()
    for length_us in (250, 750, 1_500_000):
        metrics.store_latency.observe(length_us)
    found = samples(metrics)
    assert found["ratelimit_svc_store_latency_seconds_count",] == 3
    assert found["ratelimit_svc_store_latency_seconds_sum",] == pytest.approx(1.501)


def test_labels_of_callers_take_no_rules_place():
    """However many values callers send, each rule keeps its own counts, and theirs go on under their rule's id."""
    metrics = Metrics()
    for number in range(3 * MOST_RULES):
        metrics.rule(f"d/t={number}", "d/t").requests.allowed += 1
    metrics.rule("d/pay").requests.denied += 1
    assert metrics.rules["d/pay"].requests.denied == 1
    assert metrics.rules["d/t"].requests.allowed == 3 * MOST_RULES - MOST_LABELS
    assert len(metrics.rules) == MOST_LABELS + 2
