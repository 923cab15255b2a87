"""Group commit: what one read brings is one batch, so many batches in flight, and a store that may do anything."""

import asyncio
import gc
import weakref
from collections import Counter
from typing import Any

import pytest

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.limiter.deadlines import MOST_AT_ONCE
from ratelimit_svc.limiter.waiting import MAX_REQUESTS
from ratelimit_svc.model import Code, Grant
from ratelimit_svc.store import Untaken
from ratelimit_svc.store.memory import MemoryStore
from tests.limiting import Answers, asks, make, settled


class Calls:
    """A store that answers each call when it is told to, with a plain future."""

    def __init__(self, windows: MemoryStore) -> None:
        self.windows = windows
        self.open: list[tuple[list[Any], asyncio.Future[list[Grant | Untaken]]]] = []
        self.sizes: list[int] = []

    def take(self, lines, due=None):
        taken = asyncio.get_running_loop().create_future()
        self.open.append((list(lines), taken))
        self.sizes.append(sum(line.n for line in lines))
        return taken

    def answer(self) -> None:
        """Answer the oldest call that is open."""
        lines, taken = self.open.pop(0)
        taken.set_result([*self.windows.take_now(lines)])


@pytest.fixture
def calls(clock) -> Calls:
    return Calls(MemoryStore(clock))


async def turns(number: int = 2) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_one_read_brings_is_one_batch(calls):
    """The first request does not go ahead of those that came with it."""
    limiter, answers = make(calls), Answers()
    for number in range(50):
        limiter.submit(asks(f"tenant=t{number}"), answers)
    assert calls.sizes == []
    await turns()
    assert calls.sizes == [50]
    calls.answer()
    await answers.wait(50)
    await settled(limiter)


async def test_neither_requests_nor_batches_have_tasks(calls):
    """A store that returns futures is all that there is beside lists."""
    limiter, answers, before = make(calls), Answers(), asyncio.all_tasks()
    for number in range(300):
        limiter.submit(asks(f"tenant=t{number}"), answers, timeout_s=20)
    while calls.sizes != [128, 128, 44]:
        await turns()
        assert asyncio.all_tasks() == before
        calls.answer()
    await answers.wait(300)


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_so_many_batches_are_in_flight_and_no_more(calls, most):
    """What waits beyond them is one batch when the first comes back; nobody gets another's answer, and no grant is lost."""
    limiter, answers = make(calls, batches_in_flight=most), Answers()
    for _ in range(5):
        limiter.submit(asks("tenant=a"), answers)
        await turns()
    assert calls.sizes == [1] * most
    calls.answer()
    await turns()
    assert calls.sizes == [1] * most + [5 - most]
    limiter.submit(asks("tenant=a"), answers)
    while calls.open:
        calls.answer()
        await turns(4)
    assert sorted((verdict.code, verdict.statuses[0].remaining) for verdict in answers.told) == [
        *((Code.OK, left) for left in range(5)),
        (Code.OVER_LIMIT, 0),
    ]
    assert limiter._commits.idle


async def test_batches_in_flight_may_come_back_in_any_order(calls):
    """Each answers its own requests."""
    limiter, first, second = make(calls, batches_in_flight=2), Answers(), Answers()
    limiter.submit(asks("tenant=a"), first)
    await turns()
    limiter.submit(asks("tenant=b", hits=3), second)
    await turns()
    calls.open.reverse()
    calls.answer()
    await second.wait(1)
    assert (first.told, second.told[0].statuses[0].remaining) == ([], 2)
    calls.answer()
    await first.wait(1)
    assert first.told[0].statuses[0].remaining == 4


async def test_a_crowd_of_equal_requests_goes_in_parts(calls):
    """One line of any length would be answered in one turn of the loop: it is cut, and the rest may still be joined."""
    limiter, answers = make(calls), Answers()
    for _ in range(2 * MAX_REQUESTS):
        limiter.submit(asks("big=1"), answers)
    await turns()
    limiter.submit(asks("big=1"), answers)
    assert calls.sizes == [MAX_REQUESTS]
    while len(answers.told) < 2 * MAX_REQUESTS + 1:
        calls.answer()
        await turns()
    assert calls.sizes == [MAX_REQUESTS, MAX_REQUESTS, 1]
    left = [verdict.statuses[0].remaining for verdict in answers.told]
    assert left == list(range(999_999, 999_999 - len(left), -1))


class Refusing:
    """A store that does not even begin."""

    def take(self, lines, due=None):
        raise StoreUnavailableError("away")


async def test_an_outage_with_ten_thousand_waiting_leaves_turns_to_others():
    """Each turn of the loop answers some hundreds by policy, at 15 µs each, and others come in between."""
    limiter, turn, told_in = make(Refusing(), queue_limit=10_000), 0, Counter[int]()

    def answer(_: object) -> None:
        told_in[turn] += 1

    for number in range(10_000):
        limiter.submit(asks(f"tenant=t{number % 3000}"), answer)
    while told_in.total() < 10_000:
        await asyncio.sleep(0)
        turn += 1
    assert max(told_in.values()) <= MOST_AT_ONCE
    await settled(limiter)


async def test_a_call_that_the_store_gives_up_is_answered_by_policy(calls):
    """A store that is closed under way cancels its futures."""
    limiter, answers = make(calls, replicas=5), Answers()
    limiter.submit(asks("tenant=a"), answers)
    await turns()
    calls.open[0][1].cancel()
    await answers.wait(1)
    assert answers.told[0].statuses[0].remaining == 0
    assert limiter._metrics.store_failures.unavailable == 1


async def test_what_is_closed_answers_nobody(calls):
    """Neither those with the store nor those that wait; the store's call is cancelled."""
    limiter, answers = make(calls), Answers()
    limiter.submit(asks("tenant=a"), answers)
    await turns()
    limiter.submit(asks("tenant=b"), answers)
    limiter.close()
    await turns(3)
    assert calls.open[0][1].cancelled()
    assert answers.told == []
    assert calls.sizes == [1]


async def test_a_batch_that_failed_is_freed_at_once(calls):
    """What goes round in a circle waits for the collector, and in an outage every batch fails."""
    limiter, answers = make(calls), Answers()
    answer = weakref.ref(answers)
    gc.disable()
    try:
        limiter.submit(asks("tenant=a"), answers)
        await turns()
        calls.open.pop()[1].set_result([Untaken(StoreUnavailableError("away"))])
        await answers.wait(1)
        limiter.close()
        del answers
        assert answer() is None
    finally:
        gc.enable()
