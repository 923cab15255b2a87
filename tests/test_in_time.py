"""Every request is answered once, in time: deadlines, callers who go, defects."""

import asyncio
from typing import Any

import pytest

from ratelimit_svc.model import Code, Grant, Verdict
from ratelimit_svc.store import Store, Untaken
from ratelimit_svc.store.memory import MemoryStore
from tests.limiting import Answers, asks, make, settled, tell
from tests.waiting import until


async def test_a_held_store_is_answered_for_before_the_callers_deadline(held):
    """Each caller is answered before its own timeout, the shorter not cutting the longer short."""
    limiter, loop = make(held, store_timeout_s=0.4, replicas=5), asyncio.get_running_loop()
    held.go.clear()
    started = loop.time()
    at: dict[float | None, float] = {}

    def ask(timeout_s: float | None) -> None:
        limiter.submit(
            asks("tenant=a"), lambda _: at.__setitem__(timeout_s, loop.time() - started), timeout_s=timeout_s
        )

    for timeout_s in (None, 0.2, 60, 0.1, 0.001):
        ask(timeout_s)
    await until(lambda: len(at) == 5)
    assert at[0.001] < at[0.1] < at[0.2] < at[None]
    assert at[0.1] >= 0.09
    assert at[0.2] >= 0.19
    assert at[None] >= 0.39
    assert at[60] >= 0.39
    assert limiter._metrics.store_failures.timeout == 5


@pytest.mark.parametrize(
    ("timeout_s", "patience_s"),
    [(None, 0.1), (60, 0.1), (0.102, 0.1), (0.02, 0.018), (0.004, 0.002), (0.001, 0.0005), (0, 0)],
)
async def test_a_request_waits_for_less_than_its_caller(held, timeout_s, patience_s):
    """The store timeout, or the caller's own less the margin; half of it where the margin would leave less."""
    limiter = make(held, store_timeout_s=0.1, deadline_margin_s=0.002)
    assert limiter._patience_s(timeout_s) == pytest.approx(patience_s)


async def test_what_expired_before_it_was_sent_is_counted_as_owed(held):
    """The store does not hear of a request that was answered while it waited, but of the hits that its local share let pass."""
    limiter, answers = make(held), Answers()
    held.go.clear()
    limiter.submit(asks("big=1"), answers)
    await held.asked.wait()
    limiter.submit(asks("tenant=a"), answers, timeout_s=0.01)
    await answers.wait(1)
    held.go.set()
    await settled(limiter)
    assert [len(batch) for batch in held.batches] == [1]
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 3


async def test_what_was_cancelled_before_it_was_sent_is_not_counted(held):
    """A caller who has gone is neither counted nor answered; one who goes later is counted."""
    limiter = make(held)
    held.go.clear()
    sent = asyncio.create_task(tell(limiter, asks("tenant=a")))
    await held.asked.wait()
    waiting = asyncio.create_task(tell(limiter, asks("tenant=a")))
    await asyncio.sleep(0)
    for task in (sent, waiting):
        task.cancel()
    await asyncio.gather(sent, waiting, return_exceptions=True)
    held.go.set()
    await settled(limiter)
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 3


async def test_a_caller_who_went_takes_no_grant_from_one_who_waits(held):
    """Of the line's grants the first go to those who are still there."""
    limiter, answers = make(held), Answers()
    held.go.clear()
    waiting = [limiter.submit(asks("tenant=a"), answers) for _ in range(10)]
    await held.asked.wait()
    for gone in waiting[:5]:
        assert gone is not None
        limiter.cancel(gone)
    held.go.set()
    await answers.wait(5)
    assert [verdict.code for verdict in answers.told] == [Code.OK] * 5


async def test_a_caller_who_goes_while_others_are_answered_is_not_answered(held):
    """An answer may end a connection, and with it others of the same line."""
    limiter, told = make(held), []
    for _ in range(2):  # all are granted, and then denied
        waiting: list[Any] = []

        def answer(verdict: Any, waiting: list[Any] = waiting) -> None:
            told.append(verdict.code)
            for other in waiting:
                limiter.cancel(other)

        waiting += [limiter.submit(asks("tenant=a", hits=1), answer) for _ in range(5)]
        await settled(limiter)
    assert told == [Code.OK, Code.OVER_LIMIT]


async def test_nobody_is_answered_twice(held):
    """Neither when the store fails after the deadline, nor when it answers then, nor after a cancel."""
    limiter, answers = make(held), Answers()
    for away in (True, False):
        held.go.clear()
        held.away = away
        held.asked.clear()
        limiter.submit(asks("tenant=a"), answers, timeout_s=0.01)
        gone = limiter.submit(asks("tenant=b"), answers)
        await held.asked.wait()
        assert gone is not None
        limiter.cancel(gone)
        await until(lambda: len(answers.told) == 1)
        held.go.set()
        await settled(limiter)
        assert len(answers.told) == 1
        answers.told.clear()


async def test_grants_go_first_to_those_whom_the_policy_let_pass(held):
    """A request let pass by its local share takes one of the store's grants, so that the sum stays right."""
    limiter, answers = make(held), Answers()
    held.go.clear()
    patient = [limiter.submit(asks("tenant=a"), answers) for _ in range(5)]
    limiter.submit(asks("tenant=a"), answers, timeout_s=0.02)
    await answers.wait(1)
    assert answers.told[0].code is Code.OK
    held.go.set()
    await answers.wait(6)
    assert None not in patient
    assert sorted(verdict.code for verdict in answers.told) == [Code.OK] * 5 + [Code.OVER_LIMIT]


async def test_short_deadlines_beside_long_ones(held):
    """Timers closer than a loop's resolution expire what they should, and disturb nobody else."""
    limiter, answers = make(held), Answers()
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    held.go.clear()
    for number in range(1000):
        limiter.submit(asks(f"tenant=t{number % 7}"), answers, timeout_s=(number % 50) / 10_000)
        limiter.submit(asks("big=1"), answers)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(answers.told) == 1000)
    held.go.set()
    await answers.wait(2000)
    assert faults == []
    assert len(limiter._deadlines) <= 1000


# ── defects ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Broken:
    """A store with a defect, now and then."""

    def __init__(self, store: Store) -> None:
        self.store, self.broken = store, True

    async def take(self, lines, due=None) -> list[Grant | Untaken]:
        if self.broken:
            raise ZeroDivisionError
        return await self.store.take(lines, due)


async def test_a_defect_of_the_store_leaves_nobody_waiting(clock):
    """Everyone is answered by policy at once, the defect is told, and the next requests are taken."""
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(repr(context.get("exception"))))
    store = Broken(MemoryStore(clock))
    limiter, answers = make(store, replicas=5), Answers()
    for number in range(300):
        limiter.submit(asks(f"tenant=t{number}"), answers)
    await answers.wait(300)
    await settled(limiter)
    assert [verdict.statuses[0].remaining for verdict in answers.told] == [0] * 300
    assert limiter.waiting.requests == 0
    assert set(faults) == {"ZeroDivisionError()"}
    store.broken = False
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 4


async def test_a_verdict_that_cannot_be_written_costs_nobody_else_anything(held):
    """Whoever cannot be told the store's verdict is told the policy's; the others of the batch are told theirs."""
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(repr(context.get("exception"))))
    broken = [True]

    def encode(verdict: Verdict, *_: Any) -> Any:
        if broken and verdict.statuses[0].remaining == 3:
            broken.clear()
            raise OverflowError
        return verdict

    limiter = make(held, encode=encode)
    first = asyncio.gather(
        *(tell(limiter, asks(f"tenant={name}", hits=hits)) for name, hits in (("a", 1), ("b", 2), ("c", 1)))
    )
    assert [verdict.statuses[0].remaining for verdict in await first] == [4, 3, 4]
    assert limiter._metrics.policy_decisions.local == 1
    assert faults == ["OverflowError()"]
