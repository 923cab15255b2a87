"""Denials, for a log: which of the many are told, and what of each. Pure but for the clock it is handed.

At most one of each rule in a time, which says how many there were since the last. What is kept is a few numbers for each rule
that has ever denied: rules are written by an operator, and no caller makes one.
"""

from collections.abc import Callable
from typing import NamedTuple

from ratelimit_svc.limiter.verdicts import deciding
from ratelimit_svc.model import MICROSECONDS, Grant, Limit, Plan

LONGEST_TENANT = 200
"""Characters of a tenant's name in a log: callers may choose it."""


class Denial(NamedTuple):
    """One denial, and those of the same rule that were not told."""

    rule: str
    """The id of the rule that denied: of several the one that takes longest to fit again."""
    tenant: str
    limit: Limit
    window: str
    """The key of its window in the store."""
    hits: int
    """What the request asked for."""
    remaining: int
    reset_s: int
    """When so many hits would fit, in whole seconds."""
    overdrawn: bool = False
    """True if it was charged all the same: a cost that was known only afterwards."""
    others: int = 0
    """How many denials of this rule were not told since the last that was."""


class Denials:
    """Samples denials.

    Args:
        clock: the time in seconds.
        every_s: at most one of each rule in this time; 0: none.
        tell: whom; None: nobody.
    """

    def __init__(self, clock: Callable[[], float], *, every_s: float, tell: Callable[[Denial], None] | None) -> None:
        self._clock = clock
        self._every_s = every_s
        self._tell = tell if every_s > 0 else None
        self._rules: dict[str, list[float]] = {}
        """When each rule may be told again, and how many were not told since."""

    def note(self, plan: Plan, grant: Grant, requests: int = 1) -> None:
        """Note that so many requests of this plan were told that they are over their limits."""
        if self._tell is None or (place := deciding(plan, grant)) is None:
            return
        charge, outcome = plan.charges[place], grant.outcomes[place]
        now = self._clock()
        state = self._rules.setdefault(charge.rule.id, [now, 0])
        if now < state[0]:
            state[1] += requests
            return
        others, state[0], state[1] = int(state[1]) + requests - 1, now + self._every_s, 0
        assert charge.rule.limit is not None
        self._tell(
            Denial(
                rule=charge.rule.id,
                tenant=charge.tenant[:LONGEST_TENANT],
                limit=charge.rule.limit,
                window=charge.key.decode("utf-8", "replace"),
                hits=charge.hits,
                remaining=max(outcome.remaining, 0),
                reset_s=-(-outcome.fits_in_us // MICROSECONDS),
                overdrawn=grant.overdrawn,
                others=others,
            )
        )
