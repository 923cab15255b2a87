"""The fixed window: counts from one boundary to the next, as the reference implementation does. Twin of `fixed_window.lua`.

For those who must match it. Around a boundary up to 2 L pass within less than W; that is what it is. `shape` says where
windows begin (`Limit.shape`): at multiples of W since the epoch, with the first hit, on Mondays, or with calendar months.

A window is known by its end. While hits are in it, its end stays, whatever is configured anew under it: no count is lost.
A check passes at the limit, and only beyond it not: the reference's answer.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelimit_svc.model import BEGIN_AT_EPOCH, BEGIN_AT_FIRST_HIT, BEGIN_ON_MONDAY, MICROSECONDS
from ratelimit_svc.windows import KEEP_BUDGET_US

DAY = 86_400 * MICROSECONDS
MONDAY = 4 * DAY
"""1970-01-05, the first Monday since the epoch."""


@dataclass(slots=True)
class FixedWindow:
    """One key's hits."""

    CHECK_NEEDS: ClassVar[int] = 0
    """The room in which a check passes."""

    ends: int
    """The first microsecond that is not in the window. Without hits, where it will be if they come now."""
    total: int
    window: int
    """W in µs."""
    shape: int
    anew: int
    """Where it would end if it began now."""
    budget: bool = False
    """As in `SlidingWindow`."""
    unmoved: bool = False
    """True if it is stored with this end."""
    must_save: bool = False
    asked: int = 0
    """Scratch of `batch`."""

    @classmethod
    def open(cls, stored: Self | None, now: int, window: int, shape: int) -> Self:
        """Return the window as it stands at `now` (µs): `stored` itself if it is still the same, else a new one.

        An end more than 2 W ahead was written by a clock that was wrong: its hits are taken to be of now.
        """
        anew = end_of(now, window, shape)
        if stored is None:
            return cls(anew, 0, window, shape, anew)
        if stored.ends - now > 2 * window:
            return cls(anew, stored.total, window, shape, anew, stored.budget, must_save=True)
        if (stored.ends <= now or stored.total == 0) and stored.ends != anew:
            return cls(anew, 0, window, shape, anew, stored.budget)
        stored.shape, stored.anew = shape, anew
        return stored

    def room(self, limit: int) -> int:
        """Return how many more hits fit; negative when the limit was lowered below what is there."""
        return limit - self.total

    def add(self, hits: int) -> None:
        """Count `hits` now."""
        self.total += hits

    def give_back(self, hits: int, charged_at: int | None = None) -> bool:
        """Take `hits` off, down to nothing, and then it begins anew. Return whether it has to be stored.

        With `charged_at` (µs), an undo: only if they were charged in this window.
        """
        if charged_at is not None and not charged_at < self.ends <= end_of(charged_at, self.window, self.shape):
            return False
        left = min(hits, self.total)
        self.total -= left
        if self.total == 0 and self.ends != self.anew:
            self.ends, self.unmoved = self.anew, False
        return left > 0

    def mark(self) -> bool:
        """Make it a budget. Return whether it has to be stored: once, and again in each new window, lest it expire."""
        stored = self.budget and self.unmoved
        self.budget = True
        self.unmoved = stored
        return not stored

    def until_empty(self, now: int) -> int:
        """Return the time (µs) until the window ends; 0 if it begins with a hit that has not come."""
        if self.shape == BEGIN_AT_FIRST_HIT and self.total == 0:
            return 0
        return self.ends - now

    def until_fits(self, now: int, limit: int, hits: int) -> int:
        """Return the time (µs) until `hits` more fit: 0 if they fit now, else until the window ends, even if they never do."""
        if self.total + hits <= limit:
            return 0
        return self.ends - now

    def expires(self) -> int:
        """Return when (µs) the window may be forgotten."""
        return self.ends + self.window + self.budget * KEEP_BUDGET_US


def end_of(now: int, window: int, shape: int) -> int:
    """Return where the window that `now` is in ends, or would end if it began now."""
    if shape == BEGIN_AT_FIRST_HIT:
        return now + window
    if shape == BEGIN_AT_EPOCH:
        return (now // window + 1) * window
    if shape == BEGIN_ON_MONDAY:
        return ((now - MONDAY) // window + 1) * window + MONDAY
    return _month_begins((_month_of(now // DAY) // shape + 1) * shape) * DAY


def _month_of(days: int) -> int:
    """Return the month (counted from January of the year 0) of a day (counted from the epoch), in the Gregorian calendar.

    Years begin in March here, so that a leap day is a year's last, and 400 of them are an era of 146 097 days (the method of
    H. Hinnant's "chrono-Compatible Low-Level Date Algorithms").
    """
    day = days + 719_468  # from 0000-03-01
    era = day // 146_097
    day -= era * 146_097
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153  # 0 is March
    return (era * 400 + year) * 12 + month + 2


def _month_begins(month: int) -> int:
    """Return the day (counted from the epoch) that a month (counted from January of the year 0) begins with."""
    from_march = month - 2
    year = from_march // 12
    era = year // 400
    year_of_era = year - era * 400
    day = (153 * (from_march - year * 12) + 2) // 5
    return era * 146_097 + 365 * year_of_era + year_of_era // 4 - year_of_era // 100 + day - 719_468
