"""The limiter: request bytes in, verdict bytes out. The file to read first.

    submit ──▶ plan ──▶ line of waiting requests ──▶ store.take, a batch at a time ──▶ verdict ──▶ answer
                                │                          │
                                └── deadline passed ───────┴── store away ──▶ the rule's policy ──▶ answer

Group commit: while a batch is with the store, whatever arrives forms the next one; at idle a request leaves at once, so
there is no timer and no added latency. Requests with the same plan coalesce into one line, taken n at a time.

Rules: every request is answered exactly once, in time; a take is never repeated; nothing here knows protobuf, Redis or
HTTP. Metrics are counted here, once, when a verdict is given.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from time import perf_counter_ns

from ratelimit_svc import dynamic_metadata, plans, verdicts
from ratelimit_svc.deadlines import Deadlines
from ratelimit_svc.denials import Denial, Denials
from ratelimit_svc.errors import BadRequestError, RateLimitError, StoreUnavailableError
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import BAD_KEY, Code, Grant, Line, OnStoreFailure, Plan, Request, Verdict
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.store import Store
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.waiting import Answer, Waiting, WaitingLine, WaitingLines

SHARES_KEPT, SHARED_CHARGES = 4096, 8
"""Plans cut to this replica's share that are remembered, and the most charges of one: an outage is when nothing should take
longer than usual. They keep their plans, too, so what they hold is bounded by both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What an operator may tell the limiter."""

    store_timeout_s: float = 0.1
    """The longest a request waits for the store."""
    deadline_margin_s: float = 0.002
    """Taken off a caller's own timeout: what the answer needs to get back to it."""
    replicas: int = 1
    """How many replicas share a limit while the store is away; each enforces ceil(limit / replicas)."""
    queue_limit: int = 10_000
    """How many requests may wait; beyond, the policy answers at once."""
    plan_memory_bytes: int = 64 * 1024 * 1024
    key_prefix: str = ""
    dynamic_metadata: bool = False
    """Tell Envoy's access log, in each answer, which rules met the request and how it stands with them."""
    shadow_mode: bool = False
    """Nobody is denied: each request is charged as if all were enforced, statuses say what that would be, and all pass."""
    denial_log_every_s: float = 1.0
    """At most one denial of each rule in this time is told to `on_denial`; 0: none."""


class Limiter:
    """Answers requests from one store under the rules in force.

    Args:
        store: where the windows are.
        local: windows of this process, for its share of the limits while the store is away.
        decode: bytes to Request; raises BadRequestError.
        encode: Verdict to bytes.
        metrics: counted as verdicts are given.
        options: see Options.
        on_denial: told of some denials, for a log.

    Resource handling: belongs to the running event loop; `close` forgets whoever still waits.
    """

    def __init__(
        self,
        *,
        store: Store,
        local: MemoryStore,
        decode: Callable[[bytes], Request],
        encode: Callable[[Verdict], bytes],
        metrics: Metrics,
        options: Options,
        on_denial: Callable[[Denial], None] | None = None,
    ) -> None:
        self._store, self._local = store, local
        self._decode, self._encode = decode, encode
        self._metrics = metrics
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._planner_of = partial(plans.Planner, prefix=options.key_prefix, keep_requests=options.dynamic_metadata)
        self._planner = self._planner_of(None)
        self.plans = plans.PlanMemory(self._plan, most_bytes=options.plan_memory_bytes)
        self._share = partial(plans.local_share, replicas=options.replicas)
        self._share_of = lru_cache(SHARES_KEPT)(self._share)
        self._deadlines = Deadlines[Waiting](self._loop, self._expire)
        self.waiting = WaitingLines()
        self._denials = Denials(self._loop.time, every_s=options.denial_log_every_s, tell=on_denial)
        self._commits: asyncio.Task[None] | None = None

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

    def use(self, rules: RuleSet) -> None:
        """Put these rules in force. Windows keep their counts: keys do not name limits."""
        self._planner = self._planner_of(rules)
        self._share_of.cache_clear()
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
        if not plan.charges:
            answer(self._tell(plan, verdicts.granted(plan, Grant(1, ()), 0)))
            return None
        waiting = Waiting(plan, answer)
        if self.waiting.requests >= self._options.queue_limit:
            self._metrics.policy_decisions.shed += 1
            self._answer_by_policy(waiting, StoreUnavailableError("too many requests wait for the store"))
            return None
        self.waiting.add(waiting)
        self._deadlines.add(waiting, self._loop.time() + self._patience_s(timeout_s))
        if self._commits is None:
            self._commits = self._loop.create_task(self._commit(), name="group commit")
        return waiting

    async def ask(self, data: bytes, *, timeout_s: float | None = None) -> bytes:
        """Return the verdict's bytes: `submit` for callers that have a task of their own.

        Raises:
            RateLimitError: what the caller is told instead of a verdict.
        """
        answered: asyncio.Future[bytes | RateLimitError] = self._loop.create_future()

        def answer(result: bytes | RateLimitError) -> None:
            if not answered.done():  # cancelled in this very turn of the loop
                answered.set_result(result)

        waiting = self.submit(data, answer, timeout_s=timeout_s)
        try:
            result = await answered
        except asyncio.CancelledError:
            if waiting is not None:
                self.cancel(waiting)
            raise
        if isinstance(result, RateLimitError):
            raise result
        return result

    def cancel(self, waiting: Waiting) -> None:
        """Forget a request whose caller has gone. Not counted if the store does not have it yet."""
        waiting.done = True

    def close(self) -> None:
        """Forget what is left."""
        self._deadlines.close()
        if self._commits is not None:
            self._commits.cancel()

    def _plan(self, data: bytes) -> Plan:
        self._metrics.plan_memory_misses += 1
        return self._planner.plan(self._decode(data))

    def _patience_s(self, timeout_s: float | None) -> float:
        """Return how long a request may wait: below the caller's own timeout, however short that is."""
        longest = self._options.store_timeout_s
        if timeout_s is None:
            return longest
        return min(longest, max(timeout_s - self._options.deadline_margin_s, timeout_s / 2))

    # ── group commit ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _commit(self) -> None:
        """Take batch after batch until nobody waits."""
        try:
            while self.waiting:
                batch = self.waiting.next_batch()
                if batch:
                    await self._take(batch)
        finally:
            self._commits = None

    async def _take(self, batch: Sequence[WaitingLine]) -> None:
        """Take one batch and answer its requests."""
        self._metrics.batches += 1
        self._metrics.lines += len(batch)
        started = perf_counter_ns()
        try:
            grants = await self._store.take([Line(line.plan.charges, len(line.requests)) for line in batch])
        except StoreUnavailableError as error:
            for line in batch:
                self._metrics.store_failures.unavailable += self._fail(line, error)
            return
        except Exception as error:  # noqa: BLE001 — a defect: nobody shall wait for it in vain
            self._report(error, batch)
            return
        self._metrics.store_latency.observe((perf_counter_ns() - started) // 1000)
        for line, grant in zip(batch, grants, strict=True):
            if grant.granted == BAD_KEY:
                foreign = StoreUnavailableError("a window's key holds something that is not ours")
                self._metrics.store_failures.bad_key += self._fail(line, foreign)
                continue
            try:
                self._settle(line, grant)
            except Exception as error:  # noqa: BLE001 — a defect, as above
                self._report(error, [line])

    def _report(self, error: Exception, lines: Sequence[WaitingLine]) -> None:
        """Answer by policy what a defect of ours left unanswered, and let the loop's handler log it."""
        self._loop.call_exception_handler({"message": "a batch could not be answered", "exception": error})
        for line in lines:
            self._metrics.store_failures.unavailable += self._fail(line, StoreUnavailableError("internal error"))

    def _settle(self, line: WaitingLine, grant: Grant) -> None:
        """Answer a line's requests. Grants go first to those that the policy has already let pass."""
        plan, requests = line.plan, line.requests
        if len(requests) > 1:
            requests.sort(key=lambda waiting: (not waiting.admitted, waiting.done))
        later = grant.granted
        passed = refused = 0
        refusal: bytes | None = None
        for waiting in requests:
            later -= 1
            if waiting.done:
                continue
            if later >= 0:
                told = self._tell(plan, verdicts.granted(plan, grant, later))
                passed += 1
            else:
                told = refusal = refusal or self._tell(plan, verdicts.denied(plan, grant))
                refused += 1
            waiting.done = True
            waiting.answer(told)
        if passed:
            self._metrics.granted(plan, grant, passed)
            if grant.overdrawn and verdicts.denying(plan, grant):
                self._note_over_limit(plan, grant, passed)
        if refused:
            self._metrics.denied(plan, verdicts.denying(plan, grant), refused)
            self._note_over_limit(plan, grant, refused)

    def _note_over_limit(self, plan: Plan, grant: Grant | None, requests: int) -> None:
        """Count requests over their limits, and tell the log of some. They are answered: a log that fails harms nobody."""
        self._metrics.over_limit += requests
        if grant is None:
            return
        try:
            self._denials.note(plan, grant, requests)
        except Exception as error:  # noqa: BLE001 — whatever a log does
            self._loop.call_exception_handler({"message": "a denial could not be logged", "exception": error})

    # ── without the store ─────────────────────────────────────────────────────────────────────────────────────────────

    def _expire(self, waiting: Waiting) -> None:
        """Answer a request whose time is up. What the store may yet grant it is handed out by `_settle`."""
        self._metrics.store_failures.timeout += 1
        self._answer_by_policy(waiting, StoreUnavailableError("the store did not answer in time"))

    def _fail(self, line: WaitingLine, error: StoreUnavailableError) -> int:
        """Answer a line that the store did not take; return how many still waited."""
        left = [waiting for waiting in line.requests if not waiting.done]
        for waiting in left:
            self._answer_by_policy(waiting, error)
        return len(left)

    def _answer_by_policy(self, waiting: Waiting, error: StoreUnavailableError) -> None:
        """Answer as the rules say for when the store does not: the strongest policy among the request's gates."""
        waiting.done = True
        plan = waiting.plan
        policy = plan.on_store_failure
        self._metrics.policy_decisions.count(policy)
        if policy is OnStoreFailure.ERROR and not self._options.shadow_mode:  # Envoy might deny for an error
            waiting.answer(error)
            return
        grant: Grant | None = None
        if policy is OnStoreFailure.LOCAL:
            plan = self._share_of(plan) if len(plan.charges) <= SHARED_CHARGES else self._share(plan)
            (grant,) = self._local.take_now([Line(plan.charges, 1)])
            verdict = verdicts.granted(plan, grant, 0) if grant.granted else verdicts.denied(plan, grant)
        else:
            verdict = verdicts.by_policy(plan, policy)
        waiting.admitted = verdict.code is Code.OK
        waiting.answer(self._tell(plan, verdict))
        if verdict.code is Code.OVER_LIMIT:
            self._note_over_limit(plan, grant, 1)

    def _tell(self, plan: Plan, verdict: Verdict) -> bytes:
        """Return a verdict's bytes, with what access logs want to know of it where that is asked for."""
        if self._options.shadow_mode and verdict.code is Code.OVER_LIMIT:
            verdict = verdict._replace(code=Code.OK)
        if plan.request is not None:
            verdict = verdict._replace(metadata=dynamic_metadata.describe(plan, plan.request, verdict))
        return self._encode(verdict)
