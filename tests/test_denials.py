"""Denials for a log: one of each rule in a time, with the number of those between."""

from typing import Any

from ratelimit_svc.limiter.denials import Denial, Denials
from ratelimit_svc.limiter.plans import Planner
from ratelimit_svc.model import Grant, Limit, Outcome, Plan, Role, Rule, Unit
from ratelimit_svc.wire import rls
from tests.limiting import asks, make, rules_of, sends, tell

FIVE = Limit(5, Unit.MINUTE)
RULES = rules_of(
    (Rule("shop/d0", FIVE),),
    (Rule("shop/d1", Limit(2, Unit.HOUR)),),
    (Rule("shop/d2", FIVE, role=Role.SHADOW),),
    tenant="d0",
)


class Seconds:
    """A clock in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def plan(*asked: str) -> Plan:
    return Planner(RULES).plan(rls.decode(sends(*asked)))


def denied(*fits_in_us: int) -> Grant:
    return Grant(0, tuple(Outcome(2, 9, fits_in) for fits_in in fits_in_us))


def test_one_a_second_of_each_rule_and_the_others_are_counted():
    """However many there are, a log has one of each rule in a time, and loses no number."""
    clock = Seconds()
    told: list[Denial] = []
    denials = Denials(clock, every_s=1, tell=told.append)
    for _ in range(100):
        denials.note(plan("d0 1"), denied(1))
    denials.note(plan("d1 1"), denied(1))
    assert [(each.rule, each.others) for each in told] == [("shop/d0", 0), ("shop/d1", 0)]
    clock.now += 0.999
    denials.note(plan("d0 1"), denied(1))
    assert len(told) == 2
    clock.now += 0.001
    for _ in range(3):
        denials.note(plan("d0 1"), denied(1))
    assert [(each.rule, each.others) for each in told[2:]] == [("shop/d0", 100)]
    clock.now += 60
    denials.note(plan("d0 1"), denied(1))
    assert told[-1].others == 2


def test_what_a_denial_says():
    """Rule, tenant, limit, window, hits, what is left, and when it would fit, rounded up."""
    told: list[Denial] = []
    Denials(Seconds(), every_s=1, tell=told.append).note(plan("d0=acme 3"), denied(1_000_001))
    assert told == [Denial("shop/d0", "acme", FIVE, "{acme}shop/d0=acme:s60000000", 3, 2, 2)]


def test_of_several_that_deny_the_one_that_takes_longest_is_told():
    """The first of equals; never a shadow, nor one that fits."""
    told: list[Denial] = []
    denials = Denials(Seconds(), every_s=1, tell=told.append)
    denials.note(plan("d0 1", "d1 1", "d2 1"), denied(5, 7, 9))
    denials.note(plan("d0 1", "d1 1", "d2 1"), denied(5, 0, 9))
    assert [each.rule for each in told] == ["shop/d1", "shop/d0"]


def test_a_full_quota_is_not_told_where_another_had_room():
    """It has denied nothing, however long it will stay full."""
    rules = rules_of(
        (Rule("shop/d0", FIVE),), *((Rule(f"shop/d{n}", Limit(2, Unit.DAY), role=Role.QUOTA),) for n in (1, 2))
    )
    asked = Planner(rules).plan(rls.decode(sends("d0 1", "d1 1", "d2 1")))
    told: list[Denial] = []
    for fits_in in ((5, 900, 0), (5, 900, 800), (0, 900, 800)):
        Denials(Seconds(), every_s=1, tell=told.append).note(asked, denied(*fits_in))
    assert [each.rule for each in told] == ["shop/d0", "shop/d1", "shop/d1"]


def test_nobody_is_told_where_it_is_switched_off():
    """Every 0 seconds is never."""
    told: list[Denial] = []
    Denials(Seconds(), every_s=0, tell=told.append).note(plan("d0 1"), denied(1))
    Denials(Seconds(), every_s=1, tell=None).note(plan("d0 1"), denied(1))
    assert told == []


async def test_the_limiter_notes_its_denials_and_those_of_an_outage(held):
    """Each denied request once, from the store or from this replica's share; what passes is not told."""
    told: list[Any] = []
    limiter = make(held, on_denial=told.append, replicas=5, denial_log_every_s=3600)
    for _ in range(7):
        await tell(limiter, asks("tenant=a"))
    assert [(each.rule, each.tenant, each.limit.requests_per_unit) for each in told] == [("shop/tenant", "a", 5)]
    assert limiter._denials._rules["shop/tenant"][1] == 1
    held.away = True
    for _ in range(2):
        await tell(limiter, asks("tenant=b"))
    assert limiter._denials._rules["shop/tenant"][1] == 2
