"""The fixed window as the reference implementation keeps it, so that its replicas and ours share one. Twin of `reference_window.lua`.

It counts as `fixed_window` does, in windows that begin at multiples of W since the epoch. What is stored is the number of hits and
nothing else, under a key of its own for each window: `place` says which.

Rules:
1. Hits that the reference implementation has denied are in the number, for it counts them; it may stand far above the limit. Ours
   are not.
2. Every key is a budget: a plain number has no room for the mark, and a check that the reference implementation answers leaves
   none. So hits that do not fit are all counted if anything was left, as the reference implementation always does.
3. Two charges may share one number: they have different periods, or their descriptors' names and values make the same text. Their
   windows begin together, and the number is kept until the longer one has ended.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelimit_svc.model import MICROSECONDS

MOST = 2**53 - 1
"""Numbers above it are taken for it: Lua has no others, and no limit is near it."""


@dataclass(slots=True)
class ReferenceWindow:
    """One key's hits."""

    CHECK_NEEDS: ClassVar[int] = 0
    """As in `FixedWindow`."""
    budget: ClassVar[bool] = True
    """Rule 2."""

    place: bytes
    """Its key in the store."""
    window: int
    """W in µs; the longest, where charges share it (rule 3)."""
    starts: int
    """The first microsecond that is in it."""
    total: int
    unmoved: bool = False
    """Scratch of `batch`, as `must_save`: it is always stored whole."""
    must_save: bool = False
    asked: int = 0

    @classmethod
    def open(cls, stored: Self | None, now: int, window: int, place: bytes) -> Self:
        """Return the window that `now` (µs) is in."""
        return cls(place, window, now // window * window, 0 if stored is None else stored.total)

    def share(self, window: int) -> None:
        """Count for a charge with such a W, too."""
        self.window = max(self.window, window)

    def room(self, limit: int) -> int:
        """Return how many more hits fit; negative when more were asked for, or the limit was lowered."""
        return limit - self.total

    def add(self, hits: int) -> None:
        """Count `hits` now."""
        self.total = min(self.total + hits, MOST)

    def give_back(self, hits: int, charged_at: int | None = None) -> bool:
        """Take `hits` off, down to nothing. Return whether it has to be stored.

        With `charged_at` (µs), an undo: only if they were charged in this window.
        """
        if charged_at is not None and charged_at // self.window * self.window != self.starts:
            return False
        left = min(hits, self.total)
        self.total -= left
        return left > 0

    def mark(self) -> bool:
        """Return whether it has to be stored to be a budget: never, it is one (rule 2)."""
        return False

    def until_empty(self, now: int) -> int:
        """Return the time (µs) until the window ends."""
        return self.starts + self.window - now

    def until_fits(self, now: int, limit: int, hits: int) -> int:
        """Return the time (µs) until `hits` more fit: 0 if they fit now, else until the window ends, even if they never do."""
        if self.total + hits <= limit:
            return 0
        return self.starts + self.window - now

    def expires(self) -> int:
        """Return when (µs) the window may be forgotten: a W later, for replicas whose clocks are behind."""
        return self.starts + 2 * self.window


def place_of(key: bytes, now: int, window: int) -> bytes:
    """Return the key of the window that `now` (µs) is in: its start in seconds stands where the charge's key has its length."""
    return b"%b%d" % (base_of(key), now // window * window // MICROSECONDS)


def base_of(key: bytes) -> bytes:
    """Return what the windows of a charge's key begin with, whatever their lengths."""
    return key[: key.rindex(b"_") + 1]
