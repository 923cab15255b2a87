"""Fixed windows: the reference's arithmetic, where windows begin, and what is promised around a boundary."""

from datetime import UTC, datetime, timedelta
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.model import (
    BEGIN_AT_EPOCH,
    BEGIN_AT_FIRST_HIT,
    BEGIN_ON_MONDAY,
    Algorithm,
    Align,
    Grant,
    Kind,
    Limit,
    Outcome,
    Unit,
)
from ratelimit_svc.windows.fixed_window import end_of
from tests.histories import DAY, MINUTE, SECOND, START, fixed
from tests.walk import Walk

FORTNIGHT, MONTH, YEAR = 14 * DAY, 30 * DAY, 365 * DAY


def at(text: str) -> int:
    """The time (µs) of a date in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


# ── from boundary to boundary ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_limit_of_three_admits_three_until_the_minute_ends():
    """Three fit; the fourth is told the minute's end, one µs before it does not fit, and then three fit again."""
    walk, one = Walk(START + 50 * SECOND), fixed("k", 3)
    assert [walk.ask(one).outcomes[0].remaining for _ in range(3)] == [2, 1, 0]
    assert walk.ask(one) == Grant(0, (Outcome(0, 10 * SECOND, 10 * SECOND),))
    walk.now += 10 * SECOND - 1
    assert not walk.passes(one)
    walk.now += 1
    assert [walk.passes(one) for _ in range(4)] == [True, True, True, False]


def test_around_a_boundary_twice_the_limit_passes_at_once():
    """That is what a fixed window is: L before the boundary, and L after it."""
    walk, one = Walk(START + MINUTE - 1), fixed("k", 100)
    before = sum(walk.passes(one) for _ in range(300))
    walk.now += 1
    after = sum(walk.passes(one) for _ in range(300))
    assert (before, after) == (100, 100)


@given(
    hits=st.lists(st.tuples(st.integers(0, 25 * SECOND), st.integers(1, 4)), max_size=60),
    limit=st.integers(1, 8),
)
def test_no_aligned_window_holds_more_than_the_limit_and_no_interval_more_than_two(hits, limit):
    """By brute force: L in each minute of the clock, 2 L in any minute; and who was denied did not fit."""
    walk = Walk()
    log: list[tuple[int, int]] = []
    for passes, several in hits:
        walk.now += passes
        inside = sum(count for when, count in log if when // MINUTE == walk.now // MINUTE)
        assert walk.passes(fixed("k", limit, hits=several)) == (inside + several <= limit)
        if inside + several <= limit:
            log.append((walk.now, several))
        assert sum(count for when, count in log if walk.now - MINUTE < when) <= 2 * limit


@pytest.mark.parametrize("unit", [Unit.SECOND, Unit.MINUTE, Unit.HOUR, Unit.DAY])
@pytest.mark.parametrize("counted", [0, 1, 4, 5])
def test_the_answers_are_the_reference_implementations(unit, counted):
    """`limit_remaining` is limit − count or 0; `duration_until_reset` is unit − now % unit, in whole seconds."""
    for second in (START // SECOND, START // SECOND + unit.seconds - 1, START // SECOND + 12_345):
        for part in (0, 1, 999_999):
            walk = Walk(second * SECOND + part)
            one = fixed("k", 5, window=unit.seconds * SECOND)
            for _ in range(counted):
                walk.ask(one)
            (told,) = walk.ask(one).outcomes
            assert told.remaining == max(5 - counted - 1, 0)
            assert ceil(told.empty_us / SECOND) == unit.seconds - second % unit.seconds
            assert told.fits_in_us == (told.empty_us if counted == 5 else 0)


def test_a_check_passes_at_the_limit_and_not_beyond():
    """The reference's answer: 0 hits are over the limit only where count > limit, as after the limit was lowered."""
    walk = Walk()
    for left in (3, 2, 1):
        assert walk.ask(fixed("k", 3, hits=0)) == Grant(1, (Outcome(left, MINUTE, 0),))
        walk.ask(fixed("k", 3))
    assert walk.ask(fixed("k", 3, hits=0)) == Grant(1, (Outcome(0, MINUTE, 0),))
    assert walk.ask(fixed("k", 2, hits=0)) == Grant(0, (Outcome(0, MINUTE, MINUTE),))


def test_a_check_leaves_no_trace():
    """What only asks writes nothing."""
    walk = Walk()
    assert walk.ask(fixed("k", 3, hits=0)) == Grant(1, (Outcome(3, MINUTE, 0),))
    assert walk.windows == {}


def test_more_hits_than_the_limit_are_told_the_boundary():
    """What can never fit is told when the count begins anew, as by the reference."""
    walk = Walk(START + 20 * SECOND)
    assert walk.ask(fixed("k", 3, hits=4)) == Grant(0, (Outcome(3, 40 * SECOND, 40 * SECOND),))


def test_the_largest_limit_is_exact():
    """2^32 − 1 fit, and not one more."""
    walk, most = Walk(), 2**32 - 1
    assert walk.ask(fixed("k", most, hits=most)).outcomes[0].remaining == 0
    assert not walk.passes(fixed("k", most))


def test_a_refund_gives_back_down_to_nothing_in_this_window_only():
    """Refunds take off what is there; the next window does not start below nothing."""
    walk = Walk()
    for _ in range(2):
        walk.ask(fixed("k", 5))
    assert walk.ask(fixed("k", 5, hits=9, kind=Kind.REFUND)) == Grant(1, (Outcome(5, MINUTE, 0),))
    assert walk.ask(fixed("k", 5, hits=6)).granted == 0
    walk.now += MINUTE
    assert walk.ask(fixed("k", 5, hits=9, kind=Kind.REFUND)).outcomes[0].remaining == 5
    assert [walk.passes(fixed("k", 5, hits=5)) for _ in range(2)] == [True, False]


# ── where windows begin ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_window_from_the_first_hit_lasts_one_period_from_it():
    """It begins with the first hit and not with a check or a denial, and the next with the first hit after its end."""
    walk, one = Walk(START + 17), fixed("k", 2, begin=BEGIN_AT_FIRST_HIT)
    assert walk.ask(fixed("k", 2, hits=0, begin=BEGIN_AT_FIRST_HIT)) == Grant(1, (Outcome(2, 0, 0),))
    assert walk.ask(fixed("k", 2, hits=3, begin=BEGIN_AT_FIRST_HIT)) == Grant(0, (Outcome(2, 0, MINUTE),))
    walk.now += 5 * SECOND
    assert walk.ask(one) == Grant(1, (Outcome(1, MINUTE, 0),))
    walk.now += 40 * SECOND
    assert walk.ask(one) == Grant(1, (Outcome(0, 20 * SECOND, 0),))
    assert walk.ask(one) == Grant(0, (Outcome(0, 20 * SECOND, 20 * SECOND),))
    walk.now += 90 * SECOND
    assert walk.ask(one) == Grant(1, (Outcome(1, MINUTE, 0),))


def test_a_window_given_back_whole_begins_anew_with_the_next_hit():
    """Without hits there is no window: the next one makes its own."""
    walk, one = Walk(), fixed("k", 2, begin=BEGIN_AT_FIRST_HIT)
    walk.ask(one)
    walk.ask(fixed("k", 2, kind=Kind.REFUND, begin=BEGIN_AT_FIRST_HIT))
    walk.now += 50 * SECOND
    assert walk.ask(one) == Grant(1, (Outcome(1, MINUTE, 0),))


ENDS = [
    ("2024-01-31 23:59:59", MONTH, 1, "2024-02-01"),
    ("2024-02-01", MONTH, 1, "2024-03-01"),
    ("2024-02-29 12:00", MONTH, 1, "2024-03-01"),
    ("2023-02-28 23:59:59", MONTH, 1, "2023-03-01"),
    ("2100-02-28 23:59:59", MONTH, 1, "2100-03-01"),
    ("2000-02-29", MONTH, 1, "2000-03-01"),
    ("2026-12-31 23:59:59", MONTH, 1, "2027-01-01"),
    ("2026-05-17", 3 * MONTH, 3, "2026-07-01"),
    ("2026-05-17", 6 * MONTH, 6, "2026-07-01"),
    ("2024-01-01", YEAR, 12, "2025-01-01"),
    ("2024-12-31 23:59:59", YEAR, 12, "2025-01-01"),
    ("2025-03-01", 2 * YEAR, 24, "2026-01-01"),
    ("2026-07-05 23:59:59", 7 * DAY, BEGIN_ON_MONDAY, "2026-07-06"),
    ("2026-07-06", 7 * DAY, BEGIN_ON_MONDAY, "2026-07-13"),
    ("1970-01-05", FORTNIGHT, BEGIN_ON_MONDAY, "1970-01-19"),
    ("2026-07-01 10:59:59", 3600 * SECOND, BEGIN_AT_EPOCH, "2026-07-01 11:00"),
    ("1970-01-01", 7 * DAY, BEGIN_AT_EPOCH, "1970-01-08"),
]


@pytest.mark.parametrize(("now", "window", "shape", "ends"), ENDS)
def test_where_a_window_ends(now, window, shape, ends):
    """Calendar weeks end before Mondays, months and years before their first days; others at multiples of W."""
    assert end_of(at(now), window, shape) == at(ends)


MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2399, 12, 31)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001


@given(moment=MOMENTS, months=st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_months_end_where_the_calendar_says(moment, months):
    """Any month, quarter or year that has a whole number in a year, against Python's own calendar."""
    year, month = divmod(moment.year * 12 + ((moment.month - 1) // months + 1) * months, 12)
    ends = datetime(year, month + 1, 1, tzinfo=UTC)
    now = (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    assert end_of(now, months * MONTH, months) == int(ends.timestamp()) * SECOND


@given(moment=MOMENTS)
def test_weeks_end_before_mondays(moment):
    """Any moment's week ends at the next Monday, 00:00 UTC."""
    monday = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=7 - moment.weekday())
    now = (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    assert end_of(now, 7 * DAY, BEGIN_ON_MONDAY) == int(monday.timestamp()) * SECOND


@pytest.mark.parametrize(
    ("unit", "multiplier", "align", "shape"),
    [
        (Unit.MINUTE, 1, Align.CALENDAR, BEGIN_AT_EPOCH),
        (Unit.DAY, 2, Align.CALENDAR, BEGIN_AT_EPOCH),
        (Unit.WEEK, 1, Align.CALENDAR, BEGIN_ON_MONDAY),
        (Unit.WEEK, 1, Align.EPOCH, BEGIN_AT_EPOCH),
        (Unit.MONTH, 1, Align.CALENDAR, 1),
        (Unit.MONTH, 3, Align.CALENDAR, 3),
        (Unit.MONTH, 3, Align.EPOCH, BEGIN_AT_EPOCH),
        (Unit.YEAR, 2, Align.CALENDAR, 24),
        (Unit.YEAR, 1, Align.FIRST_HIT, BEGIN_AT_FIRST_HIT),
    ],
)
def test_what_a_limit_says_of_its_beginning(unit, multiplier, align, shape):
    """`align` means another beginning only where the calendar has one."""
    assert Limit(1, unit, multiplier=multiplier, algorithm=Algorithm.FIXED_WINDOW, align=align).shape == shape


# ── changes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

BEGINNINGS = [BEGIN_AT_EPOCH, BEGIN_AT_FIRST_HIT]


@pytest.mark.parametrize("before", BEGINNINGS)
@pytest.mark.parametrize("after", BEGINNINGS)
def test_realigning_loses_no_count(before, after):
    """While hits are in a window its end stays, whatever is configured anew under it; then the new beginning holds."""
    walk = Walk(START + 20 * SECOND)
    walk.ask(fixed("k", 2, hits=2, begin=before))
    ends = walk.now + (MINUTE if before == BEGIN_AT_FIRST_HIT else 40 * SECOND)
    for now in (walk.now, walk.now + 30 * SECOND, ends - 1):
        walk.now = now
        assert walk.ask(fixed("k", 2, begin=after)) == Grant(0, (Outcome(0, ends - now, ends - now),))
    walk.now = ends
    told = MINUTE if after == BEGIN_AT_FIRST_HIT else MINUTE - ends % MINUTE
    assert walk.ask(fixed("k", 2, begin=after)) == Grant(1, (Outcome(1, told, 0),))


def test_a_changed_limit_acts_at_once_on_what_is_counted():
    """The limit is not in the state."""
    walk = Walk()
    walk.ask(fixed("k", 5, hits=5))
    assert walk.ask(fixed("k", 6)).outcomes[0].remaining == 0
    assert walk.ask(fixed("k", 3)) == Grant(0, (Outcome(0, MINUTE, MINUTE),))


def test_a_clock_set_back_forgets_nothing():
    """The window that a faster clock began ends when it says, so a slower clock only makes it stricter."""
    walk, one = Walk(START + MINUTE), fixed("k", 1)
    walk.ask(one)
    walk.now -= 30 * SECOND
    assert walk.ask(one) == Grant(0, (Outcome(0, 90 * SECOND, 90 * SECOND),))


def test_a_clock_that_was_far_ahead_holds_nobody_for_longer_than_its_window():
    """Hits of a wrong clock are taken to be of now; that is stored even by a denial."""
    walk, one = Walk(START + 1000 * MINUTE), fixed("k", 1)
    walk.ask(one)
    walk.now = START + 15 * SECOND
    assert walk.ask(one) == Grant(0, (Outcome(0, 45 * SECOND, 45 * SECOND),))
    walk.now = START + MINUTE
    assert walk.passes(one)
