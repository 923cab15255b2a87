"""What was let pass without the store is charged when it is back: once, and no more than once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.owed import LOOKED_AT, Debt, Owed
from ratelimit_svc.model import MAX_HITS, Code, Grant, Line
from ratelimit_svc.store import MAX_CHARGES, Untaken
from ratelimit_svc.store.memory import MemoryStore
from tests.histories import MINUTE, SECOND, START, charge
from tests.limiting import Answers, asks, make, sends, settled, tell
from tests.taking import granted

AWAY = StoreUnavailableError("away")


def debt(key: str, hits: int = 1, until_us: int = MINUTE) -> Debt:
    return Debt(charge(key, 5), hits, until_us)


def owed(clock, most: int = 100) -> Owed:
    return Owed(clock, most_keys=most)


def taken_out(book: Owed, *keys: str, most: int = 100) -> list[tuple[bytes, int]]:
    lines = [Line((charge(key, 5),), 1) for key in keys]
    return [(one.charge.key, one.hits) for one in book.take_out(lines, most)]


class Now:
    now = 0

    def __call__(self) -> int:
        return self.now


def test_debts_of_one_window_are_one():
    """Its hits are added, up to what any limit could hold, and it lasts as long as the last of them."""
    clock = Now()
    book = owed(clock)
    for one in (debt("a", 2, 50), debt("a", 3, 40), debt("b", MAX_HITS), debt("b", MAX_HITS)):
        book.add(one)
    assert len(book) == 2
    clock.now = 45
    assert taken_out(book, "a", "a", "c", "b") == [(b"a", 5), (b"b", MAX_HITS)]
    assert len(book) == 0


def test_what_would_have_left_its_window_is_dropped():
    """When its time is over, asked for or not."""
    clock = Now()
    book = owed(clock, 1000)
    for number in range(3 * LOOKED_AT):
        book.add(debt(f"k{number}", until_us=10 if number % 2 else MINUTE))
    clock.now = 10
    assert taken_out(book, "k1") == []
    for _ in range(3):
        book.expire()
    assert len(book) == 3 * LOOKED_AT // 2


def test_a_debt_is_dropped_for_each_beyond_the_most():
    """And its hits are counted."""
    book = owed(Now(), 2)
    for number in range(5):
        book.add(debt(f"k{number}", 7))
    assert (len(book), book.dropped) == (2, 21)
    nothing = owed(Now(), 0)
    nothing.add(debt("k"))
    assert (len(nothing), nothing.dropped) == (0, 1)


def test_so_many_are_taken_out_and_the_others_wait():
    """Each batch has room for so many."""
    book = owed(Now())
    for key in "abc":
        book.add(debt(key))
    assert [key for key, _ in taken_out(book, "a", "b", "c", most=2)] == [b"a", b"b"]
    assert [key for key, _ in taken_out(book, "a", "b", "c")] == [b"c"]


class Faulty:
    """A store whose takes may go wrong: `how` says in which way, for all from now on."""

    def __init__(self, windows: MemoryStore) -> None:
        self.windows = windows
        self.how = "well"
        self.outcomes: list[tuple[asyncio.Future[int], int]] = []
        """Of takes whose answer was lost: how many each charged, yet to be told."""
        self.batches: list[list[Line]] = []

    def take(self, lines: Sequence[Line], due: float | None = None) -> asyncio.Future[list[Grant | Untaken]]:
        assert due is not None
        self.batches.append(list(lines))
        taken: asyncio.Future[list[Grant | Untaken]] = asyncio.get_running_loop().create_future()
        if self.how == "well":
            taken.set_result([*self.windows.take_now(lines)])
        elif self.how == "away":
            taken.set_result([Untaken(AWAY)] * len(lines))
        elif self.how == "broken":
            taken.set_exception(ZeroDivisionError())
        else:
            charged = (
                [grant.granted for grant in self.windows.take_now(lines)] if self.how == "lost" else [0] * len(lines)
            )
            taken.set_result([Untaken(AWAY, self._later(number)) for number in charged])
        return taken

    def _later(self, charged: int) -> asyncio.Future[int]:
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.outcomes.append((outcome, charged))
        return outcome

    async def tell(self) -> None:
        """Tell what became of all takes whose answer was lost."""
        for outcome, charged in self.outcomes:
            outcome.set_result(charged)
        self.outcomes.clear()
        await asyncio.sleep(0)


@pytest.fixture
def faulty(clock) -> Faulty:
    return Faulty(MemoryStore(clock))


async def left(limiter: Limiter, name: str = "tenant=a") -> int:
    """What one more request finds left, itself included."""
    return (await tell(limiter, asks(name))).statuses[0].remaining


@pytest.mark.parametrize("how", ["away", "lost", "never ran"])
async def test_a_request_that_was_let_pass_is_charged_once(faulty, how):
    """Whether the take that it was in ran and its answer was lost, did not run, or never left."""
    limiter = make(faulty)
    faulty.how = how
    assert (await tell(limiter, asks("tenant=a", hits=2))).code is Code.OK
    await faulty.tell()
    faulty.how = "well"
    assert await left(limiter) == 5 - 2 - 1
    assert await left(limiter) == 5 - 2 - 1 - 1
    assert limiter.owed.charged == (0 if how == "lost" else 2)


async def test_what_is_owed_counts_even_beyond_the_limit(faulty):
    """It did pass."""
    limiter = make(faulty)
    assert await left(limiter) == 4
    faulty.how = "away"
    for _ in range(5):
        assert (await tell(limiter, asks("tenant=a"))).code is Code.OK
    faulty.how = "well"
    told = await tell(limiter, asks("tenant=a"))
    assert (told.code, told.statuses[0].remaining) == (Code.OVER_LIMIT, 0)
    (grant,) = await granted(faulty.windows.take([Line((charge(key_of(faulty), 100, hits=0),), 1)]))
    assert grant.outcomes[0].remaining == 100 - 6


def key_of(faulty: Faulty) -> bytes:
    return faulty.batches[-1][-1].charges[0].key


async def test_who_was_denied_owes_nothing(faulty):
    """By the local share, or by a policy that asks no window."""
    limiter = make(faulty, replicas=5)
    faulty.how = "away"
    assert [(await tell(limiter, asks("tenant=a"))).code for _ in range(2)] == [Code.OK, Code.OVER_LIMIT]
    for name in ("allow=1", "deny=1"):
        await tell(limiter, asks(name))
    assert len(limiter.owed) == 1


async def test_a_late_grant_pays_for_who_was_let_pass_meanwhile(held):
    """Five wait, three time out and are let pass; the store grants four of six: one of those that still wait is granted."""
    limiter, answers = make(held), Answers()
    assert await left(limiter) == 4
    held.go.clear()
    for timeout_s in (0.02, 0.02, 0.02, None, None, None):
        limiter.submit(asks("tenant=a"), answers, timeout_s=timeout_s)
    await answers.wait(3)
    held.go.set()
    await answers.wait(6)
    assert [verdict.code for verdict in answers.told] == [Code.OK] * 4 + [Code.OVER_LIMIT] * 2
    assert len(limiter.owed) == 0


async def test_who_was_let_pass_beyond_the_grants_is_owed(held):
    """The store grants one of three that have passed: two are owed."""
    limiter, answers = make(held), Answers()
    await tell(limiter, asks("tenant=a", hits=4))
    held.go.clear()
    for _ in range(3):
        limiter.submit(asks("tenant=a"), answers, timeout_s=0.02)
    await answers.wait(3)
    assert [verdict.code for verdict in answers.told] == [Code.OK] * 3
    held.go.set()
    await settled(limiter)
    assert taken_out(limiter.owed, "{a}shop/tenant=a:s60000000") == [(b"{a}shop/tenant=a:s60000000", 2)]


async def test_a_batch_whose_debts_are_lost_owes_them_again(faulty):
    """Unless it ran."""
    for how, again in (("away", 2), ("never ran", 2), ("lost", 0)):
        name = f"tenant={how[0]}"
        key = f"{{{how[0]}}}shop/{name}:s60000000"
        limiter = make(faulty)
        faulty.how = "away"
        await tell(limiter, asks(name, hits=2))
        faulty.how = how
        await tell(limiter, asks(name, hits=5))  # denied here: it owes nothing itself
        await faulty.tell()
        assert sum(hits for _, hits in taken_out(limiter.owed, key)) == again
        faulty.how = "well"


async def test_a_defect_of_the_store_s_loses_no_debts(faulty):
    """The loop's handler is told of it, and what the batch would have paid is owed as before."""
    limiter = make(faulty)
    faulty.how = "away"
    await tell(limiter, asks("tenant=a", hits=2))
    faulty.how = "broken"
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what["exception"]))
    assert (await tell(limiter, asks("tenant=a"))).code is Code.OK
    assert [type(each) for each in reported] == [ZeroDivisionError]
    assert taken_out(limiter.owed, "{a}shop/tenant=a:s60000000") == [(b"{a}shop/tenant=a:s60000000", 3)]


async def test_debts_leave_room_in_a_batch(faulty):
    """A batch with debts is no larger than one without."""
    limiter, answers = make(faulty), Answers()
    faulty.how = "away"
    for number in range(300):
        limiter.submit(asks(f"tenant=t{number}"), answers)
    await answers.wait(300)
    faulty.how = "well"
    faulty.batches.clear()
    for number in range(300):
        limiter.submit(asks(f"tenant=t{number}"), answers)
    await answers.wait(600)
    assert max(sum(len(line.charges) for line in batch) for batch in faulty.batches) <= MAX_CHARGES
    assert [verdict.statuses[0].remaining for verdict in answers.told[300:]] == [3] * 300
    assert len(limiter.owed) == 0


async def test_only_what_fitted_is_owed(faulty):
    """A shadow that had no room was not charged here, and is not there."""
    limiter = make(faulty)
    faulty.how = "away"
    for _ in range(3):
        await tell(limiter, asks("shadow=1", "tenant=a"))
    assert taken_out(limiter.owed, "{a}shop/tenant=a:s60000000", "{shop}shop/shadow=1:s60000000") == [
        (b"{a}shop/tenant=a:s60000000", 3),
        (b"{shop}shop/shadow=1:s60000000", 1),
    ]


@pytest.mark.parametrize(("how", "owes"), [("away", 7), ("never ran", 7), ("lost", 0)])
async def test_a_cost_that_overdraws_its_share_is_owed(faulty, how, owes):
    """It is told OVER_LIMIT, and was counted here all the same; so it is there, once."""
    limiter = make(faulty)
    faulty.how = how
    for asked, code in (("tenant=a check", Code.OK), ("tenant=a 7", Code.OVER_LIMIT)):
        assert (await tell(limiter, sends(asked))).code is code
        await faulty.tell()
    assert sum(hits for _, hits in taken_out(limiter.owed, "{a}shop/tenant=a:s60000000")) == owes


# ── the bound of an outage ────────────────────────────────────────────────────────────────────────────────────────────

LIMIT = 5
"""Of `tenant` in a minute (tests.limiting.RULES)."""


@dataclass
class Step:
    """What happens next."""

    us: int
    replica: int
    asked: int
    how: str


steps = st.lists(
    st.builds(
        Step,
        us=st.sampled_from([0, 1, SECOND, 10 * SECOND, MINUTE]),
        replica=st.integers(0, 2),
        asked=st.integers(0, 4),
        how=st.sampled_from(["well", "well", "away", "lost", "never ran", "empty"]),
    ),
    max_size=40,
)


@given(steps)
@settings(deadline=None, max_examples=150)
def test_no_window_admits_more_than_an_outage_may(history):
    """2 L + N − 1 while the store keeps its data, another L if it comes back empty; and L where nothing ever went wrong."""
    asyncio.run(_check(history))


async def _check(history: list[Step]) -> None:
    now = [START]
    windows = MemoryStore(lambda: now[0])
    stores = [Faulty(windows) for _ in range(3)]
    limiters = [make(store, replicas=3, clock=lambda: now[0]) for store in stores]
    admitted: list[int] = []
    faults, emptied = False, 0
    for step in history:
        now[0] += step.us
        store, limiter = stores[step.replica], limiters[step.replica]
        if step.how == "empty":
            windows._windows.clear()
            windows._expiries.clear()
            emptied += 1
        else:
            store.how = step.how
        faults = faults or step.how != "well"
        answers = Answers()
        for _ in range(step.asked):
            limiter.submit(asks("tenant=a"), answers)
        await answers.wait(step.asked)
        await settled(limiter)
        admitted += [now[0]] * sum(verdict.code is Code.OK for verdict in answers.told)
        await store.tell()
    bound = (2 + emptied) * LIMIT + 3 - 1 if faults else LIMIT
    for first in admitted:
        assert sum(first <= at < first + MINUTE for at in admitted) <= bound
