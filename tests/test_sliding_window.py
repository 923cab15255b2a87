"""The Python twin: narrated walks with a moved clock, and brute force."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from ratelimit_svc.model import BAD_KEY, Grant, Kind, Line, Outcome, Overdraft, Role
from ratelimit_svc.windows.sliding_window import SlidingWindow
from tests.histories import MINUTE, PLAIN, SLIDING, START, Charged, Log, Step, admit, charge, histories, undo
from tests.test_batch import of_one_shape
from tests.walk import Walk

SECOND = 1_000_000


def test_a_limit_of_three_admits_three_and_tells_when_the_next_fits():
    """Three fit; the fourth is told when the first one leaves."""
    walk = Walk()
    three = charge("k", 3)
    assert [walk.ask(three).outcomes[0].remaining for _ in range(3)] == [2, 1, 0]
    denied = walk.ask(three)
    assert denied.granted == 0
    walk.now += denied.outcomes[0].fits_in_us - 1
    assert walk.ask(three).granted == 0
    walk.now += 1
    assert walk.ask(three).granted == 1


def test_capacity_comes_back_at_most_one_slice_late():
    """A hit counts for at least W and at most W and one slice."""
    for offset in (0, 1, 499_999, 999_999):
        walk = Walk()
        walk.now += offset
        one = charge("k", 1)
        walk.ask(one)
        fits_in = walk.ask(one).outcomes[0].fits_in_us
        assert MINUTE < fits_in <= MINUTE + SECOND


def test_a_denial_writes_nothing():
    """What is denied leaves every window as it was."""
    walk = Walk()
    walk.ask(charge("a", 1))
    saved = walk.saves
    grant = walk.ask(charge("b", 9), charge("a", 1))
    assert grant.granted == 0
    assert walk.saves == saved
    assert b"b" not in walk.windows


def test_all_or_nothing_charges_every_gate_or_none():
    """One full gate keeps the other from being charged; both free, both are."""
    walk = Walk()
    assert walk.ask(charge("a", 5), charge("b", 1)).granted == 1
    denied = walk.ask(charge("a", 5), charge("b", 1))
    assert [outcome.remaining for outcome in denied.outcomes] == [4, 0]
    assert [outcome.fits_in_us > 0 for outcome in denied.outcomes] == [False, True]
    assert walk.ask(charge("a", 5)).outcomes[0].remaining == 3


def test_the_same_key_twice_is_checked_on_the_running_sum():
    """Two times three of five do not fit, two times two do, and what remains counts down."""
    walk = Walk()
    assert walk.ask(charge("k", 5, hits=3), charge("k", 5, hits=3)).granted == 0
    grant = walk.ask(charge("k", 5, hits=2), charge("k", 5, hits=2))
    assert grant.granted == 1
    assert [outcome.remaining for outcome in grant.outcomes] == [3, 1]


def test_a_check_passes_while_something_remains_and_counts_nothing():
    """Zero hits ask without counting; at the limit they are denied."""
    walk = Walk()
    check, hit = charge("k", 2, hits=0), charge("k", 2)
    assert walk.ask(check) == Grant(1, (Outcome(2, 0, 0),))
    assert walk.saves == 0
    walk.ask(hit)
    walk.ask(hit)
    denied = walk.ask(check)
    assert denied.granted == 0
    assert denied.outcomes[0].fits_in_us == walk.ask(hit).outcomes[0].fits_in_us


def test_a_shadow_never_denies_and_shows_what_enforcing_would_do():
    """A shadow that fits is charged, one that does not is not, and the request passes either way."""
    walk = Walk()
    shadow = charge("s", 1, role=Role.SHADOW)
    gate = charge("g", 9)
    assert walk.ask(shadow, gate) == Grant(1, (Outcome(0, MINUTE + SECOND, 0), Outcome(8, MINUTE + SECOND, 0)))
    second = walk.ask(shadow, gate)
    assert second.granted == 1
    assert second.outcomes[0].fits_in_us > 0
    assert second.outcomes[1].remaining == 7


def test_a_shadow_is_not_charged_for_a_request_that_a_gate_denies():
    """Enforcing would not have charged it either."""
    walk = Walk()
    assert walk.ask(charge("s", 5, role=Role.SHADOW), charge("g", 0)).granted == 0
    assert walk.ask(charge("s", 5, role=Role.SHADOW)).outcomes[0].remaining == 4


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_more_hits_than_the_limit_never_fit_and_are_told_one_window(limit):
    """What can never fit is told W, as a caller has to be told something."""
    walk = Walk()
    assert walk.ask(charge("k", limit, hits=limit + 1)).outcomes[0].fits_in_us == MINUTE


def test_the_largest_limit_and_hits_are_exact():
    """2^32 − 1 of 2^32 − 1 fit once, and not one more."""
    walk = Walk()
    most = 2**32 - 1
    assert walk.ask(charge("k", most, hits=most)).outcomes[0].remaining == 0
    assert walk.ask(charge("k", most)).granted == 0
    assert walk.ask(charge("j", most, hits=most - 1), n=3) == Grant(1, (Outcome(1, MINUTE + SECOND, MINUTE + SECOND),))


def test_a_window_of_a_year_frees_one_slice_late_at_most():
    """The longest period keeps its arithmetic exact."""
    year = 365 * 86_400 * SECOND
    walk = Walk()
    one = charge("k", 1, window=year)
    walk.ask(one)
    fits_in = walk.ask(one).outcomes[0].fits_in_us
    assert year < fits_in <= year + year // 60
    walk.now += fits_in
    assert walk.ask(one).granted == 1


def test_a_raised_limit_acts_at_once_and_a_lowered_one_too():
    """The limit is not in the state: counts stay."""
    walk = Walk()
    assert walk.ask(charge("k", 2, hits=2)).granted == 1
    assert walk.ask(charge("k", 2)).granted == 0
    assert walk.ask(charge("k", 3)).outcomes[0].remaining == 0
    assert walk.ask(charge("k", 1)).outcomes[0] == Outcome(0, MINUTE + SECOND, MINUTE + SECOND)


def test_a_clock_set_back_by_less_than_a_window_only_makes_it_stricter():
    """After a failover to a slower clock nothing is forgotten early."""
    walk = Walk()
    walk.ask(charge("k", 1))
    walk.now -= 30 * SECOND
    denied = walk.ask(charge("k", 1))
    assert denied.granted == 0
    assert denied.outcomes[0].fits_in_us == 30 * SECOND + MINUTE + SECOND


def test_a_clock_that_was_far_ahead_holds_nobody_for_longer_than_a_window():
    """Hits of a wrong clock are taken to be of now, even when the take that finds them is denied."""
    walk = Walk()
    walk.now += 1000 * MINUTE
    walk.ask(charge("k", 1))
    walk.now -= 1000 * MINUTE
    denied = walk.ask(charge("k", 1))
    assert denied.granted == 0
    assert denied.outcomes[0].fits_in_us == MINUTE + SECOND
    walk.now += MINUTE + SECOND
    assert walk.ask(charge("k", 1)).granted == 1


@pytest.mark.parametrize(("before", "after"), [(60, 1), (1, 60), (60, 59), (7, 500), (500, 7)])
def test_new_slices_keep_every_count(before, after):
    """A re-cut loses nothing, and frees nothing before its time."""
    walk = Walk()
    for _ in range(4):
        walk.ask(charge("k", 5, slices=before))
        walk.now += 7 * SECOND
    assert walk.ask(charge("k", 5, slices=after)).outcomes[0].remaining == 0
    walk.now += MINUTE - 28 * SECOND - 1
    assert walk.ask(charge("k", 5, slices=after)).granted == 0
    walk.now += 2 * MINUTE
    assert walk.ask(charge("k", 5, slices=after)).outcomes[0].remaining == 4


def test_n_of_a_line_are_granted_as_many_as_fit():
    """Coalesced requests get what they would one after another."""
    walk = Walk()
    assert walk.ask(charge("a", 10, hits=3), charge("b", 8), n=5) == Grant(
        3, (Outcome(1, MINUTE + SECOND, MINUTE + SECOND), Outcome(5, MINUTE + SECOND, 0))
    )


@given(history=histories(undone=True, **SLIDING))
@settings(max_examples=300, deadline=None)
def test_the_total_is_always_the_sum_of_the_slices(history):
    """No history, however wild its clock, breaks the state's own invariant, and at most `slices` older slices are kept."""
    walk, charged = Walk(), Charged()
    for step in history:
        walk.now = max(walk.now + step.passes + step.stepped, 1)
        lines = charged.batch(step)
        charged.note(walk.now, lines, walk.take(*lines))
        for window in walk.windows.values():
            assert isinstance(window, SlidingWindow)
            assert window.total == window.here + sum(hits for _, hits in window.older)
            assert len(window.older) <= window.slices
            numbers = [number for number, _ in window.older]
            assert numbers == sorted(set(numbers))
            assert all(window.head - window.slices <= number < window.head for number in numbers)


@given(history=histories(clock_is_set=False, **SLIDING))
@settings(max_examples=500, deadline=None)
def test_no_interval_of_one_window_holds_more_than_the_limit(history):
    """Promise 1 by brute force: many keys, hits, limits raised and lowered, re-cuts."""
    walk, log = Walk(), Log(MINUTE)
    for step in history:
        walk.now += step.passes
        admit(log, walk.now, step.lines, walk.take(*step.lines))


def judge(history: Iterable[Step], *, back_at_most: int = 0) -> None:
    """Run a history of one clock that is never set back by more than so much, and judge it in real time.

    Required is promise 1 of what was not undone: a charge counts from its admission until it is undone, if it ever is, and
    who looks back one W at any admission finds no more than the limit. That is the promise, for what is undone was never
    answered OK. And more: at no time does a window hold less than what counts, so no undo takes more than its own.
    """
    walk, charged, log, real, latest = Walk(), Charged(), Log(MINUTE), START, START
    really = {START: START}
    for step in history:
        real += step.passes
        walk.now = max(walk.now + step.passes - abs(step.stepped), latest - back_at_most)
        while really.setdefault(walk.now, real) != real:
            walk.now += 1  # a time names one moment
        latest = max(latest, walk.now)
        lines = charged.batch(step)
        grants = walk.take(*lines)
        charged.note(walk.now, lines, grants)
        admit(log, real, [in_real_time(line, really) for line in lines], grants)
        for key in {one.key for line in lines for one in line.charges}:
            held = BEYOND - walk.ask(charge(key, BEYOND, hits=0)).outcomes[0].remaining
            assert held >= log.within(real, key), f"{key!r} at {real} holds {held}"


BEYOND = 2**50
"""A limit that no history reaches: what remains of it tells what a window holds."""


def in_real_time(line: Line, really: Mapping[int, int]) -> Line:
    """The line, its undos naming the real time."""
    return Line(
        tuple(one._replace(limit=really[one.limit]) if one.kind is Kind.UNDO else one for one in line.charges), line.n
    )


UNDONE: dict[str, Any] = {**SLIDING, "kinds": PLAIN, "undone": True}


@given(history=histories(clock_is_set=False, **UNDONE))
@settings(max_examples=500, deadline=None)
def test_undos_break_no_promise(history):
    """Any charges undone at any later time, among hits, limits raised and lowered, head stops and re-cuts."""
    judge(history)


@given(history=histories(**UNDONE))
@settings(max_examples=500, deadline=None)
def test_undos_break_no_promise_when_the_clock_is_set_back(history):
    """The same under a clock that falls behind by up to W, each key cut as it always was."""
    one_shape = [replace(step, lines=tuple(of_one_shape(step.lines))) for step in history]
    judge(one_shape, back_at_most=MINUTE)


def test_an_undo_that_takes_newer_hits_is_found_by_the_brute_force(monkeypatch):
    """The judge is awake: taking from the newest slice, as no undo may, lets an older hit that is gone keep a newer one out."""

    def newest(self, hits, charged_at=None):
        assert charged_at is not None
        self.here, self.total = self.here - hits, self.total - hits
        return True

    monkeypatch.setattr(SlidingWindow, "give_back", newest)
    one = Line((charge("k", 2),), 1)
    second = Line((charge("k", 2, hits=2),), 1)
    history = [
        Step(0, 0, (one,)),
        Step(MINUTE // 2, 0, (one,)),
        Step(0, 0, (), ((0, 0),)),
        Step(31 * SECOND, 0, (second,)),
    ]
    with pytest.raises(AssertionError, match="hits within"):
        judge(history)


def test_an_undo_takes_back_its_own_hits_and_no_others():
    """From the slice of its time, late or early, once; what came before and after stays, and leaves when it would have."""
    walk = Walk()
    for _ in range(3):
        walk.ask(charge("k", 9, hits=2))
        walk.now += 10 * SECOND
    second = Line((charge("k", 9, hits=2),), 1)
    (told,) = walk.take(undo(START + 10 * SECOND, second))
    assert (told.granted, told.outcomes[0].fits_in_us) == (1, 0)
    window = walk.windows[b"k"]
    assert isinstance(window, SlidingWindow)
    assert [hits for _, hits in window.older] == [2, 2]
    saves = walk.saves
    for never in (10, 11, 15, 30, 99):
        walk.take(undo(START + never * SECOND, second))
    assert walk.saves == saves
    walk.now = START + MINUTE + SECOND
    assert walk.ask(charge("k", 9, hits=0)).outcomes[0].remaining == 7
    walk.take(undo(START, second))
    assert walk.ask(charge("k", 9, hits=0)).outcomes[0].remaining == 7


def test_an_undo_under_a_clock_that_is_behind_takes_nothing_newer():
    """Hits charged while the head is ahead of the clock are in the head's slice: it is left alone, which is only stricter."""
    walk = Walk()
    walk.ask(charge("k", 9, hits=2))
    walk.now -= 30 * SECOND
    one = Line((charge("k", 9, hits=3),), 1)
    walk.take(one)
    walk.take(undo(walk.now, one))
    assert walk.ask(charge("k", 9, hits=0)).outcomes[0].remaining == 4


ANY_ROLE: dict[str, Any] = {
    **SLIDING,
    "roles": tuple(Role),
    "kinds": PLAIN,
    "overdrafts": (Overdraft.NEVER, Overdraft.AUTO),
}


@given(history=histories(clock_is_set=False, **ANY_ROLE))
@settings(max_examples=200, deadline=None)
def test_no_mixture_of_roles_and_kinds_admits_more_than_the_limit(history):
    """Promise 1 for gates, quotas and shadows together: what fitted, of requests that were not overdrawn, stays below it."""
    walk, log = Walk(), Log(MINUTE)
    for step in history:
        walk.now += step.passes
        for line, grant in zip(step.lines, walk.take(*step.lines), strict=True):
            fitted = [
                one._replace(role=Role.GATE)
                for one, outcome in zip(line.charges, grant.outcomes, strict=True)
                if not grant.overdrawn and (line.n > 1 or outcome.fits_in_us == 0)
            ]
            admit(log, walk.now, [Line(tuple(fitted), line.n)], [grant])


@given(history=histories(**SLIDING))
@settings(max_examples=500, deadline=None)
def test_a_clock_set_back_breaks_no_promise_in_real_time(history):
    """However often the clock is set back, no real interval of one window holds more than the limit."""
    walk, log, real = Walk(), Log(MINUTE), START
    for step in history:
        real += step.passes
        walk.now = max(walk.now + step.passes - abs(step.stepped), 1)
        admit(log, real, step.lines, walk.take(*step.lines))


def test_one_wrong_slice_is_found_by_the_brute_force():
    """The judge is awake: a window that lets its oldest slice go one slice early is caught."""

    class Early(SlidingWindow):
        @classmethod
        def _of(cls, counts, width, present, window, slices, *, budget):
            kept = SlidingWindow._of(counts, width, present, window, slices - 1, budget=budget)
            kept.slices = slices
            return kept

    one, log, stored = charge("k", 1), Log(MINUTE), None
    found = []
    for now in (START + 999_999, START + MINUTE):
        window = Early.open(stored, now, MINUTE, 60)
        fits = window.room(1) >= 1
        if fits:
            window.add(1)
            stored = window
        try:
            admit(log, now, [Line((one,), 1)], [Grant(int(fits), ())])
        except AssertionError as error:
            found.append(str(error))
    assert len(found) == 1
    assert "2 hits within" in found[0]


def test_the_sign_for_a_bad_key_is_no_count():
    """A grant's count cannot be mistaken for the sign."""
    assert BAD_KEY < 0
