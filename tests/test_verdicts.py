"""Grants in Envoy's words: tables, no I/O."""

import pytest

from ratelimit_svc.limiter import verdicts
from ratelimit_svc.model import (
    Algorithm,
    Charge,
    Code,
    Grant,
    Limit,
    OnStoreFailure,
    Outcome,
    Plan,
    Role,
    Rule,
    Status,
    Unit,
    Verdict,
)

LIMIT = Limit(5, Unit.MINUTE)
SECOND = 1_000_000


def charge(role: Role = Role.GATE, *, hits: int = 1, policy: OnStoreFailure = OnStoreFailure.LOCAL) -> Charge:
    return Charge(
        key=b"k",
        algorithm=Algorithm.SLIDING_WINDOW,
        limit=5,
        window_us=60 * SECOND,
        shape=60,
        hits=hits,
        role=role,
        rule=Rule("shop/k", LIMIT, role, policy),
    )


def plan(*descriptors: Charge | Rule | None) -> Plan:
    """A plan of descriptors that mean one charge each, or none."""
    charges = tuple(one for one in descriptors if isinstance(one, Charge))
    places = iter(range(len(charges)))
    meanings = tuple((next(places),) if isinstance(one, Charge) else one for one in descriptors)
    return Plan(meanings, charges, coalesces=True, on_store_failure=OnStoreFailure.LOCAL)


@pytest.mark.parametrize(("time_us", "seconds"), [(0, 0), (1, 1), (999_999, 1), (SECOND, 1), (SECOND + 1, 2)])
def test_times_are_rounded_up_to_whole_seconds(time_us, seconds):
    """Envoy rounds down what it is given: who is told less than the truth comes back too early."""
    assert verdicts.granted(plan(charge()), Grant(1, (Outcome(4, time_us, 0),))).statuses[0].reset_s == seconds
    if time_us:
        denied = verdicts.denied(plan(charge()), Grant(0, (Outcome(0, 99 * SECOND, time_us),)))
        assert denied.statuses[0].reset_s == seconds


@pytest.mark.parametrize(("later", "remaining"), [(0, 1), (1, 4), (2, 7)])
def test_what_remains_counts_down_through_a_lines_grants(later, remaining):
    """The grants that come after this one have not been taken off yet, each with all its hits."""
    one = plan(charge(hits=3))
    verdict = verdicts.earlier(
        verdicts.granted(one, Grant(3, (Outcome(1, SECOND, SECOND),))), later, verdicts.taken(one)
    )
    assert verdict == Verdict(Code.OK, (Status(Code.OK, LIMIT, remaining, 1),))


def test_a_denied_request_says_over_limit_only_where_it_is():
    """The gate that fits says OK and when it is empty; the one that does not, when it fits; a shadow never says no."""
    grant = Grant(
        0, (Outcome(3, 7 * SECOND, 0), Outcome(0, 9 * SECOND, 2 * SECOND), Outcome(0, 9 * SECOND, 4 * SECOND))
    )
    verdict = verdicts.denied(plan(charge(), charge(), None, charge(Role.SHADOW)), grant)
    assert verdict == Verdict(
        Code.OVER_LIMIT,
        (
            Status(Code.OK, LIMIT, 3, 7),
            Status(Code.OVER_LIMIT, LIMIT, 0, 2),
            Status(Code.OK),
            Status(Code.OK, LIMIT, 0, 4),
        ),
    )


def test_a_shadow_that_would_deny_shows_it_and_passes():
    """Nothing remains for it, and its reset is when it would fit; one that was charged tells what is left."""
    grant = Grant(1, (Outcome(2, 9 * SECOND, 3 * SECOND), Outcome(4, 9 * SECOND, 0)))
    verdict = verdicts.granted(plan(charge(Role.SHADOW, hits=3), charge(Role.SHADOW)), grant)
    assert verdict == Verdict(Code.OK, (Status(Code.OK, LIMIT, 0, 3), Status(Code.OK, LIMIT, 4, 9)))


def test_by_policy_no_window_is_described():
    """deny says so on the gates whose rule it is, and to come back in a second; allow says nothing but OK."""
    gates = charge(policy=OnStoreFailure.DENY), charge(), charge(Role.SHADOW, policy=OnStoreFailure.DENY)
    free = Rule("shop/free", None)
    assert verdicts.by_policy(plan(*gates, free, None), OnStoreFailure.DENY) == Verdict(
        Code.OVER_LIMIT,
        (Status(Code.OVER_LIMIT, LIMIT, 0, 1), Status(Code.OK), Status(Code.OK), verdicts.UNLIMITED, Status(Code.OK)),
    )
    assert verdicts.by_policy(plan(*gates), OnStoreFailure.ALLOW) == Verdict(Code.OK, (Status(Code.OK),) * 3)
