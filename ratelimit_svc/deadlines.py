"""Deadlines: each waiting request has its own, and one timer serves them all.

One heap rather than a queue per distinct timeout: an engine that knows only what is left of each call's time gives
every call another timeout.
"""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Generic, Protocol, TypeVar


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
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, waiting: W, at: float) -> None:
        """Expire `waiting` at loop time `at` (s) unless it is done by then."""
        heappush(self._heap, (at, next(self._order), waiting))
        if self._timer is None or at < self._timer.when():
            self._arm(at)

    def close(self) -> None:
        """Forget all."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].done):
            waiting = heappop(self._heap)[2]
            if not waiting.done:
                self._expire(waiting)
        self._timer = None
        if self._heap:
            self._arm(self._heap[0][0])
