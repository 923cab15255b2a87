"""The reference implementation's YAML: each fact about it, as a table of our own cases, and what this service makes of it.

The facts stand in its documentation and were seen on it from outside; files and cases are written for this project.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from ratelimit_svc.errors import RulesError
from ratelimit_svc.model import Algorithm, Entry, Limit, Role, Rule, Unit
from ratelimit_svc.rules.load import RuleFile, load
from ratelimit_svc.rules.match import RuleSet, find, replaced
from ratelimit_svc.rules.match import label as metric

LIMIT = {"unit": "minute", "requests_per_unit": 7}


def ruleset(*descriptors: Mapping[str, Any], **options: Any) -> RuleSet:
    document = {"domain": "d", "descriptors": descriptors}
    return load([RuleFile("d.json", json.dumps(document).encode())], **options)


def entries(path: str) -> tuple[Entry, ...]:
    """`a=1 b=2` → entries."""
    return tuple(Entry(*pair.split("=", 1)) for pair in path.split())


def met(rules: RuleSet, path: str, domain: str = "d") -> Rule | None:
    """The only rule that a descriptor meets, if any."""
    found = find(rules.domains[domain], entries(path))
    assert len(found) <= 1
    return found[0] if found else None


def written(limit: str) -> RuleSet:
    return load([RuleFile("d.yaml", f"domain: d\ndescriptors: [{{key: k, rate_limit: {{{limit}}}}}]".encode())])


# --- limits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit", "seconds"),
    [
        ("second", Unit.SECOND, 1),
        ("Minute", Unit.MINUTE, 60),
        ("HOUR", Unit.HOUR, 3_600),
        ("daY", Unit.DAY, 86_400),
        ("week", Unit.WEEK, 604_800),
        ("month", Unit.MONTH, 30 * 86_400),
        ("year", Unit.YEAR, 365 * 86_400),
    ],
)
def test_units(name, unit, seconds):
    """Seven units in any case; a month is 30 days and a year 365."""
    limit = written(f"unit: {name}, requests_per_unit: 5").rules[0].limit
    assert limit == Limit(5, unit)
    assert limit.window_us == seconds * 1_000_000


@pytest.mark.parametrize("unit", ["unknown", "fortnight", "''", "~", "seconds", "0", "[second]", "{second: 1}"])
def test_what_is_no_unit_is_refused(unit):
    """Also an empty one."""
    with pytest.raises(RulesError, match="unit"):
        written(f"unit: {unit}, requests_per_unit: 5")


@pytest.mark.parametrize(
    ("number", "requests"),
    [("0", 0), ("4294967295", 2**32 - 1), ("0x10", 16), ("010", 8), ("0o10", 8), ("~", 0), ("1_000", 1_000), ("+5", 5)],
)
def test_numbers(number, requests):
    """What YAML 1.1 takes for a whole number of 32 bits; nothing is 0, which denies everything."""
    limit = written(f"unit: day, requests_per_unit: {number}").rules[0].limit
    assert limit is not None
    assert limit.requests_per_unit == requests


@pytest.mark.parametrize("number", ["-1", "4294967296", "'5'", "5.0", "five", "[5]", "true", "2026-01-31", "1:30"])
def test_what_is_no_number_is_refused(number):
    """Text is no number, and a fraction is none."""
    with pytest.raises(RulesError, match="requests_per_unit"):
        written(f"unit: day, requests_per_unit: {number}")


@pytest.mark.parametrize(
    ("limit", "warnings"),
    [
        ("unlimited: true", 0),
        ("unlimited: true, requests_per_unit: 0, unit: ''", 0),
        ("unlimited: true, unit: unknown", 1),
        ("unlimited: true, requests_per_unit: 9", 1),
        ("unlimited: true, name: n, replaces: [{name: other}]", 1),
    ],
)
def test_unlimited(limit, warnings):
    """It is matched and passes; a number or a text that is no unit is ignored beside it."""
    rules = written(limit)
    assert rules.rules[0].limit is None
    assert len(rules.warnings) == warnings


def test_unlimited_with_a_unit_is_refused():
    """As by the reference implementation."""
    with pytest.raises(RulesError, match="`unit` means nothing with `unlimited: true`"):
        written("unlimited: true, unit: second")


@pytest.mark.parametrize("word", ["y", "Y", "yes", "YES", "on", "true", "True", "TRUE"])
def test_true_has_many_words(word):
    """All of YAML 1.1's, single letters included."""
    assert written(f"unlimited: {word}").rules[0].limit is None


@pytest.mark.parametrize("word", ["n", "N", "no", "off", "Off", "false", "~"])
def test_so_has_false(word):
    """And null is false."""
    assert written(f"unlimited: {word}, unit: day, requests_per_unit: 1").rules[0].limit


@pytest.mark.parametrize(
    ("flags", "role", "warnings"),
    [
        ({}, Role.GATE, 0),
        ({"shadow_mode": False, "quota_mode": False}, Role.GATE, 0),
        ({"shadow_mode": True}, Role.SHADOW, 0),
        ({"quota_mode": True}, Role.QUOTA, 0),
        ({"shadow_mode": True, "quota_mode": True}, Role.SHADOW, 1),
    ],
)
def test_modes(flags, role, warnings):
    """A shadow never denies, whatever else it is."""
    rules = ruleset({"key": "k", "rate_limit": LIMIT, **flags})
    assert rules.rules[0].role is role
    assert len(rules.warnings) == warnings


# --- matching -----------------------------------------------------------------------------------------------------------

WILD = ruleset(
    {"key": "prefix", "value": "foo*", "rate_limit": LIMIT},
    {"key": "suffix", "value": "*foo", "rate_limit": LIMIT},
    {"key": "middle", "value": "foo*bar", "rate_limit": LIMIT},
    {"key": "many", "value": "a*b*c", "rate_limit": LIMIT},
    {"key": "order", "value": "x*", "rate_limit": LIMIT},
    {"key": "order", "value": "xy*", "rate_limit": LIMIT},
    {"key": "order", "value": "xyz", "rate_limit": LIMIT},
    {"key": "order", "rate_limit": LIMIT},
    {"key": "wk*", "rate_limit": LIMIT},
    {"key": "star", "value": "*", "rate_limit": LIMIT},
    {"key": "deep", "value": "1*", "descriptors": [{"key": "below", "rate_limit": LIMIT}]},
    {"key": "deep", "value": "12", "rate_limit": LIMIT},
    {"key": "white", "value": "list"},
    {"key": "white", "rate_limit": LIMIT},
)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("prefix=foo", "d/prefix=foo*"),
        ("prefix=foobar", "d/prefix=foo*"),
        ("prefix=fo", None),
        ("prefix=xfoo", None),
        ("suffix=barfoo", "d/suffix=*foo"),
        ("suffix=foobar", None),
        ("middle=foobar", "d/middle=foo*bar"),
        ("middle=foo-and-bar", "d/middle=foo*bar"),
        ("middle=fobar", None),
        ("many=abc", "d/many=a*b*c"),
        ("many=a-b-c", "d/many=a*b*c"),
        ("many=acb", None),
        ("order=xyz", "d/order=xyz"),
        ("order=xyzz", "d/order=x*"),
        ("order=y", "d/order"),
        ("wkfoo=bar", "d/wk*"),
        ("star=", "d/star=*"),
        ("star=*", "d/star=*"),
        ("deep=12", "d/deep=12"),
        ("deep=12 below=x", None),
        ("deep=13 below=x", "d/deep=1*/below"),
        ("deep=13", None),
        ("white=list", None),
        ("white=other", "d/white"),
        ("white=other more=x", None),
    ],
)
def test_wildcards_and_order(path, rule):
    """Exact, then patterns in the order of the file, then the key alone; no way back; only the last entry's limit counts."""
    found = met(WILD, path)
    assert (found.id if found else None) == rule


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("123", "123"),
        ("true", "true"),
        ("yes", "yes"),
        ("n", "n"),
        ("2026-01-31", "2026-01-31"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("1:30", "1:30"),
        ("09:00:59.5", "09:00:59.5"),
    ],
)
def test_values_are_taken_as_written(value, asked):
    """Numbers, booleans and dates are text."""
    rules = load([RuleFile("d.yaml", f"domain: d\ndescriptors: [{{key: k, value: {value}}}, {{key: k, rate_limit: {json.dumps(LIMIT)}}}]".encode())])  # fmt: skip
    assert met(rules, f"k={asked}") is None  # the whitelist
    assert met(rules, "k=other")


def test_a_fraction_is_refused():
    """1.50 would be 1.5 to YAML."""
    with pytest.raises(RulesError, match="fraction"):
        load([RuleFile("d.yaml", b"domain: d\ndescriptors: [{key: k, value: 1.50}]")])


# --- what a file may look like ------------------------------------------------------------------------------------------


def test_a_generated_file():
    """Every field written out, null and empty ones as if not, and a literal star that meets itself."""
    nothing: dict[str, Any] = {
        "rate_limit": None,
        "descriptors": [],
        "shadow_mode": False,
        "quota_mode": False,
        "detailed_metric": False,
    }
    generated = {
        "name": "",
        "domain": "d",
        "descriptors": [
            {
                **nothing,
                "key": "route",
                "value": "r*",
                "rate_limit": {
                    "requests_per_unit": 7,
                    "unit": "MINUTE",
                    "unlimited": False,
                    "name": "",
                    "replaces": [],
                },
                "value_to_metric": False,
                "share_threshold": False,
                "metadata": None,
            },
            {
                **nothing,
                "key": "client",
                "value": "",
                "descriptors": [
                    {**nothing, "key": "x", "value": "", "rate_limit": {"requests_per_unit": 0, "unlimited": True}}
                ],
            },
        ],
    }
    del generated["name"]
    rules = load([RuleFile("d.json", json.dumps(generated).encode())], strict=True)
    assert rules.rules == (Rule("d/route=r*", Limit(7, Unit.MINUTE)), Rule("d/client/x", None))
    assert met(rules, "route=r*") is rules.rules[0]
    assert met(rules, "client=any x=any") is rules.rules[1]


@pytest.mark.parametrize(
    ("text", "domains"),
    [
        ("domain: d\ndescriptors:\n", ["d"]),
        ("domain: d\ndescriptors: []\n", ["d"]),
        ("domain: 7\n", ["7"]),
        ("{domain: d, descriptors: [{key: a}]}", ["d"]),
        ("domain: d\n---\ndomain: e\n", ["d"]),
        ("domain: c\ndomain: d\n", ["d"]),
        ("domain: d\nunit: second\n", ["d"]),
        (
            "domain: d\ndescriptors:\n- {key: a, rate_limit: {unit: day, requests_per_unit: 1, shadow_mode: true}}\n",
            ["d"],
        ),
    ],
)
def test_files_that_load(text, domains):
    """JSON, empty lists, first documents, last twins, and keys where they mean nothing."""
    assert list(load([RuleFile("d.yaml", text.encode())]).domains) == domains


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rules"),
        ("domain: ''\n", "`domain` is missing"),
        ("descriptors: []\n", "`domain` is missing"),
        ("domain: d\ndescriptors: [{value: v}]", "`key` is missing"),
        ("domain: d\ndescriptors: [{key: ''}]", "`key` is missing"),
        ("domain: d\ndescriptors: [a, b]", "stands where a descriptor is expected"),
        ("domain: d\ndescriptors: [{key: a}, {key: a}]", "'a' is described on line 2 already"),
        ("domain: d\ndescriptors: [{key: a, value: b}, {key: a, value: b}]", "'a=b' is described on line 2 already"),
        ("Domain: d\n", "unknown key 'Domain' (did you mean 'domain'?)"),
        ("domain: d\ndescriptors: [{key: a, ratelimit: {}}]", "unknown key 'ratelimit' (did you mean 'rate_limit'?)"),
        ("domain: d\n1: x\n", "unknown key '1'"),
        ("domain: d\ndescriptors: [{key: a, rate_limit: {}}]", "`unit` is missing"),
        ("'''", "not YAML"),
        ("domain: d\ndescriptors: [{key: a, metadata: [1]}]", "a list stands where a mapping is expected"),
        ("domain: d\ndescriptors: [{key: a, value: b, share_threshold: true}]", "`share_threshold` needs a `*`"),
    ],
)
def test_files_that_do_not(text, message):
    """What the reference implementation refuses is refused, with its place and what would be right."""
    with pytest.raises(RulesError) as raised:
        load([RuleFile("d.yaml", text.encode())])
    assert message in str(raised.value)


# --- merging ------------------------------------------------------------------------------------------------------------


def part(name: str, text: str) -> RuleFile:
    return RuleFile(name, f"domain: d\n{text}\n".encode())


def test_domains_are_merged():
    """The first levels are put together in the order of the files' names, which is the order of patterns, too."""
    one = part("b.yaml", "descriptors: [{key: k, value: 'xy*', rate_limit: {unlimited: true}}]")
    two = part("a.yaml", "descriptors: [{key: k, value: 'x*', rate_limit: {unlimited: true}}, {key: other}]")
    for files in ([one, two], [two, one]):
        rules = load(files, merge_domains=True)
        assert [rule.id for rule in rules.rules] == ["d/k=x*", "d/k=xy*"]
        found = met(rules, "k=xyz")
        assert found
        assert found.id == "d/k=x*"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["descriptors: [{key: k}]", "descriptors: [{key: k}]"],
            "b.yaml:2: descriptors[0]: 'k' is described in a.yaml:2 already; put the two together",
        ),
        (
            ["descriptors: [{key: k, descriptors: [{key: a}]}]", "descriptors: [{key: k, descriptors: [{key: b}]}]"],
            "b.yaml:2: descriptors[0]: 'k' is described in a.yaml:2 already; put the two together",
        ),
        (
            ["tenant: t", "tenant: u"],
            "b.yaml:2: tenant: 'd' has the tenant 't' in a.yaml:1; write the same in all files of a domain",
        ),
        (["descriptors:", "tenant: u"], "b.yaml:2: tenant: 'd' has no tenant in a.yaml:1; write the same"),
        (["tenant: t", "descriptors:"], "b.yaml:1: 'd' has the tenant 't' in a.yaml:1; write the same"),
    ],
)
def test_what_cannot_be_merged(texts, message):
    """The same descriptor twice, for nothing below the first level is merged; and tenants that differ."""
    with pytest.raises(RulesError) as raised:
        load([part(f"{name}.yaml", text) for name, text in zip("ab", texts, strict=True)], merge_domains=True)
    assert str(raised.value).startswith(message)


def test_without_merging_a_domain_lives_in_one_file():
    """As the reference implementation has it."""
    with pytest.raises(RulesError, match=r"b\.yaml:1: domain: 'd' is the domain of a\.yaml:1 already"):
        load([part("a.yaml", ""), part("b.yaml", "")])


# --- replaces -----------------------------------------------------------------------------------------------------------


def test_replaces():
    """Whatever a matched rule lists does not count, unlimited rules included; two may drop each other."""
    rules = ruleset(
        {"key": "a", "rate_limit": {**LIMIT, "name": "one"}},
        {"key": "b", "rate_limit": {**LIMIT, "name": "two", "replaces": [{"name": "one"}, {"name": "none"}]}},
        {"key": "c", "rate_limit": {"unlimited": True, "replaces": [{"name": "two"}]}},
        {"key": "e", "rate_limit": {**LIMIT, "replaces": []}},
    ).rules
    assert [set(rule.replaces) for rule in rules] == [set(), {"one", "none"}, {"two"}, set()]
    assert replaced(rules[:1]) == frozenset()
    assert replaced(rules[:2]) == {"one", "none"}
    assert replaced(rules) == {"one", "two", "none"}
    assert replaced([]) == frozenset()


@pytest.mark.parametrize(
    ("replaces", "message"),
    [
        ([{"name": ""}], "`name` is missing"),
        ([{}], "`name` is missing"),
        ([{"name": "n"}], "'n' is the name of the same"),
    ],
)
def test_what_cannot_be_replaced(replaces, message):
    """Nothing, and oneself."""
    with pytest.raises(RulesError, match=message):
        ruleset({"key": "a", "rate_limit": {**LIMIT, "name": "n", "replaces": replaces}})


# --- metadata -----------------------------------------------------------------------------------------------------------


def test_metadata():
    """Any mapping, as JSON has it; keys are not the rule language's."""
    text = """\
domain: d
descriptors:
- key: k
  rate_limit: &limit {unit: day, requests_per_unit: 1}
  detailed_metric: true
  metadata:
    name: x
    anything: {deep: [1, -2.5, true, no, y, ~, "1", 2026-01-31, 0x10, 0o10, 1:30, 09:00:59.5, 99999999999999999999]}
    <<: {merged: yes}
- {key: l, rate_limit: *limit, metadata: {}}
- {key: m, rate_limit: *limit, metadata: ~}
"""
    rules = load([RuleFile("d.yaml", text.encode())], strict=True).rules
    assert rules[0].metadata == {
        "name": "x",
        "anything": {"deep": [1, -2.5, True, False, True, None, "1", "2026-01-31", 16, 8, "1:30", "09:00:59.5", 1e20]},
        "merged": True,
    }
    assert [rule.metadata for rule in rules[1:]] == [None, None]
    assert json.dumps(rules[0].metadata)
    assert hash(rules[0])


def test_keys_of_metadata_are_taken_as_written():
    """Also what YAML takes for numbers and truth values: a warning, and what is sent is text."""
    rules = load([RuleFile("d.yaml", b"domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1}, metadata: {1: a, true: {0x10: b}}}]")])  # fmt: skip
    assert rules.rules[0].metadata == {"1": "a", "true": {"0x10": "b"}}
    assert len(rules.warnings) == 3


# --- what windows and metrics are called --------------------------------------------------------------------------------

SHARED = ruleset(
    {"key": "files", "value": "files/*", "share_threshold": True, "rate_limit": LIMIT},
    {"key": "own", "value": "own/*", "rate_limit": LIMIT},
    {
        "key": "up*",
        "share_threshold": True,
        "descriptors": [
            {"key": "x", "rate_limit": LIMIT},
            {"key": "y", "value": "y*", "share_threshold": True, "rate_limit": LIMIT},
        ],
    },
    {"key": "plain", "descriptors": [{"key": "z", "value": "z*", "share_threshold": True, "rate_limit": LIMIT}]},
)


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        ("files=files/a.pdf", (Entry("files", "files/*"),)),
        ("own=own/a", ()),
        ("upper=1 x=2", (Entry("up*", ""), None)),
        ("upper=1 y=yes", (Entry("up*", ""), Entry("y", "y*"))),
        ("plain=p z=zoo", (None, Entry("z", "z*"))),
    ],
)
def test_share_threshold(path, shared):
    """The pattern stands for the values at its own level, also for limits below; other levels keep theirs."""
    rule = met(SHARED, path)
    assert rule
    assert rule.shared == shared
    assert rule.label == ()  # the id has the patterns already


@pytest.mark.parametrize(
    ("levels", "path", "label"),
    [
        # value_to_metric: the value where it was open, whichever level has the limit
        ([{"key": "a", "value_to_metric": True}], "a=1", "d/a=1"),
        ([{"key": "a", "value_to_metric": True}], "a=", "d/a"),
        ([{"key": "a", "value": "x", "value_to_metric": True}], "a=x", "d/a=x"),
        ([{"key": "a", "value": "x*", "value_to_metric": True}], "a=xyz", "d/a=xyz"),
        ([{"key": "a*", "value_to_metric": True}], "abc=1", "d/abc=1"),
        ([{"key": "a", "value_to_metric": True}, {"key": "b"}], "a=1 b=2", "d/a=1/b"),
        ([{"key": "a"}, {"key": "b", "value_to_metric": True}], "a=1 b=2", "d/a/b=2"),
        ([{"key": "a", "value_to_metric": True}, {"key": "b", "value": "2"}], "a=1 b=2", "d/a=1/b=2"),
        (
            [{"key": "a", "value_to_metric": True}, {"key": "b", "value": "*", "value_to_metric": True}, {"key": "c"}],
            "a=1 b=2 c=3",
            "d/a=1/b=2/c",
        ),
        # a pattern alone keeps its star
        ([{"key": "a", "value": "x*"}], "a=xyz", "d/a=x*"),
        ([{"key": "a", "value": "x*"}, {"key": "b", "value_to_metric": True}], "a=xyz b=2", "d/a=x*/b=2"),
        # detailed_metric: all values, of the limit's own descriptor only
        ([{"key": "a", "detailed_metric": True}], "a=1", "d/a=1"),
        ([{"key": "a", "value": "x*"}, {"key": "b", "detailed_metric": True}], "a=xyz b=2", "d/a=xyz/b=2"),
        ([{"key": "a"}, {"key": "b", "value": "2", "detailed_metric": True}], "a=1 b=2", "d/a=1/b=2"),
        ([{"key": "a", "detailed_metric": True}, {"key": "b"}], "a=1 b=2", "d/a/b"),
        ([{"key": "a", "detailed_metric": True, "value_to_metric": True}], "a=1", "d/a=1"),
        ([{"key": "a", "detailed_metric": True}], "a=", "d/a"),
        # share_threshold wins at its level
        ([{"key": "a", "value": "x*", "share_threshold": True, "value_to_metric": True}], "a=xyz", "d/a=x*"),
        ([{"key": "a", "value": "x*", "share_threshold": True, "detailed_metric": True}], "a=xyz", "d/a=x*"),
        (
            [{"key": "a", "value": "x*", "share_threshold": True}, {"key": "b", "detailed_metric": True}],
            "a=xyz b=2",
            "d/a=x*/b=2",
        ),
        (
            [{"key": "a", "value": "x*", "share_threshold": True}, {"key": "b", "value_to_metric": True}],
            "a=xyz b=2",
            "d/a=x*/b=2",
        ),
    ],
)  # fmt: skip
def test_what_metrics_call_a_rule(levels, path, label):
    """Its id, with the request's own values where the rules ask for them."""
    document: dict[str, Any] = {"rate_limit": LIMIT}
    for number, level in enumerate(reversed(levels)):
        document = {**level, **document} if number == 0 else {**level, "descriptors": [document]}
    rules = ruleset(document)
    rule = met(rules, path)
    assert rule
    assert metric(rule, "d", entries(path)) == label
    assert len(rule.label) in (0, len(levels))


def test_a_rule_without_special_labels_has_none():
    """Metrics then need nothing of the request."""
    rules = ruleset(
        {"key": "a", "value": "x", "value_to_metric": True, "rate_limit": LIMIT},
        {"key": "b", "descriptors": [{"key": "c", "rate_limit": LIMIT}]},
    )
    assert [rule.label for rule in rules.rules] == [(), ()]


def test_the_default_algorithm():
    """What DEFAULT_ALGORITHM says counts where no rule does, and is told to those who plan overrides."""
    rules = ruleset({"key": "a", "rate_limit": LIMIT}, algorithm=Algorithm.FIXED_WINDOW)
    assert rules.algorithm is Algorithm.FIXED_WINDOW
    assert rules.rules[0].limit == Limit(7, Unit.MINUTE, algorithm=Algorithm.FIXED_WINDOW)
