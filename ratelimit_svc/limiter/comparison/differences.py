"""Differences: when the two algorithms of a compared rule said something else, where in the window, and of which requests.

Bounded: an hour of minutes, PARTS of a window, and the last EXAMPLES requests, one a second at most, each cut to what a person
reads. Pure; the time is handed in.
"""

from collections import deque
from typing import NamedTuple

from ratelimit_svc.model import BEGIN_AT_FIRST_HIT, MICROSECONDS, Algorithm, Limit, Plan
from ratelimit_svc.ring import Ring
from ratelimit_svc.windows.fixed_window import end_of

MINUTES = 60
"""How far back `minutes` goes."""
PARTS = 20
"""The parts of a window that differences are put to."""
EXAMPLES = 5
EXAMPLE_EVERY_US = MICROSECONDS
MOST_ENTRIES, LONGEST_TEXT = 8, 100
"""Of an example: callers choose what they send."""

ONLY_ENFORCED, ONLY_COMPARED = 0, 1
"""The columns: who denies."""


class Example(NamedTuple):
    """One request on which they differed."""

    at_us: int
    only_compared: bool
    """Who denies: the algorithm that is compared; else the one that decides."""
    tenant: str
    entries: tuple[str, ...]
    """The descriptor's, each `key=value`, as far as a person reads."""


class Differences:
    """Those of one rule.

    Args:
        limit: as it is enforced.
        compared: as it is counted otherwise.
    """

    def __init__(self, limit: Limit, compared: Limit) -> None:
        self.first_us = self.last_us = 0
        self.minutes = Ring(2, slots=MINUTES, slot_s=60.0)
        self._fixed = next((each for each in (compared, limit) if _has_boundaries(each)), None)
        self.parts = [[0, 0] for _ in range(PARTS)] if self._fixed is not None else []
        """By parts of the fixed window, the first begins with it; empty where no window is known to begin anywhere."""
        self.examples: deque[Example] = deque(maxlen=EXAMPLES)

    def note(self, now_us: int, plan: Plan, place: int, only_enforced: int, only_compared: int) -> None:
        """Note requests of one plan on which they differed: so many one way, and so many the other.

        Args:
            now_us: when, since the epoch.
            plan: what was asked.
            place: by which of its charges.
            only_enforced: how many only the algorithm denies that decides.
            only_compared: how many only the other does.
        """
        self.first_us = self.first_us or now_us
        part = self.parts[self._part(now_us)] if self.parts else None
        for column, many in ((ONLY_ENFORCED, only_enforced), (ONLY_COMPARED, only_compared)):
            if many:
                self.minutes.add(now_us / MICROSECONDS, column, many)
                if part is not None:
                    part[column] += many
        if not self.examples or now_us - self.examples[-1].at_us >= EXAMPLE_EVERY_US:
            self.examples.append(_example(now_us, plan, place, only_compared=only_compared > 0))
        self.last_us = now_us

    def _part(self, now_us: int) -> int:
        """Return in which part of the fixed window a time is. Months differ in length: what is left of one counts back from its end."""
        assert self._fixed is not None
        left_us = end_of(now_us, self._fixed.window_us, self._fixed.shape) - now_us
        return min(max(PARTS - 1 - (left_us - 1) * PARTS // self._fixed.window_us, 0), PARTS - 1)


def _has_boundaries(limit: Limit) -> bool:
    return limit.algorithm is Algorithm.FIXED_WINDOW and limit.shape != BEGIN_AT_FIRST_HIT


def _example(now_us: int, plan: Plan, place: int, *, only_compared: bool) -> Example:
    entries: tuple[str, ...] = ()
    if plan.compared is not None and plan.compared.request is not None:
        descriptors = zip(plan.descriptors, plan.compared.request.descriptors, strict=True)
        asked = next(each for meaning, each in descriptors if isinstance(meaning, tuple) and place in meaning)
        entries = tuple(
            _cut(f"{key[:LONGEST_TEXT]}={value[:LONGEST_TEXT]}") for key, value in asked.entries[:MOST_ENTRIES]
        )
    return Example(now_us, only_compared, _cut(plan.charges[place].tenant), entries)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
