"""Compared: what a request would mean if its rules counted by the algorithms that they are compared with. Pure.

A plan is made with it (`plans`); how often the two differ is counted in `comparison`.
"""

from ratelimit_svc.model import Charge, Kind, OnStoreFailure, Overdraft, Plan, Request
from ratelimit_svc.store import MAX_CHARGES
from ratelimit_svc.store.keys import beside


def compare(plan: Plan, request: Request) -> Plan:
    """Return the plan with what it would mean if the rules that are compared counted by their other algorithms.

    It does not coalesce if it looks at windows that decide: the second of n requests would have to see what was charged there
    for the first. A request of more charges than fit into one batch twice is not compared.
    """
    compared = [charge.rule.compared is not None for charge in plan.charges]
    if any(compared) and 2 * len(compared) <= MAX_CHARGES:
        plan.coalesces = plan.coalesces and all(compared)
        charges = tuple(map(_compared, plan.charges))
        plan.compared = Plan(plan.descriptors, charges, plan.coalesces, OnStoreFailure.ALLOW, request)
    return plan


def _compared(charge: Charge) -> Charge:
    """Return what stands in a charge's place where its rule counts by the algorithm that it is compared with.

    Where it is compared with none, its window is only looked at; what a request gives back there, its other charges do not see.
    """
    limit = charge.rule.compared
    if limit is not None:
        return charge._replace(
            key=beside(charge.key, limit.algorithm), algorithm=limit.algorithm, limit=limit.most, shape=limit.shape
        )
    if charge.kind is Kind.POSITIVE:
        return charge._replace(kind=Kind.LOOK)
    return charge._replace(hits=0, overdraft=Overdraft.NEVER)
