"""Refusals: denials that are remembered, so that whoever asks again in vain is told so at once, and the store is not asked.

A replica that is overloaded or cut off goes on denying so, and a flood of denials costs the store next to nothing.

    learnt     of a request that the store denied: each gate that did not fit, by its window's key. So many hits, under such a
               limit, will not fit before their reset
    used       a request is denied if one of its gates asks for as many hits or more, under that limit or a lower one. What it asks
               of a check is what a check needs
    dropped    at its time, which is its reset, one slice or LONGEST_US after its batch was sent, whichever is first; on a refund
               of this process, when it is submitted and when the store has had it; with new rules. A raised limit is not met

Rules:
1. Within one process nobody is denied from memory whom the store would let pass at that moment. A batch is sent before the
   store looks at its clock, so what is counted from there is over before the store's own reset is.
2. Only gates are remembered: a quota or a shadow alone denies nobody. Nor is a request with refunds ever denied from here, nor a
   charge that counts even if it does not fit. One that may overdraw (`Overdraft.AUTO`) does so where anything is left: only
   where not even one hit fits is it denied.
3. Of a key that a request names twice only the first charge says how its hits stand; what comes after has the others' before it.
4. A denial beside hits that are about to be undone (`Grant.passing`) says nothing of the next moment, and is not learnt.
5. What changes elsewhere is seen late, by at most the shortest of the three times: another replica's refund, or the higher rate of a
   bucket in its rules; a store that was emptied, or lost the key, or whose clock was set forward; and, where several batches are
   with a Cluster, a refund of our own whose answer was quicker than that of an earlier denial. A limit that another replica's
   rules raise is not ours, and a key that its check makes a budget is covered by rule 2.
6. A request that is compared (`Plan.compared`) is neither denied from here nor learnt of: its windows have to be asked, lest the
   comparison miss it.
7. Who asks for more than the least that was denied is told when the least would fit. No other window was asked, so none is
   described (`verdicts.remembered`).

Pure but for the clock it is handed.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from ratelimit_svc.model import MICROSECONDS, Algorithm, Charge, Grant, Kind, Outcome, Overdraft, Plan, Role
from ratelimit_svc.windows.fixed_window import FixedWindow
from ratelimit_svc.windows.reference_window import ReferenceWindow
from ratelimit_svc.windows.sliding_window import SlidingWindow
from ratelimit_svc.windows.token_bucket import TokenBucket

LONGEST_US = MICROSECONDS
"""The longest that a denial is remembered."""

DENIAL_BYTES = 1_500
"""What a window costs that is remembered to be full, with what its last caller was told (measured: test_refusals)."""

EXPIRED_AT_ONCE = 1_000
"""Forgotten at one time: requests are waiting."""

CHECK_NEEDS = {
    Algorithm.SLIDING_WINDOW: SlidingWindow.CHECK_NEEDS,
    Algorithm.FIXED_WINDOW: FixedWindow.CHECK_NEEDS,
    Algorithm.TOKEN_BUCKET: TokenBucket.CHECK_NEEDS,
    Algorithm.REFERENCE_WINDOW: ReferenceWindow.CHECK_NEEDS,
}

_GATE, _REFUND = Role.GATE, Kind.REFUND
_NEVER, _AUTO = Overdraft.NEVER, Overdraft.AUTO
"""By names of their own: to find a member in its class takes 50 ns, each time."""

_NOT_ASKED = Outcome(0, 0, 0)


@dataclass(slots=True, eq=False)
class Remembered:
    """What the requests of one plan are told from memory."""

    plan: Plan
    places: list[int]
    """Which of its charges are known not to fit."""
    grant: Grant
    """How these stand; the others were not asked."""
    until_us: int
    """From then on it is another one: a second less, or none."""
    told: bytes | None = None
    """It in bytes, once somebody was told."""
    uncounted: int = 0
    """How many were told, and have yet to be counted."""


class Refusal:
    """What is known of one window: so many hits do not fit."""

    __slots__ = ("_limit", "_needs", "_remaining", "fits_at_us", "last", "sent_us", "until_us")

    last: Remembered | None
    """What the last were told who were denied for it: in a flood it is the same each time."""

    def __init__(self, charge: Charge, outcome: Outcome, sent_us: int) -> None:
        self._needs = _needs(charge)
        self._limit = charge.limit
        self._remaining = outcome.remaining
        self.sent_us = sent_us
        self.fits_at_us = sent_us + outcome.fits_in_us
        self.until_us = min(self.fits_at_us, sent_us + _stale_us(charge))
        self.last = None

    def denies(self, charge: Charge) -> bool:
        """Return whether a charge on its window does not fit either."""
        if charge.limit > self._limit or _needs(charge) < self._needs:
            return False
        # as long as not one hit fits nothing is left to overdraw; of more hits it is not known when one of them does
        return charge.overdraft is _NEVER or charge.hits == 0 or (charge.overdraft is _AUTO and self._needs <= 1)

    def outcome(self, charge: Charge, now_us: int) -> Outcome:
        """Return how a charge that it denies stands."""
        return Outcome(max(self._remaining - self._limit + charge.limit, 0), 0, self.fits_at_us - now_us)


class Refusals:
    """All that are remembered, by the keys of their windows.

    Args:
        clock: the time in µs; steady.
        most_keys: how many are kept at most (DENIAL_MEMORY_KEYS), the oldest go first; 0: none.
    """

    def __init__(self, clock: Callable[[], int], *, most_keys: int) -> None:
        self._clock = clock
        self._most_keys = most_keys
        self.windows: OrderedDict[bytes, Refusal] = OrderedDict()
        self._since_us = 0
        """What was sent before is of rules that were replaced."""

    def __len__(self) -> int:
        return len(self.windows)

    def __repr__(self) -> str:
        return f"<Refusals: {len(self)} windows>"

    def learn(self, plan: Plan, grant: Grant, sent_us: int) -> None:
        """Remember why the store has denied a request.

        Args:
            plan: what was asked.
            grant: the store's answer.
            sent_us: when its batch was sent.
        """
        if grant.passing or sent_us < self._since_us or not self._most_keys or plan.compared is not None:
            return
        seen = set()
        for charge, outcome in zip(plan.charges, grant.outcomes, strict=True):
            if charge.role is _GATE and outcome.fits_in_us > 0 and charge.key not in seen:
                refusal = Refusal(charge, outcome, sent_us)
                if refusal.denies(charge):
                    self._keep(charge.key, refusal)
            seen.add(charge.key)

    def _keep(self, key: bytes, refusal: Refusal) -> None:
        self.windows[key] = refusal
        self.windows.move_to_end(key)
        if len(self.windows) > self._most_keys:
            self.windows.popitem(last=False)

    def find(self, plan: Plan) -> Remembered | None:
        """Return what a request is told that would be denied; None: the store has to be asked. A refund drops what it gives to."""
        for charge in plan.charges:
            if (refusal := self.windows.get(charge.key)) is not None:
                return self._look(plan, refusal)
        return None

    def _look(self, plan: Plan, first: Refusal) -> Remembered | None:
        """Look closer at a request on windows of which something is remembered, of one of them for sure."""
        now, since = self._clock(), self._since_us
        last = first.last
        if last is not None and last.plan is plan and now < last.until_us and first.sent_us >= since:
            return last
        if plan.charges[0].kind is _REFUND:
            self.drop(plan)
            return None
        if plan.compared is not None:
            return None
        found: dict[int, Refusal] = {}
        for place, charge in enumerate(plan.charges):
            refusal = self.windows.get(charge.key)
            if refusal is None or now >= refusal.until_us or refusal.sent_us < since:
                continue
            if charge.role is _GATE and refusal.denies(charge):
                found[place] = refusal
        return _tell(plan, found, now) if found else None

    def drop(self, plan: Plan) -> None:
        """Forget what is known of the windows that a plan's refunds give to: they come first."""
        for charge in plan.charges:
            if charge.kind is not _REFUND:
                return
            self.windows.pop(charge.key, None)

    def forget(self) -> None:
        """Forget all: the rules have changed. What is left of it is let go by `expire`: all at once would keep everyone waiting."""
        self._since_us = self._clock()

    def expire(self) -> None:
        """Let go of what is over: of the oldest, EXPIRED_AT_ONCE at most. That decides nothing."""
        now = self._clock()
        over = [
            key
            for key, refusal in islice(self.windows.items(), EXPIRED_AT_ONCE)
            if now >= refusal.until_us or refusal.sent_us < self._since_us
        ]
        for key in over:
            del self.windows[key]


def most_in(size: int) -> int:
    """Return how many windows may be remembered in so many bytes (LOCAL_CACHE_SIZE_IN_BYTES); 0 bytes: 0, else at least 1."""
    return -(-size // DENIAL_BYTES)


def _needs(charge: Charge) -> int:
    """Return how many hits have to fit for a charge to fit."""
    return charge.hits or CHECK_NEEDS[charge.algorithm]


def _stale_us(charge: Charge) -> int:
    """Return how long one may deny for what may have changed since."""
    if charge.algorithm is Algorithm.SLIDING_WINDOW:
        return min(-(-charge.window_us // charge.shape), LONGEST_US)
    return LONGEST_US


def _tell(plan: Plan, found: dict[int, Refusal], now_us: int) -> Remembered:
    """Return what a request is told, and keep it for the next of its like."""
    outcomes = tuple(
        found[place].outcome(charge, now_us) if place in found else _NOT_ASKED
        for place, charge in enumerate(plan.charges)
    )
    until_us = min(min(refusal.until_us, _ticks_us(refusal, now_us)) for refusal in found.values())
    told = Remembered(plan, list(found), Grant(0, outcomes), until_us)
    next(iter(found.values())).last = told
    return told


def _ticks_us(refusal: Refusal, now_us: int) -> int:
    """Return when the whole seconds that are left become one less."""
    left_us = refusal.fits_at_us - now_us
    return now_us + 1 + (left_us - 1) % MICROSECONDS
