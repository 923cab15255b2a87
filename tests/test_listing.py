"""The listing of limits: the reference's line, and ours behind it where a rule uses what is ours. Whole pages: tests/reference."""

import pytest

from ratelimit_svc.model import Algorithm
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.listing import lines
from ratelimit_svc.rules.load import load


def listed(descriptors: str, algorithm: Algorithm = Algorithm.SLIDING_WINDOW) -> list[str]:
    """The lines of these descriptors of a domain."""
    text = f"domain: shop\ndescriptors: [{descriptors}]\n"
    return lines(load([RuleFile("shop.yaml", text.encode())], algorithm=algorithm))


PLAIN = "shop.a: unit=SECOND requests_per_unit=5, shadow_mode: false, quota_mode: false"


@pytest.mark.parametrize(
    ("rate_limit", "behind"),
    [
        ("unit: second, requests_per_unit: 5", ""),
        ("unit: second, requests_per_unit: 5, algorithm: sliding_window", ""),
        ("unit: second, requests_per_unit: 5, slices: 10", ", slices: 10"),
        ("unit: second, requests_per_unit: 5, unit_multiplier: 30", ", unit_multiplier: 30"),
        (
            "unit: second, requests_per_unit: 5, algorithm: token_bucket, burst: 9",
            ", algorithm: token_bucket, burst: 9",
        ),
        (
            "unit: second, requests_per_unit: 5, algorithm: fixed_window, align: first_hit",
            ", algorithm: fixed_window, align: first_hit",
        ),
    ],
)
def test_what_is_ours_stands_behind_the_references_line(rate_limit, behind):
    """And nothing does where the rule is one that the reference can have."""
    assert listed(f"{{key: a, rate_limit: {{{rate_limit}}}}}") == [PLAIN + behind]


def test_a_period_without_a_unit():
    """The reference's own word for none."""
    assert listed("{key: a, rate_limit: {per: 250ms, requests_per_unit: 5}}") == [
        "shop.a: unit=UNKNOWN requests_per_unit=5, shadow_mode: false, quota_mode: false, per: 250 ms"
    ]


def test_the_default_algorithm_is_not_told():
    """What all rules have needs no words; another does."""
    rate_limit = "rate_limit: {unit: second, requests_per_unit: 5}"
    assert listed(f"{{key: a, {rate_limit}}}", Algorithm.FIXED_WINDOW) == [PLAIN]
    sliding = "rate_limit: {unit: second, requests_per_unit: 5, algorithm: sliding_window}"
    assert listed(f"{{key: a, {sliding}}}", Algorithm.FIXED_WINDOW) == [PLAIN + ", algorithm: sliding_window"]


def test_several_limits_are_a_line_each():
    """Under the same key."""
    limits = "rate_limits: [{unit: second, requests_per_unit: 5}, {unit: hour, requests_per_unit: 9}]"
    assert listed(f"{{key: a, {limits}}}") == [
        "shop.a: unit=HOUR requests_per_unit=9, shadow_mode: false, quota_mode: false",
        PLAIN,
    ]


def test_a_key_does_not_break_its_line():
    """A line break in a value is escaped."""
    (line,) = listed('{key: a, value: "x\\ny", rate_limit: {unit: second, requests_per_unit: 5}}')
    assert line.startswith(r"shop.a_x\ny: unit=SECOND ")
