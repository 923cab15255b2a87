"""Without the store the rules' on_store_failure answers."""

import asyncio

import pytest
import redis

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Algorithm, Code, Entry, Limit, OnStoreFailure, Role, Rule, Status, Unit
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.wire.client import request
from tests.limiting import asks, make, rules_of, sends, tell


async def test_the_local_share_is_enforced_from_memory(held):
    """ceil(5 / 2) a replica while the store is away, each denial with its window; the store's own when it is back, less what was let pass."""
    limiter = make(held, replicas=2)
    held.away = True
    told = [await tell(limiter, asks("tenant=a")) for _ in range(4)]
    assert [verdict.code for verdict in told] == [Code.OK] * 3 + [Code.OVER_LIMIT]
    assert [verdict.statuses[0].remaining for verdict in told] == [2, 1, 0, 0]
    assert told[3].statuses[0].reset_s == 61
    held.away = False
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 1
    assert limiter._metrics.policy_decisions.local == 4
    assert limiter._metrics.store_failures.unavailable == 4


@pytest.mark.parametrize(
    ("descriptors", "expected"),
    [
        (["allow=1"], [Code.OK]),
        (["deny=1"], [Code.OVER_LIMIT]),
        (["tenant=a", "allow=1"], [Code.OK, Code.OK]),
        (["tenant=a", "deny=1"], [Code.OK, Code.OVER_LIMIT]),
        (["allow=1", "none=1", "deny=1", "free=1"], [Code.OK, Code.OK, Code.OVER_LIMIT, Code.OK]),
        (["shadow=1"], [Code.OK]),
        (["shadow=1", "allow=1"], [Code.OK, Code.OK]),
        (["error=1"], "error"),
        (["error=1", "deny=1"], "error"),
        (["tenant=a", "error=1"], "error"),
    ],
)
async def test_the_strongest_policy_of_a_request_decides(held, descriptors, expected):
    """error > deny > local > allow, whatever else the request asks."""
    limiter = make(held)
    held.away = True
    if expected == "error":
        with pytest.raises(StoreUnavailableError, match="away"):
            await tell(limiter, asks(*descriptors))
        return
    verdict = await tell(limiter, asks(*descriptors))
    assert [status.code for status in verdict.statuses] == expected
    assert verdict.code is max(expected)


async def test_allow_lets_pass_beside_a_full_local_share(held):
    """A request with both is held to the local rule only."""
    limiter = make(held)
    held.away = True
    told = [await tell(limiter, asks("allow=1")) for _ in range(20)]
    told += [await tell(limiter, asks("tenant=a", "allow=1")) for _ in range(5)]
    assert {verdict.code for verdict in told} == {Code.OK}
    assert (await tell(limiter, asks("tenant=a", "allow=1"))).code is Code.OVER_LIMIT


def rule(place: int, limit: Limit, role: Role = Role.GATE, policy: OnStoreFailure = OnStoreFailure.LOCAL) -> Rule:
    return Rule(f"shop/d{place}", limit, role, policy)


SIX = Limit(6, Unit.MINUTE)
BUCKET = Limit(6, Unit.MINUTE, algorithm=Algorithm.TOKEN_BUCKET, burst=3)
BEGUN = Limit(6, Unit.MINUTE, algorithm=Algorithm.FIXED_WINDOW)


async def test_a_local_share_of_quotas(held):
    """One quota with room in this replica's share lets pass, as it would in the store."""
    limiter = make(held, rules=rules_of((rule(0, SIX, Role.QUOTA),), (rule(1, BEGUN, Role.QUOTA),)), replicas=3)
    held.away = True
    told = [
        await tell(limiter, sends(*asked)) for asked in (["d0 2"], ["d0 1", "d1 1"], ["d0 1", "d1 1"], ["d0 1", "d1 1"])
    ]
    assert [[status.code.name for status in verdict.statuses] for verdict in told] == [
        ["OK"],
        ["OVER_LIMIT", "OK"],
        ["OVER_LIMIT", "OK"],
        ["OVER_LIMIT", "OVER_LIMIT"],
    ]
    assert [verdict.code.name for verdict in told] == ["OK", "OK", "OK", "OVER_LIMIT"]


async def test_a_local_share_of_a_bucket(held):
    """Of the burst and of the rate: ceil(3 / 2) at once, then ceil(6 / 2) a minute."""
    limiter = make(held, rules=rules_of((rule(0, BUCKET),)), replicas=2)
    held.away = True
    told = [await tell(limiter, sends("d0 1")) for _ in range(3)]
    assert [verdict.code for verdict in told] == [Code.OK, Code.OK, Code.OVER_LIMIT]
    assert told[2].statuses[0].reset_s == 20


async def test_a_local_share_of_several_limits_is_all_or_nothing(held):
    """Denied by one of them, none is charged in this replica's memory."""
    limits = (SIX, BEGUN, BUCKET, Limit(6, Unit.HOUR))
    limiter = make(held, rules=rules_of(tuple(rule(0, limit) for limit in limits), (rule(1, SIX),)), replicas=2)
    held.away = True
    told = [await tell(limiter, sends("d0 1", "d1 1")) for _ in range(3)]
    assert [verdict.code for verdict in told] == [Code.OK, Code.OK, Code.OVER_LIMIT]
    assert [status.code for status in told[2].statuses] == [Code.OVER_LIMIT, Code.OK]
    assert (await tell(limiter, sends("d1 1"))).statuses[0].remaining == 0


async def test_a_local_share_knows_budgets_of_its_own(held):
    """A check that this replica was asked during the outage makes a budget in its memory, and refunds work there."""
    limiter = make(held, rules=rules_of((rule(0, SIX),)), replicas=2)
    held.away = True
    told = [
        await tell(limiter, sends(asked))
        for asked in ("d0 check", "d0 2", "d0 4", "d0 check", "d0 refund 5", "d0 check")
    ]
    assert [(verdict.code.name, verdict.statuses[0].remaining) for verdict in told] == [
        ("OK", 3),
        ("OK", 1),
        ("OVER_LIMIT", 0),
        ("OVER_LIMIT", 0),
        ("OK", 2),
        ("OK", 2),
    ]


async def test_the_strongest_policy_decides_among_quotas_and_limits_of_one_descriptor_too(held):
    """A quota that says deny denies, whatever room another has; of several limits those that say so are told."""
    deny = OnStoreFailure.DENY
    rules = rules_of(
        (rule(0, SIX, Role.QUOTA, deny),), (rule(1, SIX, Role.QUOTA),), (rule(2, SIX), rule(2, BEGUN, policy=deny))
    )
    limiter = make(held, rules=rules)
    held.away = True
    quotas = await tell(limiter, sends("d0 1", "d1 1"))
    assert [status.code for status in quotas.statuses] == [Code.OVER_LIMIT, Code.OK]
    several = await tell(limiter, sends("d1 1", "d2 1"))
    assert several.statuses == (Status(Code.OK), Status(Code.OVER_LIMIT, BEGUN, 0, 1))
    assert {quotas.code, several.code} == {Code.OVER_LIMIT}


async def test_a_key_that_holds_something_else_is_answered_by_policy_alone(server, clock):
    """A poisoned key costs its own tenant the policy, and the other requests of the batch nothing; it is named."""
    told: list[list[bytes]] = []
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        client.flushall()
        client.hset("{a}shop/tenant=a:s60000000", "x", "y")
    async with RedisStore(server.url, clock=clock, timeout_s=5) as store:
        limiter = make(store, replicas=5, on_spoilt=told.append)
        first = await asyncio.gather(*(tell(limiter, asks(f"tenant={name}")) for name in "abc"))
        assert [verdict.statuses[0].remaining for verdict in first] == [0, 4, 4]
        assert (await tell(limiter, asks("tenant=a"))).code is Code.OVER_LIMIT
        assert limiter._metrics.store_failures.bad_key == 2
    assert told == [[b"{a}shop/tenant=a:s60000000"]] * 2


@pytest.mark.parametrize("away", [False, True])
async def test_in_shadow_mode_nobody_is_denied_and_all_is_counted_as_if(held, away):
    """SHADOW_MODE: the request passes, its statuses say what enforcing would, and what would be denied is not charged."""
    limiter = make(held, shadow_mode=True)
    held.away = away
    told = [await tell(limiter, asks("tenant=a")) for _ in range(7)]
    assert [verdict.code for verdict in told] == [Code.OK] * 7
    assert [verdict.statuses[0].code for verdict in told] == [Code.OK] * 5 + [Code.OVER_LIMIT] * 2
    assert limiter._metrics.over_limit == 2
    assert (await tell(limiter, asks("error=1"))).code is Code.OK
    assert (await tell(limiter, asks("deny=1"))).code is Code.OK
    at_once = await asyncio.gather(*(tell(limiter, asks("tenant=b")) for _ in range(9)))
    assert {verdict.code for verdict in at_once} == {Code.OK}
    assert limiter._metrics.over_limit == 2 + away + 4  # while the store is away, deny=1 is over, too


QUOTAS = """
domain: shop
descriptors:
  - {key: mine, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: free, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 1, on_store_failure: allow}}
  - {key: strict, rate_limit: {unit: minute, requests_per_unit: 1, on_store_failure: deny}}
  - {key: wrong, rate_limit: {unit: minute, requests_per_unit: 1, on_store_failure: error}}
"""


async def test_a_quota_that_allows_is_the_one_that_fits(held):
    """While the store is away a full quota of this replica's share denies only where no other quota lets pass."""
    limiter = make(held, rules=QUOTAS)
    held.away = True
    assert [(await tell(limiter, asks("mine=1"))).code for _ in range(2)] == [Code.OK, Code.OVER_LIMIT]
    assert (await tell(limiter, asks("mine=1", "free=1"))).code is Code.OK


@pytest.mark.parametrize("key", ["strict", "wrong"])
async def test_a_refund_is_ok_whatever_the_policy(held, key):
    """Nobody is denied for giving back: while the store is away it goes to this replica's share."""
    limiter = make(held, rules=QUOTAS)
    held.away = True
    message = request("shop", [[Entry(key, "1")]])
    message.descriptors[0].is_negative_hits = True
    assert (await tell(limiter, message.SerializeToString())).code is Code.OK
