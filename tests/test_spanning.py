"""Lines that span places are told what one store would tell, and what they must not keep is given back."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import BAD_KEY, Algorithm, Charge, Grant, Kind, Line, Overdraft, Role
from ratelimit_svc.store import Untaken
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis.calls import Call, Unknown
from ratelimit_svc.store.redis.commands import Taken
from ratelimit_svc.store.redis.node import Node
from ratelimit_svc.store.redis.spread import SpreadStore
from ratelimit_svc.windows.batch import Window
from ratelimit_svc.windows.fixed_window import FixedWindow
from ratelimit_svc.windows.reference_window import ReferenceWindow
from ratelimit_svc.windows.sliding_window import SlidingWindow
from ratelimit_svc.windows.token_bucket import TokenBucket
from tests.conftest import Clock
from tests.histories import MINUTE, WINDOWS, Log, Step, charge, histories

SECOND = 1_000_000


class Held(NamedTuple):
    """A call that has been sent to one place and not yet run."""

    lines: Sequence[Line]
    told: dict[int, Call | None]
    """Of all places that were asked together, what they have answered."""
    answer: asyncio.Future[list[Call]]


class Memories:
    """Memory stores, one for each place; by default a key's place is its first letter. With `held` each place runs its calls
    one after the other when it is told to, as a connection and its server do.
    """

    def __init__(self, clock: Clock, *, held: bool = False) -> None:
        self.clock = clock
        self.stores: dict[int, MemoryStore] = {}
        self.holds = held
        self.held: dict[int, deque[Held]] = {}
        self.fails: dict[int, Call] = {}
        """Places that do not take, and what they say."""
        self.asked: list[dict[int, list[Line]]] = []
        self.ran: dict[int, int] = {}
        """When charges ran, by their identity."""

    up = True

    def away(self) -> list[str]:
        return []

    def nodes(self) -> dict[str, Node]:
        return {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def command(self, key: bytes, *words: bytes) -> object:
        raise NotImplementedError

    def place(self, charge: Charge) -> int:
        return charge.key[0]

    def ask(self, calls: Mapping[int, Sequence[Line]], due: float | None) -> asyncio.Future[list[Call]]:
        self.asked.append({place: list(lines) for place, lines in calls.items()})
        told: dict[int, Call | None] = dict.fromkeys(calls)
        answer: asyncio.Future[list[Call]] = asyncio.get_running_loop().create_future()
        for place, lines in calls.items():
            self.held.setdefault(place, deque()).append(Held(lines, told, answer))
        if not self.holds:
            for place in calls:
                self.run(place)
        return answer

    def run(self, place: int) -> None:
        """Run the first call that waits in a place, and answer it if it is the last of those sent with it."""
        lines, told, answer = self.held[place].popleft()
        told[place] = self.take(place, lines)
        calls = [call for call in told.values() if call is not None]
        if len(calls) == len(told):
            answer.set_result(calls)

    def take(self, place: int, lines: Sequence[Line]) -> Call:
        if place in self.fails:
            return self.fails[place]
        store = self.stores.setdefault(place, MemoryStore(self.clock))
        self.ran.update({id(one): self.clock.now for line in lines for one in line.charges})
        return Taken(self.clock.now, store.take_now(lines))

    def windows(self) -> dict[bytes, Window]:
        return {key: window for store in self.stores.values() for key, window in store._windows.items()}


async def take(store: SpreadStore, *charges: Charge, n: int = 1) -> Grant:
    """What one line is granted."""
    (grant,) = await store.take([Line(charges, n)])
    assert isinstance(grant, Grant)
    return grant


def hits(memories: Memories) -> dict[str, int]:
    """What windows hold."""
    return {key.decode(): window.total for key, window in memories.windows().items()}


async def told(store: SpreadStore, *lines: Line) -> list[Grant]:
    """What lines are granted that are all taken."""
    return grants(await store.take(lines))


def grants(answers: Sequence[Grant | Untaken]) -> list[Grant]:
    """The same answers, which are all grants."""
    assert all(isinstance(answer, Grant) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Grant)]


async def test_as_many_are_granted_as_in_the_fullest_place(clock):
    """Of n requests the place with the least room decides, and the others give back what they have charged more."""
    memories = Memories(clock)
    store = SpreadStore(memories)
    grant = await take(store, charge("a", 10, hits=2), charge("b", 3), charge("c", 100), n=5)
    assert grant.granted == 3
    assert [outcome.remaining for outcome in grant.outcomes] == [4, 0, 97]
    assert [outcome.fits_in_us > 0 for outcome in grant.outcomes] == [False, True, False]
    assert hits(memories) == {"a": 6, "b": 3, "c": 3}
    assert len(memories.asked) == 2
    assert (store.undos, store.undos_lost) == (2, 0)


async def test_a_line_in_one_place_is_sent_as_it_is(clock):
    """Nothing is undone, and nothing cut: charges of one place are one script's."""
    memories = Memories(clock)
    line = Line((charge("a1", 1), charge("a2", 5, role=Role.QUOTA), charge("a3", 5, role=Role.SHADOW)), 1)
    assert [grant.granted for grant in await told(SpreadStore(memories), line, line)] == [1, 0]
    assert memories.asked == [{ord("a"): [line, line]}]


async def test_a_refund_is_given_only_when_the_request_is_granted(clock):
    """Denied elsewhere, nothing is given back; granted, it is, and told."""
    memories = Memories(clock)
    store = SpreadStore(memories)
    await take(store, charge("r", 10, hits=6))
    back = charge("r", 10, hits=4, kind=Kind.REFUND)
    assert (await take(store, back, charge("b", 0))).granted == 0
    assert hits(memories)["r"] == 6
    grant = await take(store, back, charge("b", 1))
    assert (grant.granted, grant.outcomes[0].remaining) == (1, 8)
    assert hits(memories)["r"] == 2


async def test_an_overdraft_is_told_whatever_stands_beside_it(clock):
    """A refund of a shadow's, in the same place and looked at first, makes no shadow of a budget that is overdrawn."""
    store = SpreadStore(Memories(clock))
    await take(store, charge("b1", 5, hits=0, overdraft=Overdraft.AUTO))
    back = charge("b2", 5, role=Role.SHADOW, kind=Kind.REFUND)
    grant = await take(store, back, charge("b1", 5, hits=8, overdraft=Overdraft.AUTO), charge("c", 5))
    assert (grant.granted, grant.overdrawn) == (1, True)
    assert [outcome.remaining for outcome in grant.outcomes] == [5, -3, 4]


async def test_an_unanswered_part_makes_the_line_untaken_and_the_rest_is_undone(clock):
    """The other places keep nothing, and lines of those places alone do not notice."""
    memories = Memories(clock)
    memories.fails[ord("b")] = Unknown(StoreUnavailableError("away"))
    store = SpreadStore(memories)
    spanning, alone, away = await store.take(
        [Line((charge("a", 9), charge("b", 9)), 3), Line((charge("a", 9),), 1), Line((charge("b", 9),), 1)]
    )
    assert isinstance(spanning, Untaken)
    assert spanning.outcome is None
    assert isinstance(alone, Grant)
    assert isinstance(away, Untaken)
    await asyncio.sleep(0)
    assert hits(memories) == {"a": 1}


@pytest.mark.parametrize("charged", [True, False])
async def test_a_part_that_turns_out_to_be_charged_is_undone_then(clock, charged):
    """What a part did is known later: the line is untaken at once, with nothing charged in the end."""
    memories = Memories(clock)
    outcome = asyncio.get_running_loop().create_future()
    memories.fails[ord("b")] = Unknown(StoreUnavailableError("no answer"), outcome)
    store = SpreadStore(memories)
    both = (charge("a", 9), charge("b", 9, hits=2))
    (answer,) = await store.take([Line(both, 1)])
    assert isinstance(answer, Untaken)
    assert answer.outcome is None
    del memories.fails[ord("b")]
    taken = memories.take(ord("b"), [Line(both[1:], 1)]) if charged else None
    clock.now += SECOND
    # meanwhile it may be undone any moment
    assert (await take(store, charge("b", 1, hits=2))).passing
    outcome.set_result(taken)
    await asyncio.sleep(0.001)
    assert (await take(store, charge("b", 1, hits=2))).passing is False
    assert hits(memories).get("b", 0) == 0
    assert not store._open


async def test_a_line_of_one_place_whose_outcome_is_not_known_has_one(clock):
    """It is the line's own: so many of its requests were charged."""
    memories = Memories(clock)
    outcome = asyncio.get_running_loop().create_future()
    memories.fails[ord("b")] = Unknown(StoreUnavailableError("no answer"), outcome)
    answers = await SpreadStore(memories).take([Line((charge("b", 9),), 3), Line((charge("b2", 1),), 3)])
    outcomes = [one.outcome for one in answers if isinstance(one, Untaken) and one.outcome is not None]
    assert [one.done() for one in outcomes] == [False, False]
    outcome.set_result(Taken(clock.now, [Grant(3, ()), Grant(1, ())]))
    assert [await one for one in outcomes] == [3, 1]


async def test_a_key_that_holds_something_else_denies_nobody_and_charges_nothing(clock):
    """The line is told so, as one store would tell it."""
    memories = Memories(clock)
    memories.fails[ord("b")] = Taken(clock.now, [Grant(BAD_KEY, ())])
    grant = await take(SpreadStore(memories), charge("a", 9), charge("b", 9))
    assert grant == Grant(BAD_KEY, ())
    assert hits(memories) == {"a": 0}


async def test_what_is_denied_beside_an_open_undo_is_told_so(clock):
    """A denial that is due to hits which are about to be given back says nothing of the next moment; any other does."""
    memories = Memories(clock, held=True)
    store = SpreadStore(memories)
    a, b, c = b"abc"
    spanning = store.take([Line((charge("a", 1), charge("b", 0)), 1)])
    alone = store.take([Line((charge("a", 1),), 1), Line((charge("c", 0),), 1)])
    for place in (a, a, b, c):
        memories.run(place)
    (denied,) = grants(await spanning)
    assert (denied.granted, denied.passing) == (0, False)  # b is full, and nothing of that is undone
    assert [(grant.granted, grant.passing) for grant in grants(await alone)] == [(0, True), (0, False)]
    memories.run(a)  # the undo
    after = store.take([Line((charge("a", 1, hits=2),), 1)])
    memories.run(a)
    assert [(grant.granted, grant.passing) for grant in grants(await after)] == [(0, False)]
    assert hits(memories) == {"a": 0}


# ── as from one store ─────────────────────────────────────────────────────────────────────────────────────────────────


def settled(line: Line) -> bool:
    """Whether a line is none of the exceptions that `spanning` names."""
    named: dict[bytes, list[Charge]] = {}
    for one in line.charges:
        named.setdefault(one.key, []).append(one)
    return all(
        len(several) == 1 or all(one.role is Role.GATE and one.kind is not Kind.REFUND for one in several)
        for several in named.values()
    )


def steady(one: Charge, *, alone: bool) -> Charge:
    """A charge whose window's shape does not change, and which makes no budget if it may be denied for another."""
    algorithm_shape = {name: index for index, name in enumerate(WINDOWS[one.algorithm])}
    shape = one.shape
    if one.algorithm is Algorithm.SLIDING_WINDOW:
        shape = (1, 7, 60)[algorithm_shape[one.key.decode()]]
    elif one.algorithm is Algorithm.TOKEN_BUCKET:
        shape = (7, 60_000_007, 12)[algorithm_shape[one.key.decode()]]
    elif one.key == b"realigned":
        shape = 0
    overdraft = Overdraft.NEVER if one.kind is Kind.CHECK and not alone else one.overdraft
    return one._replace(shape=shape, overdraft=overdraft)


def content(window: Window, now: int) -> object:
    """What a window holds, whenever it was looked at last."""
    if isinstance(window, SlidingWindow):
        counts = [*window.older, (window.head, window.here)]
        return [(number, held) for number, held in counts if held and number + window.slices >= now // window.width]
    if isinstance(window, FixedWindow):
        return (window.ends, window.total) if window.total and window.ends > now else None
    if isinstance(window, ReferenceWindow):
        return (window.starts, window.total) if window.total and window.starts + window.window > now else None
    assert isinstance(window, TokenBucket)
    drained = TokenBucket.open(window, now, window.window, window.rate)
    return (drained.total, drained.part)


NOTHING: list[object] = [[], None, (0, 0)]


class ByName(Memories):
    """Each key's place is drawn."""

    def __init__(self, clock: Clock, places: Mapping[str, int]) -> None:
        super().__init__(clock)
        self.places = places

    def place(self, charge: Charge) -> int:
        return self.places[charge.key.decode()]


NAMES = [name for windows in WINDOWS.values() for name in windows]
PLACES = st.fixed_dictionaries({name: st.integers(0, 2) for name in NAMES})


@given(histories(clock_is_set=False), PLACES)
def test_one_after_the_other_they_are_told_as_from_one_store(history: list[Step], places):
    """Lines of every kind, but for the exceptions: the same grants, and the same windows at the end."""
    asyncio.run(compare(history, places))


async def compare(history: list[Step], places: Mapping[str, int]) -> None:
    clock = Clock()
    one, spread = MemoryStore(clock), ByName(clock, places)
    store = SpreadStore(spread)
    for step in history:
        clock.now += step.passes
        for drawn in step.lines:
            line = Line(tuple(steady(each, alone=len(drawn.charges) == 1) for each in drawn.charges), drawn.n)
            if not settled(line):
                continue
            (expected,) = one.take_now([line])
            (grant,) = await store.take([line])
            await asyncio.sleep(0)
            assert isinstance(grant, Grant)
            assert same(line, grant, expected), (grant, expected)
    spread_windows, windows = spread.windows(), one._windows
    for key in spread_windows.keys() | windows.keys():
        here = content(spread_windows[key], clock.now) if key in spread_windows else None
        there = content(windows[key], clock.now) if key in windows else None
        assert here == there or (here in NOTHING and there in NOTHING), key
    assert not store._open


def same(line: Line, grant: Grant, expected: Grant) -> bool:
    """Whether two grants tell the same: but what remains of a denied overdraft, and when what was undone is empty."""
    if (grant.granted, grant.overdrawn) != (expected.granted, expected.overdrawn):
        return False
    for one, told, wanted in zip(line.charges, grant.outcomes, expected.outcomes, strict=True):
        undone = grant.granted < line.n
        over = undone and one.overdraft is not Overdraft.NEVER and told.remaining == 0
        if told.remaining != wanted.remaining and not over:
            return False
        if told.fits_in_us != wanted.fits_in_us and not over:
            return False
        if told.empty_us != wanted.empty_us and not (undone and told.empty_us > wanted.empty_us):
            return False
    return True


# ── in every order ────────────────────────────────────────────────────────────────────────────────────────────────────

LIMIT = 3


def drawn(dice: Random) -> Line:
    """Requests that count on one or both of two keys, each in a place of its own; charges of their own, known by identity."""
    hits = dice.choice([1, 1, 1, 2])
    names = dice.choice(["a", "b", "ab", "ab", "ba"])
    return Line(tuple(charge(name, LIMIT, hits=hits) for name in names), dice.randint(1, 3))


@given(st.integers(0, 2**32))
def test_in_every_order_no_window_holds_more_than_its_limit(seed):
    """Whatever runs before whatever, and however late undos come: what was admitted stays within the limit in each interval."""
    assert asyncio.run(fullest(Random(seed))) <= LIMIT


def test_windows_are_filled_to_their_limits():
    """So that what is judged above is a test."""
    assert max(asyncio.run(fullest(Random(seed))) for seed in range(10)) == LIMIT


async def fullest(dice: Random) -> int:
    """Return how many hits an interval holds at most, after any order of takes, answers and undos."""
    clock = Clock()
    memories = Memories(clock, held=True)
    store = SpreadStore(memories)
    sent = []
    for _ in range(300):  # long enough to fill windows and leave them again; short ones find nothing
        move = dice.random()
        place = dice.choice(b"ab")
        if move < 0.35:
            line = drawn(dice)
            sent.append((line, store.take([line])))
        elif move < 0.9:
            if memories.held.get(place):
                memories.run(place)
        else:
            clock.now += dice.choice([1, 1, SECOND, 30 * SECOND, MINUTE])
        await asyncio.sleep(0)
    while any(memories.held.values()):
        for place in [place for place, waiting in memories.held.items() if waiting]:
            memories.run(place)
        await asyncio.sleep(0)
    log = Log(MINUTE)
    admitted = [
        (memories.ran[id(one)], one.key, one.hits * grant.granted)
        for line, taken in sent
        for grant in grants(await taken)
        for one in line.charges
    ]
    for when, key, many in sorted(admitted):
        log.admit(when, key, many)
    await asyncio.sleep(0)
    assert not store._open
    return max((log.within(when, key) for when, key, _ in admitted), default=0)
