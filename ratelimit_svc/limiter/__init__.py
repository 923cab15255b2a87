"""The limiter: request bytes in, verdict bytes out. The file to read first.

    submit ──▶ plan ──▶ line of waiting requests ──▶ store.take, a batch at a time ──▶ verdict ──▶ answer
                                │                          │
                                └── deadline passed ───────┴── store away ──▶ the rule's policy ──▶ answer

While a batch is with the store, whatever arrives forms the next one (`group_commit`). Requests with the same plan coalesce into
one line, taken n at a time. No request has a task, a future or a coroutine of its own.

Rules: every request is answered exactly once, in time; a take is never repeated; nothing here knows protobuf, Redis or
HTTP. What becomes of requests is counted here, once, when a verdict is given. A denial that is remembered (`refusals`) is told
again without asking the store, and while too many wait, or for too long, the policy answers at once.

options            what an operator may tell it
plans              what a request means; reference_keys: in whose keys it is counted; compared: what another algorithm makes of it
waiting            who waits for the next batch, and deadlines: how long
group_commit       one batch after the other to the store
verdicts           what the store's grants say; telling: as bytes, with response_headers and dynamic_metadata
unanswered         whom the store did not answer: policy, and owed, what the store is to be told when it is back
refusals           denials that are remembered; denials: those that are logged
comparison         how often two algorithms differ
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from ratelimit_svc.errors import BadRequestError, RateLimitError
from ratelimit_svc.limiter import plans, verdicts
from ratelimit_svc.limiter.comparison import Comparison
from ratelimit_svc.limiter.deadlines import Deadlines, in_steps
from ratelimit_svc.limiter.denials import Denial, Denials
from ratelimit_svc.limiter.group_commit import GroupCommit
from ratelimit_svc.limiter.options import Options
from ratelimit_svc.limiter.owed import Owed
from ratelimit_svc.limiter.policy import Policy
from ratelimit_svc.limiter.refusals import Refusals, Remembered
from ratelimit_svc.limiter.telling import Telling
from ratelimit_svc.limiter.unanswered import Unanswered
from ratelimit_svc.limiter.waiting import Answer, Waiting, WaitingLine, WaitingLines
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import BAD_KEY, Code, Grant, Plan, Request, Verdict
from ratelimit_svc.pressure import Pressure
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.store import Store, Untaken
from ratelimit_svc.store.memory import MemoryStore

TIMEOUTS_KEPT = 1024
"""Callers' timeouts whose patience is remembered: Envoy's is the same with every call."""


class Limiter:
    """Answers requests from one store under the rules in force.

    Args:
        store: where the windows are.
        local: windows of this process, for its share of the limits while the store is away; without Redis, the store itself.
        clock: their time in µs.
        decode: bytes to Request; raises BadRequestError.
        encode: Verdict to bytes, `verdicts.earlier` included: its other arguments are what that takes.
        metrics: counted as verdicts are given.
        options: see Options.
        pressure: says when to shed because the process cannot keep up; None: never.
        on_denial: told of some denials, for a log.
        on_spoilt: told of the keys of each line that has one which holds something that is not ours, for a log.

    Resource handling: belongs to the running event loop; `close` forgets whoever still waits.
    """

    def __init__(
        self,
        *,
        store: Store,
        local: MemoryStore,
        clock: Callable[[], int],
        decode: Callable[[bytes], Request],
        encode: Callable[[Verdict, int, Sequence[int]], bytes],
        metrics: Metrics,
        options: Options,
        pressure: Pressure | None = None,
        on_denial: Callable[[Denial], None] | None = None,
        on_spoilt: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        self._decode = decode
        self._tell = Telling(
            encode,
            shadow_mode=options.shadow_mode,
            header_names=options.header_names,
            dynamic_metadata=options.dynamic_metadata,
        ).tell
        self._metrics, self._reference = metrics, metrics.reference
        self._pressure = pressure or Pressure()
        self._options, self._queue_limit = options, options.queue_limit
        self._loop = asyncio.get_running_loop()
        self._planner_of = partial(options.planner, prefix=options.key_prefix, keep_requests=options.dynamic_metadata)
        self._planner = self._planner_of(None)
        self.plans = plans.PlanMemory(self._plan, most_bytes=options.plan_memory_bytes)
        self._patience_s = lru_cache(TIMEOUTS_KEPT)(self._patience_of)
        self.waiting = WaitingLines(options.queue_age_s)
        self.owed = Owed(clock, most_keys=options.owed_keys)
        self._policy = Policy(local, replicas=options.replicas)
        self.refusals = Refusals(clock, most_keys=options.denial_memory_keys)
        self.comparison = Comparison(clock, metrics)
        self._uncounted: list[Remembered] = []
        """What was told from memory in this turn of the loop."""
        self._unanswered = Unanswered(
            self._policy,
            self.owed,
            clock=clock,
            metrics=metrics,
            owes=store is not local,
            never_deny=options.shadow_mode,
            tell=self._tell,
            comparison=self.comparison,
            on_over_limit=self._note_over_limit,
            on_spoilt=on_spoilt,
        )
        self._deadlines = Deadlines[Waiting](self._loop, self._unanswered.expire)
        self._commits = GroupCommit(
            store,
            self.waiting,
            self.owed,
            clock,
            most=options.batches_in_flight,
            settle=self._settle,
            metrics=metrics,
            comparison=self.comparison,
        )
        self._denials = Denials(self._loop.time, every_s=options.denial_log_every_s, tell=on_denial)

    def __repr__(self) -> str:
        return f"<Limiter: {self.waiting.requests} waiting, {self.plans!r}>"

    @property
    def shadow_mode(self) -> bool:
        """Whether nobody is denied."""
        return self._options.shadow_mode

    @property
    def rules(self) -> RuleSet | None:
        """The rules in force."""
        return self._planner.rules

    @property
    def replicas(self) -> int:
        """How many share a limit while the store is away."""
        return self._policy.replicas

    def share_among(self, replicas: int) -> None:
        """Note how many replicas there are: so many share a limit from now on, but no fewer than the operator has told."""
        self._policy.share_among(max(self._options.replicas, replicas))

    def use(self, rules: RuleSet) -> None:
        """Put these rules in force. Windows keep their counts: keys do not name limits."""
        self._planner = self._planner_of(rules)
        self._unanswered.policy.clear()
        self.refusals.forget()
        self.comparison.use(rules.rules)
        self.plans.clear()

    def submit(self, data: bytes, answer: Answer, *, timeout_s: float | None = None) -> Waiting | None:
        """Answer a request: at once if no window is asked, else when the store has, or at the deadline by policy.

        Args:
            data: a serialized RateLimitRequest.
            answer: called exactly once, unless the request is cancelled first; possibly before this returns.
            timeout_s: what the caller grants, counted from now; None: the store timeout alone counts.

        Returns:
            A handle for `cancel`; None if the request is answered already.
        """
        self._metrics.requests += 1
        try:
            plan = self.plans.get(data)
        except BadRequestError as error:
            self._metrics.bad_requests += 1
            answer(error)
            return None
        if plan.answer is not None:
            if self._reference is not None:
                self._reference.answered(plan)
            answer(plan.answer)
            return None
        if self.refusals.windows and (refusal := self.refusals.find(plan)) is not None:
            self._refuse(refusal, answer)
            return None
        waiting = Waiting(plan, answer, self._loop.time())
        if (
            self._pressure.shedding
            or self.waiting.requests + len(self._unanswered) >= self._queue_limit
            or waiting.since > self.waiting.stuck_from
        ):
            self._unanswered.shed(waiting)
            return None
        self._deadlines.add(waiting, self._patience_s(timeout_s))
        self.waiting.add(waiting)
        self._commits.wake()
        return waiting

    async def ask(self, data: bytes, *, timeout_s: float | None = None) -> bytes:
        """Return the verdict's bytes: `submit` for callers that have a task of their own.

        Raises:
            RateLimitError: what the caller is told instead of a verdict.
        """
        answered: asyncio.Future[bytes | RateLimitError] = self._loop.create_future()

        def answer(result: bytes | RateLimitError) -> None:
            if not answered.done():  # noqa: F821 — deleted below; it is done if cancelled in this very turn of the loop
                answered.set_result(result)  # noqa: F821

        waiting = self.submit(data, answer, timeout_s=timeout_s)
        try:
            result = await answered
        except asyncio.CancelledError:
            if waiting is not None:
                self.cancel(waiting)
            raise
        if not isinstance(result, RateLimitError):
            return result
        try:
            raise result
        finally:
            del result, answered  # the error holds this frame

    def cancel(self, waiting: Waiting) -> None:
        """Forget a request whose caller has gone. Not counted if the store does not have it yet."""
        waiting.done = True

    def close(self) -> None:
        """Forget what is left."""
        self._deadlines.close()
        self._unanswered.close()
        self._commits.close()

    def _plan(self, data: bytes) -> Plan:
        self._metrics.plan_memory_misses += 1
        request = self._decode(data)
        plan = self._planner.plan(request)
        if self._reference is not None and self.rules is not None:
            plan.counted = self._reference.of(plan, request, known=request.domain in self.rules.domains)
        if not plan.charges:
            plan.answer = self._tell(plan, verdicts.granted(plan, Grant(1, ())))
        return plan

    def _patience_of(self, timeout_s: float | None) -> float:
        """Return how long a request may wait: below the caller's own timeout, however short that is."""
        longest = self._options.store_timeout_s
        if timeout_s is None:
            return longest
        patience_s = max(timeout_s - self._options.deadline_margin_s, timeout_s / 2)
        return longest if patience_s >= longest else in_steps(patience_s)

    def _refuse(self, refusal: Remembered, answer: Answer) -> None:
        """Deny a request from memory. All that are denied in one turn of the loop are counted together, in the next."""
        if refusal.told is None:
            refusal.told = self._tell(refusal.plan, verdicts.remembered(refusal.plan, refusal.grant))
        if not refusal.uncounted:
            if not self._uncounted:
                self._loop.call_soon(self._count_refused)
            self._uncounted.append(refusal)
        refusal.uncounted += 1
        answer(refusal.told)

    def _count_refused(self) -> None:
        refusals, self._uncounted = self._uncounted, []
        for refusal in refusals:
            requests, refusal.uncounted = refusal.uncounted, 0
            self._metrics.told_from_memory(refusal.plan, refusal.grant, refusal.places, requests)
            self._note_over_limit(refusal.plan, refusal.grant, requests)

    # ── with the store ────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self, line: WaitingLine, grant: Grant | Untaken) -> None:
        """Answer a line's requests. Grants go first to those that the policy has already let pass, last to who has gone."""
        if self.refusals.windows:
            self.refusals.drop(line.plan)
        if isinstance(grant, Untaken):
            self._unanswered.fail(line, grant)
            return
        if grant.granted == BAD_KEY:
            self._unanswered.spoilt(line)
            return
        grants = grant.granted
        plan, requests = line.plan, line.requests
        if line.let_pass:
            self._unanswered.learn(line, grants)
            grants = line.charged or 0
        line.charged = 0
        requests = [waiting for waiting in requests if not waiting.done]
        passed, refused = requests[:grants], requests[grants:]
        if passed:
            self._pass(plan, grant, passed, grants - 1)
        if refused:
            denying = verdicts.denying(plan, grant)
            told = self._tell(plan, verdicts.denied(plan, grant))
            for waiting in refused:
                if not waiting.done:  # else another's answer has made its caller go
                    waiting.done = True
                    waiting.answer(told)
            self.refusals.learn(plan, grant, line.sent_us)
            self._metrics.denied(plan, denying, len(refused))
            self._note_over_limit(plan, grant, len(refused))
        if self._reference is not None and requests:
            self._reference.settled(plan, grant, len(passed), [each.since for each in requests], self._loop.time())

    def _pass(self, plan: Plan, grant: Grant, requests: Sequence[Waiting], later: int) -> None:
        """Answer those of a line that were granted: so many come after the first."""
        verdict = verdicts.granted(plan, grant)
        hits = verdicts.taken(plan) if later else ()
        for waiting in requests:
            if not waiting.done:  # else another's answer has made its caller go
                told = self._tell(plan, verdict, later, hits)
                waiting.done = True
                waiting.answer(told)
            later -= 1
        self._metrics.granted(plan, grant, len(requests))
        if verdict.code is Code.OVER_LIMIT:  # overdrawn
            self._note_over_limit(plan, grant, len(requests))

    def _note_over_limit(self, plan: Plan, grant: Grant | None, requests: int) -> None:
        """Count requests over their limits, and tell the log of some. They are answered: a log that fails harms nobody."""
        self._metrics.over_limit += requests
        if grant is None:
            return
        try:
            self._denials.note(plan, grant, requests)
        except Exception as error:  # noqa: BLE001 — whatever a log does
            self._loop.call_exception_handler({"message": "a denial could not be logged", "exception": error})
