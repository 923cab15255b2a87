"""The keys that only this service has: what each says, and what several limits on one descriptor are."""

import json
from typing import Any

import pytest

from ratelimit_svc.errors import RulesError
from ratelimit_svc.model import (
    LONGEST_US,
    SHORTEST_US,
    Algorithm,
    Align,
    Limit,
    OnStoreFailure,
    Overdraft,
    Role,
    Rule,
    Unit,
)
from ratelimit_svc.rules.kinds import duration
from ratelimit_svc.rules.load import RuleFile, load
from ratelimit_svc.rules.nodes import Scalar
from ratelimit_svc.rules.tables import LONGEST, REFERENCE, SHORTEST, TABLES


def rules(descriptor: str, **options: Any) -> tuple[Rule, ...]:
    """The rules of one descriptor, given as flow YAML."""
    return load([RuleFile("d.yaml", f"domain: d\ndescriptors: [{{key: k, {descriptor}}}]".encode())], **options).rules


def rule(limit: str, **options: Any) -> Rule:
    (only,) = rules(f"rate_limit: {{{limit}}}", **options)
    return only


SLIDING, FIXED, TOKENS = Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW, Algorithm.TOKEN_BUCKET


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        ("unit: day, requests_per_unit: 5, algorithm: Sliding_Window", Limit(5, Unit.DAY)),
        ("unit: day, requests_per_unit: 5, algorithm: ''", Limit(5, Unit.DAY)),
        ("unit: day, requests_per_unit: 5, algorithm: fixed_window", Limit(5, Unit.DAY, algorithm=FIXED)),
        ("unit: day, requests_per_unit: 5, algorithm: token_bucket", Limit(5, Unit.DAY, algorithm=TOKENS)),
        (
            "unit: day, requests_per_unit: 5, algorithm: token_bucket, burst: 1",
            Limit(5, Unit.DAY, algorithm=TOKENS, burst=1),
        ),
        (
            "unit: second, requests_per_unit: 4294967295, algorithm: token_bucket, burst: 4294967295",
            Limit(2**32 - 1, Unit.SECOND, algorithm=TOKENS, burst=2**32 - 1),
        ),
        (
            "unit: year, requests_per_unit: 1, algorithm: token_bucket, burst: 10",
            Limit(1, Unit.YEAR, algorithm=TOKENS, burst=10),
        ),
        (
            "unit: week, requests_per_unit: 5, algorithm: fixed_window, align: calendar",
            Limit(5, Unit.WEEK, algorithm=FIXED, align=Align.CALENDAR),
        ),
        (
            "per: 90s, requests_per_unit: 5, algorithm: fixed_window, align: first_hit",
            Limit(5, Unit.SECOND, multiplier=90, algorithm=FIXED, align=Align.FIRST_HIT),
        ),
        ("unit: minute, unit_multiplier: 15, requests_per_unit: 5", Limit(5, Unit.MINUTE, multiplier=15)),
        ("unit: year, unit_multiplier: 10, requests_per_unit: 5", Limit(5, Unit.YEAR, multiplier=10)),
        ("per: 1h30m, requests_per_unit: 5", Limit(5, Unit.MINUTE, multiplier=90)),
        ("per: 24h, requests_per_unit: 5", Limit(5, Unit.DAY)),
        ("per: 7d, requests_per_unit: 5", Limit(5, Unit.WEEK)),
        ("per: 1d12h, requests_per_unit: 5", Limit(5, Unit.HOUR, multiplier=36)),
        ("per: 1.5s, requests_per_unit: 5", Limit(5, None, period_us=1_500_000)),
        ("per: 1ms, requests_per_unit: 5", Limit(5, None, period_us=1_000)),
        ("per: '3650d', requests_per_unit: 5", Limit(5, Unit.YEAR, multiplier=10)),
        ("per: '', unit: day, requests_per_unit: 5, slices: ~, burst: ~, align: ~", Limit(5, Unit.DAY)),
    ],
)
def test_limits(written, limit):
    """Each algorithm with its own keys, and periods of any length."""
    assert rule(written).limit == limit


@pytest.mark.parametrize("word", ["never", "auto", "Always"])
def test_overdrafts(word):
    """One of three words; auto where none is written."""
    assert rule(f"unit: day, requests_per_unit: 5, overdraft: {word}").overdraft is Overdraft[word.upper()]
    assert rule("unit: day, requests_per_unit: 5").overdraft is Overdraft.AUTO


def test_refunds_and_failure_policy():
    """Refunds are given unless forbidden; a policy is the limit's own."""
    assert rule("unit: day, requests_per_unit: 5").refunds is True
    assert rule("unit: day, requests_per_unit: 5, refunds: no").refunds is False
    assert rule("unit: day, requests_per_unit: 5, on_store_failure: deny").on_store_failure is OnStoreFailure.DENY


def test_the_default_algorithm_gives_way():
    """A limit that says how it counts is not asked again; one with keys of another algorithm is told which is meant."""
    tokens = rule("unit: day, requests_per_unit: 5, algorithm: token_bucket, burst: 9", algorithm=FIXED)
    assert tokens.limit
    assert tokens.limit.algorithm is TOKENS
    with pytest.raises(RulesError, match="`slices` means nothing to a fixed window, only to a sliding window"):
        rule("unit: day, requests_per_unit: 5, slices: 10", algorithm=FIXED)


def test_keys_may_be_those_of_what_a_limit_is_compared_with():
    """Also where the process says with what (COMPARE): so a file that has them loads before and after the algorithm is changed."""
    for algorithm, compare in ((SLIDING, FIXED), (FIXED, SLIDING)):
        found = rule("unit: day, requests_per_unit: 5, slices: 10", algorithm=algorithm, compare=compare)
        limits = {each: Limit(5, Unit.DAY, slices=10, algorithm=each) for each in (algorithm, compare)}
        assert (found.limit, found.compared) == (limits[algorithm], limits[compare])
    found = rule("unit: day, requests_per_unit: 5, burst: 9, algorithm: fixed_window", compare=TOKENS)
    assert found.compared == Limit(5, Unit.DAY, algorithm=TOKENS, burst=9)
    with pytest.raises(RulesError, match="`burst` means nothing to a fixed window, only to a token bucket"):
        rule("unit: day, requests_per_unit: 5, burst: 9", algorithm=FIXED, compare=SLIDING)
    with pytest.raises(RulesError, match="takes longer than"):
        rule("unit: year, requests_per_unit: 1, burst: 11", compare=TOKENS)


def test_several_limits():
    """Each is a rule of its own, called by its name or number; what the descriptor says holds for all but where one differs."""
    found = rules(
        "shadow_mode: true, metadata: {a: 1}, detailed_metric: true, rate_limits: ["
        "{unit: second, requests_per_unit: 10},"
        "{unit: hour, requests_per_unit: 1000, name: hourly, shadow_mode: false},"
        "{per: 1s, requests_per_unit: 10, algorithm: token_bucket, burst: 50, shadow_mode: no, quota_mode: true}]"
    )

    def one(suffix: str, limit: Limit, **other: Any) -> Rule:
        return Rule(f"d/k{suffix}", limit, metadata={"a": 1}, label=(None, suffix), **other)

    assert found == (
        one("#1", Limit(10, Unit.SECOND), role=Role.SHADOW),
        one("#hourly", Limit(1000, Unit.HOUR, name="hourly")),
        one("#3", Limit(10, Unit.SECOND, algorithm=TOKENS, burst=50), role=Role.QUOTA),
    )


@pytest.mark.parametrize(
    ("descriptor", "ids"),
    [
        ("rate_limits: []", []),
        ("rate_limits: ~, rate_limit: {unlimited: true}", ["d/k"]),
        ("rate_limits: [], rate_limit: {unlimited: true}", ["d/k"]),
        ("rate_limits: [{unit: day, requests_per_unit: 1, name: n}], rate_limit: ~", ["d/k"]),
        ("rate_limits: [{unit: day, requests_per_unit: 1, unlimited: false}, {unit: week, requests_per_unit: 1}]", ["d/k#1", "d/k#2"]),
    ],
)  # fmt: skip
def test_one_limit_or_none_in_a_list(descriptor, ids):
    """An empty list is as if not written, and a list of one is one limit."""
    assert [each.id for each in rules(descriptor)] == ids


@pytest.mark.parametrize(
    ("name", "row"),
    [(name, row) for table in TABLES.values() for name, row in table.rows.items()],
)
def test_every_key_is_documented(name, row):
    """In whole sentences; the reference page is made of them."""
    assert row.doc[0].isupper() or row.doc.startswith("`"), name
    assert row.doc.endswith("."), name


def test_the_references_keys_are_known():
    """All sixteen, and no other."""
    assert {
        "domain", "key", "value", "descriptors", "rate_limit", "unit", "requests_per_unit", "unlimited", "shadow_mode",
        "quota_mode", "name", "replaces", "detailed_metric", "value_to_metric", "share_threshold", "metadata",
    } == REFERENCE  # fmt: skip


def test_the_bounds_of_periods_are_the_models():
    """Said once as people write them, and meant as the model has them."""
    read = duration(SHORTEST, LONGEST).read
    assert (read(_scalar(SHORTEST)), read(_scalar(LONGEST))) == (SHORTEST_US, LONGEST_US)


def test_very_long_durations_take_no_time():
    """Nobody writes them, and reading them digit by digit would take long."""
    for text in ("9" * 1_000_000 + "s", "1s" * 1_000_000):
        with pytest.raises(RulesError, match="per"):
            load([RuleFile("d.json", json.dumps({"domain": "d", "descriptors": [{"key": "k", "rate_limit": {"per": text, "requests_per_unit": 1}}]}).encode())])  # fmt: skip


def _scalar(text: str) -> Scalar:
    return Scalar(text, "str", quoted=False, line=1)
