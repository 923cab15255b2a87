"""Pressure: single stalls never count, load sheds first and makes unready only then, and the way back is slow."""

import asyncio
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.pressure import CALM_FOR_S, SAMPLE_EVERY_S, UNWELL_AFTER_S, Pressure, watch
from tests.waiting import until

LAG_S = 0.02
LATE_S = 0.05


class Loop:
    """A loop without one: its lags, and what was told of them."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool, str]] = []
        self.pressure = Pressure(
            LAG_S,
            on_shedding=lambda holds, why: self.told.append(("shedding", holds, why)),
            on_unwell=lambda holds, why: self.told.append(("unwell", holds, why)),
        )

    @property
    def state(self) -> tuple[bool, bool]:
        return self.pressure.shedding, self.pressure.unwell

    def run(self, lag_s: float, for_s: float) -> None:
        """Go on with this lag for so long."""
        for _ in range(round(for_s / (SAMPLE_EVERY_S + lag_s))):
            self.pressure.note(lag_s)


@pytest.fixture
def loop() -> Loop:
    """A loop that has run well for some seconds."""
    made = Loop()
    made.run(0, 5)
    return made


def test_an_overload_and_its_end(loop):
    """Late for most of a second: shed. For five: unwell. Calm for three: ready, and shedding; for three more: as ever."""
    loop.run(LATE_S, 1)
    assert loop.state == (True, False)
    loop.run(LATE_S, UNWELL_AFTER_S - 1)
    assert loop.state == (True, False)
    loop.run(LATE_S, 1)
    assert loop.state == (True, True)
    loop.run(LATE_S, 60)
    loop.run(0, CALM_FOR_S)
    assert loop.state == (True, True)
    loop.run(0, 1)
    assert loop.state == (True, False)
    loop.run(0, CALM_FOR_S - 1)
    assert loop.state == (True, False)
    loop.run(0, 1)
    assert loop.state == (False, False)
    assert [(what, holds) for what, holds, _ in loop.told] == [
        ("shedding", True),
        ("unwell", True),
        ("unwell", False),
        ("shedding", False),
    ]
    assert loop.told[1][2] == "13 of 13 turns were more than 20 ms late, the worst 50 ms"
    assert loop.told[3][2] == "the loop has kept up for 3 s"


@pytest.mark.parametrize("stall_s", [0.1, 0.3, 3, 30, 3600])
def test_one_stall_changes_nothing(loop, stall_s):
    """A collection, a machine that is paused, a debugger: over when it is seen, however long it was."""
    loop.pressure.note(stall_s)
    assert loop.pressure.worst_s == stall_s
    for _ in range(20):
        loop.run(0, 2)
        loop.pressure.note(stall_s)
    loop.run(0, 10)
    assert loop.told == []


def test_a_late_start_changes_nothing():
    """The first sample has met all that a process does at its start."""
    loop = Loop()
    loop.pressure.note(2)
    loop.run(0, 1)
    assert loop.told == []


def test_stalls_one_after_the_other_are_load(loop):
    """A loop whose every turn takes a second has few samples, and they suffice."""
    for _ in range(4):
        loop.pressure.note(1)
    assert loop.state == (True, False)
    for _ in range(30):
        loop.pressure.note(1)
    assert loop.state == (True, True)


def test_half_late_is_neither(loop):
    """Between late and calm all stays as it is."""
    for _ in range(200):
        loop.run(LATE_S, LATE_S + SAMPLE_EVERY_S)
        loop.run(0, 2 * SAMPLE_EVERY_S)
    assert loop.told == []
    loop.run(LATE_S, 1)
    assert loop.state == (True, False)
    for _ in range(200):
        loop.run(LATE_S, LATE_S + SAMPLE_EVERY_S)
        loop.run(0, 2 * SAMPLE_EVERY_S)
    assert loop.state == (True, False)


def test_a_few_late_ones_are_no_calm(loop):
    """What is not late enough to begin to shed may still be too late to cease: a sixth, not a twentieth."""
    loop.run(LATE_S, 1)
    for _ in range(200):
        loop.run(0, 5 * SAMPLE_EVERY_S)
        loop.pressure.note(LATE_S)
    assert loop.state == (True, False)
    for _ in range(20):
        loop.run(0, 20 * SAMPLE_EVERY_S)
        loop.pressure.note(LATE_S)
    assert loop.state == (False, False)


def test_bursts_with_calm_between_make_nobody_unready(loop):
    """However often: each begins to count anew, and shedding stays on as long as calm does not last."""
    for _ in range(50):
        loop.run(LATE_S, 2)
        loop.run(0, 2.5)
    assert loop.state == (True, False)
    assert [(what, holds) for what, holds, _ in loop.told] == [("shedding", True)]


def test_as_late_as_allowed_is_not_late(loop):
    """The limit itself is in time, and so is a timer that rings early."""
    loop.run(LAG_S, 10)
    loop.run(-0.001, 10)
    assert loop.told == []
    assert loop.pressure.late_total_s == pytest.approx(250 * LAG_S)


def test_it_describes_itself(loop):
    """Health detail has the last second."""
    assert loop.pressure.describe() == {"shedding": False, "unwell": False, "samples": 51, "late": 0, "worst_ms": 0}
    assert repr(loop.pressure) == "<Pressure: calm>"
    loop.run(LATE_S, 10)
    assert loop.pressure.describe() == {"shedding": True, "unwell": True, "samples": 14, "late": 14, "worst_ms": 50}
    assert repr(loop.pressure) == "<Pressure: unwell>"


@given(
    st.lists(st.tuples(st.sampled_from([0, 0.01, LAG_S, 0.021, LATE_S, 0.3, 100]), st.integers(1, 150)), max_size=30)
)
def test_whatever_happens(history):
    """Unwell means shedding; each change is told once; and ten calm seconds mend all."""
    loop = Loop()
    for lag_s, times in history:
        for _ in range(times):
            loop.pressure.note(lag_s)
            assert loop.pressure.shedding or not loop.pressure.unwell
    loop.run(0, 10)
    assert loop.state == (False, False)
    for told in ("shedding", "unwell"):
        changes = [holds for what, holds, _ in loop.told if what == told]
        assert changes == [True, False] * (len(changes) // 2)


async def test_a_real_loop_that_is_kept_busy():
    """Turns that take 80 ms of the loop are noticed, on either loop."""
    pressure = Pressure(LAG_S)
    watching = asyncio.create_task(watch(pressure))
    busy = asyncio.create_task(keep_busy(0.08))
    try:
        await until(lambda: pressure.shedding, within_s=60)
        assert pressure.worst_s >= 0.04
        assert pressure.late_total_s >= 0.04
    finally:
        busy.cancel()
        watching.cancel()
        await asyncio.wait([busy, watching])


async def keep_busy(for_s: float) -> None:
    """Give the loop away only between long turns."""
    while True:
        end = monotonic() + for_s
        while monotonic() < end:
            pass
        await asyncio.sleep(0)
