"""The store's clock, as far as its replies tell: so that a take can say, in the store's own time, when it is too late. Pure.

A reply says the store's time at some moment between the writing of its command and its arrival. So it bounds by how much the
store's clock is ahead of ours from both sides, and the nearer of the two ends of the way is not known.

Rules:
1. The estimate is generous: the smallest upper bound seen. A take is never too late in vain, at most charged a little late: by
   the time that the fastest command so far took to get there, and what clocks drift.
2. An upper bound is forgotten slowly, as clocks may drift apart (DRIFT).
3. A clock that was stepped shows at once: back, as a smaller bound; forward, as a lower bound above what was the upper one.
"""

from ratelimit_svc.model import MICROSECONDS

DRIFT = 100e-6
"""By so much of its time one clock may be faster than another; those that NTP keeps differ by less."""


class StoreClock:
    """Tells the store's time by ours. Nothing is known before the first reply."""

    __slots__ = ("_ahead_us", "_noted_s")

    def __init__(self) -> None:
        self._ahead_us: float | None = None
        """By so much the store's clock was ahead of ours at most, at `_noted_s`."""
        self._noted_s = 0.0

    def note(self, store_us: int, sent_s: float, received_s: float) -> None:
        """Note a reply.

        Args:
            store_us: the store's time in it, in µs.
            sent_s: when its command was written, by our clock in s.
            received_s: when it was there.
        """
        at_most = store_us - sent_s * MICROSECONDS
        if self._ahead_us is not None:
            held = self._ahead_us + (received_s - self._noted_s) * (DRIFT * MICROSECONDS)
            if at_most >= held and store_us - received_s * MICROSECONDS <= held:
                return
        self._ahead_us, self._noted_s = at_most, sent_s

    def latest(self, at_s: float, now_s: float) -> int:
        """Return the latest that the store's clock may show at a time of ours, in µs; 0: nothing is known.

        Args:
            at_s: the time, by our clock in s.
            now_s: the present.
        """
        if self._ahead_us is None:
            return 0
        drifted_us = (max(at_s, now_s) - self._noted_s) * (DRIFT * MICROSECONDS)
        return round(self._ahead_us + drifted_us + at_s * MICROSECONDS)
