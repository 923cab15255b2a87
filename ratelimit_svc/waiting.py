"""Waiting: the requests that form the next batch, while the last one is with the store. Pure.

Requests with the same plan wait in one line, taken together n at a time; other lines follow in the order of arrival.
"""

from collections import deque
from collections.abc import Callable

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.model import Plan
from ratelimit_svc.store import MAX_CHARGES, MAX_LINES

MAX_REQUESTS = 1_000
"""Requests in one batch: all are answered in one turn of the loop, which takes a few µs each."""

Answer = Callable[[bytes | RateLimitError], None]
"""Called once with the verdict's bytes, or with the error that the caller is told."""


class Waiting:
    """One request that waits for the store."""

    __slots__ = ("admitted", "answer", "done", "due", "plan")

    due: float
    """Written by `Deadlines`."""

    def __init__(self, plan: Plan, answer: Answer) -> None:
        self.plan = plan
        self.answer = answer
        self.done = False
        """Answered, or cancelled: nobody waits any more."""
        self.admitted = False
        """Let pass by policy while the store had it: the first to be given a grant when that comes."""


class WaitingLine:
    """Requests with the same plan that will be taken together."""

    __slots__ = ("plan", "requests")

    def __init__(self, plan: Plan, requests: list[Waiting]) -> None:
        self.plan = plan
        self.requests = requests


class WaitingLines:
    """All that wait."""

    def __init__(self) -> None:
        self._lines: deque[WaitingLine] = deque()
        self._joinable: dict[Plan, WaitingLine] = {}
        """The lines that requests with the same plan may still join."""
        self.requests = 0
        """How many requests wait, not counting those that are with the store."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, waiting: Waiting) -> None:
        """Let a request wait: in line with its like where that is exact (`Plan.coalesces`), else in one of its own."""
        self.requests += 1
        plan = waiting.plan
        line = self._joinable.get(plan)
        if line is not None:
            line.requests.append(waiting)
            return
        line = WaitingLine(plan, [waiting])
        self._lines.append(line)
        if plan.coalesces:
            self._joinable[plan] = line

    def next_batch(self) -> list[WaitingLine]:
        """Take out the lines that go next, as many as one batch holds, without the requests that are done already.

        Empty only if nobody waits any more.
        """
        batch: list[WaitingLine] = []
        charges, room = MAX_CHARGES, MAX_REQUESTS
        while self._lines and len(batch) < MAX_LINES and room > 0:
            if charges < len(self._lines[0].plan.charges):
                break
            line = self._next_line(room)
            self.requests -= len(line.requests)
            line.requests = [waiting for waiting in line.requests if not waiting.done]
            if line.requests:
                charges -= len(line.plan.charges)
                room -= len(line.requests)
                batch.append(line)
        return batch

    def _next_line(self, most: int) -> WaitingLine:
        """Take out the line that comes next, or as many of its requests."""
        line = self._lines[0]
        if len(line.requests) > most:
            first, line.requests = line.requests[:most], line.requests[most:]
            return WaitingLine(line.plan, first)
        self._lines.popleft()
        self._joinable.pop(line.plan, None)
        return line
