"""The ring of counts, against a list of all that was ever added."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.ring import Ring

TICKS_A_SLOT, SLOT_S = 4, 0.25
"""In powers of two, so that every time here is exact."""

steps = st.one_of(st.just(0), st.integers(0, 6), st.integers(0, 100), st.integers(0, 10**9))
"""Ticks from one thing to the next: mostly short ones."""


@given(
    st.integers(1, 12),
    st.lists(st.tuples(steps, st.integers(0, 2), st.integers(0, 5), st.booleans()), max_size=60),
)
def test_it_counts_what_a_list_of_all_would(slots, history):
    """Whatever comes when: what lies in the present slot or in those just before it, and nothing else; asking changes nothing."""
    ring, seen, tick = Ring(3, slots=slots, slot_s=SLOT_S), [], 0
    for step, column, n, look in history:
        tick += step
        now = tick * SLOT_S / TICKS_A_SLOT
        if n:
            ring.add(now, column, n)
            seen.append((tick // TICKS_A_SLOT, column, n))
        if look:
            present = tick // TICKS_A_SLOT
            expected = [sum(m for slot, c, m in seen if c == at and slot > present - slots) for at in range(3)]
            assert ring.totals(now) == expected
            assert ring.totals(now) == expected


def test_a_walk():
    """A second in ten parts: what was added leaves when its tenth is a second old."""
    ring = Ring(2, slots=10, slot_s=0.1)
    assert ring.window_s == 1
    ring.add(7.05, 0)
    ring.add(7.05, 1, 3)
    ring.add(7.55, 0)
    assert ring.totals(7.55) == ring.totals(7.99) == [2, 3]
    assert ring.totals(8.05) == ring.totals(8.45) == [1, 0]
    assert ring.totals(8.55) == [0, 0]


def test_nobody_came_for_long():
    """A jump of years costs no more than one turn of the ring, and leaves nothing."""
    ring = Ring(1)
    ring.add(1, 0, 5)
    assert ring.totals(1e9) == [0]
    ring.add(1e9, 0)
    assert ring.totals(1e9) == [1]


def test_a_clock_that_goes_back_loses_nothing():
    """What is added meanwhile counts as of the latest time known, and leaves with that."""
    ring = Ring(1)
    ring.add(100, 0)
    ring.add(50, 0)
    assert ring.totals(50) == ring.totals(100) == [2]
    assert ring.totals(101) == [0]


def test_totals_are_the_callers():
    """Changing them changes no count."""
    ring = Ring(1)
    ring.totals(0)[0] = 9
    assert ring.totals(0) == [0]
