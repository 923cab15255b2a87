"""Deadlines: few queues whatever callers ask, short ones, and turns that end."""

import asyncio
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.limiter.deadlines import MOST_AT_ONCE, SHORTEST_MS, Deadlines, in_steps
from tests.limiting import Answers, asks, make, settled
from tests.waiting import until

TO_100_MS = 352
"""Patiences from SHORTEST_MS to 100 ms: 32 in each of 11 doublings."""


class Thing:
    """Something that has a deadline."""

    def __init__(self) -> None:
        self.done, self.due = False, 0.0
        self.since = asyncio.get_running_loop().time()


@given(st.floats(0, 100))
def test_a_patience_is_cut_by_3_percent_at_most(patience_s):
    """Never longer than asked, and never much shorter but for what is next to nothing."""
    cut = in_steps(patience_s)
    assert cut <= patience_s * (1 + 1e-6)
    assert cut >= patience_s * (1 - 1 / 32) or patience_s < SHORTEST_MS / 1000
    assert in_steps(cut) == cut


@pytest.mark.parametrize("patience_s", [0, 0.0005, 0.002, 0.018, 0.02, 0.05, 0.098, 0.1, 0.4])
def test_usual_patiences_are_steps(patience_s):
    """What people write is kept as it is."""
    assert in_steps(patience_s) == pytest.approx(patience_s, rel=1e-9)


async def test_ten_thousand_timeouts_make_few_queues(held):
    """An engine or an attacker may give every call another timeout: the timer's work stays bounded, and all are in time."""
    limiter, answers = make(held, store_timeout_s=0.1, queue_limit=20_000), Answers()
    held.go.clear()
    for number in range(10_000):
        limiter.submit(asks("big=1"), answers, timeout_s=0.03 + number / 50_000)
    assert len(limiter._deadlines._queues) <= TO_100_MS
    for number in range(10_000):
        limiter.submit(asks("big=1"), answers, timeout_s=number / 1e9)
    assert len(limiter._deadlines._queues) <= TO_100_MS
    await answers.wait(20_000)
    await until(lambda: not limiter._deadlines._queues)
    held.go.set()
    await settled(limiter)


async def test_what_is_done_leaves_the_queue_as_others_come():
    """The queues hold about as many as wait, not as many as have come in the longest timeout."""
    deadlines = Deadlines[Thing](asyncio.get_running_loop(), lambda _: None)
    for _ in range(10_000):
        thing = Thing()
        deadlines.add(thing, 60)
        thing.done = True
    assert len(deadlines) == 1
    deadlines.close()
    assert len(deadlines) == 0


async def test_many_deadlines_at_once_leave_turns_to_others():
    """All at one time are more than one turn of the loop may answer: they take several, and none is forgotten."""
    loop, turn, expired = asyncio.get_running_loop(), count(), []
    now = next(turn)
    deadlines = Deadlines[Thing](loop, lambda _: expired.append(now))
    for _ in range(10 * MOST_AT_ONCE):
        deadlines.add(Thing(), 0.001)
    while len(expired) < 10 * MOST_AT_ONCE:
        await asyncio.sleep(0)
        now = next(turn)
    assert max(expired.count(turn) for turn in set(expired)) == MOST_AT_ONCE
    await until(lambda: not deadlines._queues)


async def test_an_expiry_that_fails_costs_no_other():
    """The loop hears of it, and the rest is expired all the same."""
    loop, heard, expired = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))

    def expire(thing: Thing) -> None:
        expired.append(thing)
        if len(expired) == 1:
            raise ZeroDivisionError

    deadlines = Deadlines[Thing](loop, expire)
    things = [Thing() for _ in range(3)]
    for place, thing in enumerate(things):
        deadlines.add(thing, 0.001 * (place + 1))
    await until(lambda: len(expired) == 3)
    assert expired == things
    assert [type(error) for error in heard] == [ZeroDivisionError]
