"""Plans whose fixed windows are the reference implementation's own (REDIS_KEY_FORMAT=reference), so that its replicas and ours count
in the same keys while one replaces the other.

Shared are fixed windows of one second, minute, hour, day, week, month or year that begin at multiples of it since the epoch: the
reference implementation has no others. All other charges are counted as always, in keys of ours.
"""

from collections.abc import Sequence

from ratelimit_svc.limiter.plans import Planner
from ratelimit_svc.model import BEGIN_AT_EPOCH, Algorithm, Charge, Descriptor, Entry, Limit, Plan, Request, Rule
from ratelimit_svc.rules.match import Domain, RuleSet
from ratelimit_svc.store.keys import reference_key
from ratelimit_svc.windows.reference_window import base_of


class ReferencePlanner(Planner):
    """Makes such plans."""

    def plan(self, request: Request) -> Plan:
        """Return what the request means under these rules; see `Planner.plan`."""
        plan = super().plan(request)
        if plan.coalesces and len(plan.charges) > 1:
            plan.coalesces = len({_number_of(charge) for charge in plan.charges}) == len(plan.charges)
        return plan

    def _charge(self, domain: Domain, descriptor: Descriptor, rule: Rule, request_hits: int) -> Charge:
        charge = super()._charge(domain, descriptor, rule, request_hits)
        assert rule.limit is not None
        if not is_shared(rule.limit):
            return charge
        entries = _counted(descriptor.entries, rule)
        key = reference_key(self._prefix, domain.name, entries, window_us=charge.window_us)
        return charge if key is None else charge._replace(key=key, algorithm=Algorithm.REFERENCE_WINDOW)


def is_shared(limit: Limit) -> bool:
    """Return whether the reference implementation has windows like this limit's."""
    return (
        limit.algorithm is Algorithm.FIXED_WINDOW
        and limit.shape == BEGIN_AT_EPOCH
        and limit.unit is not None
        and limit.multiplier == 1
    )


def not_shared(rules: RuleSet) -> list[str]:
    """Return the ids of the rules whose counts are not shared, in their order."""
    return [rule.id for rule in rules.rules if rule.limit is not None and not is_shared(rule.limit)]


def _number_of(charge: Charge) -> bytes:
    """Return what names the number that a charge counts in. Different periods share one where their windows begin together."""
    return base_of(charge.key) if charge.algorithm is Algorithm.REFERENCE_WINDOW else charge.key


def _counted(entries: Sequence[Entry], rule: Rule) -> Sequence[Entry]:
    """Return the entries as the reference implementation writes them: of a shared counter, the pattern stands for the value."""
    if not rule.shared:
        return entries
    return [
        entry if pattern is None else Entry(entry.key, _pattern_for(entry, pattern))
        for entry, pattern in zip(entries, rule.shared, strict=True)
    ]


def _pattern_for(entry: Entry, pattern: Entry) -> str:
    """Return what stands for a value: the pattern's, or, if its key is one too, all of it, for the request's own key stays."""
    whole = f"{pattern.key}_{pattern.value}" if pattern.value else pattern.key
    return whole.removeprefix(f"{entry.key}_")
