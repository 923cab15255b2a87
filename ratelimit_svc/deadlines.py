"""Deadlines: each waiting request has its own, and one timer serves them all.

One heap rather than a queue per distinct timeout: an engine that knows only what is left of each call's time gives
every call another timeout.
"""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Generic, Protocol, TypeVar

EARLY_S = 0.0005
"""What is due so soon is due now: uvloop rounds its timers to milliseconds, down as well as up."""


class Waiting(Protocol):
    """Something that may be over before its deadline."""

    done: bool


W = TypeVar("W", bound=Waiting)


class Deadlines(Generic[W]):
    """Calls `expire` for each added thing that is not done at its deadline. Runs on one event loop's clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[W], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._heap: list[tuple[float, int, W]] = []
        self._order = count()
        self._timer: asyncio.Handle | None = None
        self._rings_at = inf

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, waiting: W, at: float) -> None:
        """Expire `waiting` at loop time `at` (s) unless it is done by then."""
        heappush(self._heap, (at, next(self._order), waiting))
        if at < self._rings_at:
            self._arm(at)

    def close(self) -> None:
        """Forget all."""
        self._heap.clear()
        self._disarm()

    def _arm(self, at: float) -> None:
        self._disarm()
        self._rings_at = at
        self._timer = self._loop.call_at(at, self._ring)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = None, inf

    def _ring(self) -> None:
        """Expire what is due. If `expire` raises, the loop's exception handler is told, and the rest is not forgotten."""
        self._disarm()
        due = self._loop.time() + EARLY_S
        try:
            while self._heap and (self._heap[0][0] <= due or self._heap[0][2].done):
                waiting = heappop(self._heap)[2]
                if not waiting.done:
                    self._expire(waiting)
        finally:
            if self._heap:
                self._arm(self._heap[0][0])
