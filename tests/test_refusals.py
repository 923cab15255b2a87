"""Denials that are remembered: never wrong within one process, and stale by little where others change what is counted."""

import asyncio
import tracemalloc
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.plans import Planner
from ratelimit_svc.limiter.refusals import DENIAL_BYTES, EXPIRED_AT_ONCE, Refusals, most_in
from ratelimit_svc.model import Algorithm, Code, Grant, Limit, Outcome, Overdraft, Plan, Role, Unit, Verdict
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.wire import rls
from tests.conftest import Clock
from tests.histories import MINUTE, SECOND, START
from tests.limiting import (
    ALL_SORTS,
    EVERY_KIND,
    FIVE,
    Answers,
    Recording,
    asks,
    make,
    rule,
    rules_of,
    sends,
    settled,
    submit,
    tell,
)
from tests.waiting import until

MILLISECOND = SECOND // 1000
BUCKET = Limit(10, Unit.SECOND, algorithm=Algorithm.TOKEN_BUCKET)


RULES = rules_of(
    (rule(0, FIVE, overdraft=Overdraft.NEVER),),
    (rule(1, FIVE),),
    (rule(2, FIVE, role=Role.SHADOW),),
    (rule(3, FIVE, role=Role.QUOTA),),
    (rule(4, FIVE, overdraft=Overdraft.ALWAYS),),
    (rule(5, Limit(5, Unit.MINUTE, algorithm=Algorithm.FIXED_WINDOW), overdraft=Overdraft.NEVER),),
    (rule(6, FIVE), rule(6, Limit(3, Unit.SECOND))),
    tenant=None,
)


def remembering(store: Any, clock: Clock, **options: Any) -> Limiter:
    return make(store, **{"clock": clock, "denial_memory_keys": 1000, "rules": RULES, **options})


def plan(*asked: str) -> Plan:
    return Planner(RULES).plan(rls.decode(sends(*asked)))


def learnt(clock: Clock, asked: Plan, *outcomes: Outcome, **grant: Any) -> Refusals:
    """A memory that was told of one denial."""
    refusals = Refusals(clock, most_keys=10)
    refusals.learn(asked, Grant(0, outcomes, **grant), clock.now)
    return refusals


# ── what is denied ────────────────────────────────────────────────────────────────────────────────────────────────────

DENIED = Outcome(2, 60 * SECOND, 30 * SECOND)
FULL = Outcome(0, 60 * SECOND, 30 * SECOND)


@pytest.mark.parametrize(
    ("denied", "outcome", "asked", "is_denied"),
    [
        ("d0 3", DENIED, "d0 3", True),
        ("d0 3", DENIED, "d0 4", True),
        ("d0 3", DENIED, "d0 2", False),  # fits
        ("d0 3", DENIED, "d0 check", False),  # something is left
        ("d0 1", FULL, "d0 check", True),
        ("d0 check", FULL, "d0 7", True),
        ("d0 3", DENIED, "d0 3 of own 6", False),
        ("d0 3", DENIED, "d0 3 of own 4", True),
        ("d0 3 of own 6", DENIED, "d0 3", True),
        ("d0 3", DENIED, "d0 refund 1", False),
        ("d5 1", FULL, "d5 check", False),  # which passes at the limit
        ("d5 check", FULL, "d5 check", True),
        ("d5 check", FULL, "d5 1", True),
        ("d1 1", FULL, "d1 1", True),
        ("d1 1", FULL, "d1 9", True),  # nothing is left to overdraw
        ("d1 3", DENIED, "d1 3", False),  # another's check may make it a budget
        ("d1 3", FULL, "d1 3", False),  # by then one of its hits may fit
        ("d4 check", FULL, "d4 check", True),
        ("d4 check", FULL, "d4 1", False),  # counts in any case
        ("d2 1", FULL, "d2 1", False),  # denies nobody
        ("d3 1", FULL, "d3 1", False),  # another quota may have room
    ],
)
def test_who_is_denied_for_what_was_denied(clock, denied, outcome, asked, is_denied):
    """As many hits or more, under that limit or a lower one; a check by what it needs; who may overdraw only if all is used up."""
    assert (learnt(clock, plan(denied), outcome).find(plan(asked)) is not None) is is_denied


def test_one_full_gate_denies_the_whole_request(clock):
    """Whatever else it asks for; and of the rest nothing is said."""
    refusals = learnt(clock, plan("d0 1"), FULL)
    found = refusals.find(plan("d1 1", "d2 1", "d0 1"))
    assert found is not None
    assert found.places == [1]  # gates come first
    assert found.grant.outcomes[1] == Outcome(0, 0, 30 * SECOND)
    assert refusals.find(plan("d1 1", "d2 1")) is None


def test_refunds_are_never_denied_and_drop_what_they_give_to(clock):
    """Also beside a gate that is full: the refund may be what makes it fit."""
    refusals = learnt(clock, plan("d0 1", "d1 1"), FULL, FULL)
    assert refusals.find(plan("d0 refund 1", "d1 1")) is None
    assert refusals.find(plan("d0 1")) is None
    assert refusals.find(plan("d1 1")) is not None


def test_the_same_key_twice_says_only_how_its_first_hits_stand(clock):
    """The second's are told to fit when both do: that is later than when it would alone."""
    refusals = learnt(clock, plan("d0 3", "d0 2"), DENIED, Outcome(2, 60 * SECOND, 45 * SECOND))
    assert refusals.find(plan("d0 2")) is None
    assert refusals.find(plan("d0 3")) is not None


def test_a_denial_beside_hits_about_to_be_undone_is_not_remembered(clock):
    """They are gone in a moment."""
    assert len(learnt(clock, plan("d0 1"), FULL, passing=True)) == 0


def test_a_memory_of_nothing(clock):
    """DENIAL_MEMORY_KEYS=0."""
    refusals = Refusals(clock, most_keys=0)
    refusals.learn(plan("d0 1"), Grant(0, (FULL,)), clock.now)
    assert len(refusals) == 0


def test_the_oldest_are_forgotten_first(clock):
    """What callers make up does not fill the memory; a window that is denied again is as new."""
    refusals = Refusals(clock, most_keys=3)
    for value in (1, 2, 3, 1, 4):
        refusals.learn(plan(f"d0={value} 1"), Grant(0, (FULL,)), clock.now)
    assert [refusals.find(plan(f"d0={value} 1")) is not None for value in (1, 2, 3, 4)] == [True, False, True, True]


def test_what_is_over_is_let_go_a_few_at_a_time(clock):
    """Nothing stays behind, and nobody waits for it to go."""
    refusals = Refusals(clock, most_keys=10_000)
    for value in range(EXPIRED_AT_ONCE + 500):
        refusals.learn(plan(f"d0={value} 1"), Grant(0, (FULL,)), clock.now)
    refusals.expire()
    assert len(refusals) == EXPIRED_AT_ONCE + 500
    clock.now += SECOND
    refusals.expire()
    assert len(refusals) == 500
    refusals.expire()
    assert len(refusals) == 0


def test_new_rules_forget_all_and_what_is_on_its_way(clock):
    """Also a denial under the old rules that arrives only afterwards."""
    refusals = learnt(clock, plan("d0 1"), FULL)
    sent = clock.now
    clock.now += 1
    refusals.forget()
    assert refusals.find(plan("d0 1")) is None
    refusals.learn(plan("d0 1"), Grant(0, (FULL,)), sent)
    assert refusals.find(plan("d0 1")) is None
    refusals.learn(plan("d0 1"), Grant(0, (FULL,)), clock.now)
    assert refusals.find(plan("d0 1")) is not None
    refusals.forget()
    clock.now += 1
    refusals.forget()
    refusals.expire()
    assert len(refusals) == 0


@pytest.mark.parametrize(
    ("limit", "fits_in_us", "lasts_us"),
    [
        (FIVE, 30 * SECOND, SECOND),
        (FIVE, 20 * MILLISECOND, 20 * MILLISECOND),
        (Limit(5, Unit.SECOND), SECOND, 16_667),
        (Limit(5, Unit.SECOND, slices=1), 2 * SECOND, SECOND),
        (Limit(5, Unit.HOUR), 30 * SECOND, SECOND),
        (Limit(5, Unit.HOUR, algorithm=Algorithm.FIXED_WINDOW), 30 * MINUTE, SECOND),
        (BUCKET, 100 * MILLISECOND, 100 * MILLISECOND),
    ],
)
def test_how_long_a_denial_is_remembered(clock, limit, fits_in_us, lasts_us):
    """Until its reset, for one slice, or for a second, from when it was sent: whichever is over first."""
    asked = Planner(rules_of((rule(0, limit),))).plan(rls.decode(sends("d0 1")))
    refusals = Refusals(clock, most_keys=10)
    sent = clock.now
    clock.now += 5 * MILLISECOND  # until it is answered
    refusals.learn(asked, Grant(0, (Outcome(0, 60 * SECOND, fits_in_us),)), sent)
    clock.now = sent + lasts_us - 1
    assert refusals.find(asked) is not None
    clock.now += 1
    assert refusals.find(asked) is None


def test_what_is_told_counts_down(clock):
    """The seconds that are left, rounded up, as long as they are right; and what a lower limit leaves."""
    asked = plan("d0 3")
    refusals = learnt(clock, asked, Outcome(2, 60 * SECOND, 30 * SECOND + 400 * MILLISECOND))
    first = refusals.find(asked)
    assert first is not None
    assert first.grant.outcomes == (Outcome(2, 0, 30 * SECOND + 400 * MILLISECOND),)
    clock.now += 400 * MILLISECOND - 1
    assert refusals.find(asked) is first
    clock.now += 1
    later = refusals.find(asked)
    assert later is not None
    assert later.grant.outcomes == (Outcome(2, 0, 30 * SECOND),)
    lower = refusals.find(plan("d0 3 of own 4"))
    assert lower is not None
    assert lower.grant.outcomes[0].remaining == 1


# ── in the limiter ────────────────────────────────────────────────────────────────────────────────────────────────────


async def denied_from_memory(limiter: Limiter, requests: int) -> None:
    """Require that so many were: they are counted in the loop's next turn."""
    await asyncio.sleep(0)
    assert limiter._metrics.denied_from_memory == requests


async def use_up(limiter: Limiter, data: bytes, hits: int) -> None:
    for _ in range(hits):
        assert (await tell(limiter, data)).code is Code.OK
    assert (await tell(limiter, data)).code is Code.OVER_LIMIT


async def test_a_flood_of_denials_costs_the_store_nothing(held, clock):
    """One is denied by the store, the next thousand are told the same at once, and all are counted and logged as denied."""
    denials: list[Any] = []
    limiter, answers = remembering(held, clock, on_denial=denials.append), Answers()
    await use_up(limiter, asks("d0=a"), 5)
    batches = len(held.batches)
    for _ in range(1000):
        assert limiter.submit(asks("d0=a"), answers) is None
    assert len(answers.told) == 1000
    assert len(held.batches) == batches
    (verdict,) = set(answers.told)
    assert isinstance(verdict, Verdict)
    (status,) = verdict.statuses
    assert (verdict.code, status.code, status.limit) == (Code.OVER_LIMIT, Code.OVER_LIMIT, FIVE)
    assert (status.remaining, status.reset_s) == (0, 61)
    await denied_from_memory(limiter, 1000)
    metrics = limiter._metrics
    assert metrics.over_limit == 1001
    assert metrics.rules["shop/d0"].requests.denied == 1001
    assert metrics.rules["shop/d0"].hits.denied == 1001
    assert metrics.policy_decisions.shed == 0
    assert [denial.others for denial in denials] == [0]
    assert limiter._denials._rules["shop/d0"][1] == 1000


async def test_remembered_denials_are_told_as_they_are_by_the_store(held, clock):
    """Code, limit, what is left, and the reset; of other windows nothing is said."""
    limiter = remembering(held, clock, dynamic_metadata=True)
    await use_up(limiter, sends("d0 1"), 5)
    by_store = await tell(make(held, rules=RULES, dynamic_metadata=True), sends("d0 1"))
    from_memory = await tell(limiter, sends("d0 1"))
    assert from_memory == by_store
    await denied_from_memory(limiter, 1)
    both = await tell(limiter, sends("d1 1", "d0 1"))
    assert both.metadata is not None
    assert both.metadata["rule"] == "shop/d0"
    assert [status.code for status in both.statuses] == [Code.OK, Code.OVER_LIMIT]
    assert both.statuses[0].limit is None
    assert both.statuses[1] == by_store.statuses[0]


async def test_of_two_limits_the_one_that_is_full_denies(held, clock):
    """The status is that one's, as from the store."""
    limiter = remembering(held, clock)
    await use_up(limiter, sends("d6 1"), 3)
    verdict = await tell(limiter, sends("d6 1"))
    await denied_from_memory(limiter, 1)
    assert verdict.statuses[0].limit == Limit(3, Unit.SECOND)
    assert limiter._metrics.rules["shop/d6"].requests.denied == 2


async def test_shadow_mode_lets_pass_what_is_remembered(held, clock):
    """The statuses say what would be."""
    limiter = remembering(held, clock, shadow_mode=True)
    for _ in range(6):
        await tell(limiter, sends("d0 1"))
    verdict = await tell(limiter, sends("d0 1"))
    assert (verdict.code, verdict.statuses[0].code) == (Code.OK, Code.OVER_LIMIT)
    await denied_from_memory(limiter, 1)


async def test_denials_are_served_while_the_store_is_away(held, clock):
    """Whoever was denied stays so, though this replica's share of the limit would have room."""
    limiter = remembering(held, clock)
    await use_up(limiter, sends("d0 1"), 5)
    held.away = True
    assert (await tell(limiter, sends("d0 1"))).code is Code.OVER_LIMIT
    assert limiter._metrics.policy_decisions.local == 0
    assert (await tell(limiter, sends("d0=other 1"))).code is Code.OK
    assert limiter._metrics.policy_decisions.local == 1


async def test_who_has_gone_or_was_answered_by_policy_teaches_nothing(held, clock):
    """A denial is learnt of a request that was told it: neither by those who have gone, nor by a local share that is full."""
    limiter, answers = remembering(held, clock), Answers()
    for _ in range(5):
        await tell(limiter, sends("d0 1"))
    held.go.clear()
    waiting = limiter.submit(sends("d0 1"), answers)
    await until(lambda: not limiter.waiting)
    assert waiting is not None
    limiter.cancel(waiting)
    held.go.set()
    await settled(limiter)
    assert len(limiter.refusals) == 0
    held.away = True
    for _ in range(7):
        await tell(limiter, sends("d1 1"))
    assert limiter._metrics.over_limit == 2
    assert len(limiter.refusals) == 0
    assert answers.told == []


async def test_a_denial_is_remembered_from_when_it_was_sent(held, clock):
    """However long its answer took: the store may have looked at its clock at once."""
    limiter, answers = remembering(held, clock), Answers()
    for _ in range(5):
        await tell(limiter, sends("d0 1"))
    held.go.clear()
    limiter.submit(sends("d0 1"), answers)
    await until(lambda: not limiter.waiting)
    clock.now += 900 * MILLISECOND
    held.go.set()
    await answers.wait(1)
    clock.now += 100 * MILLISECOND - 1
    assert limiter.submit(sends("d0 1"), answers) is None
    clock.now += 1
    assert limiter.submit(sends("d0 1"), answers) is not None
    await answers.wait(3)


async def test_a_refund_of_ours_is_seen_at_once(store, clock):
    """Whoever asks after it was answered is let pass."""
    limiter = remembering(store, clock)
    await use_up(limiter, sends("d0 1"), 5)
    assert (await tell(limiter, sends("d0 1"))).code is Code.OVER_LIMIT
    await denied_from_memory(limiter, 1)
    await tell(limiter, sends("d0 refund 1"))
    assert (await tell(limiter, sends("d0 1"))).code is Code.OK


async def test_a_denial_that_was_on_its_way_does_not_outlive_a_refund(held, clock):
    """It is learnt after the refund was submitted, and dropped when that is answered."""
    limiter, answers = remembering(held, clock), Answers()
    for _ in range(5):
        await tell(limiter, sends("d0 1"))
    held.go.clear()
    limiter.submit(sends("d0 1"), answers)
    await until(lambda: not limiter.waiting)
    limiter.submit(sends("d0 refund 1"), answers)
    held.go.set()
    verdicts = await answers.wait(2)
    assert [verdict.code for verdict in verdicts] == [Code.OVER_LIMIT, Code.OK]
    assert (await tell(limiter, sends("d0 1"))).code is Code.OK


@pytest.mark.parametrize(("size", "windows"), [(0, 0), (1, 1), (DENIAL_BYTES, 1), (524_288, 350), (10**8, 66_667)])
def test_bytes_of_memory_are_a_number_of_windows(size, windows):
    """LOCAL_CACHE_SIZE_IN_BYTES: 0 says nothing, and the least is one."""
    assert most_in(size) == windows


async def test_what_a_denial_takes_is_near_what_it_is_said_to_take(held, clock):
    """Denied by the store, told again from memory, and its plan forgotten by now by all others."""
    rules = rules_of((rule(0, Limit(0, Unit.MINUTE)),))
    limiter = remembering(held, clock, rules=rules, denial_memory_keys=10_000, plan_memory_bytes=1, encode=rls.encode)
    await limiter.ask(asks("d0=before"))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1000):
            for _ in range(2):
                await limiter.ask(asks(f"d0=tenant-{number}"))
            held.batches.clear()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(limiter.refusals) == 1001
    assert 0.6 * DENIAL_BYTES < used / 1000 < 1.1 * DENIAL_BYTES


async def test_new_rules_act_at_once(store, clock):
    """A raised limit, too, of which the memory would know nothing."""
    limiter = remembering(store, clock)
    await use_up(limiter, sends("d0 1"), 5)
    clock.now += 1
    limiter.use(rules_of((rule(0, Limit(6, Unit.MINUTE)),)))
    assert (await tell(limiter, sends("d0 1"))).code is Code.OK


async def test_a_higher_limit_that_is_brought_along_is_asked_for(store, clock):
    """It is the same window, under another limit."""
    limiter = remembering(store, clock)
    await use_up(limiter, sends("d0 1"), 5)
    assert (await tell(limiter, sends("d0 1 of own 6"))).code is Code.OK


EXAMPLES = count()
MOVES = st.sampled_from(
    [0, 0, 0, 1, MILLISECOND, 16 * MILLISECOND, 100 * MILLISECOND, SECOND - 1, SECOND, 7 * SECOND, 62 * SECOND]
)
OFTEN_DENIED = (sends("d0 2"), sends("d5 1"), sends("d7 9"), sends("d1 7", "d7 3"))


@given(
    waves=st.lists(
        st.tuples(
            MOVES,
            st.lists(st.sampled_from(EVERY_KIND) | st.sampled_from(OFTEN_DENIED), min_size=1, max_size=8),
            MOVES,
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=300, deadline=None)
async def test_nobody_is_denied_from_memory_whom_the_store_would_let_pass(waves):
    """Of all kinds, in any order, time going on between them and while a batch is on its way.

    What is denied from memory is put to a store of the same history at that very moment, which denies it too, on the same
    descriptors; the rest is told as if there were no memory.
    """
    clock = Clock()
    held = Recording(MemoryStore(clock))
    limiter = remembering(held, clock, rules=ALL_SORTS, key_prefix=f"{next(EXAMPLES)}:")
    alone = make(MemoryStore(clock), rules=ALL_SORTS)
    for passes, wave, on_its_way in waves:
        clock.now += passes
        held.go.clear()
        told: list[tuple[bytes, Any]] = []
        at_once = [
            told.pop() for data in wave if submit(limiter, data, told) is None
        ]  # all in one turn, so that the others are one batch
        await until(lambda: not limiter.waiting)
        for data, verdict in at_once:
            would = await tell(alone, data)
            assert verdict.code is would.code is Code.OVER_LIMIT
            for status, would_be in zip(verdict.statuses, would.statuses, strict=True):
                assert status.code is Code.OK or would_be.code is Code.OVER_LIMIT
        clock.now += on_its_way
        held.go.set()
        await settled(limiter)
        for data, verdict in told:
            assert verdict.code is (await tell(alone, data)).code


# ── where it may be stale ─────────────────────────────────────────────────────────────────────────────────────────────

KINDS_OF_LIMITS = [
    (FIVE, SECOND),
    (Limit(5, Unit.SECOND), 16_667),
    (Limit(5, Unit.HOUR, algorithm=Algorithm.FIXED_WINDOW), SECOND),
    (BUCKET, 100 * MILLISECOND),
]
"""Limits, and for how long a denial under them may be stale."""


async def stale_for(limiter: Limiter, clock: Clock, longest_us: int) -> None:
    """Require that what was denied just now is denied for so long, and no longer, though the store has room."""
    denied_at = clock.now
    clock.now = denied_at + longest_us - 1
    assert (await tell(limiter, sends("d0 1"))).code is Code.OVER_LIMIT
    await denied_from_memory(limiter, 1)
    clock.now = denied_at + longest_us
    assert (await tell(limiter, sends("d0 1"))).code is Code.OK


@pytest.mark.parametrize(("limit", "longest_us"), KINDS_OF_LIMITS)
async def test_stale_while_another_replica_refunds(store, clock, limit, longest_us):
    """It does not tell."""
    rules = rules_of((rule(0, limit),))
    limiter, other = remembering(store, clock, rules=rules), remembering(store, clock, rules=rules)
    await use_up(limiter, sends("d0 1"), limit.most)
    await tell(other, sends("d0 refund 2"))
    await stale_for(limiter, clock, longest_us)


@pytest.mark.parametrize("how", ["FLUSHALL", "DEL"])
@pytest.mark.parametrize("kind", KINDS_OF_LIMITS)
async def test_stale_while_the_store_has_lost_the_window(server, client, clock, kind, how):
    """Emptied, restored from nothing, or evicted: this replica does not see it."""
    limit, longest_us = kind
    client.flushall()
    async with RedisStore(server.url, clock=clock, timeout_s=5) as store:
        limiter = remembering(store, clock, rules=rules_of((rule(0, limit),)))
        await use_up(limiter, sends("d0 1"), limit.most)
        (key,) = client.keys("*shop*")
        client.execute_command(*((how, key) if how == "DEL" else (how,)))
        await stale_for(limiter, clock, longest_us)


async def test_stale_while_the_stores_clock_is_set_forward(clock):
    """What it lets go for that, this replica's own clock does not see."""
    of_store = Clock()
    limiter = remembering(MemoryStore(of_store), clock)
    await use_up(limiter, sends("d0 1"), 5)
    of_store.now += 10 * MINUTE
    await stale_for(limiter, clock, SECOND)


async def test_not_stale_for_a_limit_that_another_replicas_rules_raise(store, clock):
    """What ours denies it denies by our limit, and so does the store; ours once raised, it is asked again at once."""
    higher = rules_of((rule(0, Limit(9, Unit.MINUTE), overdraft=Overdraft.NEVER),))
    limiter, other = remembering(store, clock), remembering(store, clock, rules=higher)
    await use_up(limiter, sends("d0 1"), 5)
    assert (await tell(other, sends("d0 1"))).code is Code.OK
    assert (await tell(limiter, sends("d0 1"))).code is Code.OVER_LIMIT
    assert (await tell(make(store, rules=RULES), sends("d0 1"))).code is Code.OVER_LIMIT
    clock.now += 1
    limiter.use(higher)
    assert (await tell(limiter, sends("d0 1"))).code is Code.OK


async def test_not_stale_for_a_budget_that_another_replica_makes(store, clock):
    """A cost that does not fit is not remembered as long as any of it might: the budget's last is overdrawn, and counted."""
    limiter, other = remembering(store, clock), remembering(store, clock)
    for _ in range(4):
        await tell(limiter, sends("d1 1"))
    assert (await tell(limiter, sends("d1 3"))).code is Code.OVER_LIMIT
    assert (await tell(other, sends("d1 check"))).code is Code.OK
    assert (await tell(limiter, sends("d1 3"))).code is Code.OVER_LIMIT
    assert limiter._metrics.rules["shop/d1"].hits.overdrawn == 3
    assert limiter._metrics.denied_from_memory == 0
    assert (await tell(limiter, sends("d1 1"))).code is Code.OVER_LIMIT  # and now all is used up
    assert (await tell(limiter, sends("d1 3"))).code is Code.OVER_LIMIT
    await denied_from_memory(limiter, 1)


def test_starts_of_windows_are_what_these_tests_take_them_for():
    """An hour begins at START, so that no fixed window ends in a test."""
    assert START % (60 * MINUTE) == 0
