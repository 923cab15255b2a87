"""Plan: what a request means, found once per distinct request and remembered by its bytes.

Envoy sends the same bytes for the same descriptors, so decoding, matching and key building are not on the way of every
request. The memory is bounded by bytes, least recently used first out, and dropped whole when rules change.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from ratelimit_svc.errors import BadRequestError
from ratelimit_svc.model import MAX_HITS, Algorithm, Charge, Descriptor, OnStoreFailure, Plan, Request, Role, Rule
from ratelimit_svc.rules.match import Domain, RuleSet, find
from ratelimit_svc.store import MAX_CHARGES
from ratelimit_svc.store.keys import key

PLAN_BYTES = 700
"""What a remembered plan costs beside its request and its charges (measured: test_limiter)."""
CHARGE_BYTES = 400
"""What one charge and its place in the plan cost."""


def plan(request: Request, rules: RuleSet | None, *, prefix: str = "") -> Plan:
    """Return what the request means under these rules.

    Raises:
        BadRequestError: no rules are loaded, or the request has more descriptors than one batch may hold.
    """
    if rules is None:
        raise BadRequestError("no rate limit configuration loaded")
    if len(request.descriptors) > MAX_CHARGES:
        raise BadRequestError(
            f"rate limit request has {len(request.descriptors)} descriptors; at most {MAX_CHARGES} are taken"
        )
    domain = rules.domains.get(request.domain)
    descriptors = tuple(_meaning(domain, descriptor, request.hits, prefix) for descriptor in request.descriptors)
    charges = tuple(meaning for meaning in descriptors if isinstance(meaning, Charge))
    return Plan(
        descriptors=descriptors,
        charges=charges,
        coalesces=_coalesces(charges),
        on_store_failure=max(
            (charge.rule.on_store_failure for charge in charges if charge.role is Role.GATE),
            default=OnStoreFailure.ALLOW,
        ),
    )


def _meaning(domain: Domain | None, descriptor: Descriptor, request_hits: int, prefix: str) -> Charge | Rule | None:
    """Return the descriptor's charge, its rule where nothing is to be counted, or None where no rule matches."""
    rule = find(domain, descriptor.entries) if domain is not None else None
    if domain is None or rule is None or rule.limit is None:
        return rule
    if descriptor.refund:
        # not given back yet: the window stays as it is, so the limit is only kept more strictly
        return None
    hits = max(request_hits, 1) if descriptor.hits is None else descriptor.hits
    return Charge(
        key=key(
            prefix,
            domain.name,
            descriptor.entries,
            tenant=None if domain.tenant is None else domain.tenant_of(descriptor.entries),
            algorithm=Algorithm.SLIDING_WINDOW,
            window_us=rule.limit.window_us,
        ),
        algorithm=Algorithm.SLIDING_WINDOW,
        limit=rule.limit.requests_per_unit,
        window_us=rule.limit.window_us,
        slices=rule.limit.slices,
        hits=min(hits, MAX_HITS),
        role=Role.SHADOW if rule.shadow else Role.GATE,
        rule=rule,
    )


def _coalesces(charges: Sequence[Charge]) -> bool:
    """Return whether n such requests may be one line: "g of n" says all only of gates on different keys."""
    return len({charge.key for charge in charges if charge.role is Role.GATE}) == len(charges)


def local_share(plan: Plan, replicas: int) -> Plan:
    """Return the plan with each limit cut to one replica's share, ceil(limit / replicas).

    Only gates whose rule says `local` stay gates: beside them, rules that say `allow` let pass.
    """

    def share(charge: Charge) -> Charge:
        local = charge.rule.on_store_failure is OnStoreFailure.LOCAL
        return replace(charge, limit=-(-charge.limit // replicas), role=charge.role if local else Role.SHADOW)

    shares = tuple(share(charge) for charge in plan.charges)
    left = iter(shares)
    descriptors = tuple(next(left) if isinstance(meaning, Charge) else meaning for meaning in plan.descriptors)
    return replace(plan, descriptors=descriptors, charges=shares)


class PlanMemory:
    """Plans by request bytes.

    Args:
        make: finds the plan of a request that is not remembered.
        most_bytes: about how much may be kept.
    """

    def __init__(self, make: Callable[[bytes], Plan], *, most_bytes: int) -> None:
        self._make = make
        self._most_bytes = most_bytes
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        self.bytes = 0
        """About how much is kept now."""

    def __len__(self) -> int:
        return len(self._plans)

    def __repr__(self) -> str:
        return f"<PlanMemory: {len(self)} plans, {self.bytes} bytes>"

    def get(self, data: bytes) -> Plan:
        """Return the plan of a request.

        Raises:
            BadRequestError: as `make` does; nothing is remembered then.
        """
        found = self._plans.get(data)
        if found is not None:
            self._plans.move_to_end(data)
            return found
        found = self._make(data)
        self._plans[data] = found
        self.bytes += _size(data, found)
        while self.bytes > self._most_bytes:
            self.bytes -= _size(*self._plans.popitem(last=False))
        return found

    def clear(self) -> None:
        """Forget all: the rules have changed."""
        self._plans.clear()
        self.bytes = 0


def _size(data: bytes, plan: Plan) -> int:
    """Return about how many bytes it costs to remember a plan by its request: entries share the request's size."""
    return PLAN_BYTES + 2 * len(data) + CHARGE_BYTES * len(plan.charges) + 16 * len(plan.descriptors)
