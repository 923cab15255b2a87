"""The example rules: each loads, and says what its comments promise."""

from pathlib import Path

import pytest

from ratelimit_svc.model import Entry, Limit, Unit
from ratelimit_svc.rules.load import load, read
from ratelimit_svc.rules.match import find

CONFIG = Path(__file__).parent.parent / "config"


@pytest.mark.parametrize("file", sorted(CONFIG.iterdir()), ids=lambda file: file.name)
def test_every_example_loads(file):
    """No example rots: each file is a rule file and has rules."""
    assert load(read(file)).rules


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
        ("tenant=acme path=/v1/orders", "api/tenant=acme/path=/v1/orders"),
        ("tenant=acme path=/v1/users", "api/tenant=acme/path=/v1/*"),
        ("tenant=acme path=/healthz", None),
        ("tenant=acme path=/", "api/tenant=acme/path"),
        ("tenant=internal", "api/tenant=internal"),
        ("tenant=umbrella", "api/tenant"),
        ("tenant=umbrella path=/", None),
        ("anonymous=", "api/anonymous"),
    ],
)
def test_the_worked_example(entries, rule):
    """The commented example matches as its comments say."""
    api = load(read(CONFIG / "example.yaml")).domains["api"]
    found = find(api, [Entry(*entry.split("=", 1)) for entry in entries.split()])
    assert [each.id for each in found] == ([rule] if rule else [])
