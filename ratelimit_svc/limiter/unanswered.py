"""Unanswered: the requests that the store did not answer, or not in time. The policy answers them, at once or very soon.

What a local share of the limits lets pass is owed to the store, unless the store turns out to have charged it: a line that was
with the store when its requests were answered learns later what became of it, and only what was not charged is owed then.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.limiter.comparison import Comparison
from ratelimit_svc.limiter.deadlines import MOST_AT_ONCE
from ratelimit_svc.limiter.owed import Debt, Owed, debts
from ratelimit_svc.limiter.policy import Policy
from ratelimit_svc.limiter.waiting import Waiting, WaitingLine
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import Code, Grant, OnStoreFailure, Plan, Verdict
from ratelimit_svc.store import Untaken


class Unanswered:
    """Answers by policy.

    Args:
        policy: decides.
        owed: is told what the store has yet to be told.
        clock: the time in µs, that of the windows in memory.
        metrics: counts why the store did not answer, and what was decided.
        owes: false if the policy's windows are the store's own: what passes is charged there at once.
        never_deny: true if an error would be a denial that nobody is to have (`shadow_mode`).
        tell: makes an answer of a verdict.
        comparison: is told of requests that would have been compared.
        on_over_limit: told of each request over its limits, once it is answered.
        on_spoilt: told of the keys of each line that has one which holds something that is not ours.

    Resource handling: belongs to the running event loop; `close` forgets whoever still waits.
    """

    def __init__(
        self,
        policy: Policy,
        owed: Owed,
        *,
        clock: Callable[[], int],
        metrics: Metrics,
        owes: bool,
        never_deny: bool,
        tell: Callable[[Plan, Verdict], bytes],
        comparison: Comparison,
        on_over_limit: Callable[[Plan, Grant | None, int], None],
        on_spoilt: Callable[[Sequence[bytes]], None] | None,
    ) -> None:
        self.policy = policy
        self._owed = owed
        self._clock = clock
        self._metrics = metrics
        self._owes, self._never_deny = owes, never_deny
        self._tell, self._comparison = tell, comparison
        self._on_over_limit, self._on_spoilt = on_over_limit, on_spoilt
        self._loop = asyncio.get_running_loop()
        self._failed: deque[tuple[Waiting, StoreUnavailableError]] = deque()
        """Those whom the store has failed, and who will be answered in the loop's next turns."""

    def __len__(self) -> int:
        return len(self._failed)

    def close(self) -> None:
        """Forget all."""
        self._failed.clear()

    def shed(self, waiting: Waiting) -> None:
        """Answer a request at once that the store is not asked for."""
        self._metrics.policy_decisions.shed += 1
        self.answer(waiting, StoreUnavailableError("too many requests wait for the store, or for too long"))

    def expire(self, waiting: Waiting) -> None:
        """Answer a request whose time is up. What the store may yet grant it is not owed."""
        self._metrics.store_failures.timeout += 1
        self.answer(waiting, StoreUnavailableError("the store did not answer in time"))

    def fail(self, line: WaitingLine, untaken: Untaken) -> None:
        """Answer a line that the store did not take, or not for sure."""
        failed = self._answer_soon(line, untaken.error)
        if untaken.late:
            self._metrics.store_failures.late += failed
        else:
            self._metrics.store_failures.unavailable += failed
        if untaken.outcome is None:
            self.learn(line, 0)
        else:
            untaken.outcome.add_done_callback(partial(self._on_outcome, line))

    def spoilt(self, line: WaitingLine) -> None:
        """Answer a line that has a key which holds something that is not ours."""
        self.learn(line, 0)
        foreign = StoreUnavailableError("a window's key holds something that is not ours")
        self._metrics.store_failures.bad_key += self._answer_soon(line, foreign)
        if self._on_spoilt is not None:
            self._on_spoilt([charge.key for charge in line.plan.charges])

    def learn(self, line: WaitingLine, charged: int) -> None:
        """Note how many of a line's requests the store charged: of those that were let pass, the others are owed."""
        for _ in range(line.learn(charged)):
            self._owe(line.owes)

    def answer(self, waiting: Waiting, error: StoreUnavailableError) -> None:
        """Answer as the rules say for when the store does not: by the strongest policy among the request's gates."""
        waiting.done = True
        policy = waiting.plan.on_store_failure
        self._metrics.policy_decisions.count(policy)
        if waiting.plan.compared is not None:
            self._comparison.note_without_store(waiting.plan)
        if policy is OnStoreFailure.ERROR and not self._never_deny:  # Envoy might deny for an error
            waiting.answer(error)
            self._count(waiting, waiting.plan, None)
            return
        plan, verdict, grant = self.policy.decide(waiting.plan)
        if verdict.code is Code.OK if grant is None else grant.granted:  # what overdraws is told OVER_LIMIT, and counts
            self._note_counted(waiting, plan, grant)
        waiting.answer(self._tell(plan, verdict))
        if verdict.code is Code.OVER_LIMIT:
            self._on_over_limit(plan, grant, 1)
        self._count(waiting, plan, grant)

    def _count(self, waiting: Waiting, share: Plan, grant: Grant | None) -> None:
        """Count a request under the reference implementation's names, where somebody reads these."""
        reference = self._metrics.reference
        if reference is not None:
            reference.by_policy(waiting.plan, share, grant)
            reference.times.note([waiting.since], self._loop.time())

    def _answer_soon(self, line: WaitingLine, error: StoreUnavailableError) -> int:
        """Let a line be answered in the next turns of the loop; return how many still waited."""
        left = [(waiting, error) for waiting in line.requests if not waiting.done]
        if left and not self._failed:
            self._loop.call_soon(self._answer_failed)
        self._failed.extend(left)
        return len(left)

    def _answer_failed(self) -> None:
        """Answer some of those whom the store has failed. In an outage that may be all that wait: others get their turns."""
        left = MOST_AT_ONCE
        try:
            while self._failed and left > 0:
                waiting, error = self._failed.popleft()
                if not waiting.done:
                    left -= 1
                    self.answer(waiting, error)
        finally:
            if self._failed:
                self._loop.call_soon(self._answer_failed)

    def _note_counted(self, waiting: Waiting, share: Plan, grant: Grant | None) -> None:
        """Note that a request passed, or overdrew: what its share of the limits granted is owed unless the store has charged it."""
        line = waiting.line
        owes = () if grant is None or not self._owes else debts(waiting.plan, share, grant, self._clock())
        if line is None or line.pay():
            self._owe(owes)
        else:
            line.owes = owes

    def _on_outcome(self, line: WaitingLine, outcome: asyncio.Future[int]) -> None:
        """Note what became of a line whose answer came too late, or never: if nobody will know, it was not charged."""
        self.learn(line, 0 if outcome.cancelled() else outcome.result())

    def _owe(self, debts: Iterable[Debt]) -> None:
        for debt in debts:
            self._owed.add(replace(debt))
