"""Token buckets: narrated walks, the bound by brute force, and arithmetic that is exact up to 2^32 − 1 a second."""

import random
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_svc.model import LONGEST_US, Grant, Kind, Line, Outcome
from ratelimit_svc.windows.token_bucket import TokenBucket
from tests.histories import MINUTE, SECOND, START, bucket, undo
from tests.test_twins import Lua, Python
from tests.walk import Walk

MOST = 2**32 - 1


def test_a_bucket_takes_its_burst_at_once_and_then_as_it_drains():
    """Ten at once, then one each six seconds: one µs before that it does not fit, and at the told time it does."""
    walk, one = Walk(), bucket("k", 10, 10)
    assert [walk.ask(one).outcomes[0].remaining for _ in range(10)] == list(range(9, -1, -1))
    assert walk.ask(one) == Grant(0, (Outcome(0, MINUTE, 6 * SECOND),))
    walk.now += 6 * SECOND - 1
    assert walk.ask(one) == Grant(0, (Outcome(0, MINUTE - 6 * SECOND + 1, 1),))
    walk.now += 1
    assert walk.ask(one) == Grant(1, (Outcome(0, MINUTE, 0),))
    walk.now += 2 * MINUTE
    assert walk.ask(one) == Grant(1, (Outcome(9, 6 * SECOND, 0),))


def test_a_burst_of_one_spaces_hits_evenly():
    """60 a minute with a burst of 1: one a second, and what was not used is not saved up."""
    walk, one = Walk(), bucket("k", 1, 60)
    for _ in range(3):
        assert [walk.passes(one), walk.passes(one)] == [True, False]
        walk.now += SECOND
    walk.now += MINUTE
    assert [walk.passes(one), walk.passes(one)] == [True, False]


def test_a_burst_beyond_the_rate_is_filled_slowly():
    """100 at once, and 10 a minute: an empty bucket is whole again after ten minutes."""
    walk = Walk()
    assert walk.ask(bucket("k", 100, 10, hits=100)) == Grant(1, (Outcome(0, 10 * MINUTE, 0),))
    walk.now += 5 * MINUTE
    assert walk.ask(bucket("k", 100, 10, hits=51)).outcomes[0].fits_in_us == 6 * SECOND
    assert walk.ask(bucket("k", 100, 10, hits=50)).outcomes[0].remaining == 0


@pytest.mark.parametrize("rate", [0, 1, 10])
def test_more_hits_than_the_burst_never_fit_and_are_told_one_window(rate):
    """What can never fit is told W, as a caller has to be told something."""
    assert Walk().ask(bucket("k", 5, rate, hits=6)) == Grant(0, (Outcome(5, 0, MINUTE),))


def test_a_rate_of_nothing_never_drains():
    """The burst is all there is; whoever comes after it is told W."""
    walk, one = Walk(), bucket("k", 2, 0)
    assert [walk.passes(one) for _ in range(3)] == [True, True, False]
    walk.now += 20 * MINUTE
    assert walk.ask(one) == Grant(0, (Outcome(0, MINUTE, MINUTE),))


def test_a_check_passes_while_a_whole_hit_fits():
    """Less than one hit's room is none."""
    walk, check = Walk(), bucket("k", 1, 1, hits=0)
    assert walk.ask(check) == Grant(1, (Outcome(1, 0, 0),))
    walk.ask(bucket("k", 1, 1))
    walk.now += MINUTE - 1
    assert walk.ask(check) == Grant(0, (Outcome(0, 1, 1),))
    walk.now += 1
    assert walk.passes(check)


def test_a_refund_empties_the_bucket_by_so_much_and_no_further():
    """Given back is what is there, a part of a hit as well; the burst does not grow by it."""
    walk = Walk()
    walk.ask(bucket("k", 10, 10, hits=6))
    assert walk.ask(bucket("k", 10, 10, hits=2, kind=Kind.REFUND)) == Grant(1, (Outcome(6, 24 * SECOND, 0),))
    walk.now += SECOND
    assert walk.ask(bucket("k", 10, 10, hits=99, kind=Kind.REFUND)) == Grant(1, (Outcome(10, 0, 0),))
    assert [walk.passes(bucket("k", 10, 10, hits=10)), walk.passes(bucket("k", 10, 10))] == [True, False]


def test_a_part_of_a_hit_is_given_back_too():
    """What is left of the last hit is stored away as well."""
    walk = Walk()
    walk.ask(bucket("k", 1, 1))
    walk.now += SECOND
    assert walk.ask(bucket("k", 1, 1, kind=Kind.REFUND)).outcomes[0].remaining == 1
    assert walk.ask(bucket("k", 1, 1)).granted == 1


@given(
    burst=st.integers(1, 12),
    rate=st.integers(0, 30),
    steps=st.lists(
        st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 5), st.none() | st.integers(0, 9)), max_size=40
    ),
)
@settings(max_examples=300, deadline=None)
def test_an_undo_never_takes_more_than_was_charged(burst, rate, steps):
    """By fractions: after any undos there is no less in the bucket than if what was undone had never been charged."""
    walk, charged = Walk(), []
    for passes, several, undone in steps:
        walk.now += passes
        one = bucket("k", burst, rate, hits=several)
        if walk.passes(one):
            charged.append((walk.now, one))
        if undone is not None and charged:
            when, one = charged.pop(undone % len(charged))
            walk.take(undo(when, Line((one,), 1)))
        stored = walk.windows.get(b"k")
        assert stored is None or isinstance(stored, TokenBucket)
        found = TokenBucket.open(stored, walk.now, MINUTE, rate)
        level, at = Fraction(0), START
        for when, each in [*charged, (walk.now, None)]:
            level, at = max(Fraction(0), level - Fraction(rate * (when - at), MINUTE)), when
            level += each.hits if each else 0
        assert found.total + Fraction(found.part, MINUTE) >= level


# ── changes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_changed_burst_acts_at_once_on_what_is_in_the_bucket():
    """Raised it has room at once; lowered, none until it has drained below."""
    walk = Walk()
    walk.ask(bucket("k", 10, 10, hits=10))
    assert walk.ask(bucket("k", 12, 10)).outcomes[0].remaining == 1
    assert walk.ask(bucket("k", 5, 10)) == Grant(0, (Outcome(0, 66 * SECOND, 42 * SECOND),))


def test_a_changed_rate_loses_no_count():
    """What is in the bucket drains at the new rate from the next take on."""
    walk = Walk()
    walk.ask(bucket("k", 10, 10, hits=10))
    assert walk.ask(bucket("k", 10, 20)) == Grant(0, (Outcome(0, MINUTE // 2, 3 * SECOND),))
    assert walk.ask(bucket("k", 10, 1)) == Grant(0, (Outcome(0, 10 * MINUTE, MINUTE),))
    walk.now += MINUTE
    assert walk.ask(bucket("k", 10, 1)) == Grant(1, (Outcome(0, 10 * MINUTE, 0),))


def test_a_clock_set_back_drains_nothing_twice():
    """A bucket drained to a time ahead of the clock stands still until the clock is there."""
    walk, one = Walk(), bucket("k", 1, 1)
    walk.ask(one)
    walk.now -= 30 * SECOND
    assert walk.ask(one) == Grant(0, (Outcome(0, 90 * SECOND, 90 * SECOND),))
    walk.now += 30 * SECOND
    assert walk.ask(one) == Grant(0, (Outcome(0, MINUTE, MINUTE),))


def test_a_clock_that_was_far_ahead_holds_nobody_for_longer_than_the_drain():
    """Hits of a wrong clock are taken to be of now; that is stored even by a denial."""
    walk, one = Walk(START + 1000 * MINUTE), bucket("k", 1, 1)
    walk.ask(one)
    walk.now = START
    assert walk.ask(one) == Grant(0, (Outcome(0, MINUTE, MINUTE),))
    walk.now += MINUTE
    assert walk.passes(one)


# ── by brute force ────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    burst=st.integers(1, 12),
    rate=st.integers(0, 30),
    hits=st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 5)), max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_no_interval_holds_more_than_the_burst_and_what_drains_in_it(burst, rate, hits):
    """From any admission to any later one, t apart: at most burst + rate · t / W hits."""
    walk, log = Walk(), []
    for passes, several in hits:
        walk.now += passes
        if walk.passes(bucket("k", burst, rate, hits=several)):
            log.append((walk.now, several))
    for first, (begin, _) in enumerate(log):
        admitted = 0
        for when, several in log[first:]:
            admitted += several
            assert admitted <= burst + Fraction(rate * (when - begin), MINUTE)


class Exact:
    """One bucket in fractions of hits, from the definition: it drains evenly, and what overflows does not fit."""

    def __init__(self, burst: int, rate: int, window: int) -> None:
        self.burst, self.rate, self.window = burst, Fraction(rate, window), window
        self.level, self.at = Fraction(0), 0

    def ask(self, now: int, hits: int) -> Grant:
        """Take hits, and say in whole µs and hits what a caller is told."""
        self.level = max(Fraction(0), self.level - self.rate * (now - self.at))
        self.at = now
        fits = self.level + hits <= self.burst
        self.level += hits if fits else 0
        over = self.level + hits - self.burst
        fits_in = 0 if fits else self.window if hits > self.burst else min(ceil(over / self.rate), LONGEST_US)
        remaining = max(0, (self.burst - self.level) // 1)
        return Grant(int(fits), (Outcome(remaining, min(ceil(self.level / self.rate), LONGEST_US), fits_in),))


BUCKETS = [
    (MOST, MOST, SECOND),
    (MOST, MOST, 1000),
    (1, MOST, SECOND),
    (40_000, MOST - 2, SECOND),
    (5_000, 999_999_937, SECOND),
    (MOST, 4_294_967_291, 86_400 * SECOND),
    (1_000_003, 7, 60 * SECOND),
    (3, 1, 604_800 * SECOND),
    (MOST, 1_000_003, 365 * 86_400 * SECOND),
]
"""(burst, rate, W in µs): primes and extremes, so that nothing divides."""


def history(seed: str, burst: int, rate: int, window: int, length: int) -> list[tuple[int, int]]:
    """(µs that pass, hits), such that the bucket is near full most of the time."""
    seeds = random.Random(seed)
    made = []
    for _ in range(length):
        hits = seeds.choice([1, 1, 2, seeds.randint(1, burst), max(1, burst // 3), burst])
        drains = hits * window // rate
        passes = seeds.choice([0, 1, seeds.randint(0, 3), drains, drains + 1, max(0, drains - 1), drains // 2])
        made.append((min(passes, 10 * window, 2**52 // length), hits))  # the clock stays below 2^53
    return made


@pytest.mark.parametrize(("burst", "rate", "window"), BUCKETS)
def test_it_is_exact_in_python(burst, rate, window):
    """Thousands of takes in a row, each told to the µs and the hit what fractions tell."""
    walk, exact = Walk(), Exact(burst, rate, window)
    for number, (passes, hits) in enumerate(history("python", burst, rate, window, 4000)):
        walk.now += passes
        told = walk.ask(bucket("k", burst, rate, window=window, hits=hits))
        assert told == exact.ask(walk.now, hits), number


# a window of a millisecond would be gone in real time before it could be kept
@pytest.mark.parametrize(("burst", "rate", "window"), [each for each in BUCKETS if each[2] >= SECOND])
def test_it_is_exact_in_lua(client, burst, rate, window):
    """The same in a real server, whose numbers are doubles."""
    lua, exact, now = Lua(client), Exact(burst, rate, window), START
    client.flushall()
    for number, (passes, hits) in enumerate(history("lua", burst, rate, window, 300)):
        now += passes
        told = lua.take((Line((bucket("k", burst, rate, window=window, hits=hits),), 1),), now)
        client.persist("k")  # the test's clock stands while real time, in which keys expire, goes on
        assert told == [exact.ask(now, hits)], number


def test_one_lost_part_is_found_by_the_fractions():
    """The judge is awake: a bucket that rounds its parts of a hit away, and one that does not, are told apart."""
    burst, rate, window = 40_000, MOST - 2, SECOND
    kept: dict[bool, TokenBucket] = {}
    exact, now, differ = Exact(burst, rate, window), START, {False: 0, True: 0}
    for passes, hits in history("judge", burst, rate, window, 400):
        now += passes
        told = exact.ask(now, hits)
        for rounds in differ:
            opened = TokenBucket.open(kept.get(rounds), now, window, rate)
            opened.part *= not rounds
            fits = opened.room(burst) >= hits
            opened.add(hits if fits else 0)
            kept[rounds] = opened
            differ[rounds] += (fits, opened.room(burst)) != (told.granted > 0, told.outcomes[0].remaining)
    assert differ[True]
    assert not differ[False]


def test_the_twins_agree_where_a_rate_changes_at_every_take(client):
    """Rates that jump between 0 and 2^32 − 1 leave both twins with the same bucket."""
    lua, python, seeds, now = Lua(client), Python(), random.Random(5), START
    client.flushall()
    for number in range(300):
        now += seeds.choice([0, 1, seeds.randint(0, 5 * SECOND), MINUTE])
        rate = seeds.choice([0, 1, 7, 60_000_007, MOST])
        lines = (Line((bucket("k", seeds.choice([5, MOST]), rate, hits=seeds.choice([1, 3, MOST])),), 1),)
        assert lua.take(lines, now) == python.take(lines, now), number
        client.persist("k")
