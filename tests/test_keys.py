"""Keys: nothing a caller sends can collide, break the tag or bloat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.model import Algorithm, Entry
from ratelimit_svc.store.keys import MAX_KEY, key

ENTRIES = st.lists(st.builds(Entry, st.text(max_size=5), st.text(max_size=200)), max_size=3).map(tuple)
DOMAINS = st.text(min_size=1, max_size=5)
ACME = (Entry("tenant", "acme"),)
TENANTS = st.one_of(st.none(), st.text(max_size=200))


def made(domain="shop", entries=ACME, *, tenant=None, window_us=60_000_000, prefix="") -> bytes:
    return key(prefix, domain, entries, tenant=tenant, algorithm=Algorithm.SLIDING_WINDOW, window_us=window_us)


@pytest.mark.parametrize(
    ("entries", "tenant", "expected"),
    [
        ((Entry("tenant", "acme"), Entry("path", "/api")), "acme", b"{acme}shop/tenant=acme/path=%2Fapi:s60000000"),
        ((Entry("path", "/api"),), None, b"{shop/path=%2Fapi}:s60000000"),
        ((Entry("path", ""),), None, b"{shop/path=}:s60000000"),
        ((Entry("k", "}{:/="),), "}", b"{%7D}shop/k=%7D%7B%3A%2F%3D:s60000000"),
        ((), None, b"{shop}:s60000000"),
        ((), "", b"{#}shop:s60000000"),
        ((Entry("k", "é"),), "#", b"{%23}shop/k=%C3%A9:s60000000"),
    ],
)
def test_the_layout(entries, tenant, expected):
    """The documented form, with a tenant and without, and with everything that could be mistaken for it escaped."""
    assert made(entries=entries, tenant=tenant) == expected


def test_the_prefix_stands_before_all_and_the_period_makes_another_window():
    """CACHE_KEY_PREFIX is put before the key as it is; another period is another key."""
    assert made(prefix="mesh-1:") == b"mesh-1:{shop/tenant=acme}:s60000000"
    assert made(window_us=1_000_000) != made(window_us=60_000_000)


@given(one=st.tuples(DOMAINS, ENTRIES, TENANTS), other=st.tuples(DOMAINS, ENTRIES, TENANTS))
def test_different_paths_never_make_one_key(one, other):
    """Two keys are equal only for the same domain, entries and tenant."""
    keys = [made(domain, entries, tenant=tenant) for domain, entries, tenant in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@given(entries=ENTRIES, tenant=TENANTS)
def test_the_tag_is_what_redis_cluster_takes_it_for(entries, tenant):
    """Exactly one pair of braces, at the front and not empty, so that all of a tenant's windows share a slot."""
    made_key = made(entries=entries, tenant=tenant)
    assert made_key.count(b"{") == made_key.count(b"}") == 1
    assert made_key.startswith(b"{")
    assert made(entries=(), tenant="t").split(b"}")[0] == made(entries=entries, tenant="t").split(b"}")[0]


def test_a_long_value_is_hashed_and_not_cut():
    """However long a value is, its key is short, and a longer one makes another key."""
    keys = {made(entries=(Entry("k", "x" * length),), tenant="y" * length) for length in (10**3, 10**3 + 1, 10**6)}
    assert len(keys) == 3
    assert all(len(one) <= MAX_KEY for one in keys)


def test_a_hash_cannot_be_forged():
    """A caller who sends what a hashed path looks like gets a key of its own."""
    long_key = made(entries=(Entry("k", "x" * 1000),))
    digest = long_key[1:].split(b"}")[0].decode()
    assert digest.startswith("#")
    assert made(digest, ()) != long_key
