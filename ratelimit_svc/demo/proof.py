"""The judge: did any window hold too much, did anyone get too little? From outside, and sound.

From outside one knows of an admitted hit when it was sent and when its answer came; the store counted it in between. So a
window W was certainly too full only if more hits than the limit lie wholly within less than W: latest answer minus earliest
send. Judging by answer times alone would accuse the innocent.

Rule 1: no clock, no I/O. Times are integer µs of the clock that the store reads, too (one machine): promise 1 is about that.
Rule 2: never a false alarm. What cannot be known from outside is judged by the more generous of the bounds in question.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import inf
from typing import NamedTuple

ENOUGH = 0.95
"""The part of what it could get that a saturating caller must get. The rest is the caller's own: it is late now and then."""


class Hit(NamedTuple):
    """One admitted hit."""

    sent_us: int
    answered_us: int


class Period(NamedTuple):
    """From its start until the next period's, a window may hold so many hits."""

    start_us: int
    most: int


class Fullness(NamedTuple):
    """The fullest window among those that may hold no more than `most`."""

    most: int
    seen: int

    @property
    def held(self) -> bool:
        """The bound held."""
        return self.seen <= self.most


def fullest(hits: Sequence[Hit], window_us: int) -> int:
    """Return the most hits that lie wholly within less than a window, in O(n log n).

    For each hit as the earliest, the latest first: those sent no earlier are in the heap, and those answered too late
    for it are too late for every one that follows, and leave.
    """
    most = 0
    answers: list[int] = []  # a heap of negative times: the latest on top
    for hit in sorted(hits, reverse=True):
        heapq.heappush(answers, -hit.answered_us)
        while answers and -answers[0] >= hit.sent_us + window_us:
            heapq.heappop(answers)
        most = max(most, len(answers))
    return most


def fullness(hits: Sequence[Hit], periods: Sequence[Period], window_us: int) -> list[Fullness]:
    """Judge each bound by the windows that no more generous period touches, the strictest bound first.

    A hit counts as of such a window only if its whole flight was outside of every more generous period.
    """
    return [
        Fullness(
            most,
            max(
                fullest([hit for hit in hits if start <= hit.sent_us and hit.answered_us < end], window_us)
                for start, end in _stretches(periods, most)
            ),
        )
        for most in sorted({period.most for period in periods})
    ]


def _stretches(periods: Sequence[Period], most: int) -> Iterator[tuple[float, float]]:
    """The longest stretches of time in which no period allows more than `most`."""
    ends = [*(period.start_us for period in periods[1:]), inf]
    for strict, together in groupby(zip(periods, ends, strict=True), key=lambda pair: pair[0].most <= most):
        if strict:
            stretch = list(together)
            yield stretch[0][0].start_us, stretch[-1][1]


def least(span_us: int, *, limit: int, window_us: int, slices: int, enough: float = ENOUGH) -> int:
    """Return how many hits a caller who always wants more must have got in a span of time.

    Capacity comes back at most one slice late, so it is L per W and a slice; what is left of the span counts as nothing,
    because a caller may have got all of L just before it began.
    """
    whole_times = span_us // (window_us + -(-window_us // slices))
    return int(enough * limit * whole_times)


def got(hits: Sequence[Hit], start_us: int, end_us: int) -> int:
    """Return how many hits lie wholly within a span of time."""
    return sum(start_us <= hit.sent_us and hit.answered_us <= end_us for hit in hits)
