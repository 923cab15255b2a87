"""Pressure: does the event loop still keep up? If not, shed work first, and only then be unready.

A timer rings every SAMPLE_EVERY_S; how late it does is the lag that every request has met as well. A window is the last second.

    calm ──▶ shedding      a late window: more than half of its samples were later than `lag_s` (LOOP_LAG)
    shedding ──▶ unwell    late for UNWELL_AFTER_S, with no calm window in between
    unwell ──▶ shedding ──▶ calm    one step for each CALM_FOR_S of calm windows: at most a tenth of the samples late

Rules:
1. One stall, however long, is one sample, and never enough: a collection, a paused machine or a debugger is over when it is seen,
   and the requests it held up are answered soonest by going on. Stalls that come again and again are load.
2. Between late and calm nothing changes, and each way back takes seconds, so that it does not flap. A replica that is ready
   again begins by shedding: the callers who come back do not knock it over.
3. Time is the sum of what the samples say, each stall counting as LONGEST_S at most: a paused machine has not been late for an hour.
"""

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic

from ratelimit_svc.ring import Ring

SAMPLE_EVERY_S = 0.02
ROUNDING_S = 0.001
"""uvloop's timers ring in whole milliseconds: so much is no lag."""
LEAST_SAMPLES = 4
"""In a window, to judge by. There are fewer only in the first moments."""
LONGEST_S = 0.25
"""A longer stall counts as one of these, so that a window always has a few samples."""
UNWELL_AFTER_S = 5.0
CALM_FOR_S = 3.0

_TIMELY, _LATE = 0, 1
"""Columns of the ring."""


def _ignore(*_: object) -> None:
    """Tell nobody."""


class Pressure:
    """Says whether to shed, and whether this replica is unwell. Pure.

    Args:
        lag_s: more is late (LOOP_LAG).
        on_shedding: called with True and a sentence when it begins to shed, with False when it ceases to.
        on_unwell: likewise.
    """

    def __init__(
        self,
        lag_s: float = 0.02,
        *,
        on_shedding: Callable[[bool, str], None] = _ignore,
        on_unwell: Callable[[bool, str], None] = _ignore,
    ) -> None:
        self._lag_s = lag_s
        self._on_shedding, self._on_unwell = on_shedding, on_unwell
        self.shedding = False
        """Whether to answer by policy at once, without asking the store. Looked at once per request."""
        self.unwell = False
        """Whether shedding has not helped: this replica should not be sent requests."""
        self.late_total_s = 0.0
        """The sum of all lags since the start."""
        self._ring = Ring(2)
        self._now = 0.0
        """The sum of what the samples say."""
        self._late_since: float | None = None
        """When the first late window was seen since the last calm one."""
        self._calm_since: float | None = None
        """When the first calm window was seen since the last that was not."""
        self._worst_s = self._worst_before_s = 0.0
        self._worst_from = 0.0

    def __repr__(self) -> str:
        return f"<Pressure: {'unwell' if self.unwell else 'shedding' if self.shedding else 'calm'}>"

    @property
    def worst_s(self) -> float:
        """The longest lag of the last one to two seconds."""
        return max(self._worst_s, self._worst_before_s)

    def note(self, lag_s: float) -> None:
        """Note how late a timer rang that was set for SAMPLE_EVERY_S."""
        lag_s = max(lag_s, 0.0)
        self._now += SAMPLE_EVERY_S + min(lag_s, LONGEST_S)
        self.late_total_s += lag_s
        self._note_worst(lag_s)
        self._ring.add(self._now, _LATE if lag_s > self._lag_s else _TIMELY)
        timely, late = self._ring.totals(self._now)
        samples = timely + late
        if samples < LEAST_SAMPLES:
            return
        is_late, is_calm = 2 * late > samples, 10 * late <= samples
        self._late_since = None if is_calm else self._since(self._late_since, holds=is_late)
        self._calm_since = self._since(self._calm_since, holds=True) if is_calm else None
        if is_late:
            self._worse(
                f"{late} of {samples} turns were more than {_ms(self._lag_s)} late, the worst {_ms(self.worst_s)}"
            )
        elif self._calm_since is not None and self._now - self._calm_since >= CALM_FOR_S:
            self._better()

    def _since(self, since: float | None, *, holds: bool) -> float | None:
        return self._now if since is None and holds else since

    def _note_worst(self, lag_s: float) -> None:
        if self._now - self._worst_from >= self._ring.window_s:
            self._worst_before_s, self._worst_s, self._worst_from = self._worst_s, 0.0, self._now
        self._worst_s = max(self._worst_s, lag_s)

    def _worse(self, why: str) -> None:
        if not self.shedding:
            self.shedding = True
            self._on_shedding(True, why)
        elif not self.unwell and self._late_since is not None and self._now - self._late_since >= UNWELL_AFTER_S:
            self.unwell = True
            self._on_unwell(True, why)

    def _better(self) -> None:
        """Go back by one step, and wait as long before the next."""
        why = f"the loop has kept up for {CALM_FOR_S:g} s"
        self._calm_since = self._now
        if self.unwell:
            self.unwell = False
            self._on_unwell(False, why)
        elif self.shedding:
            self.shedding = False
            self._on_shedding(False, why)

    def describe(self) -> Mapping[str, object]:
        """Return what health detail shows."""
        timely, late = self._ring.totals(self._now)
        return {
            "shedding": self.shedding,
            "unwell": self.unwell,
            "samples": timely + late,
            "late": late,
            "worst_ms": round(self.worst_s * 1000, 1),
        }


async def watch(pressure: Pressure, *, clock: Callable[[], float] = monotonic) -> None:
    """Take samples of the running loop's lag. Never returns.

    Args:
        pressure: told of them.
        clock: gives the time in seconds. Not the loop's own: uvloop looks at it once a turn, and what this very turn did before
            the timer's would not be seen.
    """
    while True:
        set_at = clock()
        await asyncio.sleep(SAMPLE_EVERY_S)
        pressure.note(clock() - set_at - SAMPLE_EVERY_S - ROUNDING_S)


def _ms(length_s: float) -> str:
    return f"{round(length_s * 1000, 1):g} ms"
