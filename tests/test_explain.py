"""Explaining: the text for each way a lookup can end, and agreement with matching on anything."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from ratelimit_svc.model import Algorithm, Align, Entry, Limit, Unit
from ratelimit_svc.rules.explain import Lookup, Try, explain, explain_request, in_words
from ratelimit_svc.rules.load import RuleFile, load, read
from ratelimit_svc.rules.match import RuleSet, find
from tests.test_match import requests, trees

EXAMPLE = load(read(Path(__file__).parent.parent / "config" / "example.yaml"))
ALL = "tenant, anonymous, campaign, tenant=acme, tenant=bursty, tenant=patient, tenant=contract, tenant=initech and 2 more"
"""The example's first level, as lists name it."""


def text(domain: str, *entries: str, ruleset: RuleSet = EXAMPLE) -> str:
    return str(explain(ruleset, domain, [Entry(*entry.split("=", 1)) for entry in entries]))


def test_a_rule_and_the_way_to_it():
    """Every lookup is told in its order, then the rule with its limit, tenant and failure policy."""
    assert (
        text("api", "tenant=acme", "path=/v1/users")
        == """\
domain api: tenant=acme, path=/v1/users
1. tenant=acme
   exact     tenant=acme: matches
   key only  tenant: would match too, but tenant=acme comes first
   (other values: tenant=bursty, tenant=patient, tenant=contract, tenant=initech, tenant=internal, tenant=mallory)
   (other keys: anonymous, campaign)
2. path=/v1/users
   exact     path=/v1/users: no such descriptor
   wildcard  path=/v1/*: matches
   wildcard  path=/static/*: does not fit
   key only  path: would match too, but path=/v1/* comes first
   (other values: path=/v1/orders, path=/healthz)
rule api/tenant=acme/path=/v1/*: 20 per second, sliding in 60 slices of 16.667 ms
   tenant acme
   if the store does not answer: local"""
    )


def test_names_modes_and_policies_are_told():
    """What a rule has beyond a limit is told with it."""
    assert "rule api/tenant=acme (acme-total): 100 per minute, sliding in 60 slices of 1 s" in text(
        "api", "tenant=acme"
    )
    assert "   in shadow mode: counted and reported, never denied" in text("api", "tenant=initech")
    assert "   if the store does not answer: allow" in text("api", "anonymous=x")
    assert text("api", "tenant=internal").endswith("rule api/tenant=internal: unlimited")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (["apo", "a=b"], "no domain 'apo' (did you mean 'api'?): the rules have api"),
        (
            ["api"],
            f"the request has no entries: it would go on with {ALL}",
        ),
        (
            ["api", "tenat=acme"],
            f"no descriptor fits tenat=acme (did you mean 'tenant=acme'?): this level has {ALL}",
        ),
        (
            ["api", "tenant=bob", "path=/"],
            "the request goes deeper than the rules: nothing is below tenant, and its rule counts only as the last entry",
        ),
        (["api", "tenant=acme", "path=/healthz"], "path=/healthz has no rate_limit: it lets pass (a whitelist)"),
    ],
)
def test_why_there_is_no_rule(asked, reason):
    """Each way to end without a rule has its reason, with what would be needed."""
    assert text(*asked).splitlines()[-1] == f"no rule: {reason}"


@pytest.mark.parametrize(
    ("yaml", "asked", "reason"),
    [
        (b"domain: d", ["d", "a=b"], "the domain has no descriptors"),
        (b"domain: d", ["d"], "the request has no entries: it would go on with nothing"),
        (
            b"domain: d\ndescriptors: [{key: a, descriptors: [{key: b}, {key: c, value: '*'}]}]",
            ["d", "a=1"],
            "a has no rate_limit of its own: the rules go on with b, c=*",
        ),
        (
            b"domain: d\ndescriptors: [{key: a, value: x}, {key: a, value: y}, {key: b}]",
            ["d", "a=other"],
            "no descriptor fits a=other: this level has a=x, a=y",
        ),
    ],
)
def test_why_there_is_no_rule_in_other_rules(yaml, asked, reason):
    """Reasons that the example does not show."""
    assert text(*asked, ruleset=load([RuleFile("d.yaml", yaml)])).splitlines()[-1] == f"no rule: {reason}"


def test_no_rules_at_all():
    """An empty rule set is told as such."""
    assert text("d", "a=b", ruleset=load([])).endswith("no rule: no domain 'd': there are no rules")


def test_wildcards_are_tried_in_file_order():
    """A wildcard that does not fit, one that matches, and one that comes too late are told apart."""
    rules = b"domain: d\ndescriptors: [{key: a, value: x*}, {key: a, value: y*}, {key: 'a*'}, {key: a, value: y}]"
    explanation = explain(load([RuleFile("d.yaml", rules)]), "d", [Entry("a", "yes")])
    assert explanation.steps[0].tries == (
        Try(Lookup.EXACT, "a=yes", "no such descriptor"),
        Try(Lookup.WILDCARD, "a=x*", "does not fit"),
        Try(Lookup.WILDCARD, "a=y*", "matches"),
        Try(Lookup.WILDCARD, "a*", "would match too, but a=y* comes first"),
        Try(Lookup.KEY, "a", "no such descriptor"),
    )
    assert explanation.steps[0].matched == "a=y*"


def test_a_literal_star_meets_itself():
    """A request that holds the configured text itself is an exact match, and the pattern is not told twice."""
    rules = b"domain: d\ndescriptors: [{key: a, value: '*'}, {key: a, value: y*}]"
    assert explain(load([RuleFile("d.yaml", rules)]), "d", [Entry("a", "y*")]).steps[0].tries == (
        Try(Lookup.EXACT, "a=y*", "matches"),
        Try(Lookup.WILDCARD, "a=*", "would match too, but a=y* comes first"),
        Try(Lookup.KEY, "a", "no such descriptor"),
    )


def test_long_lists_end_and_control_characters_do_not_reach_the_terminal():
    """The text stays readable whatever was configured or asked."""
    many = {"domain": "d", "descriptors": [{"key": "k", "value": f"{index}\x1b[2J"} for index in range(100)]}
    told = text("d", "k=\x1b[2J", ruleset=load([RuleFile("d.json", json.dumps(many).encode())]))
    assert "\x1b" not in told
    assert "and 92 more" in told


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (Limit(100, Unit.MINUTE), "100 per minute, sliding in 60 slices of 1 s"),
        (Limit(1, Unit.SECOND, slices=500), "1 per second, sliding in 500 slices of 2 ms"),
        (Limit(5, Unit.HOUR, slices=1), "5 per hour, sliding in 1 slice of 1 h"),
        (Limit(5, Unit.DAY), "5 per day, sliding in 60 slices of 24 min"),
        (Limit(5, Unit.YEAR, slices=10), "5 per year, sliding in 10 slices of 36.5 d"),
        (Limit(0, Unit.WEEK, slices=7), "0 per week, which denies everything, sliding in 7 slices of 1 d"),
        (Limit(5, Unit.MINUTE, multiplier=15), "5 per 15 min, sliding in 60 slices of 15 s"),
        (Limit(5, Unit.WEEK, multiplier=2, slices=1), "5 per 2 weeks, sliding in 1 slice of 14 d"),
        (Limit(5, None, period_us=1_500_000), "5 per 1.5 s, sliding in 60 slices of 25 ms"),
        (Limit(5, None, period_us=1_000, slices=1), "5 per 1 ms, sliding in 1 slice of 1 ms"),
        (Limit(5, Unit.DAY, algorithm=Algorithm.FIXED_WINDOW), "5 per day, fixed windows since the epoch"),
        (
            Limit(5, Unit.SECOND, multiplier=90, algorithm=Algorithm.FIXED_WINDOW, align=Align.FIRST_HIT),
            "5 per 90 s, fixed windows from the first hit",
        ),
        (
            Limit(5, Unit.MONTH, algorithm=Algorithm.FIXED_WINDOW, align=Align.CALENDAR),
            "5 per month, fixed windows of the calendar (UTC)",
        ),
        (
            Limit(10, Unit.SECOND, algorithm=Algorithm.TOKEN_BUCKET, burst=50),
            "10 per second, at once up to 50 (token bucket)",
        ),
        (Limit(10, Unit.SECOND, algorithm=Algorithm.TOKEN_BUCKET), "10 per second, at once up to 10 (token bucket)"),
        (None, "unlimited"),
    ],
)
def test_limits_in_words(limit, words):
    """A limit reads as people say it."""
    assert in_words(limit) == words


RICH = load(
    [
        RuleFile(
            "rich.yaml",
            b"""
domain: a/b
tenant: t
descriptors:
- key: t
  rate_limits:
  - {unit: second, requests_per_unit: 1, name: quick}
  - {unit: day, requests_per_unit: 1, overdraft: never, refunds: false, shadow_mode: true}
- key: q
  quota_mode: true
  rate_limit: {unit: day, requests_per_unit: 1, overdraft: always}
  descriptors:
  - {key: r, value_to_metric: true, metadata: {"see\\e": 1, b: 2}, rate_limit: {unlimited: true, replaces: [{name: quick}]}}
- {key: s, value: 'x*', share_threshold: true, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: v, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 1}}
""",
        )
    ]
)


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        (
            ["t=1"],
            [
                "rule a/b/t#quick (quick): 1 per second, sliding in 60 slices of 16.667 ms",
                "   tenant 1",
                "   if the store does not answer: local",
                "rule a/b/t#2: 1 per day, sliding in 60 slices of 24 min",
                "   tenant 1",
                "   if the store does not answer: local",
                "   in shadow mode: counted and reported, never denied",
                "   overdraft never: hits that do not fit are not counted",
                "   refunds give nothing back",
                "2 limits at once:",
                "   counted on all of these or on none, and all must fit: a/b/t#quick",
                "   in shadow, denying nothing; counted if they fit: a/b/t#2",
            ],
        ),
        (
            ["q=1"],
            [
                "   a quota: of the quotas that a request meets, one that fits is enough",
                "   overdraft always: every hit is counted and passes, and only checks with 0 hits are denied",
            ],
        ),
        (
            ["q=1", "r=2"],
            [
                "rule a/b/q/r: unlimited",
                "   replaces the limits named quick",
                "   with metadata: see\\x1b, b",
            ],
        ),
        (["s=xyz"], ["   one counter for all of s=x*"]),
        (["v=7"], ["   in metrics: a/b/v=7"]),
    ],
)
def test_whatever_a_rule_says_is_told(asked, lines):
    """Each part of a rule has its line, and what is as usual has none."""
    assert text("a/b", *asked, ruleset=RICH).splitlines()[-len(lines) :] == lines


def asked(*descriptors: str) -> list[list[Entry]]:
    return [[Entry(*pair.split("=", 1)) for pair in descriptor.split()] for descriptor in descriptors]


def test_a_whole_request():
    """Each descriptor, then which limits are replaced and by which rules, and how the others act together."""
    explanation = explain_request(RICH, "a/b", asked("t=1", "q=1 r=2", "q=1", "nothing=1"))
    assert [part.rules for part in explanation.parts] == [RICH.rules[:2], RICH.rules[3:4], RICH.rules[2:3], ()]
    assert [(rule.id, by) for rule, by in explanation.replaced] == [("a/b/t#quick", ("a/b/q/r",))]
    assert [rule.id for rule in explanation.counted] == ["a/b/t#2", "a/b/q"]
    assert str(explanation).splitlines()[-4:] == [
        "the request, 4 descriptors:",
        "   a/b/t#quick does not count: replaced by a/b/q/r",
        "   quotas, of which one must fit; those that fit are counted: a/b/q",
        "   in shadow, denying nothing; counted if they fit: a/b/t#2",
    ]


def test_a_request_that_nothing_counts():
    """It passes, and that is said."""
    explanation = explain_request(RICH, "a/b", asked("x=1", "q=1 r=1"))
    assert str(explanation).endswith("the request, 2 descriptors:\n   nothing is counted: it passes")
    assert str(explain_request(RICH, "other", asked("x=1"))).endswith("nothing is counted: it passes")


@settings(deadline=None)
@given(trees, requests)
def test_explain_and_find_agree(tree, entries):
    """Whatever the rules and the request, the explanation ends at the rule that requests get."""
    document = {"domain": "d", "tenant": "a", "descriptors": [each.as_dict() for each in tree]}
    if '"key": "a"' not in json.dumps(document):  # a tenant that no descriptor has is refused
        del document["tenant"]
    ruleset = load([RuleFile("d.json", json.dumps(document).encode())])
    domain = ruleset.domains["d"]
    explanation = explain(ruleset, "d", entries)
    assert explanation.rules == find(domain, entries)
    assert bool(explanation.reason) == (not explanation.rules)
    assert explanation.tenant == domain.tenant_of(entries)
    assert len(explanation.steps) <= len(entries)
    for each in explanation.steps:
        assert [told.outcome for told in each.tries].count("matches") == (each.matched is not None)
    assert str(explanation)
