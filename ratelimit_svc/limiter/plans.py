"""Plan: what a request means, found once per distinct request and remembered by its bytes.

Envoy sends the same bytes for the same descriptors, so decoding, matching and key building are not on the way of every
request. The memory is bounded by bytes, least recently used first out, and dropped whole when rules change.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from sys import getsizeof

from ratelimit_svc.errors import BadRequestError
from ratelimit_svc.limiter.compared import compare
from ratelimit_svc.model import (
    MAX_HITS,
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

PLAN_BYTES = 500
"""What a remembered plan costs beside its request and its charges (measured, as all of these: test_limiter)."""
CHARGE_BYTES = 320
"""What one charge and its place in the plan cost."""
OVERRIDE_BYTES = 900
"""What a charge costs beside, if it has a rule of its own: of a limit that the request brings along."""
DESCRIPTOR_BYTES, ENTRY_BYTES = 200, 80
"""What they cost where the request is kept."""

STALE_AT_ONCE = 20
"""Plans of rules that were replaced, let go with each request."""

OVERRIDE = "#override"
"""Ends the id of the rule that a limit brought along stands for."""

LONGEST_LABEL = 200
"""Of a rule in metrics, with the request's own values in it; where it would be longer, the rule's id stands."""

_GATE, _SHADOW, _REFUND = Role.GATE, Role.SHADOW, Kind.REFUND
_NEVER, _AUTO = Overdraft.NEVER, Overdraft.AUTO
"""By names of their own: to find a member in its class takes 50 ns, each time, and a new request asks for a dozen."""

_ORDER = {Role.GATE: 1, Role.QUOTA: 2, Role.SHADOW: 3}


class Planner:
    """Makes plans: what requests mean under some rules.

    Args:
        rules: what is in force; None: nothing yet.
        prefix: put before every key (CACHE_KEY_PREFIX).
        keep_requests: leave each request in its plan, for those who answer with parts of it.
    """

    def __init__(self, rules: RuleSet | None, prefix: str = "", *, keep_requests: bool = False) -> None:
        self.rules = rules
        self._prefix = prefix
        self._keep_requests = keep_requests
        self._some_replace = rules is not None and any(rule.replaces for rule in rules.rules)
        self._some_compare = rules is not None and (
            rules.compare is not None or any(rule.compared for rule in rules.rules)
        )

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
        kept = request if self._keep_requests else None
        domain = self.rules.domains.get(request.domain)
        if domain is None:
            return _put_together((None,) * len(request.descriptors), [], kept)
        meanings: list[Meaning] = []
        charges: list[Charge] = []
        for place, rules in enumerate(self._met(domain, request)):
            first = len(charges)
            descriptor = request.descriptors[place]
            charges += [self._charge(domain, descriptor, rule, request.hits) for rule in rules if rule.limit]
            if len(charges) > first:
                meanings.append(tuple(range(first, len(charges))))
            else:
                meanings.append(rules[0] if rules else None)
        if len(charges) > MAX_CHARGES:
            raise BadRequestError(f"rate limit request meets {len(charges)} limits; at most {MAX_CHARGES} are taken")
        if self.rules.quota_mode and (None in meanings or any(charge.role is _SHADOW for charge in charges)):
            charges = [charge._replace(role=_SHADOW) for charge in charges]  # there is one that has room
        plan = _put_together(tuple(meanings), charges, kept)
        return compare(plan, request) if self._some_compare else plan

    def _met(self, domain: Domain, request: Request) -> list[Sequence[Rule]]:
        """Return the rules that count for each descriptor: those it meets, or one made of the limit that it brings along."""
        met: list[Sequence[Rule]] = []
        for descriptor in request.descriptors:
            rules = find(domain, descriptor.entries)
            met.append(rules if descriptor.limit is None else (self._override(domain, descriptor.limit, rules),))
        if not self._some_replace:
            return met
        dropped = replaced(chain.from_iterable(met))
        return [[rule for rule in rules if rule.limit is None or rule.limit.name not in dropped] for rules in met]

    def _override(self, domain: Domain, limit: Limit, rules: Sequence[Rule]) -> Rule:
        """Return the rule that a limit brought along stands for: counted as the rule's it replaces, and always enforced."""
        assert self.rules is not None
        role = Role.QUOTA if self.rules.quota_mode else _GATE
        model = next((rule for rule in rules if rule.limit is not None), None)
        if model is None or model.limit is None:
            limit = replace(limit, algorithm=self.rules.algorithm)
            return Rule(f"{domain.name}{OVERRIDE}", limit, role, compared=limit.counted_by(self.rules.compare))
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
            compared=brought.counted_by(model.compared.algorithm if model.compared else None),
            role=role,
            replaces=frozenset(),
            shared=(),
            label=(),
        )

    def _charge(self, domain: Domain, descriptor: Descriptor, rule: Rule, request_hits: int) -> Charge:
        limit = rule.limit
        assert limit is not None
        hits = min((request_hits or 1) if descriptor.hits is None else descriptor.hits, MAX_HITS)
        kind = _REFUND if descriptor.refund else Kind.POSITIVE if hits else Kind.CHECK
        tenant = domain.tenant_of(descriptor.entries)
        counted, counted_tenant = descriptor.entries, tenant
        if rule.shared:
            counted = _shared(counted, rule)
            counted_tenant = domain.tenant_of(counted)
        made_key = key(
            self._prefix,
            domain.name,
            counted,
            tenant=None if domain.tenant is None else counted_tenant,
            algorithm=limit.algorithm,
            window_us=limit.window_us,
        )
        return Charge(  # by place, which takes a third of the time: this is most of what a new request costs
            made_key,
            limit.algorithm,
            limit.most,
            limit.window_us,
            limit.shape,
            0 if descriptor.refund and not rule.refunds else hits,
            rule.role,
            rule,
            kind,
            _NEVER if kind is _REFUND else rule.overdraft,
            tenant,
            _label(descriptor.entries, rule, domain.name) if rule.label else rule.id,
        )


def _put_together(meanings: tuple[Meaning, ...], charges: list[Charge], request: Request | None) -> Plan:
    """Make the plan of these charges, and of what each descriptor means."""
    coalesces = _coalesces(charges)
    if not coalesces:  # else all are gates
        meanings, charges = _in_order(meanings, charges)
    policy = OnStoreFailure.ALLOW
    for charge in charges:
        if charge.role is not _SHADOW:
            policy = max(policy, _policy(charge))
    return Plan(meanings, tuple(charges), coalesces, policy, request)


def _in_order(meanings: Sequence[Meaning], charges: Sequence[Charge]) -> tuple[tuple[Meaning, ...], list[Charge]]:
    """Put the charges into the order in which they are looked at."""

    def order(place: int) -> int:
        charge = charges[place]
        return 0 if charge.kind is _REFUND else _ORDER[charge.role]

    places = sorted(range(len(charges)), key=order)
    now_at = {place: at for at, place in enumerate(places)}
    moved = (
        tuple(sorted(now_at[place] for place in meaning)) if isinstance(meaning, tuple) else meaning
        for meaning in meanings
    )
    return tuple(moved), [charges[place] for place in places]


def _policy(charge: Charge) -> OnStoreFailure:
    """Return what a charge asks for while the store is away. A refund never denies: it goes to the local share at most."""
    policy = charge.rule.on_store_failure
    return min(policy, OnStoreFailure.LOCAL) if charge.kind is _REFUND else policy


def _shared(entries: Sequence[Entry], rule: Rule) -> tuple[Entry, ...]:
    """Return the entries that make the key of a shared counter: the pattern stands for all that it covers."""
    return tuple(pattern or entry for pattern, entry in zip(rule.shared, entries, strict=True))


def _label(entries: Sequence[Entry], rule: Rule, domain: str) -> str:
    """Return what metrics call the rule for this request; its id where the request's own values would make it long."""
    called = label(rule, domain, entries)
    return called if len(called) <= LONGEST_LABEL else rule.id


def _coalesces(charges: Sequence[Charge]) -> bool:
    """Return whether n such requests may be one line: "g of n" says all only of plain gates on different keys."""
    keys = set()
    for charge in charges:
        if not _plain(charge):
            return False
        keys.add(charge.key)
    return len(keys) == len(charges)


def _plain(charge: Charge) -> bool:
    """Return whether the j-th of n such charges fits if and only if j of them do. One that may overdraw does not."""
    if charge.role is not _GATE or charge.kind is _REFUND:
        return False
    # a single hit cannot overdraw: it fits while anything is left
    return charge.hits == 0 or charge.overdraft is _NEVER or (charge.hits == 1 and charge.overdraft is _AUTO)


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
        self._stale: list[OrderedDict[bytes, Plan]] = []
        """Forgotten, and let go a few with each request: all at once they would keep everyone waiting for 20 ms."""
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
        if self._stale:
            self._let_go()
        found = self._plans.get(data)
        if found is not None:
            self._plans.move_to_end(data)
            return found
        found = self._make(data)
        found.size = _size(data, found)
        self._plans[data] = found
        self.bytes += found.size
        while self.bytes > self._most_bytes:
            self.bytes -= self._plans.popitem(last=False)[1].size
        return found

    def newest_first(self) -> Iterator[tuple[bytes, Plan]]:
        """Return the remembered requests and their plans, the last asked first. Look at them before the next is asked."""
        return ((data, self._plans[data]) for data in reversed(self._plans))

    def clear(self) -> None:
        """Forget all: the rules have changed."""
        self._stale.append(self._plans)
        self._plans = OrderedDict()
        self.bytes = 0

    def _let_go(self) -> None:
        stale = self._stale[-1]
        for _ in range(min(STALE_AT_ONCE, len(stale))):
            stale.popitem()
        if not stale:
            self._stale.pop()


def _size(data: bytes, plan: Plan) -> int:
    """Return about how many bytes it costs to remember a plan by its request.

    Text is counted as it is kept: one character beyond Latin makes all of its text four times as large.
    """
    size = PLAN_BYTES + 2 * len(data) + CHARGE_BYTES * len(plan.charges) + 16 * len(plan.descriptors)
    if plan.answer is not None:
        size += getsizeof(plan.answer)
    tenant = ""
    for charge in plan.charges:
        rule = charge.rule
        if rule.label:
            size += getsizeof(charge.label)
        if rule.id.endswith(OVERRIDE):
            size += OVERRIDE_BYTES
        if charge.tenant is not tenant and not charge.tenant.isascii():  # the limits of one descriptor share it
            size += getsizeof(charge.tenant)
        tenant = charge.tenant
    if plan.compared is not None:
        size += PLAN_BYTES + 2 * CHARGE_BYTES * len(plan.charges)
    request = plan.request if plan.compared is None else plan.compared.request
    if request is not None:
        for descriptor in request.descriptors:
            size += DESCRIPTOR_BYTES
            size += sum(ENTRY_BYTES + getsizeof(entry.key) + getsizeof(entry.value) for entry in descriptor.entries)
    return size
