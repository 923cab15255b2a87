"""The sliding window: in no interval of length W are more than L hits admitted. Twin of `sliding_window.lua`.

A window is cut in slices of `width = ceil(W / slices)` µs, numbered from the epoch. A hit counts from its moment until
`slices` whole slices have passed since its own slice ended, so it counts for at least W and at most W + width: the
partly elapsed oldest slice counts whole. That is what makes the promise true, and its price is that capacity comes
back at most one width late.

The running total makes a take O(1): each slice is added once and subtracted once.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelimit_svc.windows import KEEP_BUDGET_US


@dataclass(slots=True)
class SlidingWindow:
    """One key's hits. `total = here + sum(older)` always holds."""

    CHECK_NEEDS: ClassVar[int] = 1
    """The room in which a check passes."""

    width: int
    """Length of a slice in µs. Kept with the counts, because `slices` may be configured anew under them."""
    head: int
    """Number of the newest slice: floor(time / width) when the head last moved."""
    total: int
    here: int
    """Hits in the head slice."""
    older: list[tuple[int, int]]
    """(slice, hits), oldest first; only slices that hold something, at most `slices` of them."""
    window: int
    """W in µs."""
    slices: int
    budget: bool = False
    """True if it has been asked by a check that made it one: hits that do not fit may overdraw it."""
    unmoved: bool = False
    """True if it is stored with this head."""
    must_save: bool = False
    """True if the window has to be stored even if nothing is charged."""
    asked: int = 0
    """Scratch of `batch`: hits that earlier charges of the same request ask of this window."""

    @classmethod
    def open(cls, stored: Self | None, now: int, window: int, slices: int) -> Self:
        """Return the window as it stands at `now` (µs): `stored` itself if it has not moved, else a new one.

        A head ahead of the clock by at most W stays: after a failover to a slower clock the window is only stricter.
        Further ahead, the clock that wrote it was wrong, and all its hits are taken to be of now.
        """
        width = -(-window // slices)
        if stored is None:
            return cls(width, now // width, 0, 0, [], window, slices)
        ahead = stored.head * stored.width - now
        if ahead > window:
            total = stored.total
            return cls(width, now // width, total, total, [], window, slices, stored.budget, must_save=True)
        present = max(now, now + ahead) // width
        if stored.width == width:
            if stored.head == present:
                stored.slices = slices  # another number of them may give the same width
                return stored
            counts = [*stored.older, (stored.head, stored.here)]
        else:
            counts = _cut_anew(stored, width, present)
        return cls._of(counts, width, present, window, slices, budget=stored.budget)

    @classmethod
    def _of(
        cls, counts: list[tuple[int, int]], width: int, present: int, window: int, slices: int, *, budget: bool
    ) -> Self:
        """Return the window that holds those of `counts` that have not left it."""
        total, here, older = 0, 0, []
        for number, hits in counts:
            if number >= present - slices and hits > 0:
                total += hits
                if number == present:
                    here = hits
                else:
                    older.append((number, hits))
        return cls(width, present, total, here, older, window, slices, budget)

    def room(self, limit: int) -> int:
        """Return how many more hits fit; negative when the limit was lowered below what is there."""
        return limit - self.total

    def add(self, hits: int) -> None:
        """Count `hits` now."""
        self.total += hits
        self.here += hits

    def give_back(self, hits: int, charged_at: int | None = None) -> bool:
        """Take `hits` off, down to nothing. Return whether it has to be stored.

        The oldest slices first: what is given back then never frees more than it took. With `charged_at` (µs), an undo: from
        the slice of that time alone. The hits are in it, or in a later one where slices were cut anew or the head was ahead
        of the clock; others that leave earlier then go in their place, or none: that only makes it stricter. (Where both the
        clock was set back and slices were made finer since, they may be earlier, by less than one of the old slices.)
        """
        only = None if charged_at is None else charged_at // self.width
        left, kept = hits, []
        for number, count in self.older:
            cut = min(count, left) if only is None or number == only else 0
            left -= cut
            if count > cut:
                kept.append((number, count - cut))
        if only is None or only == self.head:
            cut = min(self.here, left)
            left -= cut
            self.here -= cut
        if left == hits:
            return False
        self.total -= hits - left
        self.older, self.unmoved = kept, False
        return True

    def mark(self) -> bool:
        """Make it a budget. Return whether it has to be stored: once, and again when it has moved, lest it expire."""
        stored = self.budget and self.unmoved
        self.budget = True
        self.unmoved = stored
        return not stored

    def until_empty(self, now: int) -> int:
        """Return the time (µs) until nothing counts any more."""
        if self.here == 0 and not self.older:
            return 0
        newest = self.head if self.here > 0 else self.older[-1][0]
        return self._leaves(newest) - now

    def until_fits(self, now: int, limit: int, hits: int) -> int:
        """Return the time (µs) until `hits` more fit, if nothing else comes: 0 if they fit now, W if they never do."""
        if hits > limit:
            return self.window
        excess = self.total + hits - limit
        if excess <= 0:
            return 0
        for number, count in self.older:
            excess -= count
            if excess <= 0:
                return self._leaves(number) - now
        return self._leaves(self.head) - now

    def expires(self) -> int:
        """Return when (µs) the window may be forgotten: nothing counts any more by then."""
        return self.head * self.width + 2 * self.window + self.budget * KEEP_BUDGET_US

    def _leaves(self, number: int) -> int:
        """Return when (µs) the hits of a slice cease to count."""
        return (number + self.slices + 1) * self.width


def _cut_anew(stored: SlidingWindow, width: int, present: int) -> list[tuple[int, int]]:
    """Return the counts in slices of another width: each goes whole into the one that holds its last microsecond.

    So no hit leaves earlier than it would have, and the promise holds through the change. Replicas that go on with different
    slices cut to and fro, and each cut moves hits to a later edge: they get less than the limit until they agree.
    """
    counts: dict[int, int] = {}
    for number, hits in [*stored.older, (stored.head, stored.here)]:
        cut = min(((number + 1) * stored.width - 1) // width, present)
        counts[cut] = counts.get(cut, 0) + hits
    return list(counts.items())
