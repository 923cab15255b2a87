"""How long requests took, counted by whole milliseconds, as the reference implementation measures them."""

from collections.abc import Sequence
from typing import NamedTuple

LONGEST_MS = 10_000
"""No request waits longer for the store (STORE_TIMEOUT)."""


class TimesRead(NamedTuple):
    """What was counted until some moment."""

    by_ms: dict[int, int]
    """How many took so many whole milliseconds; what takes less counts as 0."""
    sum_ms: float = 0.0
    """All together, exactly."""


class Times:
    """How long requests took. Bounded: one number for each millisecond up to LONGEST_MS."""

    def __init__(self) -> None:
        self.at_once = 0
        """How many were answered in the very turn of the loop that they were read in."""
        self._by_ms: dict[int, int] = {}
        self._sum_s = 0.0

    def note(self, came_s: Sequence[float], now_s: float) -> None:
        """Note requests that are answered now, by when they came: in that order, and there is at least one."""
        n = len(came_s)
        longest, shortest = _ms(now_s - came_s[0]), _ms(now_s - came_s[-1])
        if longest == shortest:  # mostly: they came together
            self._by_ms[longest] = self._by_ms.get(longest, 0) + n
        else:
            for came in came_s:
                ms = _ms(now_s - came)
                self._by_ms[ms] = self._by_ms.get(ms, 0) + 1
        self._sum_s += n * now_s - sum(came_s)

    def read(self, at_once: int = 0) -> TimesRead:
        """Return what is counted so far, and so many that were answered at once beside. In any thread."""
        by_ms = dict(self._by_ms)
        if at_once := at_once + self.at_once:
            by_ms[0] = by_ms.get(0, 0) + at_once
        return TimesRead(by_ms, self._sum_s * 1000)


def _ms(time_s: float) -> int:
    return max(0, min(int(time_s * 1000), LONGEST_MS))
