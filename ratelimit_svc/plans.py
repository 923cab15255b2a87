"""Plan: what a request means, found once per distinct request and remembered by its bytes.

Envoy sends the same bytes for the same descriptors, so decoding, matching and key building are not on the way of every
request. The memory is bounded by bytes, least recently used first out, and dropped whole when rules change.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from sys import getsizeof

from ratelimit_svc.errors import BadRequestError
from ratelimit_svc.model import (
    MAX_HITS,
    Algorithm,
    Charge,
    Descriptor,
    Entry,
    Kind,
    Limit,
    Meaning,
    OnStoreFailure,
    Overdraft,
    Plan,
    Request,
    Role,
    Rule,
)
from ratelimit_svc.rules.match import Domain, RuleSet, find, label, replaced
from ratelimit_svc.store import MAX_CHARGES
from ratelimit_svc.store.keys import key

PLAN_BYTES = 450
"""What a remembered plan costs beside its request and its charges (measured, as all of these: test_limiter)."""
CHARGE_BYTES = 320
"""What one charge and its place in the plan cost."""
OVERRIDE_BYTES = 550
"""What a charge costs beside, if it has a rule of its own: of a limit that the request brings along."""
DESCRIPTOR_BYTES, ENTRY_BYTES = 200, 80
"""What they cost where the request is kept."""

OVERRIDE = "#override"
"""Ends the id of the rule that a limit brought along stands for."""

LONGEST_LABEL = 200
"""Of a rule in metrics, with the request's own values in it; where it would be longer, the rule's id stands."""

_ORDER = {Role.GATE: 1, Role.QUOTA: 2, Role.SHADOW: 3}


@dataclass(frozen=True, slots=True)
class Planner:
    """Finds plans.

    Args:
        rules: what is in force; None: nothing yet.
        prefix: put before every key (CACHE_KEY_PREFIX).
        keep_requests: leave each request in its plan, for those who answer with parts of it.
    """

    rules: RuleSet | None
    prefix: str = ""
    keep_requests: bool = False

    def plan(self, request: Request) -> Plan:
        """Return what the request means under these rules.

        Raises:
            BadRequestError: no rules are loaded, or the request means more charges than one batch may hold.
        """
        if self.rules is None:
            raise BadRequestError("no rate limit configuration loaded")
        if len(request.descriptors) > MAX_CHARGES:
            raise BadRequestError(
                f"rate limit request has {len(request.descriptors)} descriptors; at most {MAX_CHARGES} are taken"
            )
        kept = request if self.keep_requests else None
        domain = self.rules.domains.get(request.domain)
        if domain is None:
            return _put_together([], [None] * len(request.descriptors), kept)
        matched = [self._matched(domain, descriptor) for descriptor in request.descriptors]
        dropped = replaced(chain.from_iterable(matched))
        charges: list[tuple[int, Charge]] = []
        unlimited: list[Rule | None] = []
        for place, (descriptor, met) in enumerate(zip(request.descriptors, matched, strict=True)):
            rules = [rule for rule in met if rule.limit is None or rule.limit.name not in dropped]
            unlimited.append(next((rule for rule in rules if rule.limit is None), None))
            charges += [(place, self._charge(domain, descriptor, rule, request.hits)) for rule in rules if rule.limit]
        if len(charges) > MAX_CHARGES:
            raise BadRequestError(f"rate limit request meets {len(charges)} limits; at most {MAX_CHARGES} are taken")
        return _put_together(charges, unlimited, kept)

    def _matched(self, domain: Domain, descriptor: Descriptor) -> tuple[Rule, ...]:
        """Return the rules that count for a descriptor: those it meets, or one made of the limit that it brings along."""
        rules = find(domain, descriptor.entries)
        return rules if descriptor.limit is None else (self._override(domain, descriptor.limit, rules),)

    def _override(self, domain: Domain, limit: Limit, rules: Sequence[Rule]) -> Rule:
        """Return the rule that a limit brought along stands for: counted as the rule's it replaces, and always enforced."""
        assert self.rules is not None
        model = next((rule for rule in rules if rule.limit is not None), None)
        if model is None or model.limit is None:
            return Rule(f"{domain.name}{OVERRIDE}", replace(limit, algorithm=self.rules.algorithm))
        brought = replace(
            model.limit,
            requests_per_unit=limit.requests_per_unit,
            unit=limit.unit,
            multiplier=limit.multiplier,
            name="",
            period_us=0,
            burst=None,
        )
        return replace(
            model,
            id=f"{model.id}{OVERRIDE}",
            limit=brought,
            role=Role.GATE,
            replaces=frozenset(),
            shared=(),
            label=(),
        )

    def _charge(self, domain: Domain, descriptor: Descriptor, rule: Rule, request_hits: int) -> Charge:
        limit = rule.limit
        assert limit is not None
        entries = _shared(descriptor.entries, rule)
        hits = min(max(request_hits, 1) if descriptor.hits is None else descriptor.hits, MAX_HITS)
        kind = Kind.REFUND if descriptor.refund else Kind.POSITIVE if hits else Kind.CHECK
        return Charge(
            key=key(
                self.prefix,
                domain.name,
                entries,
                tenant=None if domain.tenant is None else domain.tenant_of(entries),
                algorithm=limit.algorithm,
                window_us=limit.window_us,
            ),
            algorithm=limit.algorithm,
            limit=limit.most,
            window_us=limit.window_us,
            shape=limit.shape,
            hits=0 if descriptor.refund and not rule.refunds else hits,
            role=rule.role,
            rule=rule,
            kind=kind,
            overdraft=Overdraft.NEVER if kind is Kind.REFUND else rule.overdraft,
            tenant=domain.tenant_of(descriptor.entries),
            label=_label(descriptor.entries, rule, domain.name),
        )


def _put_together(charges: list[tuple[int, Charge]], unlimited: Sequence[Rule | None], request: Request | None) -> Plan:
    """Order the charges, each with its descriptor's place, and note for each descriptor where its own are."""
    charges.sort(key=lambda placed: 0 if placed[1].kind is Kind.REFUND else _ORDER[placed[1].role])
    where: dict[int, list[int]] = {}
    for index, (place, _) in enumerate(charges):
        where.setdefault(place, []).append(index)
    ordered = tuple(charge for _, charge in charges)
    descriptors: tuple[Meaning, ...] = tuple(
        tuple(where[place]) if place in where else rule for place, rule in enumerate(unlimited)
    )
    return Plan(
        descriptors=descriptors,
        charges=ordered,
        coalesces=_coalesces(ordered),
        on_store_failure=max(
            (_policy(charge) for charge in ordered if charge.role is not Role.SHADOW),
            default=OnStoreFailure.ALLOW,
        ),
        request=request,
    )


def _policy(charge: Charge) -> OnStoreFailure:
    """Return what a charge asks for while the store is away. A refund never denies: it goes to the local share at most."""
    policy = charge.rule.on_store_failure
    return min(policy, OnStoreFailure.LOCAL) if charge.kind is Kind.REFUND else policy


def _shared(entries: Sequence[Entry], rule: Rule) -> Sequence[Entry]:
    """Return the entries that make the key: where a rule shares one counter, the pattern stands for all that it covers."""
    if not rule.shared:
        return entries
    return tuple(pattern or entry for pattern, entry in zip(rule.shared, entries, strict=True))


def _label(entries: Sequence[Entry], rule: Rule, domain: str) -> str:
    """Return what metrics call the rule for this request; its id where the request's own values would make it long."""
    called = label(rule, domain, entries)
    return called if len(called) <= LONGEST_LABEL else rule.id


def _coalesces(charges: Sequence[Charge]) -> bool:
    """Return whether n such requests may be one line: "g of n" says all only of plain gates on different keys."""
    return len({charge.key for charge in charges if _plain(charge)}) == len(charges)


def _plain(charge: Charge) -> bool:
    """Return whether the j-th of n such charges fits if and only if j of them do. One that may overdraw does not."""
    if charge.role is not Role.GATE or charge.kind is Kind.REFUND:
        return False
    # a single hit cannot overdraw: it fits while anything is left
    return (
        charge.hits == 0
        or charge.overdraft is Overdraft.NEVER
        or (charge.hits == 1 and charge.overdraft is Overdraft.AUTO)
    )


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

    def newest_first(self) -> Iterator[tuple[bytes, Plan]]:
        """Return the remembered requests and their plans, the last asked first. Look at them before the next is asked."""
        return ((data, self._plans[data]) for data in reversed(self._plans))

    def clear(self) -> None:
        """Forget all: the rules have changed."""
        self._plans.clear()
        self.bytes = 0


def _size(data: bytes, plan: Plan) -> int:
    """Return about how many bytes it costs to remember a plan by its request.

    Text is counted as it is kept: one character beyond Latin makes all of its text four times as large.
    """
    size = PLAN_BYTES + 2 * len(data) + CHARGE_BYTES * len(plan.charges) + 16 * len(plan.descriptors)
    wide: dict[int, str] = {}
    for charge in plan.charges:
        if charge.rule.id.endswith(OVERRIDE):
            size += OVERRIDE_BYTES
        if charge.rule.label:
            size += getsizeof(charge.label)
        if not charge.tenant.isascii():
            wide[id(charge.tenant)] = charge.tenant  # the limits of one descriptor share it
    size += sum(map(getsizeof, wide.values()))
    if plan.request is not None:
        for descriptor in plan.request.descriptors:
            size += DESCRIPTOR_BYTES
            size += sum(ENTRY_BYTES + getsizeof(entry.key) + getsizeof(entry.value) for entry in descriptor.entries)
    return size
