"""The load test without ghz: what its profiles mean, and how what was seen is judged. With ghz: tests/tools."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.json_format import ParseDict

from ratelimit_svc.demo import shipped
from ratelimit_svc.loadtest import calls, charts, profile, thresholds
from ratelimit_svc.loadtest.counters import Counts, Look, fullest, read
from ratelimit_svc.loadtest.report import page
from ratelimit_svc.loadtest.result import Result, as_json
from ratelimit_svc.loadtest.tenants import Zipf
from ratelimit_svc.loadtest.thresholds import Thresholds, Window
from ratelimit_svc.loadtest.watch import pages_of
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.metrics.page import Page
from ratelimit_svc.model import Unit
from ratelimit_svc.pb.envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest
from ratelimit_svc.rules.files import read as read_rules
from ratelimit_svc.rules.load import load

ROOT = Path(__file__).parents[1]
LOADTEST = ROOT / "deploy/loadtest"
PROFILES = sorted((LOADTEST / "profiles").glob("*.json"))
NAMES = {"steady", "ramp", "burst", "surge", "zipf", "unique", "connections", "denials"}
MS = 1000
SECOND = 1000 * MS

# ── what is sent ──────────────────────────────────────────────────────────────────────────────────────────────────────


def requests_of(one):
    """The requests of a profile, as ghz would read them."""
    data = list(one.zipf.drawn()) if one.zipf else one.settings["data"]
    return data if isinstance(data, list) else [data]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profiles_ask_as_envoy_does(path):
    """Each sends requests of the contracts, calls a method that its protoset has, and gives up after Envoy's 20 ms."""
    one = profile.read(path)
    assert {ParseDict(request, RateLimitRequest()).domain for request in requests_of(one)} == {"shop"}
    assert one.settings["timeout"] == "20ms"
    files = FileDescriptorSet.FromString((one.folder / one.settings["protoset"]).read_bytes())
    methods = {f"{file.package}.{x.name}/{m.name}" for file in files.file for x in file.service for m in x.method}
    assert one.settings["call"] in methods


def test_there_is_a_profile_for_each_kind_of_load():
    """And the thresholds are of profiles that exist."""
    assert {path.stem for path in PROFILES} == NAMES
    assert json.loads((LOADTEST / "thresholds.json").read_text()).keys() <= NAMES | {"all"}


def test_the_windows_that_are_judged_are_those_of_the_shipped_rules():
    """Bounds and lengths are the demo's, and each of these rules has one window."""
    rules = {rule.id: rule for rule in load(read_rules(shipped("demo.yaml"))).rules}
    for name in NAMES:
        for rule, window in (thresholds.read(LOADTEST / "thresholds.json", name).windows or {}).items():
            limit = rules[rule].limit
            assert limit
            assert (limit.requests_per_unit, limit.unit) == (window.most, Unit.SECOND)
            assert window.seconds == 1
            assert rule.partition("=")[2] in {"bronze", "silver", "gold"}


def test_the_surge_is_from_one_thousand_to_five_within_seconds():
    """1 000 in the first second, a thousand more in each that follows, then 5 000 to the end."""
    settings = profile.read(LOADTEST / "profiles/surge.json").settings
    sent = [profile.sent_until(settings, second) for second in range(7)]
    assert [after - before for before, after in pairwise(sent)] == [
        1000,
        2000,
        3000,
        4000,
        5000,
        5000,
    ]


def test_what_is_planned_is_what_the_schedule_means():
    """A constant rate, a line that begins again to be constant, one that falls, a number, and as fast as it goes."""
    line = {"load-schedule": "line", "load-start": 100, "load-step": 50, "load-end": 200}
    falling = {
        "load-schedule": "step",
        "load-step-duration": "500ms",
        "load-start": 30,
        "load-step": -10,
        "load-end": 10,
    }
    assert profile.sent_until({"rps": 40}, 2.5) == 100
    assert profile.sent_until(line, 4.5) == 100 + 150 + 200 + 200 + 100
    assert profile.sent_until(falling, 2) == 15 + 10 + 5 + 5
    assert profile.Profile("all there is", LOADTEST, {"duration": "10s"}).planned() is None
    assert profile.read(LOADTEST / "profiles/burst.json").planned() == 5000
    assert profile.read(LOADTEST / "profiles/steady.json").planned() == 30_000


def test_settings_can_be_changed_from_outside():
    """Numbers as numbers, words as words; what is no `key=value` is refused."""
    one = profile.read(LOADTEST / "profiles/steady.json", ["rps=7", "duration=1m30s"])
    assert one.planned() == 7 * 90
    with pytest.raises(ValueError, match="key=value is needed"):
        profile.read(LOADTEST / "profiles/steady.json", ["rps"])
    with pytest.raises(ValueError, match="as in 20ms, 10s or 1m30s"):
        profile.seconds("10")


def test_tenants_follow_zipfs_law():
    """The same for the same seed, the busiest twice as busy as the second, and many who ask once."""
    zipf = Zipf(tenants=10_000, exponent=1.0, requests=20_000)
    drawn = [request["descriptors"][0]["entries"][0]["value"] for request in zipf.drawn()]
    again = [request["descriptors"][0]["entries"][0]["value"] for request in zipf.drawn()]
    asked = Counter(drawn)
    assert drawn == again
    assert [tenant for tenant, _ in asked.most_common(3)] == ["gold", "silver", "bronze"]
    assert asked["gold"] == pytest.approx(20_000 / sum(1 / rank for rank in range(1, 10_001)), rel=0.1)
    assert asked["silver"] == pytest.approx(asked["gold"] / 2, rel=0.15)
    assert sum(number == 1 for number in asked.values()) > 1000


# ── what ghz saw ──────────────────────────────────────────────────────────────────────────────────────────────────────


def report_of(*ended):
    """ghz's report of calls: the ms at which each ended, its latency in ms, its code."""
    details = [
        {
            "timestamp": f"2026-01-01T00:00:{at // 1000:02}.{at % 1000:03}000001Z",
            "latency": took * 1_000_000,
            "status": code,
        }
        for at, took, code in ended
    ]
    return {"details": details, "statusCodeDistribution": Counter(code for *_, code in ended)}


def test_calls_are_counted_by_code_and_by_the_second_they_were_sent_in():
    """ghz tells when a call ended; a call that was given up has its latency, too."""
    seen = calls.read(report_of((1001, 2, "OK"), (1500, 1, "OK"), (2005, 20, "DeadlineExceeded"), (4100, 1, "OK")))
    assert (seen.count, seen.errors) == (4, 1)
    assert [dict(second) for second in seen.per_second] == [{"OK": 2, "DeadlineExceeded": 1}, {}, {}, {"OK": 1}]
    assert [seen.percentile_us(percent) for percent in (0, 50, 75, 76, 100)] == [MS, MS, 2 * MS, 20 * MS, 20 * MS]


def test_a_list_of_calls_that_is_not_whole_is_refused():
    """ghz lists a million calls and counts on; and a run without calls says nothing."""
    report = report_of((1, 1, "OK"))
    with pytest.raises(ValueError, match="ghz lists 1 of 2 calls"):
        calls.read(report | {"statusCodeDistribution": {"OK": 2}})
    with pytest.raises(ValueError, match="sent nothing"):
        calls.read({"details": None, "statusCodeDistribution": {}})


@pytest.mark.parametrize("latencies", [[5], [0, 0], [1, 1, 2, 3, 1000], list(range(1, 5000, 7))])
def test_a_histogram_has_every_call(latencies):
    """In bins that touch each other."""
    bins = calls.histogram(latencies)
    assert sum(one.calls for one in bins) == len(latencies)
    assert all(before.until_us == after.from_us for before, after in pairwise(bins))
    assert bins[-1].until_us > latencies[-1]


# ── what the service counted ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_counters_of_replicas_are_added_up():
    """From the pages that the service writes."""
    metrics = Metrics()
    metrics.requests, metrics.over_limit, metrics.bad_requests = 10, 3, 1
    metrics.policy_decisions.local, metrics.policy_decisions.shed, metrics.policy_decisions.error = 2, 2, 1
    metrics.store_failures.timeout = 3
    counts = metrics.rule("shop/a")
    counts.requests.allowed, counts.requests.denied, counts.hits.allowed = 5, 3, 50
    text = Page(metrics).render()[0].decode()
    one, two = read([text]), read([text, text])
    assert (one.requests, one.denied, one.refused, one.by_policy, one.failures["timeout"]) == (10, 3, 1, 3, 3)
    assert one.admitted == 10 - 3 - 1 - 1
    assert one.decisions["shop/a", "allowed"] == 5
    assert one.admitted_hits["shop/a"] == 50
    assert two.since(one) == one


def test_another_services_page_is_refused_and_so_are_counters_that_go_back():
    """Nothing is made of numbers that mean something else."""
    with pytest.raises(ValueError, match="leave METRICS empty"):
        read(["# HELP process_start_time_seconds …\n"])
    before = Counts(requests=9, decisions=Counter({("a", "allowed"): 5}))
    with pytest.raises(ValueError, match="went back"):
        Counts(requests=8).since(before)
    with pytest.raises(ValueError, match="went back"):
        Counts(requests=10, decisions=Counter({("a", "allowed"): 4})).since(before)


def looks(*made):
    """Looks at the counters: when each began and ended in ms, and the hits admitted until then."""
    return [Look(begun * MS, ended * MS, Counts(admitted_hits=Counter(rule=hits))) for begun, ended, hits in made]


@pytest.mark.parametrize(
    ("made", "most"),
    [
        ([(0, 1, 0), (100, 101, 10), (890, 899, 13), (1500, 1501, 13)], 13),
        (
            [(0, 1, 0), (100, 101, 10), (899, 900, 13), (1500, 1501, 13)],
            10,
        ),  # 900 ms and what may come late are a window
        ([(0, 1, 0), (1000, 1001, 10), (2000, 2001, 20)], None),
        ([(0, 1, 0), (100, 950, 10), (960, 961, 12)], 2),
        ([(0, 1, 5)], None),
    ],
)
def test_the_fullest_window_is_what_was_certainly_in_it(made, most):
    """From the beginning of one look to the end of another, and what the store had counted before."""
    assert fullest(looks(*made), "rule", SECOND) == most


def test_twice_the_limit_around_a_boundary_is_seen():
    """What fixed windows let through: ten at the end of one second, ten at the beginning of the next."""
    made = [(at, at + 2, 0 if at < 900 else 10 if at < 1000 else 20) for at in range(0, 2000, 50)]
    assert fullest(looks(*made), "rule", SECOND) == 20


async def test_a_host_stands_for_all_its_addresses():
    """Each is asked by itself, so that no replica is missing; an address is asked as it is."""
    assert "http://127.0.0.1:8080/metrics" in await pages_of("http://localhost:8080/metrics")
    assert await pages_of("http://[::1]:8080/metrics?a=b") == ["http://[::1]:8080/metrics?a=b"]
    assert await pages_of("http://127.0.0.1/metrics") == ["http://127.0.0.1:80/metrics"]


# ── the judge ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SEEN = calls.read(
    report_of(*((number, 2, "OK") for number in range(98)), (99, 20, "Unavailable"), (100, 20, "Unavailable"))
)
COUNTS = Counts(requests=100, denied=20, policies=Counter(local=5), decisions=Counter({("<b>", "allowed"): 75}))


def judged(must, counts=COUNTS, full=None):
    """Whether each threshold held."""
    verdicts = thresholds.judge(must, SEEN, planned=200, counts=counts, fullest=full or {})
    return {verdict.name: verdict.held for verdict in verdicts}


def test_each_threshold_can_hold_and_fail():
    """At the bound it holds."""
    good = Thresholds(2, 20, 0.02, 0.05, 0.5, {"a": Window(10, 1)})
    bad = Thresholds(1.9, 19.9, 0.019, 0.049, 0.51, {"a": Window(9, 1)})
    assert set(judged(good, full={"a": 10}).values()) == {True}
    assert set(judged(bad, full={"a": 10}).values()) == {False}
    assert judged(good, full={"a": 10}).keys() == {*thresholds.NUMBERS, "a"}


def test_what_is_not_known_is_not_judged():
    """Without counters neither windows nor policies are; without a threshold nothing is."""
    must = Thresholds(p99_ms=20, policy_share=0.0, windows={"a": Window(10, 1)})
    assert judged(must, counts=None) == {"p99_ms": True, "policy_share": None, "a": None}
    assert judged(Thresholds()) == {}


def test_thresholds_of_a_profile_replace_those_of_all(tmp_path):
    """And those of the command line replace both; what is no threshold is refused."""
    file = tmp_path / "thresholds.json"
    file.write_text('{"all": {"p99_ms": 10, "p50_ms": 1}, "surge": {"p99_ms": 20}, "odd": {"p98_ms": 1}}')
    assert thresholds.read(file, "surge", ["p50_ms=2"]) == Thresholds(p50_ms=2, p99_ms=20, windows={})
    assert thresholds.read(file, "steady").p99_ms == 10
    for profile_name, changes in (("odd", ()), ("surge", ("p98_ms=1",))):
        with pytest.raises(ValueError, match="p98_ms"):
            thresholds.read(file, profile_name, changes)


# ── the report ────────────────────────────────────────────────────────────────────────────────────────────────────────


def result(*, counts=COUNTS, verdicts=()):
    """A result that was not run."""
    made = looks((0, 1, 0), (600, 601, 3), (1200, 1201, 9)) if counts else ()
    settings = {"timeout": "20ms", "data": [{"domain": "shop"}], "protoset": "/somewhere/rls.protoset"}
    return Result("surge", "it & its <store>", "2026-01-01", 0.5, settings, 200, SEEN, made, counts, {}, verdicts)


@pytest.mark.parametrize("counts", [COUNTS, None])
def test_the_page_needs_nothing_else(counts):
    """No script, no address, no file; what comes from outside is escaped."""
    text = page(result(counts=counts))
    assert not re.search(r"<script|<link|src=|href=|url\(|@import|https?://", text)
    assert "it &amp; its &lt;store&gt;" in text
    assert "<b>:" not in text
    assert ("not known" in text) == (counts is None)
    assert text.count("<svg") == (3 if counts else 2)


def test_the_page_and_the_json_say_whether_it_held():
    """What could not be known fails nobody."""
    held, failed, unknown = (thresholds.Verdict("p99_ms", 10, seen) for seen in (9, 11, None))
    for verdicts, holds in (([held, unknown], True), ([held, failed], False)):
        found = result(verdicts=verdicts)
        assert as_json(found)["held"] is holds
        assert f"<title>surge: {'held' if holds else 'failed'}</title>" in page(found)
    assert [row["held"] for row in as_json(result(verdicts=[held, failed, unknown]))["thresholds"]] == [
        True,
        False,
        None,
    ]


@pytest.mark.parametrize(
    ("most", "top"), [(0, 1), (1, 1), (1.1, 2), (2.2, 2.5), (37, 40), (1000, 1000), (0.3, 0.4), (0.02, 0.02)]
)
def test_axes_end_at_round_numbers(most, top):
    """At or above all that is shown."""
    assert charts.nice(most) == pytest.approx(top)


def test_the_committed_sample_is_whole():
    """It names its machine, and was made by a profile that is still here."""
    (summary,) = (LOADTEST / "sample").glob("*.json")
    found = json.loads(summary.read_text())
    assert found["profile"] in NAMES
    assert re.search(r", \d+ cores, ", found["machine"])
    assert f"<title>{found['profile']}:" in summary.with_suffix(".html").read_text()
