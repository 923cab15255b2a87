"""Metrics: the counters of the process, and the page that shows them.

    counts      the numbers, as plain ints
    reference   what the reference implementation counts, for those who read it under its names; `times` has how long requests took
    stats       the reference's names, and where their numbers come from
    mapping     those names → names and labels for Prometheus; `mapping_file` reads other mappings than the usual one
    exposition  the reference's numbers as Prometheus reads them
    page        every metric's name of ours, once, and the page

Rule 1: counting is adding to a plain int. Nothing on a request's way calls the Prometheus library; it reads when asked.
Rule 2: labels are bounded: rules by `MOST_RULES`, those with callers' own values by `MOST_LABELS`, everything else by the words
        of its class in `counts`.
"""

from collections.abc import Iterable, Sequence

from ratelimit_svc.metrics.counts import (
    Gauges,
    Latency,
    Loads,
    PolicyDecisions,
    RuleCounts,
    StoreFailures,
)
from ratelimit_svc.metrics.reference import ReferenceCounts
from ratelimit_svc.model import Charge, Grant, Kind, Overdraft, Plan, Role

MOST_RULES = 2_000
"""Rules counted under their own id while the process lives, also those that a reload has removed. Each has six lines in a
page that takes 50 µs of CPU a rule: with 10 000 of them, half a second and 5 MB each time Prometheus asks."""

MOST_LABELS = 1_000
"""Labels with callers' own values in them (`detailed_metric`, `value_to_metric`): beyond, their rules are counted by their ids.
Callers choose these, so they have a number of their own, and take no other rule's place."""

OTHER_RULES = "other"
"""The label of the rules beyond."""

_GATE, _REFUND = Role.GATE, Kind.REFUND
"""By names of their own: to find a member in its class takes 50 ns, each time."""


class Metrics:
    """All counters of the process. Whoever counts adds to them; `page` writes them out."""

    def __init__(self) -> None:
        self.requests = 0
        self.bad_requests = 0
        self.over_limit = 0
        self.denied_from_memory = 0
        self.batches = 0
        self.lines = 0
        self.plan_memory_misses = 0
        self.rules_loaded_at = 0.0
        """Unix time of the last rules that loaded."""
        self.store_latency = Latency()
        self.store_failures = StoreFailures()
        self.policy_decisions = PolicyDecisions()
        self.rules_loads = Loads()
        self.gauges = Gauges()
        self.rules: dict[str, RuleCounts] = {}
        self.reference: ReferenceCounts | None = None
        """Where is counted what the reference implementation counts; None: nowhere, since nobody reads it."""
        self._labels = 0
        """How many of these are labels that hold callers' values."""

    def count_for_reference(self, *, near_limit_ratio: float = 0.8, local_cache: bool = False) -> ReferenceCounts:
        """Count from now on what the reference implementation counts, too: somebody reads it. Before there is a limiter."""
        self.reference = ReferenceCounts(near_limit_ratio=near_limit_ratio, local_cache=local_cache)
        return self.reference

    def rule(self, label: str, rule_id: str = "") -> RuleCounts:
        """Return the counts of one rule, to be kept and added to: under its label while there is room, else under its id."""
        if (counts := self.rules.get(label)) is not None:
            return counts
        if rule_id and label != rule_id:
            if self._labels >= MOST_LABELS:
                return self.rule(rule_id)
            self._labels += 1
        elif len(self.rules) - self._labels >= MOST_RULES:
            return self._other()
        return self.rules.setdefault(label, RuleCounts())

    def _other(self) -> RuleCounts:
        if (counts := self.rules.get(OTHER_RULES)) is None:
            counts = self.rules[OTHER_RULES] = RuleCounts()
        return counts

    def granted(self, plan: Plan, grant: Grant, n: int = 1) -> None:
        """Count n requests that were charged, on each of their rules."""
        for place, charge in enumerate(plan.charges):
            fits = grant.outcomes[place].fits_in_us == 0
            if charge.kind is _REFUND:
                if charge.hits:  # else its rule forbids it
                    self._count(charge, "refunded", n)
            elif fits or (charge.role is _GATE and not grant.overdrawn):
                counts = self.rules.get(charge.label) or self.rule(charge.label, charge.rule.id)
                counts.requests.allowed += n
                counts.hits.allowed += n * charge.hits
            elif grant.overdrawn and charge.role is not Role.SHADOW and charge.overdraft is Overdraft.AUTO:
                self._count(charge, "overdrawn", n)
            else:
                self._count(charge, "would_deny", n)

    def denied(self, plan: Plan, places: Iterable[int], n: int = 1) -> None:
        """Count n requests that were denied on the rules that denied them (`verdicts.denying`); on the others nothing happened."""
        for place in places:
            self._count(plan.charges[place], "denied", n)

    def told_from_memory(self, plan: Plan, grant: Grant, places: Sequence[int], n: int) -> None:
        """Count n requests that were denied without asking the store, on the rules that it had denied (`Remembered.places`)."""
        self.denied_from_memory += n
        self.denied(plan, places, n)
        if self.reference is not None:
            self.reference.remembered(plan, grant, places, n)

    def _count(self, charge: Charge, decision: str, n: int) -> None:
        """Count any decision by its name. The usual one is counted above, in half the time."""
        counts = self.rule(charge.label, charge.rule.id)
        setattr(counts.requests, decision, getattr(counts.requests, decision) + n)
        setattr(counts.hits, decision, getattr(counts.hits, decision) + n * charge.hits)
