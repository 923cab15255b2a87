"""Matching: the reference implementation's order of lookup, as tables, and against a model that does it the slow way."""

import json
import time
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_svc.model import Entry
from ratelimit_svc.rules.load import RuleFile, load
from ratelimit_svc.rules.match import Domain, Glob, find

LIMIT = {"unit": "second", "requests_per_unit": 1}


def domain(*descriptors, name="d", **root) -> Domain:
    """Compile descriptors, given as the dicts that YAML would hold."""
    document = {"domain": name, "descriptors": descriptors, **root}
    return load([RuleFile("test.json", json.dumps(document).encode())]).domains[name]


def at(path: str) -> tuple[Entry, ...]:
    """`a=1 b=2` → entries."""
    return tuple(Entry(*pair.split("=", 1)) for pair in path.split())


ORDER = domain(
    {
        "key": "tenant",
        "value": "acme",
        "rate_limit": LIMIT,
        "descriptors": [{"key": "path", "value": "/a", "rate_limit": LIMIT}, {"key": "free"}],
    },
    {"key": "tenant", "value": "a*", "rate_limit": LIMIT},
    {"key": "tenant", "value": "a*e", "rate_limit": LIMIT},
    {"key": "tenant", "rate_limit": LIMIT, "descriptors": [{"key": "path", "rate_limit": LIMIT}]},
    {"key": "node", "descriptors": [{"key": "path", "rate_limit": LIMIT}]},
    {"key": "free", "value": "yes"},
    {"key": "free", "rate_limit": LIMIT},
    {"key": "open", "rate_limit": {"unlimited": True}},
    {"key": "wk*", "rate_limit": LIMIT},
    {"key": "w*", "value": "x*z", "rate_limit": LIMIT},
    {"key": "route", "value": "/*", "rate_limit": LIMIT},
    {"key": "route", "value": "/*/b", "rate_limit": LIMIT},
    {"key": "a_b", "rate_limit": LIMIT},
    {"key": "a", "value": "b_c", "rate_limit": LIMIT},
    {"key": "a_b", "value": "c", "rate_limit": LIMIT},
)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("tenant=acme", "d/tenant=acme"),  # exact before wildcard and key
        ("tenant=ace", "d/tenant=a*"),  # the first wildcard of the file, not the closest
        ("tenant=bob", "d/tenant"),  # the key alone, last
        ("tenant=", "d/tenant"),
        ("tenant=acme path=/a", "d/tenant=acme/path=/a"),
        ("tenant=acme path=/b", None),  # no way back to `tenant`, which has a path
        ("tenant=bob path=/b", "d/tenant/path"),
        ("tenant=bob path=/b x=y", None),  # deeper than the rules: no rule, not the one passed
        ("tenant=acme free=x", None),  # a whitelist below a limit
        ("node=x", None),  # a node without a limit
        ("node=x path=/b", "d/node/path"),
        ("path=/b node=x", None),  # order of entries matters
        ("free=yes", None),  # a whitelist hides the key's limit
        ("free=no", "d/free"),
        ("open=x", "d/open"),  # unlimited is a match
        ("wkfoo=bar", "d/wk*"),  # a star in the key
        ("wk=", "d/wk*"),
        ("wfoo=xyz", "d/w*=x*z"),
        ("wfoo=xy", None),
        ("route=/*/b", "d/route=/*/b"),  # a literal star meets itself before an earlier wildcard
        ("route=/a/b", "d/route=/*"),
        ("a=b", None),  # the reference takes this for the key `a_b`
        ("a_b=c", "d/a_b=c"),
        ("a=b_c", "d/a=b_c"),
        ("Tenant=acme", None),  # case matters
        ("", None),
    ],
)
def test_lookup_order(path, rule):
    """Exact, then wildcards in file order, then the key alone; only the last entry's rule counts."""
    found = find(ORDER, at(path))
    assert [each.id for each in found] == ([rule] if rule else [])


@pytest.mark.parametrize(
    ("pattern", "fits", "misses"),
    [
        ("*", ["", "a", "*", "\n"], []),
        ("a*", ["a", "ab", "a*"], ["", "ba"]),
        ("*a", ["a", "ba"], ["ab", ""]),
        ("a*a", ["aa", "aba", "aaa"], ["a", "ab", "baa"]),  # head and tail never share a character
        ("a*b*c", ["abc", "axbxc", "abbc", "abcbc"], ["acb", "abxcx", "ac"]),
        ("ab*ba*c", ["abbac"], ["abaxc"]),  # nor head and middle
        ("a*bc*cd", ["abccd"], ["axbcd"]),  # nor middle and tail
        ("a**c", ["ac", "abc"], ["a", "c"]),
        ("*b*b*", ["bb", "abab"], ["b", "ab"]),
        ("/users/*/orders/*", ["/users/7/orders/", "/users//orders/1"], ["/users/7/orders"]),
        ("a.c*", ["a.c"], ["abc"]),  # nothing else is special
        ("[a]?*", ["[a]?x"], ["a?x", "ab"]),
    ],
)
def test_star(pattern, fits, misses):
    """A star is any run of characters, none included, and nothing else is special."""
    glob = Glob.of(pattern)
    assert [text for text in fits if not glob.fits(text)] == []
    assert [text for text in misses if glob.fits(text)] == []


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("*a*a*a*a*b", "a" * 60_000),
        ("*a*a*a*a*b*", "a" * 60_000),
        ("*" + "a*" * 1_000 + "b", "a" * 60_000),
        ("*" + "aab*" * 100, "a" * 60_000),
        ("*" + "a" * 1_000 + "b*", "a" * 60_000),
        ("*" + "ab" * 500 + "c*", "ab" * 30_000),
    ],
)
def test_hostile_values_take_linear_time(pattern, value):
    """No value makes a wildcard slow: a regular expression with backtracking would take hours here."""
    attacked = domain({"key": "k", "value": pattern, "rate_limit": LIMIT})
    start = time.process_time()
    assert find(attacked, (Entry("k", value),)) == ()
    assert time.process_time() - start < 0.25


def test_tenant_of():
    """The tenant is the value of the configured key, the first of several; else the domain."""
    shop = domain(name="shop", tenant="tenant")
    assert shop.tenant_of(at("path=/a tenant=acme tenant=other")) == "acme"
    assert shop.tenant_of(at("path=/a")) == "shop"
    assert domain(name="shop").tenant_of(at("tenant=acme")) == "shop"


def test_a_ruleset_describes_itself():
    """The repr counts what matters and shows no tree."""
    ruleset = load([RuleFile("a.yaml", b"domain: d\ndescriptors: [{key: a, rate_limit: {unlimited: true}}]")])
    assert repr(ruleset) == "<RuleSet [1 domains, 1 rules]>"


# --- against a model ----------------------------------------------------------------------------------------------------


class Configured(NamedTuple):
    """A descriptor as configured, for the model and for the loader."""

    key: str
    value: str | None
    limited: bool
    below: tuple["Configured", ...]

    def as_dict(self) -> dict[str, object]:
        found: dict[str, object] = {"key": self.key, "descriptors": [child.as_dict() for child in self.below]}
        if self.value is not None:
            found["value"] = self.value
        if self.limited:
            found["rate_limit"] = LIMIT
        return found


def descriptors_of(below) -> st.SearchStrategy[tuple[Configured, ...]]:
    descriptor = st.builds(
        Configured,
        key=st.sampled_from(["a", "b", "a*", "*"]),
        value=st.sampled_from([None, "x", "y", "xy", "*", "x*", "*y", "x*y", "x*x*"]),
        limited=st.booleans(),
        below=below,
    )
    return st.lists(descriptor, max_size=6, unique_by=lambda each: each[:2]).map(tuple)


trees = st.recursive(st.just(()), descriptors_of, max_leaves=12)
requests = st.lists(
    st.builds(
        Entry,
        key=st.sampled_from(["a", "b", "ab", "a*", "*", ""]),
        value=st.sampled_from(["", "x", "y", "xy", "xx", "xzy", "x*", "*", "x*y"]),
    ),
    max_size=4,
).map(tuple)


def slow_fits(pattern: str, text: str) -> bool:
    """Try every run of characters for every star."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(slow_fits(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and text[0] == pattern[0] and slow_fits(pattern[1:], text[1:])


def slow_find(below, entries, path="d") -> str | None:
    """The reference's order in the words of its documentation; returns the rule's id."""
    if not entries:
        return None
    first, *rest = entries
    exact = [each for each in below if (each.key, each.value) == first]
    wild = [
        each
        for each in below
        if "*" in each.key + (each.value or "")
        and slow_fits(each.key, first.key)
        and (each.value is None or slow_fits(each.value, first.value))
    ]
    by_key = [each for each in below if each.value is None and each.key == first.key]
    for each in (exact + wild + by_key)[:1]:
        path += f"/{each.key}" if each.value is None else f"/{each.key}={each.value}"
        if rest:
            return slow_find(each.below, rest, path)
        return path if each.limited else None
    return None


@settings(deadline=None)
@given(trees, requests)
def test_find_equals_the_slow_model(tree, entries):
    """On any rules and any request the compiled lookup finds what the model finds."""
    found = find(domain(*(each.as_dict() for each in tree)), entries)
    expected = slow_find(tree, entries)
    assert [each.id for each in found] == ([expected] if expected else [])
