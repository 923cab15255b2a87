"""Waiting: the requests that form the next batch, while the last one is with the store. Pure.

Requests with the same plan wait in one line, taken together n at a time; other lines follow in the order of arrival.
"""

from collections import deque
from collections.abc import Callable

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.model import Plan
from ratelimit_svc.store import MAX_CHARGES, MAX_LINES

Answer = Callable[[bytes | RateLimitError], None]
"""Called once with the verdict's bytes, or with the error that the caller is told."""


class Waiting:
    """One request that waits for the store."""

    __slots__ = ("admitted", "answer", "done", "plan")

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

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests: list[Waiting] = []


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
        line = self._joinable.get(waiting.plan)
        if line is None:
            line = WaitingLine(waiting.plan)
            self._lines.append(line)
            if waiting.plan.coalesces:
                self._joinable[waiting.plan] = line
        line.requests.append(waiting)
        self.requests += 1

    def next_batch(self) -> list[WaitingLine]:
        """Take out the lines that go next, as many as one batch holds, without the requests that are done already."""
        batch: list[WaitingLine] = []
        charges = 0
        while self._lines and len(batch) < MAX_LINES:
            line = self._lines[0]
            charges += len(line.plan.charges)
            if charges > MAX_CHARGES:
                break
            self._lines.popleft()
            self._joinable.pop(line.plan, None)
            self.requests -= len(line.requests)
            line.requests = [waiting for waiting in line.requests if not waiting.done]
            if line.requests:
                batch.append(line)
        return batch
