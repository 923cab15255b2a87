"""The recent requests, as /debug/requests shows them: which rule, or why none, and how the windows stand."""

import pytest

from ratelimit_svc.model import Code, Entry
from ratelimit_svc.pb.envoy.type.v3.ratelimit_unit_pb2 import RateLimitUnit
from ratelimit_svc.recent import MOST_SHOWN, Recent, Wanted
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.client import request
from tests.histories import MINUTE, SECOND
from tests.limiting import asks, make, tell

RULES = """
domain: shop
tenant: tenant
descriptors:
  - key: tenant
    rate_limits:
      - {unit: minute, requests_per_unit: 3, name: burst}
      - {unit: hour, requests_per_unit: 100}
    descriptors:
      - {key: path, value: /slow*, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: watched, shadow_mode: true, rate_limit: {per: 90s, requests_per_unit: 1}}
  - {key: free, rate_limit: {unlimited: true, replaces: [{name: burst}]}}
  - {key: aligned, rate_limit: {unit: minute, requests_per_unit: 1, algorithm: fixed_window}}
"""


@pytest.fixture
async def looking(store):
    """A limiter on each store in turn, and what looks at its requests."""
    limiter = make(store, rules=RULES)
    return limiter, Recent(limiter, store, rls.decode)


async def test_it_says_the_rule_and_how_its_windows_stand(looking):
    """Each limit of a descriptor with its rule, tenant and window: what remains, what is used, when it frees."""
    limiter, recent = looking
    for _ in range(4):
        last = await tell(limiter, asks("tenant=acme"))
    assert last.code is Code.OVER_LIMIT
    (seen,) = (await recent.look(Wanted()))["requests"]
    assert seen == {
        "domain": "shop",
        "descriptors": [
            {
                "entries": ["tenant=acme"],
                "limits": [
                    {
                        "rule": "shop/tenant#burst",
                        "limit": "3 per minute, sliding in 60 slices of 1 s",
                        "role": "gate",
                        "tenant": "acme",
                        "window": "{acme}shop/tenant=acme:s60000000",
                        "remaining": 0,
                        "used": 3,
                        "frees_in_s": 61.0,
                        "empty_in_s": 61.0,
                    },
                    {
                        "rule": "shop/tenant#2",
                        "limit": "100 per hour, sliding in 60 slices of 1 min",
                        "role": "gate",
                        "tenant": "acme",
                        "window": "{acme}shop/tenant=acme:s3600000000",
                        "remaining": 97,
                        "used": 3,
                        "frees_in_s": 0.0,
                        "empty_in_s": 3660.0,
                    },
                ],
            }
        ],
    }


async def test_it_says_why_no_rule_limits_a_request(looking):
    """The silent no-op: an unknown domain, a descriptor that nothing fits, one that is replaced, one that is unlimited."""
    limiter, recent = looking
    await tell(limiter, asks("tennant=acme"))
    await tell(limiter, request("shopp", [[Entry("tenant", "acme")]]).SerializeToString())
    await tell(limiter, request("shop", [[Entry("tenant", "a"), Entry("path", "/quick")]]).SerializeToString())
    await tell(limiter, asks("free=1", "tenant=acme"))
    newest, deeper, domain, typo = (await recent.look(Wanted()))["requests"]
    assert newest["descriptors"][0] == {"entries": ["free=1"], "rule": "shop/free", "unlimited": True}
    assert [limit["rule"] for limit in newest["descriptors"][1]["limits"]] == ["shop/tenant#2"]
    assert deeper["descriptors"][0]["why"] == "no descriptor fits path=/quick: this level has path=/slow*"
    assert domain["descriptors"][0]["why"] == "no domain 'shopp' (did you mean 'shop'?): the rules have shop"
    assert typo["descriptors"][0]["why"].startswith("no descriptor fits tennant=acme (did you mean 'tenant'?)")
    unmatched = (await recent.look(Wanted(unmatched=True)))["requests"]
    assert unmatched == [deeper, domain, typo]


async def test_what_is_replaced_says_so(store):
    """A limit of the request that another one replaces is not taken for a descriptor without a rule."""
    limiter = make(
        store,
        rules="""
domain: shop
descriptors:
  - {key: a, rate_limit: {unit: minute, requests_per_unit: 3, name: one}}
  - {key: b, rate_limit: {unit: minute, requests_per_unit: 3, replaces: [{name: one}]}}
""",
    )
    await tell(limiter, asks("a=1", "b=1"))
    (seen,) = (await Recent(limiter, store, rls.decode).look(Wanted()))["requests"]
    assert seen["descriptors"][0] == {
        "entries": ["a=1"],
        "rule": None,
        "why": "another limit of this request replaces it",
    }


async def test_looking_counts_nothing_and_makes_no_budget(looking, clock):
    """However often one looks, every window is as before: also where a check of a caller's would make it a budget."""
    limiter, recent = looking
    await tell(limiter, asks("tenant=acme"))
    first = await recent.look(Wanted())
    for _ in range(5):
        assert await recent.look(Wanted()) == first
    # a budget would take these five though only two are left
    assert (await tell(limiter, asks("tenant=acme", hits=5))).code is Code.OVER_LIMIT
    assert (await tell(limiter, asks("tenant=acme"))).statuses[0].remaining == 1


async def test_a_full_fixed_window_says_when_it_ends(looking, clock):
    """A check passes at the limit of a fixed window, but a hit would not: it says when one does."""
    limiter, recent = looking
    clock.now = clock.now // MINUTE * MINUTE + 20 * SECOND
    await tell(limiter, asks("aligned=1"))
    (seen,) = (await recent.look(Wanted()))["requests"]
    (limit,) = seen["descriptors"][0]["limits"]
    assert (limit["remaining"], limit["frees_in_s"]) == (0, 40.0)


async def test_requests_are_distinct_and_newest_first(looking):
    """What is asked again moves to the front; a filter says which domain, which entry, how many."""
    limiter, recent = looking
    for name in ("a", "b", "c", "a"):
        await tell(limiter, asks(f"tenant={name}"))
    await tell(limiter, asks("watched=1", "tenant=b", hits=2))

    async def entries(**wanted):
        found = (await recent.look(Wanted(**wanted)))["requests"]
        return [each["descriptors"][0]["entries"] for each in found]

    assert await entries() == [["watched=1"], ["tenant=a"], ["tenant=c"], ["tenant=b"]]
    assert await entries(limit=2) == [["watched=1"], ["tenant=a"]]
    assert await entries(entry="tenant=b") == [["watched=1"], ["tenant=b"]]
    assert await entries(domain="other") == []
    told = await recent.look(Wanted(limit=1))
    assert told["remembered"] == 4
    assert told["requests"][0]["hits"] == 2
    assert told["requests"][0]["descriptors"][0]["limits"][0]["limit"] == "1 per 90 s, sliding in 60 slices of 1.5 s"


async def test_a_page_is_bounded(looking):
    """However many are wanted, no more than MOST_SHOWN windows are shown, and the store is asked in batches it takes."""
    limiter, recent = looking
    for number in range(MOST_SHOWN + 50):
        await tell(limiter, asks(f"tenant=t{number}"))
    found = (await recent.look(Wanted(limit=10**9)))["requests"]
    assert len(found) == MOST_SHOWN // 2  # with two limits each
    assert all(limit["remaining"] in (2, 99) for each in found for limit in each["descriptors"][0]["limits"])


async def test_a_store_that_is_away_is_said_and_rules_are_shown_all_the_same():
    """In an outage the page still says which rule each request met."""
    store = RedisStore("redis://127.0.0.1:1", timeout_s=1)
    limiter = make(store, rules=RULES)
    await tell(limiter, asks("tenant=acme"))
    told = await Recent(limiter, store, rls.decode).look(Wanted())
    assert told["store_away"]
    (limit, _) = told["requests"][0]["descriptors"][0]["limits"]
    assert limit["rule"] == "shop/tenant#burst"
    assert "remaining" not in limit


async def test_without_rules_there_is_nothing(store):
    """Before rules are loaded, no request is remembered."""
    limiter = make(store, rules=None)
    assert await Recent(limiter, store, rls.decode).look(Wanted()) == {
        "remembered": 0,
        "store_away": "",
        "shadow_mode": False,
        "requests": [],
    }


async def test_limits_that_share_a_window_are_told_apart(looking):
    """A limit that a request brings along shares its window with the rule's: each is shown against its own number."""
    limiter, recent = looking
    await tell(limiter, asks("aligned=1"))
    message = request("shop", [[Entry("aligned", "1")]])
    message.descriptors[0].limit.requests_per_unit = 100
    message.descriptors[0].limit.unit = RateLimitUnit.MINUTE
    await tell(limiter, message.SerializeToString())
    found = (await recent.look(Wanted()))["requests"]
    assert [each["descriptors"][0]["limits"][0]["remaining"] for each in found] == [98, 0]


async def test_a_page_of_many_descriptors_is_bounded_too(looking):
    """Requests of many descriptors fill a page sooner; one is always shown."""
    limiter, recent = looking
    for number in range(20):
        await tell(limiter, asks(*[f"none{part}={number}" for part in range(100)]))
    assert len((await recent.look(Wanted()))["requests"]) == MOST_SHOWN // 100
