"""Deadlines: each waiting request has its own, and one timer serves them all.

Requests of one patience are due in the order in which they came, so each patience has a queue and nothing is ever sorted. An
engine that knows only what is left of each call's time gives every call another one, and so may a caller: `in_steps` makes
few of many.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from math import floor, frexp, inf
from typing import Generic, Protocol, TypeVar

EARLY_S = 0.0005
"""What is due so soon is due now: uvloop rounds its timers to milliseconds, down as well as up."""

STEPS = 32
"""Steps from one patience to twice as much: a request waits 3 % less than it might, at the most."""
SHORTEST_MS = 1 / 16
"""Who has less time than this is answered in the loop's next turn. So there are at most 352 patiences up to 100 ms."""

MOST_AT_ONCE = 100
"""Expired in one turn of the loop; the others come next. Each is decided by a window in memory, which takes up to 18 µs, and as
many may be answered in the same turn whom the store has failed (`limiter`). No caller shall be kept for 5 ms by others."""


def in_steps(patience_s: float) -> float:
    """Return the patience, cut to a whole number of steps."""
    patience_ms = patience_s * 1000
    if patience_ms < SHORTEST_MS:
        return 0
    step_ms = 2.0 ** (frexp(patience_ms)[1] - 1) / STEPS
    return floor(patience_ms / step_ms + 1e-6) * step_ms / 1000


class Waiting(Protocol):
    """Something that may be over before its deadline."""

    done: bool
    since: float
    """When it began to wait, on the same clock."""
    due: float
    """When it expires (s, on the loop's clock); written by `Deadlines`."""


W = TypeVar("W", bound=Waiting)


class Deadlines(Generic[W]):
    """Calls `expire` for each added thing that is not done at its deadline. Runs on one event loop's clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[W], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._queues: dict[float, deque[W]] = {}
        """By patience. None is empty for longer than until the timer rings."""
        self._timer: asyncio.Handle | None = None
        self._rings_at = inf

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, waiting: W, patience_s: float) -> None:
        """Expire `waiting` after so much time unless it is done by then. Few different ones are expected (`in_steps`)."""
        queue = self._queues.get(patience_s)
        if queue is None:
            queue = self._queues[patience_s] = deque()
        while queue and queue[0].done:  # so that the queue is about as long as requests are waiting
            queue.popleft()
        waiting.due = due = waiting.since + patience_s
        queue.append(waiting)
        if due < self._rings_at:
            self._arm(due)

    def close(self) -> None:
        """Forget all."""
        self._queues.clear()
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
        now, left = self._loop.time() + EARLY_S, MOST_AT_ONCE
        try:
            for patience_s, queue in list(self._queues.items()):
                while queue and (queue[0].done or (queue[0].due <= now and left > 0)):
                    waiting = queue.popleft()
                    if not waiting.done:
                        left -= 1
                        self._expire(waiting)
                if not queue:
                    del self._queues[patience_s]
        finally:
            if heads := [queue[0].due for queue in self._queues.values() if queue]:
                self._arm(min(heads))
