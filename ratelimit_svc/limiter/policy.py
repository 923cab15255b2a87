"""Policy: what a request is told without the store, by its rules' `on_store_failure`. Nothing is awaited.

allow, deny   as the rule says, and no window is described
local         this replica's share of the limits, ceil(limit / replicas), from windows in its own memory
error         is no verdict: the limiter hands the error on
"""

from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

from ratelimit_svc.limiter import verdicts
from ratelimit_svc.model import Algorithm, Charge, Grant, Line, OnStoreFailure, Plan, Role, Verdict
from ratelimit_svc.store.memory import MemoryStore

SHARES_KEPT, SHARED_CHARGES = 4096, 8
"""Plans cut to this replica's share that are remembered, and the most charges of one: an outage is when nothing should take
longer than usual. They keep their plans, too, so what they hold is bounded by both."""


class Decision(NamedTuple):
    """What was decided without the store."""

    plan: Plan
    """By which it was: the request's own, or cut to this replica's share."""
    verdict: Verdict
    grant: Grant | None
    """Of the windows in memory; None where none was asked."""


class Policy:
    """Decides without the store.

    Args:
        local: windows of this process.
        replicas: how many replicas share a limit.
    """

    def __init__(self, local: MemoryStore, *, replicas: int) -> None:
        self._local = local
        self.share_among(replicas)

    def share_among(self, replicas: int) -> None:
        """Note how many replicas share a limit from now on."""
        self.replicas = replicas
        self._cut = partial(local_share, replicas=replicas)
        self._share_of = lru_cache(SHARES_KEPT)(self._cut)

    def decide(self, plan: Plan) -> Decision:
        """Return what one such request is told."""
        if plan.on_store_failure is not OnStoreFailure.LOCAL:
            return Decision(plan, verdicts.by_policy(plan, plan.on_store_failure), None)
        share = self._share_of(plan) if len(plan.charges) <= SHARED_CHARGES else self._cut(plan)
        (grant,) = self._local.take_now([Line(share.charges, 1)])
        verdict = verdicts.granted(share, grant) if grant.granted else verdicts.denied(share, grant)
        return Decision(share, verdict, grant)

    def clear(self) -> None:
        """Forget what was made of plans: the rules have changed."""
        self._share_of.cache_clear()


def local_share(plan: Plan, replicas: int) -> Plan:
    """Return the plan with each limit cut to one replica's share, ceil(limit / replicas).

    Only those whose rule says `local` keep their role: beside them, rules that say `allow` let pass, and a quota that does
    is the one that fits.
    """
    fits = any(
        charge.role is Role.QUOTA and charge.rule.on_store_failure is OnStoreFailure.ALLOW for charge in plan.charges
    )

    def share(charge: Charge) -> Charge:
        local = charge.rule.on_store_failure is OnStoreFailure.LOCAL and not (fits and charge.role is Role.QUOTA)
        limit = -(-charge.limit // replicas)
        bucket = charge.algorithm is Algorithm.TOKEN_BUCKET
        shape = -(-charge.shape // replicas) if bucket else charge.shape
        return charge._replace(limit=limit, shape=shape, role=charge.role if local else Role.SHADOW)

    return replace(plan, charges=tuple(map(share, plan.charges)))
