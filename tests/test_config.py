"""The example rules: each loads, and says what its comments promise."""

from pathlib import Path

import pytest

from ratelimit_svc.model import Entry, Limit, Overdraft, Unit
from ratelimit_svc.rules.load import load, read
from ratelimit_svc.rules.match import find
from ratelimit_svc.rules.words import in_words

CONFIG = Path(__file__).parent.parent / "config"


@pytest.mark.parametrize("file", sorted(CONFIG.iterdir()), ids=lambda file: file.name)
def test_every_example_loads(file):
    """No example rots: each file is a rule file, has rules and nothing odd in it."""
    assert load(read(file), strict=True).rules


def test_the_examples_load_together():
    """The folder as a whole can be served: no domain is in two files."""
    assert len(load(read(CONFIG)).domains) == len(list(CONFIG.iterdir()))


@pytest.mark.parametrize(
    ("tenant", "limit"),
    [("bronze", 10), ("silver", 20), ("gold", 50), ("anybody", 5)],
)
def test_the_demos_limits(tenant, limit):
    """The demo's tenants have the limits that its table shows."""
    shop = load(read(CONFIG / "demo.yaml")).domains["shop"]
    (rule,) = find(shop, (Entry("tenant", tenant),))
    assert rule.limit == Limit(limit, Unit.SECOND)
    assert shop.tenant_of((Entry("tenant", tenant),)) == tenant


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ("tenant=acme", "api/tenant=acme"),
        ("tenant=acme path=/static/a.css", "api/tenant=acme/path=/static/*"),
        ("tenant=acme path=/v1/users", "api/tenant=acme/path=/v1/*"),
        ("tenant=acme path=/healthz", None),
        ("tenant=acme path=/", "api/tenant=acme/path"),
        ("tenant=internal", "api/tenant=internal"),
        ("tenant=umbrella", "api/tenant"),
        ("tenant=umbrella path=/", None),
        ("anonymous=", "api/anonymous"),
        ("campaign=x", "api/campaign"),
    ],
)
def test_the_worked_example(entries, rule):
    """The commented example matches as its comments say."""
    api = load(read(CONFIG / "example.yaml")).domains["api"]
    found = find(api, [Entry(*entry.split("=", 1)) for entry in entries.split()])
    assert [each.id for each in found] == ([rule] if rule else [])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("tenant=acme", ["100 per minute, sliding in 60 slices of 1 s"]),
        (
            "tenant=acme path=/v1/orders",
            ["5 per second, sliding in 60 slices of 16.667 ms", "10000 per day, sliding in 60 slices of 24 min"],
        ),
        ("tenant=bursty", ["10 per second, at once up to 50 (token bucket)"]),
        ("tenant=patient", ["30 per 90 s, sliding in 60 slices of 1.5 s"]),
        ("tenant=contract", ["100000 per month, fixed windows of the calendar (UTC)"]),
    ],
)
def test_the_worked_examples_limits(entries, words):
    """Each algorithm is shown once, and means what its comment says."""
    api = load(read(CONFIG / "example.yaml")).domains["api"]
    found = find(api, [Entry(*entry.split("=", 1)) for entry in entries.split()])
    assert [in_words(rule.limit) for rule in found] == words


def test_the_token_budgets():
    """Costs are charged whatever they are; requests give nothing back."""
    llm = load(read(CONFIG / "llm-budget.yaml")).domains["llm"]
    budgets = find(llm, [Entry("tenant", "t")])
    assert [rule.id for rule in budgets] == ["llm/tenant#tokens-per-minute", "llm/tenant#tokens-per-day"]
    assert {rule.overdraft for rule in budgets} == {Overdraft.ALWAYS}
    assert [rule.overdraft for rule in find(llm, [Entry("tenant", "trial")])] == [Overdraft.AUTO]
    for tenant in ("t", "trial"):
        reserved = find(llm, [Entry("tenant", tenant), Entry("budget", "reserved")])
        assert [(rule.overdraft, rule.refunds) for rule in reserved] == [(Overdraft.NEVER, True)]
    assert [rule.refunds for rule in find(llm, [Entry("requests", "u")])] == [False]
