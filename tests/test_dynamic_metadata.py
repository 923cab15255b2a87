"""What access logs are told: the reference implementation's fields and ours."""

import copy
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from ratelimit_svc.limiter import dynamic_metadata, verdicts
from ratelimit_svc.limiter.plans import Planner
from ratelimit_svc.model import (
    Code,
    Descriptor,
    Entry,
    Grant,
    Limit,
    OnStoreFailure,
    Outcome,
    Request,
    Role,
    Rule,
    Unit,
    Verdict,
)
from ratelimit_svc.pb.envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from ratelimit_svc.wire import rls
from tests.limiting import FIVE, make, rule, rules_of, sends, tell

NINE = Limit(9, Unit.HOUR)


async def told(store, rules, *asked: str, times: int = 1) -> dict[str, Any]:
    """What the last of some equal requests is told."""
    limiter = make(store, rules=rules, dynamic_metadata=True)
    for _ in range(times):
        verdict = await tell(limiter, sends(*asked))
    assert verdict.metadata is not None
    return dict(verdict.metadata)


async def test_a_request_that_passes_is_told_the_rule_with_least_left(held):
    """Each descriptor has its entries, its hits, its rule and what is left; above stands what decided."""
    assert await told(
        held, rules_of((rule(0),), (rule(1, NINE),), (rule(2, None),)), "d0 1", "d1 7", "d2 1", "none 1"
    ) == {
        "domain": "shop",
        "descriptors": [
            {
                "entries": ["d0=x"],
                "hitsAddend": 1,
                "rule": "shop/d0",
                "tenant": "shop",
                "remaining": 4,
                "reset": 61,
                "code": "OK",
            },
            {
                "entries": ["d1=x"],
                "hitsAddend": 7,
                "rule": "shop/d1",
                "tenant": "shop",
                "remaining": 2,
                "reset": 3660,
                "code": "OK",
            },
            {"entries": ["d2=x"], "hitsAddend": 1, "rule": "shop/d2", "code": "OK"},
            {"entries": ["none=x"], "hitsAddend": 1},
        ],
        "rule": "shop/d1",
        "tenant": "shop",
        "reset": 3660,
    }


async def test_a_request_that_is_denied_is_told_the_rule_that_denies_longest(held):
    """Not the one with least left."""
    rules = rules_of((rule(0, Limit(0, Unit.MINUTE)),), (rule(1, Limit(0, Unit.HOUR)),), (rule(2),))
    found = await told(held, rules, "d0 1", "d1 1", "d2 1")
    assert (found["rule"], found["reset"]) == ("shop/d1", 3600)
    assert [each["code"] for each in found["descriptors"]] == ["OVER_LIMIT", "OVER_LIMIT", "OK"]


async def test_a_full_quota_did_not_deny_where_another_had_room(held):
    """The gate did, though the quota stays full for longer."""
    day = Limit(1, Unit.DAY)
    rules = rules_of((rule(0),), (rule(1, day, role=Role.QUOTA),), (rule(2, NINE, role=Role.QUOTA),))
    limiter = make(held, rules=rules, dynamic_metadata=True)
    for asked in ("d0 5", "d1 1"):
        await tell(limiter, sends(asked))
    verdict = await tell(limiter, sends("d0 1", "d1 1", "d2 1"))
    assert [status.code for status in verdict.statuses] == [Code.OVER_LIMIT, Code.OVER_LIMIT, Code.OK]
    assert verdict.metadata is not None
    assert verdict.metadata["rule"] == "shop/d0"


async def test_of_several_limits_the_one_that_is_told_is_named(held):
    """The id is that of the limit whose status it is."""
    rules = rules_of((Rule("shop/d0#hourly", NINE), Rule("shop/d0#minutely", FIVE)))
    assert (await told(held, rules, "d0 1"))["rule"] == "shop/d0#minutely"


async def test_a_limit_brought_along_is_told_as_the_reference_does(held):
    """As text, and counted under an id of its own."""
    (found,) = (await told(held, rules_of((rule(0),)), "d0 1 of own 3"))["descriptors"]
    assert (found["limit"], found["rule"]) == ("requests_per_unit:3 unit:MINUTE", "shop/d0#override")


async def test_a_tenant_is_told(held):
    """Whose quota was used."""
    found = await told(held, rules_of((rule(0),), tenant="d0"), "d0=acme 1")
    assert (found["tenant"], found["descriptors"][0]["entries"]) == ("acme", ["d0=acme"])


async def test_nothing_is_told_where_nobody_asks(held):
    """Without `dynamic_metadata` answers have none."""
    assert (await tell(make(held, rules=rules_of((rule(0),))), sends("d0 1"))).metadata is None


@pytest.mark.parametrize("policy", [OnStoreFailure.ALLOW, OnStoreFailure.DENY, OnStoreFailure.LOCAL])
async def test_policies_are_told_too(held, policy):
    """Answers without the store say as much as is known."""
    held.away = True
    found = await told(held, rules_of((rule(0, on_store_failure=policy),)), "d0 1")
    assert found["descriptors"][0]["code"] == ("OVER_LIMIT" if policy is OnStoreFailure.DENY else "OK")
    assert ("rule" in found) == (policy is not OnStoreFailure.ALLOW)


def described(request: Request, rules, **others) -> dict[str, Any]:
    """What is told of a request that has passed every limit."""
    plan = Planner(rules, keep_requests=True).plan(request)
    outcome = Outcome(**{"remaining": 1, "empty_us": 0, "fits_in_us": 0, **others})
    return dynamic_metadata.describe(plan, request, verdicts.granted(plan, Grant(1, (outcome,) * len(plan.charges))))


def asks(*places: int, hits: int = 0) -> Request:
    return Request("shop", tuple(Descriptor((Entry(f"d{place}", "x"),)) for place in places), hits)


def test_the_requests_own_hits_are_told_where_it_has_some():
    """As the reference: absent if 0, and not those of a descriptor that has none of its own."""
    rules = rules_of((rule(0),))
    assert "hitsAddend" not in described(asks(0), rules)
    found = described(asks(0, hits=3), rules)
    assert found["hitsAddend"] == 3
    assert "hitsAddend" not in found["descriptors"][0]


ONE = {"team": "a", "contact": {"mail": "a@x", "tags": ["1"]}, "nothing": None}
OTHER = {
    "team": "b",
    "contact": {"mail": "b@x", "phone": 7, "tags": ["2"]},
    "tier": {"level": 1},
    "nothing": {"not": "merged"},
}
MERGED = {
    "team": "a",
    "contact": {"mail": "a@x", "phone": 7, "tags": ["1"]},
    "tier": {"level": 1},
    "nothing": None,
}


def test_the_rules_own_metadata_is_merged_deeply_and_the_first_wins():
    """Mappings are merged, lists and single values are not."""
    rules = rules_of((rule(0, metadata=ONE),), (rule(1, metadata=OTHER),), (rule(2),))
    assert described(asks(0, 1, 2), rules)["metadata"] == MERGED
    assert "metadata" not in described(asks(2), rules)


def test_merging_changes_no_rule():
    """The reference writes one rule's metadata into another's; here each request is told its own rules' only."""
    one, other = copy.deepcopy(ONE), copy.deepcopy(OTHER)
    rules = rules_of((rule(0, metadata=one),), (rule(1, metadata=other),))
    described(asks(0, 1), rules)
    described(asks(1, 0), rules)
    assert (one, other) == (ONE, OTHER)
    assert described(asks(0), rules)["metadata"] == ONE


def test_unlimited_rules_and_several_limits_tell_theirs_once():
    """What a descriptor's limits share is told once."""
    rules = rules_of((rule(0, None, metadata=ONE),), (rule(1, metadata=OTHER), rule(1, NINE, metadata=OTHER)))
    assert described(asks(0, 1), rules)["metadata"] == MERGED


def test_what_was_denied_tells_no_metadata():
    """Only descriptors that passed."""
    rules = rules_of((rule(0, role=Role.QUOTA, metadata=ONE),), (rule(1, role=Role.QUOTA, metadata=OTHER),))
    plan = Planner(rules).plan(asks(0, 1))
    grant = Grant(1, (Outcome(0, 1, 1), Outcome(1, 1, 0)))
    assert dynamic_metadata.describe(plan, asks(0, 1), verdicts.granted(plan, grant))["metadata"] == OTHER


def test_all_of_it_goes_over_the_wire():
    """As the Struct that Envoy puts into its dynamic metadata: numbers, lists, nothing and nested mappings among it."""
    rules = rules_of((rule(0, metadata=ONE),), (rule(1, metadata=OTHER),))
    found = described(asks(0, 1, hits=2), rules)
    message = RateLimitResponse.FromString(rls.encode(Verdict(Code.OK, (), found)))
    assert MessageToDict(message.dynamic_metadata) == found
