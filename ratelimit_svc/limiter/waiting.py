"""Waiting: the requests that form the next batch, while the last one is with the store. Pure.

Requests with the same plan wait in one line, taken together n at a time; other lines follow in the order of arrival.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.limiter.owed import Debt
from ratelimit_svc.model import Plan
from ratelimit_svc.store import MAX_CHARGES, MAX_LINES

MAX_REQUESTS = 1_000
"""Requests in one batch: all are answered in one turn of the loop, which takes a few µs each."""

Answer = Callable[[bytes | RateLimitError], None]
"""Called once with the verdict's bytes, or with the error that the caller is told."""


class Waiting:
    """One request that waits for the store."""

    __slots__ = ("answer", "done", "due", "line", "plan", "since")

    def __init__(self, plan: Plan, answer: Answer, since: float) -> None:
        self.plan = plan
        self.answer = answer
        self.since = since
        """When it came, by the loop's clock in s."""
        self.done = False
        """Answered, or cancelled: nobody waits any more."""
        self.due = 0.0
        """Written by `Deadlines`."""
        self.line: WaitingLine | None = None
        """In which it waits."""


class WaitingLine:
    """Requests with the same plan that will be taken together.

    Some may be let pass by policy before the store has told how many it charged. They are the first to be given its grants,
    and only those beyond are owed.
    """

    __slots__ = ("charged", "due", "let_pass", "owes", "plan", "requests", "sent_us")

    owes: Sequence[Debt]
    """What each of those that were let pass owes."""

    def __init__(self, plan: Plan, requests: list[Waiting]) -> None:
        self.plan = plan
        self.requests = requests
        self.due = 0.0
        """When the last of them is, by the loop's clock in s."""
        self.sent_us = 0
        """When it was sent, by the clock of this process's windows."""
        self.charged: int | None = 0
        """How many requests the store charged for which nobody has passed yet; None: with the store."""
        self.let_pass = 0
        """How many were let pass by policy while it was with the store."""
        self.owes = ()

    def pay(self) -> bool:
        """Note that one is let pass by policy. Return whether it has to be owed: not if the store has charged it, or may have."""
        if self.charged is None:
            self.let_pass += 1
            return False
        if self.charged > 0:
            self.charged -= 1
            return False
        return True

    def learn(self, charged: int) -> int:
        """Note how many the store charged, and return for how many of those that were let pass it did not."""
        unpaid = max(0, self.let_pass - charged)
        self.charged = max(0, charged - self.let_pass)
        self.let_pass = 0
        return unpaid


class WaitingLines:
    """All that wait.

    Args:
        longest_s: how long the oldest may have waited (QUEUE_AGE).
    """

    def __init__(self, longest_s: float = inf) -> None:
        self._longest_s = longest_s
        self._lines: deque[WaitingLine] = deque()
        self._joinable: dict[Plan, WaitingLine] = {}
        """The lines that requests with the same plan may still join."""
        self.requests = 0
        """How many requests wait, not counting those that are with the store."""
        self.stuck_from = inf
        """When the oldest of them will have waited for too long, by the loop's clock in s."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, waiting: Waiting) -> None:
        """Let a request wait: in line with its like where that is exact (`Plan.coalesces`), else in one of its own."""
        self.requests += 1
        plan = waiting.plan
        waiting.line = line = self._joinable.get(plan)
        if line is None:
            if not self._lines:
                self.stuck_from = waiting.since + self._longest_s
            waiting.line = line = WaitingLine(plan, [])
            self._lines.append(line)
            if plan.coalesces:
                self._joinable[plan] = line
        line.requests.append(waiting)
        if waiting.due > line.due:  # noqa: PLR1730 — in a quarter of the time that `max` takes
            line.due = waiting.due

    def next_batch(self, most_charges: int = MAX_CHARGES) -> list[WaitingLine]:
        """Take out the lines that go next, as many as one batch holds, without the requests that are done already.

        Empty only if nobody waits any more.

        Args:
            most_charges: how many charges they may have; a line that has more by itself goes alone.
        """
        batch: list[WaitingLine] = []
        charges, room = most_charges, MAX_REQUESTS
        while self._lines and len(batch) < MAX_LINES and room > 0:
            if batch and charges < _weight(self._lines[0].plan):
                break
            line = self._next_line(room)
            self.requests -= len(line.requests)
            line.requests = [waiting for waiting in line.requests if not waiting.done]
            if line.requests:
                line.charged = None
                charges -= _weight(line.plan)
                room -= len(line.requests)
                batch.append(line)
        self.stuck_from = self._lines[0].requests[0].since + self._longest_s if self._lines else inf
        return batch

    def _next_line(self, most: int) -> WaitingLine:
        """Take out the line that comes next, or as many of its requests."""
        line = self._lines[0]
        if len(line.requests) > most:
            first = WaitingLine(line.plan, line.requests[:most])
            first.due, line.requests = line.due, line.requests[most:]
            for waiting in first.requests:
                waiting.line = first
            return first
        self._lines.popleft()
        self._joinable.pop(line.plan, None)
        return line


def _weight(plan: Plan) -> int:
    """Return how many charges go to the store with one of its lines."""
    return len(plan.charges) if plan.compared is None else 2 * len(plan.charges)
