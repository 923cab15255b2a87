"""Mapping: statsd's names become names and labels as statsd_exporter makes them, by the usual rules or a file's."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ratelimit_svc.errors import RulesError
from ratelimit_svc.metrics import Metrics, mapping_file
from ratelimit_svc.metrics.counts import StoreNode
from ratelimit_svc.metrics.exposition import expose
from ratelimit_svc.metrics.mapping import COUNTER, GAUGE, OBSERVER, Mapper, usual
from ratelimit_svc.metrics.page import Page
from ratelimit_svc.metrics.reference import KeyCounts
from ratelimit_svc.metrics.stats import Counter, Gauge, Timer, stats
from ratelimit_svc.metrics.times import TimesRead
from ratelimit_svc.rules.files import RuleFile

KEYS = "ratelimit.service.rate_limit"


def mapper_of(text: str) -> Mapper:
    return Mapper(mapping_file.load(RuleFile("conf.yaml", text.encode())))


def mapped(mapper: Mapper, name: str, kind: str = COUNTER) -> str:
    """The name and the labels, as Prometheus shows them; empty where nothing is told."""
    found = mapper.of(name, kind)
    if found is None:
        return ""
    labels = ",".join(f"{label}={value}" for label, value in found.labels)
    return f"{found.name}{{{labels}}}" if labels else found.name


USUAL = {
    f"{KEYS}.shop.tenant_a.total_hits": "ratelimit_service_rate_limit_total_hits{domain=shop,key1=tenant_a}",
    f"{KEYS}.shop.a.b.over_limit": "ratelimit_service_rate_limit_over_limit{domain=shop,key1=a,key2=b}",
    f"{KEYS}.shop.a.b.c.d.near_limit": "ratelimit_service_rate_limit_near_limit{domain=shop,key1=a,key2=b}",
    f"{KEYS}.my.shop.a.within_limit": "ratelimit_service_rate_limit_within_limit{domain=my,key1=shop,key2=a}",
    f"{KEYS}.shop.a..shadow_mode": "ratelimit_service_rate_limit_shadow_mode{domain=shop,key1=a,key2=}",
    f"{KEYS}.shop.a_é*.over_limit_with_local_cache": "ratelimit_service_rate_limit_shop_a____over_limit_with_local_cache",
    f"{KEYS}.shop.a.b.over_limit_with_local_cache": "ratelimit_service_rate_limit_shop_a_b_over_limit_with_local_cache",
    f"{KEYS}.shop.domain_not_found": "ratelimit_service_rate_limit_shop_domain_not_found",
    "ratelimit.service.call.should_rate_limit.redis_error": "ratelimit_service_should_rate_limit_error{err_type=redis_error}",
    "ratelimit.service.config_load_success": "ratelimit_service_config_load_success",
    "ratelimit.service.config_load_error": "ratelimit_service_config_load_error",
    "ratelimit.service.global_shadow_mode": "ratelimit_service_global_shadow_mode",
    "ratelimit_server.Check.total_requests": "ratelimit_service_total_requests{grpc_method=Check}",
    "ratelimit.redis_pool.cx_active": "ratelimit_redis_pool_cx_active",
    "1st.of": "_1st_of",
}


@pytest.mark.parametrize(("name", "expected"), USUAL.items())
def test_the_usual_rules(name: str, expected: str) -> None:
    """Two levels are labels; of a deeper one, and of a value with a dot, the first two. Else the name tells."""
    assert mapped(Mapper(usual()), name) == expected


def test_a_file() -> None:
    """Globs go before regular expressions, and of each the first in the file that fits, also the kind of number."""
    mapper = mapper_of(r"""
        defaults: {match_type: glob, observer_type: histogram, histogram_options: {buckets: [1, 2]}}
        mappings:
          - {match: '^a\.(?P<rest>.*)', match_type: regex, name: by_regex, labels: {rest: "${rest}", gone: "$7", both: "${1}_$1"}}
          - {match: "a.*.timer", match_metric_type: timer, name: "times_$1", scale: 0.001}
          - {match: "a.*.*", name: "by_glob_${1}", labels: {second: "$2"}, help: What it is.}
          - {match: "a.b.c", name: never}
          - {match: "gone.*", name: gone, action: drop}
          - {match: "own", name: own, timer_type: histogram, buckets: [0.5, 5]}
    """)
    assert mapped(mapper, "a.b.c") == "by_glob_b{second=c}"
    assert mapped(mapper, "a.b.timer") == "by_glob_b{second=timer}"
    assert mapped(mapper, "a.b.timer", OBSERVER) == "times_b"
    assert mapped(mapper, "a.b") == "by_regex{both=b_b,gone=,rest=b}"
    assert mapped(mapper, "gone.x") == ""
    assert mapped(mapper, "other-one.x", GAUGE) == "other_one_x"
    found = [mapper.of(name, OBSERVER) for name in ("a.b.timer", "own", "other")]
    assert [one and (one.buckets, one.scale) for one in found][:2] == [((1, 2), 0.001), ((0.5, 5), 1)]
    assert found[2] is not None
    assert len(found[2].buckets) == 11


def test_the_kind_of_match_has_a_default() -> None:
    """The file's own, which each mapping may differ from."""
    mapper = mapper_of(r"""
        defaults: {match_type: regex}
        mappings:
          - {match: 'x(.)', name: "by_regex_$1"}
          - {match: "a.*", match_type: glob, name: "by_glob_$1"}
    """)
    assert (mapped(mapper, "b.xy"), mapped(mapper, "a.xy")) == ("by_regex_y", "by_glob_xy")


WRONG = {
    "mappings: [{match: a.*b, name: x}]": "conf.yaml:1: mappings[0]: `match` 'a.*b' is no glob: each part between dots is `*`",
    "mappings: [{match: '(', name: x, match_type: regex}]": "`match` '(' is no regular expression: missing )",
    "mappings:\n- match: a\n": "conf.yaml:2: mappings[0]: `name` is missing; every mapping has one",
    "mappings:\n- match: a\n  name: 3\n": "conf.yaml:3: mappings[0].name: '3' is no name of a metric; write letters",
    "mappings:\n- match: a\n  name: x\n  ttl: 5m\n": "conf.yaml:4: mappings[0].ttl: `ttl` is not supported here; there are match, name",
    "mappings: [{match: a, name: x, observer_type: summary}]": "mappings[0].observer_type: 'summary' is not supported; write one of histogram",
    "mappings: [{match: a, name: x, labels: {a-b: c}}]": "mappings[0].labels: 'a-b' is no label; write letters, digits and _",
    "mappings: [{match: a, name: x, buckets: [2, 1]}]": "mappings[0].buckets: the buckets' bounds must rise",
    "mappings: [{match: a, name: x, scale: fast}]": "mappings[0].scale: 'fast' is no number",
    "mappings: [a]": "mappings[0]: 'a' stands where a mapping is expected",
    "mappings: {a: b}": "mappings: a mapping stands where a list is expected",
    "defaults: {glob_disable_ordering: true}": "glob_disable_ordering: 'true' is not supported; write one of false",
    "mapping: []": "conf.yaml:1: mapping: `mapping` is no key of a mapping file; there are mappings, defaults",
    "": "conf.yaml: holds no `mappings`; write one for each name, or unset it",
    "mappings: [": "conf.yaml:1: not YAML",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_is_wrong_is_told_with_its_place(text: str, message: str) -> None:
    """File, line, place, what is there and what may be."""
    with pytest.raises(RulesError) as error:
        mapper_of(text)
    assert message in str(error.value)


# ── as text ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_becomes_one_series_is_summed() -> None:
    """Deeper levels are, as the reference does it."""
    text = expose([Counter(f"{KEYS}.d.a.b.{deep}.total_hits", 2) for deep in "xyz"], Mapper(usual()))
    assert text.splitlines()[2:] == ['ratelimit_service_rate_limit_total_hits{domain="d",key1="a",key2="b"} 6']


def test_times_are_a_histogram() -> None:
    """By the reference's buckets, in seconds; or in milliseconds, under the same name."""
    timer = Timer("ratelimit_server.ShouldRateLimit.response_time", TimesRead({0: 5, 5: 2, 6: 1, 20_000: 1}, 20_000.0))
    lines = expose([timer], Mapper(usual())).splitlines()
    name = 'ratelimit_service_response_time_seconds_{}{{grpc_method="ShouldRateLimit"{}}} {}'
    assert lines[1] == "# TYPE ratelimit_service_response_time_seconds histogram"
    assert lines[2:4] == [name.format("bucket", ',le="0.005"', 7), name.format("bucket", ',le="0.01"', 8)]
    assert lines[9] == name.format("bucket", ',le="1"', 8)
    assert lines[-3:] == [
        name.format("bucket", ',le="+Inf"', 9),
        name.format("sum", "", 20.0),
        name.format("count", "", 9),
    ]
    assert name.format("bucket", ',le="10"', 8) in expose([timer], Mapper(usual(milliseconds=True)))


def test_times_that_become_one_series_are_summed() -> None:
    """Bucket by bucket."""
    mapper = mapper_of("mappings: [{match: '*', name: same, buckets: [1, 5]}]")
    timers = [Timer("a", TimesRead({1: 2}, 2.0)), Timer("b", TimesRead({0: 1, 4: 1, 9: 1}, 13.0))]
    assert expose(timers, mapper).splitlines()[2:] == [
        'same_bucket{le="1"} 3',
        'same_bucket{le="5"} 4',
        'same_bucket{le="+Inf"} 5',
        "same_sum 15.0",
        "same_count 5",
    ]


def test_tags_are_labels_of_all() -> None:
    """The reference makes them a part of each name, and its mapping then fits nothing."""
    mapper = Mapper(usual(), {"env": "prod"})
    text = expose([Counter(f"{KEYS}.d.a.total_hits", 2), Gauge("ratelimit.redis_pool.cx_active", 1)], mapper)
    assert '_total_hits{domain="d",env="prod",key1="a"} 2\n' in text
    assert 'ratelimit_redis_pool_cx_active{env="prod"} 1\n' in text


def test_values_of_callers_break_no_line() -> None:
    """Quotes, backslashes and ends of lines are escaped."""
    text = expose([Counter(f'{KEYS}.d.a_"\\{chr(10)}.total_hits', 1)], Mapper(usual()))
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels["key1"] == 'a_"\\\n'


def test_a_name_is_of_one_kind() -> None:
    """What another mapping would make of it is not told, rather than a page that Prometheus refuses."""
    mapper = mapper_of("mappings: [{match: '*', name: same}]")
    assert expose([Counter("a", 1), Timer("b", TimesRead({1: 1})), Counter("c", 2)], mapper).splitlines()[1:] == [
        "# TYPE same counter",
        "same 3",
    ]


# ── where the numbers come from ───────────────────────────────────────────────────────────────────────────────────────


def told(metrics: Metrics, *, shadow_mode: bool = False) -> dict[str, float]:
    return {stat.name: stat.value for stat in stats(metrics, shadow_mode=shadow_mode) if not isinstance(stat, Timer)}


def test_what_is_zero_is_not_told() -> None:
    """A series is there from its first hit on, as in the reference; and nothing is where nobody reads."""
    metrics = Metrics()
    metrics.requests = 1
    assert told(metrics) == {}
    metrics.count_for_reference().keys["shop.a"] = KeyCounts(total_hits=2)
    assert told(metrics) == {
        "ratelimit.service.rate_limit.shop.a.total_hits": 2,
        "ratelimit_server.ShouldRateLimit.total_requests": 1,
    }


SHORT = {"c": StoreNode(0, 0, 0, 0, short=True), "d": StoreNode(0, 0, 0, 0, short=True)}
"""What REDIS_PERSECOND adds."""


def test_every_number() -> None:
    """Each of the process's, by the reference's name."""
    metrics = Metrics()
    counts = metrics.count_for_reference(local_cache=True)
    metrics.requests, metrics.bad_requests, metrics.over_limit, metrics.denied_from_memory = 9, 2, 3, 4
    metrics.policy_decisions.local = metrics.policy_decisions.error = 1
    metrics.rules_loads.ok, metrics.rules_loads.failed = 5, 6
    metrics.gauges.health_checks = lambda: 7
    metrics.gauges.nodes = lambda: {"a": StoreNode(0, 0, 0, 0), "b": StoreNode(0, 0, 0, 0, up=False)} | SHORT
    metrics.gauges.denials_remembered = lambda: 8
    counts.times.note([0.0, 0.001], 0.0025)
    assert told(metrics, shadow_mode=True) == {
        "ratelimit.service.call.should_rate_limit.redis_error": 2,
        "ratelimit.service.call.should_rate_limit.service_error": 2,
        "ratelimit.service.config_load_success": 5,
        "ratelimit.service.config_load_error": 6,
        "ratelimit.service.global_shadow_mode": 3,
        "ratelimit_server.ShouldRateLimit.total_requests": 9,
        "ratelimit_server.Check.total_requests": 7,
        "ratelimit.redis_pool.cx_active": 1,
        "ratelimit.redis_per_second_pool.cx_active": 2,
        "ratelimit.localcache.entryCount": 8,
        "ratelimit.localcache.hitCount": 4,
    }
    assert "ratelimit.service.global_shadow_mode" not in told(metrics)
    timers = {stat.name: stat.times for stat in stats(metrics) if isinstance(stat, Timer)}
    times = timers["ratelimit_server.ShouldRateLimit.response_time"]
    assert times.by_ms == {0: 2, 1: 1, 2: 1}
    assert times.sum_ms == pytest.approx(4.0)
    assert timers["ratelimit_server.Check.response_time"].by_ms == {0: 7}


def test_a_page_has_ours_and_the_references() -> None:
    """One page, which Prometheus can read to its end."""
    metrics = Metrics()
    metrics.count_for_reference().keys["shop.a"] = KeyCounts(total_hits=2)
    body, _ = Page(metrics, lambda: expose(stats(metrics), Mapper(usual()))).render()
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert {"ratelimit_svc_requests", "ratelimit_service_rate_limit_total_hits", "process_cpu_seconds"} <= names
