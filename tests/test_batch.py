"""Roles and kinds, by an oracle of their own: sequential, on plain counts, written from what the design says.

Nothing here passes time, so that a window is no more than a number; what time does to it, each algorithm's own tests say.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_svc.limiter.plans import _coalesces
from ratelimit_svc.model import RULE_ALGORITHMS, Algorithm, Charge, Grant, Kind, Line, Overdraft, Role
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.windows import KEEP_BUDGET_US
from ratelimit_svc.windows.batch import _open
from tests.histories import (
    DAY,
    MINUTE,
    PLAIN,
    SECOND,
    START,
    WINDOWS,
    _charges,
    batches,
    bucket,
    charge,
    fixed,
    histories,
    passes,
    undo,
)
from tests.test_twins import Lua, fields_of
from tests.walk import Walk

MAKERS: dict[Algorithm, Callable[..., Charge]] = {
    Algorithm.SLIDING_WINDOW: charge,
    Algorithm.FIXED_WINDOW: fixed,
    Algorithm.TOKEN_BUCKET: lambda key, limit, **others: bucket(key, limit, limit, **others),
}
ALGORITHMS = pytest.mark.parametrize("make", MAKERS.values(), ids=[each.name.lower() for each in MAKERS])


@dataclass
class Told:
    """What the oracle says of one charge."""

    charged: bool
    over: bool
    remaining: int
    refund: bool = False


@dataclass
class Oracle:
    """Counts by key, and which keys are budgets. Time stands still."""

    held: dict[bytes, int] = field(default_factory=dict)
    budgets: set[bytes] = field(default_factory=set)

    def ask(self, charges: Iterable[Charge]) -> tuple[bool, bool, list[Told]]:
        """One request: whether it is granted, whether it is overdrawn, and how each charge stands."""
        charges = list(charges)
        ways = list(self._tried(charges))
        gates = [way for one, way in zip(charges, ways, strict=True) if one.role is Role.GATE]
        quotas = [
            way
            for one, way in zip(charges, ways, strict=True)
            if one.role is Role.QUOTA and one.kind is not Kind.REFUND
        ]
        if "no" in gates or (quotas and set(quotas) == {"no"}):
            return False, False, list(self._refused(charges))
        told = []
        for one, way in zip(charges, ways, strict=True):
            held = self.held.get(one.key, 0)
            if one.kind is Kind.REFUND:
                self.held[one.key] = max(0, held - one.hits)
            elif way != "no" and one.kind is not Kind.LOOK:
                self.held[one.key] = held + one.hits
                if not one.hits and one.overdraft is Overdraft.AUTO:
                    self.budgets.add(one.key)
            left = one.limit - self.held.get(one.key, 0)
            left = left if way == "over" else max(0, left)  # overdrawn by so many
            told.append(Told(way != "no", way in ("no", "over"), left, one.kind is Kind.REFUND))
        overdrawn = any(way == "over" and one.role is not Role.SHADOW for one, way in zip(charges, ways, strict=True))
        return True, overdrawn, told

    def _tried(self, charges: Iterable[Charge]) -> Iterator[str]:
        """How each charge would go, each after those before it: ok, over (counted, though it does not fit) or no."""
        held, budgets = dict(self.held), frozenset(self.budgets)
        for one in charges:
            now = held.get(one.key, 0)
            left = one.limit - now
            if one.kind is Kind.REFUND:
                held[one.key] = max(0, now - one.hits)
                yield "ok"
                continue
            if one.hits == 0:
                passes = left >= 0 if one.algorithm is Algorithm.FIXED_WINDOW else left > 0
                way = "ok" if passes else "no"
            elif one.hits <= left or one.overdraft is Overdraft.ALWAYS:
                way = "ok"
            elif (
                one.overdraft is Overdraft.AUTO
                and one.key in budgets
                and (left > 0 or one.limit > self.held.get(one.key, 0))  # something is left, or was before
            ):
                way = "over"
            else:
                way = "no"
            if way != "no":
                held[one.key] = now + one.hits
            yield way

    def _refused(self, charges: Iterable[Charge]) -> Iterator[Told]:
        """How the charges of a denied request stand: over where it would not fit behind those before it, as counted now."""
        asked: dict[bytes, int] = {}
        for one in charges:
            held = self.held.get(one.key, 0)
            left = max(0, one.limit - held)
            if one.kind is Kind.REFUND:
                yield Told(False, False, left, refund=True)
                continue
            need = one.hits or (0 if one.algorithm is Algorithm.FIXED_WINDOW else 1)
            over = held + asked.get(one.key, 0) + need > one.limit
            asked[one.key] = asked.get(one.key, 0) + one.hits
            yield Told(False, over and not (one.overdraft is Overdraft.ALWAYS and one.hits > 0), left)


def agree(oracle: Oracle, line: Line, grant: Grant, place: object) -> None:
    """Ask the oracle n times, and require the line's grant."""
    answers = [oracle.ask(line.charges) for _ in range(line.n)]
    assert grant.granted == sum(passed for passed, _, _ in answers), place
    assert grant.overdrawn == any(overdrawn for _, overdrawn, _ in answers), place
    passed, _, told = answers[-1]
    assert [outcome.remaining for outcome in grant.outcomes] == [each.remaining for each in told], place
    assert [outcome.fits_in_us > 0 for outcome in grant.outcomes] == [each.over for each in told], place
    if not passed and not grant.granted:
        gating = [
            outcome.fits_in_us
            for one, outcome in zip(line.charges, grant.outcomes, strict=True)
            if one.role is not Role.SHADOW
        ]
        assert any(gating), f"{place}: denied by nobody"


@given(history=st.lists(batches(RULE_ALGORITHMS), min_size=1, max_size=12))
@settings(max_examples=400, deadline=None)
def test_roles_and_kinds_are_what_the_oracle_says(history):
    """Any lines of any roles, kinds, overdrafts and algorithms, at one moment: who passes, what is charged, who is over."""
    walk, oracle = Walk(), Oracle()
    for number, lines in enumerate(history):
        for line, grant in zip(lines, walk.take(*lines), strict=True):
            agree(oracle, line, grant, number)
    for key, window in walk.windows.items():
        assert (window.total, window.budget) == (oracle.held.get(key, 0), key in oracle.budgets)


SHAPES = {
    Algorithm.SLIDING_WINDOW: {"a": 60, "b": 7, "c": 500},
    Algorithm.FIXED_WINDOW: {"fixed": 0, "from first hit": -1, "realigned": 0, "weeks": -2, "months": 1, "years": 12},
    Algorithm.TOKEN_BUCKET: {"bucket": 7, "fast bucket": 60_000_007, "slow bucket": 2**32 - 1},
    Algorithm.REFERENCE_WINDOW: {"shop_a_60s": 0, "shop_b__60s": 0},
}
"""One shape for each key: in one batch, a window is opened once, by the first that asks for it."""


def of_one_shape(lines: Iterable[Line]) -> list[Line]:
    """The lines, with every charge of a key cut the same."""
    return [
        Line(tuple(one._replace(shape=SHAPES[one.algorithm][one.key.decode()]) for one in line.charges), line.n)
        for line in lines
    ]


def crowd(seeds: random.Random) -> Line:
    """One request of one to four charges on a few small windows, most of them budgets: much is overdrawn and denied."""
    charges = []
    for _ in range(seeds.randint(1, 4)):
        algorithm = seeds.choice(list(MAKERS))
        kind = seeds.choice([Kind.POSITIVE, Kind.POSITIVE, Kind.POSITIVE, Kind.CHECK, Kind.CHECK, Kind.REFUND])
        made = MAKERS[algorithm](
            f"{algorithm.value}{seeds.choice('ab')}",
            seeds.choice([5, 5, 5, 9]),
            hits=0 if kind is Kind.CHECK else seeds.randint(1, 7),
            role=seeds.choice(list(Role)),
            kind=kind,
            overdraft=seeds.choice([Overdraft.AUTO, Overdraft.AUTO, Overdraft.AUTO, Overdraft.NEVER, Overdraft.ALWAYS]),
        )
        charges.append(made._replace(overdraft=Overdraft.NEVER) if kind is Kind.REFUND else made)
    return Line(tuple(charges), 1)


@pytest.mark.parametrize("seed", range(5))
def test_crowded_budgets_are_what_the_oracle_says(seed):
    """Thousands of requests on six windows; of every outcome there are many."""
    seeds, seen = random.Random(seed), Counter[tuple[int, bool]]()
    for run in range(200):
        walk, oracle = Walk(), Oracle()
        for number in range(15):
            line = crowd(seeds)
            (grant,) = walk.take(line)
            agree(oracle, line, grant, (seed, run, number))
            seen[grant.granted, grant.overdrawn] += 1
    assert min(seen[outcome] for outcome in ((0, False), (1, False), (1, True))) > 50


def stored(walk: Walk) -> dict[bytes, list[object]]:
    """What of all windows is stored."""
    return {key: fields_of(window) for key, window in walk.windows.items()}


@given(history=histories())
@settings(max_examples=250, deadline=None)
def test_a_batch_is_its_lines_one_after_another(history):
    """Several lines on one key in one batch get the answers, and leave the states, that batches of one line would."""
    together, apart = Walk(), Walk()
    for number, step in enumerate(history):
        together.now = apart.now = max(together.now + step.passes + step.stepped, 1)
        lines = of_one_shape(step.lines)
        assert together.take(*lines) == [apart.take(line)[0] for line in lines], number
    assert stored(together) == stored(apart)


@st.composite
def coalescing(draw) -> tuple[Charge, ...]:
    """The charges of a plan that coalesces: gates on different keys that are plain."""
    keys = st.sampled_from([(algorithm, name) for algorithm in Algorithm for name in WINDOWS[algorithm]])
    chosen = draw(st.lists(keys, min_size=1, max_size=4, unique=True))
    return tuple(draw(_charges(key, kinds=PLAIN, overdrafts=tuple(Overdraft))) for key in chosen)


@given(
    before=histories(clock_is_set=False),
    charges=coalescing().filter(_coalesces),
    n=st.integers(1, 9),
)
@settings(max_examples=200, deadline=None)
def test_a_coalesced_line_is_n_single_lines(before, charges, n):
    """Whatever was there before, budgets too: n at once are granted, and leave behind, what n in a row are and do."""
    together, apart = Walk(), Walk()
    for step in before:
        for walk in (together, apart):
            walk.now += step.passes
            walk.take(*of_one_shape(step.lines))
    (line,) = of_one_shape([Line(charges, n)])
    (grant,) = together.take(line)
    singly = [apart.ask(*line.charges) for _ in range(n)]
    assert [each.granted for each in singly] == [1] * grant.granted + [0] * (n - grant.granted)
    assert not any(each.overdrawn for each in (grant, *singly))
    assert [each.remaining for each in grant.outcomes] == [each.remaining for each in singly[-1].outcomes]
    assert stored(together) == stored(apart)


@given(
    history=histories(clock_is_set=False),
    charges=coalescing().filter(lambda charges: _coalesces(charges) and all(one.hits for one in charges)),
    n=st.integers(1, 9),
    later=passes(),
)
@settings(max_examples=200, deadline=None)
def test_a_charge_that_is_undone_leaves_no_trace(history, charges, n, later):
    """With nothing between, each window stands as it would without the two, whenever that is; a bucket, if undone at once."""
    walk, without = Walk(), Walk()
    for step in history:
        for each in (walk, without):
            each.now += step.passes
            each.take(*of_one_shape(step.lines))
    (line,) = of_one_shape([Line(charges, n)])
    (grant,) = walk.take(line)
    charged_at = walk.now
    if all(one.algorithm is not Algorithm.TOKEN_BUCKET for one in charges):
        walk.now += later
        without.now += later
    if grant.granted:
        walk.take(undo(charged_at, line, grant.granted))
    for one in line.charges:
        windows = [_open(one, each.windows.get, each.now, {}) for each in (walk, without)]
        assert fields_of(windows[0]) == fields_of(windows[1])
    assert walk.take(line) == without.take(line)


@ALGORITHMS
def test_an_undo_is_granted_and_seen_by_the_next_line(make):
    """All of what was charged, once, in the batch where another waits for it."""
    walk = Walk()
    one = Line((make("k", 5, hits=5),), 1)
    walk.take(one)
    walk.now += 1
    grants = walk.take(undo(START, one), Line((make("k", 5, hits=4),), 1))
    assert [grant.granted for grant in grants] == [1, 1]
    assert grants[0].outcomes[0].fits_in_us == 0
    assert walk.windows[b"k"].total == 4


@ALGORITHMS
def test_an_undo_of_what_has_left_takes_nothing(make):
    """Nor does one of a time at which nothing was charged."""
    walk = Walk()
    one = Line((make("k", 5, hits=5),), 1)
    walk.take(one)
    walk.now += 2 * MINUTE
    walk.take(one)
    saves = walk.saves
    for when in (START, START - MINUTE, START + 9 * MINUTE):
        walk.take(undo(when, one))
    assert walk.saves == saves
    assert walk.windows[b"k"].total == 5


# ── one promise at a time, for every algorithm ────────────────────────────────────────────────────────────────────────


@ALGORITHMS
def test_a_request_that_two_limits_allow_and_one_denies_has_charged_none(make):
    """All or nothing: the two are as they were."""
    walk = Walk()
    walk.ask(make("full", 1))
    assert not walk.passes(make("a", 5), make("full", 1), make("b", 5))
    assert walk.windows.keys() == {b"full"}
    assert [walk.ask(make(key, 5)).outcomes[0].remaining for key in "ab"] == [4, 4]


@ALGORITHMS
@pytest.mark.parametrize("role", [Role.GATE, Role.QUOTA])
@pytest.mark.parametrize("overdraft", Overdraft)
@pytest.mark.parametrize("hits", [0, 3])
def test_a_denial_writes_nothing(make, role, overdraft, hits):
    """Neither the limit that denies nor those beside it, of any kind, whatever they would have done."""
    walk = Walk()
    walk.ask(make("held", 9, hits=4))
    walk.ask(make("budget", 9, hits=0, overdraft=Overdraft.AUTO))
    walk.ask(make("budget", 9, hits=8))
    walk.saves = 0
    beside = [
        make("held", 9, hits=3, kind=Kind.REFUND),
        make("held", 9, hits=hits, overdraft=overdraft),
        make("new", 9, hits=hits, overdraft=overdraft),
        make("budget", 9, hits=hits, overdraft=overdraft),
    ]
    assert not walk.passes(*beside, make("none", 0, role=role), make("new", 9, role=Role.SHADOW))
    assert walk.saves == 0
    assert [walk.windows[key].total for key in (b"held", b"budget")] == [4, 8]


@ALGORITHMS
def test_a_check_on_an_ordinary_rule_changes_nothing_for_hits_of_one(make):
    """However often it is asked, five of five pass and the sixth does not."""
    walk = Walk()
    granted = []
    for _ in range(7):
        walk.ask(make("k", 5, hits=0, overdraft=Overdraft.AUTO))
        grant = walk.ask(make("k", 5, overdraft=Overdraft.AUTO))
        granted.append((grant.granted, grant.overdrawn))
    assert granted == [(1, False)] * 5 + [(0, False)] * 2
    assert walk.windows[b"k"].total == 5


@ALGORITHMS
def test_a_budget_is_overdrawn_once_and_then_denies(make):
    """A cost that does not fit is counted whole while anything is left; after it nothing is, until it has left."""
    walk = Walk()
    walk.ask(make("k", 5, hits=0, overdraft=Overdraft.AUTO))
    walk.ask(make("k", 5, hits=4, overdraft=Overdraft.AUTO))
    over = walk.ask(make("k", 5, hits=7, overdraft=Overdraft.AUTO))
    assert (over.granted, over.overdrawn, over.outcomes[0].remaining) == (1, True, -6)
    assert over.outcomes[0].fits_in_us > 0
    assert walk.windows[b"k"].total == 11
    assert not walk.passes(make("k", 5, hits=7, overdraft=Overdraft.AUTO))
    assert walk.passes(make("k", 20, hits=0, overdraft=Overdraft.AUTO))
    assert walk.windows[b"k"].total == 11


@ALGORITHMS
def test_who_never_asked_is_no_budget(make):
    """Without a check before, `auto` denies what does not fit; and so does `never` after one."""
    walk = Walk()
    walk.ask(make("k", 5, hits=4, overdraft=Overdraft.AUTO))
    assert not walk.passes(make("k", 5, hits=7, overdraft=Overdraft.AUTO))
    walk.ask(make("k", 5, hits=0))
    assert not walk.passes(make("k", 5, hits=7, overdraft=Overdraft.AUTO))
    walk.ask(make("k", 5, hits=0, overdraft=Overdraft.AUTO))
    assert not walk.passes(make("k", 5, hits=7))
    assert walk.passes(make("k", 5, hits=7, overdraft=Overdraft.AUTO))


@ALGORITHMS
def test_always_counts_and_only_checks_deny(make):
    """Any number of hits is charged and fits; a check says that nothing is left."""
    walk = Walk()
    told = [walk.ask(make("k", 5, hits=4, overdraft=Overdraft.ALWAYS)) for _ in range(3)]
    assert [(each.granted, each.overdrawn, each.outcomes[0].fits_in_us) for each in told] == [(1, False, 0)] * 3
    assert walk.windows[b"k"].total == 12
    assert not walk.passes(make("k", 5, hits=0, overdraft=Overdraft.ALWAYS))


@ALGORITHMS
def test_what_always_counts_is_never_what_denies(make):
    """A full limit with `always` beside one that denies says that it fits."""
    walk = Walk()
    walk.ask(make("k", 5, hits=9, overdraft=Overdraft.ALWAYS))
    told = walk.ask(make("k", 5, hits=9, overdraft=Overdraft.ALWAYS), make("none", 0))
    assert told.granted == 0
    assert [outcome.fits_in_us > 0 for outcome in told.outcomes] == [False, True]


@ALGORITHMS
@pytest.mark.parametrize(
    ("first", "second", "granted", "left"),
    [(5, 5, 1, [4, 4]), (5, 0, 1, [4, 0]), (0, 5, 1, [0, 4]), (0, 0, 0, [0, 0])],
)
def test_one_quota_that_fits_lets_pass_and_those_that_fit_are_charged(make, first, second, granted, left):
    """Two quotas, with room and without."""
    walk = Walk()
    grant = walk.ask(make("a", first, role=Role.QUOTA), make("b", second, role=Role.QUOTA))
    assert grant.granted == granted
    assert [outcome.remaining for outcome in grant.outcomes] == left
    assert [outcome.fits_in_us > 0 for outcome in grant.outcomes] == [first == 0, second == 0]


@ALGORITHMS
def test_refunds_are_made_before_the_charges_of_the_same_request_are_looked_at(make):
    """What one request gives back it may take again."""
    walk = Walk()
    walk.ask(make("k", 5, hits=5))
    grant = walk.ask(make("k", 5, hits=3, kind=Kind.REFUND), make("k", 5, hits=2))
    assert grant.granted == 1
    assert walk.windows[b"k"].total == 4
    assert not walk.passes(make("k", 5, hits=1, kind=Kind.REFUND), make("k", 5, hits=3))
    assert walk.windows[b"k"].total == 4


def test_a_sliding_window_gives_back_its_oldest_hits_first():
    """What is given back leaves first anyway, so it never frees more than it took; newest first would."""
    walk = Walk()
    walk.ask(charge("k", 10, hits=4))
    walk.now += 10 * SECOND
    walk.ask(charge("k", 10, hits=3))
    walk.now += 10 * SECOND
    walk.ask(charge("k", 10, hits=2))
    walk.ask(charge("k", 10, hits=5, kind=Kind.REFUND))
    walk.now = START + MINUTE + SECOND
    assert walk.ask(charge("k", 10, hits=0)).outcomes[0].remaining == 6
    walk.now += 10 * SECOND
    assert walk.ask(charge("k", 10, hits=0)).outcomes[0].remaining == 8
    walk.ask(charge("k", 10, hits=99, kind=Kind.REFUND))
    assert walk.ask(charge("k", 10, hits=0)).outcomes[0] == (10, 0, 0)


@ALGORITHMS
def test_a_key_asked_by_checks_only_stays_a_budget_as_long_as_checks_come(make, clock):
    """One check a half window for an hour, and the key is still known as a budget; an hour after they cease, it is forgotten."""
    store = MemoryStore(clock)
    check = [Line((make("k", 5, hits=0, overdraft=Overdraft.AUTO),), 1)]
    for _ in range(120):
        store.take_now(check)
        clock.now += MINUTE // 2
    (grant,) = store.take_now([Line((make("k", 5, hits=9, overdraft=Overdraft.AUTO),), 1)])
    assert grant.overdrawn
    clock.now += KEEP_BUDGET_US
    store.expire(clock.now)
    assert len(store) == 1
    clock.now += 20 * MINUTE
    store.expire(clock.now)
    assert len(store) == 0


@ALGORITHMS
async def test_a_cost_that_comes_long_after_the_check_is_not_lost(make, store, clock):
    """A stream may last for many windows: what it cost is counted, however little fits in one window."""
    await store.take([Line((make("k", 5, hits=0, window=SECOND, overdraft=Overdraft.AUTO),), 1)])
    clock.now += 30 * SECOND
    (grant,) = await store.take([Line((make("k", 5, hits=9, window=SECOND, overdraft=Overdraft.AUTO),), 1)])
    assert grant.overdrawn
    (grant,) = await store.take([Line((make("k", 5, hits=0, window=SECOND, overdraft=Overdraft.AUTO),), 1)])
    assert grant.granted == 0


@ALGORITHMS
def test_a_cost_in_several_charges_is_counted_whole(make):
    """Two parts of one cost on one budget in one request: what the first leaves does not keep the second from counting."""
    for first, second in ((9, 2), (5, 2), (3, 9)):
        walk = Walk()
        walk.ask(make("k", 5, hits=0, overdraft=Overdraft.AUTO))
        grant = walk.ask(*(make("k", 5, hits=hits, overdraft=Overdraft.AUTO) for hits in (first, second)))
        assert (grant.granted, grant.overdrawn, walk.windows[b"k"].total) == (1, True, first + second)
        assert walk.ask(make("k", 5, hits=2, overdraft=Overdraft.AUTO)).granted == 0


@ALGORITHMS
def test_what_is_a_budget_stands_in_redis(make, client):
    """Another replica sees the mark, and the checks of later windows keep it alive."""
    check, cost = ((Line((make("k", 5, hits=hits, overdraft=Overdraft.AUTO),), 1),) for hits in (0, 9))
    client.flushall()
    Lua(client).take(check, START)
    client.pexpire("k", 10_000)
    Lua(client).take(check, START + MINUTE)
    assert client.pttl("k") > MINUTE / 1000 - 2000
    (grant,) = Lua(client).take(cost, START + MINUTE)
    assert grant.overdrawn


def test_budgets_of_each_window_length_are_kept_apart():
    """A check on one key makes no other key a budget."""
    walk = Walk()
    walk.ask(charge("day", 5, hits=0, window=DAY, overdraft=Overdraft.AUTO))
    assert not walk.passes(charge("minute", 5, hits=9, overdraft=Overdraft.AUTO))
    assert walk.passes(charge("day", 5, hits=9, window=DAY, overdraft=Overdraft.AUTO))


@ALGORITHMS
def test_a_look_is_in_the_way_of_what_follows_it(make):
    """In its own request, as the hits would be that it stands for: what finds no room behind it is over. It leaves nothing behind."""
    walk = Walk()
    grant = walk.ask(make("k", 1, kind=Kind.LOOK), make("k", 1, role=Role.SHADOW))
    assert (grant.granted, [outcome.fits_in_us > 0 for outcome in grant.outcomes]) == (1, [False, True])
    assert walk.passes(make("k", 1))


def test_what_was_charged_is_not_waited_for_twice():
    """A shadow behind a charge on the same window is told when it would fit, with that charge counted once."""
    grant = Walk().ask(charge("k", 5, hits=2), charge("k", 5, hits=4, role=Role.SHADOW))
    assert grant.granted == 1
    assert [outcome.fits_in_us for outcome in grant.outcomes] == [0, MINUTE + SECOND]
