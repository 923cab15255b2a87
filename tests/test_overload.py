"""Overload: when too many wait, or for too long, or the process cannot keep up, the policy answers at once."""

import asyncio
from math import inf

import pytest

from ratelimit_svc.limiter.plans import Planner
from ratelimit_svc.limiter.waiting import MAX_REQUESTS, Waiting, WaitingLines
from ratelimit_svc.model import Code
from ratelimit_svc.pressure import Pressure
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.wire import rls
from tests.limiting import Answers, asks, make, rules_of, sends, settled, tell
from tests.waiting import until


async def test_a_queue_that_ages_is_not_joined(held):
    """New requests are answered at once by policy; those that wait have their answers from the store, once it is back."""
    limiter, answers, shed = make(held, queue_age_s=0.02), Answers(), Answers()
    held.go.clear()
    limiter.submit(asks("big=1"), answers)
    await until(lambda: not limiter.waiting)  # it is with the store
    assert limiter.submit(asks("big=2"), answers) is not None
    stuck_from = limiter.waiting.stuck_from
    await until(lambda: asyncio.get_running_loop().time() > stuck_from)
    for number in range(100):
        assert limiter.submit(asks(f"big={number}"), shed) is None
    assert len(shed.told) == 100
    assert limiter._metrics.policy_decisions.shed == 100
    assert limiter.waiting.requests == 1
    assert answers.told == []
    held.go.set()
    await answers.wait(2)
    await settled(limiter)
    assert limiter.submit(asks("big=3"), answers) is not None
    await answers.wait(3)
    assert limiter._metrics.policy_decisions.shed == 100
    assert limiter._metrics.store_failures.timeout == 0


async def test_those_who_wait_in_an_old_queue_are_answered_in_time(held):
    """Each at its own deadline, as ever; what is shed does not wait at all."""
    limiter, answers = make(held, queue_age_s=0.02, store_timeout_s=0.1), Answers()
    held.go.clear()
    limiter.submit(asks("big=1"), answers)
    await until(lambda: not limiter.waiting)
    limiter.submit(asks("big=2"), answers)
    await answers.wait(2)
    assert limiter._metrics.store_failures.timeout == 2
    assert limiter.submit(asks("big=3"), answers) is None  # the queue is still as old
    assert len(answers.told) == 3
    assert limiter._metrics.policy_decisions.shed == 1
    held.go.set()
    await settled(limiter)
    assert not limiter.waiting


async def test_without_redis_who_is_let_pass_at_once_is_counted_once(clock):
    """The policy's windows are the store's own then: nothing is owed to them."""
    windows, pressure = MemoryStore(clock), Pressure()
    limiter = make(windows, local=windows, pressure=pressure)
    for shedding, left in ((True, 4), (False, 3), (True, 2), (False, 1)):
        pressure.shedding = shedding
        told = await tell(limiter, asks("tenant=a"))
        assert (told.code, told.statuses[0].remaining) == (Code.OK, left)
    assert limiter._metrics.policy_decisions.shed == 2


async def test_what_is_with_the_store_does_not_make_the_queue_old(held):
    """As long as nobody waits behind it, whoever comes next does: its own deadline is what counts."""
    limiter, answers = make(held, queue_age_s=0), Answers()
    held.go.clear()
    limiter.submit(asks("big=1"), answers)
    await until(lambda: not limiter.waiting)
    assert limiter.submit(asks("big=1"), answers) is not None
    held.go.set()
    await answers.wait(2)
    assert limiter._metrics.policy_decisions.shed == 0


def test_the_age_is_that_of_the_oldest_that_waits():
    """Of those that are left when a batch goes, too: in another line, or the rest of one that was too long."""
    planner = Planner(rules_of(()))
    one, other = (planner.plan(rls.decode(sends(key))) for key in ("d0 1", "d0 2"))
    one.coalesces = True
    lines = WaitingLines(10)
    assert lines.stuck_from == inf
    for since in range(MAX_REQUESTS + 5):
        lines.add(Waiting(one, lambda _: None, since))
    lines.add(Waiting(other, lambda _: None, 5000))
    assert lines.stuck_from == 10
    lines.next_batch()
    assert lines.stuck_from == 10 + MAX_REQUESTS
    lines.next_batch()
    assert lines.stuck_from == inf
    lines.add(Waiting(other, lambda _: None, 6000))
    assert lines.stuck_from == 6010


async def test_a_process_that_lags_sheds(held):
    """The policy answers, not the store, for as long as it does."""
    pressure = Pressure()
    limiter = make(held, pressure=pressure)
    pressure.shedding = True
    for _ in range(3):
        assert (await tell(limiter, asks("allow=a"))).code is Code.OK
    assert held.batches == []
    assert limiter._metrics.policy_decisions.shed == limiter._metrics.policy_decisions.allow == 3
    pressure.shedding = False
    await tell(limiter, asks("allow=a"))
    assert len(held.batches) == 1


@pytest.mark.parametrize("key", ["tenant", "allow", "error"])
async def test_remembered_denials_are_told_before_any_is_shed(held, key):
    """Whoever is known to be over the limit is not let pass because of overload, whatever the rule's policy."""
    pressure = Pressure()
    limiter = make(held, pressure=pressure, denial_memory_keys=10)
    for _ in range(6):
        await tell(limiter, asks(f"{key}=a"))
    pressure.shedding = True
    assert (await tell(limiter, asks(f"{key}=a"))).code is Code.OVER_LIMIT
    assert limiter._metrics.policy_decisions.shed == 0
    assert len(limiter.refusals) == 1


async def test_what_is_shed_is_not_remembered(held):
    """This replica's share of a limit is no window of the store's."""
    pressure = Pressure()
    limiter = make(held, pressure=pressure, denial_memory_keys=10)
    pressure.shedding = True
    told = [(await tell(limiter, asks("tenant=a"))).code for _ in range(7)]
    assert told == [Code.OK] * 5 + [Code.OVER_LIMIT] * 2
    assert len(limiter.refusals) == 0
