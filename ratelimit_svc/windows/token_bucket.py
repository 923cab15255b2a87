"""The token bucket: `limit` hits at once, and then `rate` a W, evenly. Twin of `token_bucket.lua`.

GCRA, kept as a meter: hits fill the bucket, time drains it, and hits fit if the bucket does not overflow. (ITU-T I.371 has
both forms of the algorithm, by virtual schedule and by leaky bucket, and that they are one.) The meter keeps hits and not
times, so a new rate or burst acts at once and loses no count. In any interval of length t no more than `limit + rate · t / W`
hits are admitted.

Integers only, and exact up to 2^32 − 1 hits a second: what is drained in one µs is `rate` W-ths of a hit, so the bucket holds
whole hits and W-ths. Products beyond 2^53 are in `mul_div`, which the Lua twin does digit by digit.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelimit_svc.model import LONGEST_US
from ratelimit_svc.windows import KEEP_BUDGET_US


@dataclass(slots=True)
class TokenBucket:
    """One key's hits."""

    CHECK_NEEDS: ClassVar[int] = 1
    """The room in which a check passes."""

    at: int
    """Time (µs) until which it is drained."""
    total: int
    """Whole hits in it,"""
    part: int
    """and so many W-ths of a hit: 0 … W − 1."""
    window: int
    """W in µs."""
    rate: int
    """Hits that drain in one W."""
    budget: bool = False
    """As in `SlidingWindow`."""
    unmoved: bool = False
    """True if it was stored less than one W ago."""
    must_save: bool = False
    asked: int = 0
    """Scratch of `batch`."""

    @classmethod
    def open(cls, stored: Self | None, now: int, window: int, rate: int) -> Self:
        """Return the bucket as it stands at `now` (µs): always a new one.

        A bucket drained to a time ahead of the clock by at most W stays as it is: after a failover to a slower clock it is
        only stricter. Further ahead, the clock that wrote it was wrong, and it is taken to be of now.
        """
        if stored is None:
            return cls(now, 0, 0, window, rate)
        ahead = stored.at - now
        if ahead > window:
            return cls(now, stored.total, stored.part, window, rate, stored.budget, must_save=True)
        if ahead >= 0:
            return cls(stored.at, stored.total, stored.part, window, rate, stored.budget, unmoved=True)
        total, part = mul_div(-ahead, rate, window)
        total, part = stored.total - total, stored.part - part
        if part < 0:
            total, part = total - 1, part + window
        if total < 0:
            total, part = 0, 0
        return cls(now, total, part, window, rate, stored.budget, unmoved=-ahead < window)

    def room(self, limit: int) -> int:
        """Return how many more hits fit; negative when the burst was lowered below what is there."""
        return limit - self.total - (1 if self.part > 0 else 0)

    def add(self, hits: int) -> None:
        """Count `hits` now."""
        self.total += hits

    def give_back(self, hits: int, charged_at: int | None = None) -> bool:
        """Take `hits` out, down to nothing. Return whether it has to be stored.

        With `charged_at` (µs), an undo: less what has drained since. Without that charge there would be less in it by at least
        so much, and not by all of its hits if it would have run empty meanwhile.
        """
        drained = part = 0
        if charged_at is not None:
            if charged_at > self.at:
                return False
            drained, part = mul_div(self.at - charged_at, self.rate, self.window)
        if hits <= drained or (self.total == 0 and self.part == 0):
            return False
        total, part = self.total + drained - hits, self.part + part
        if part >= self.window:
            total, part = total + 1, part - self.window
        self.total, self.part = (total, part) if total >= 0 else (0, 0)
        return True

    def mark(self) -> bool:
        """Make it a budget. Return whether it has to be stored: once, and again when a W has passed, lest it expire."""
        stored = self.budget and self.unmoved
        self.budget = True
        return not stored

    def until_empty(self, now: int) -> int:
        """Return the time (µs) until nothing is in it."""
        return self._until_drained(now, self.total, self.part)

    def until_fits(self, now: int, limit: int, hits: int) -> int:
        """Return the time (µs) until `hits` more fit, if nothing else comes: 0 if they fit now, W if they never do."""
        if hits > limit:
            return self.window
        excess = self.total + hits - limit
        if excess < 0:
            return 0
        return self._until_drained(now, excess, self.part)

    def expires(self) -> int:
        """Return when (µs) the bucket may be forgotten."""
        return self.at + 2 * self.window + self.until_empty(self.at) + self.budget * KEEP_BUDGET_US

    def _until_drained(self, now: int, hits: int, part: int) -> int:
        """Return the time (µs) until so many hits and W-ths of one have drained."""
        if hits == 0 and part == 0:
            return 0
        if self.rate == 0:
            return self.window
        time, rest = mul_div(hits, self.window, self.rate)
        return min(self.at - now + time - (-(rest + part) // self.rate), LONGEST_US)


def mul_div(a: int, b: int, c: int) -> tuple[int, int]:
    """Return the quotient and the rest of a · b / c."""
    return divmod(a * b, c)
