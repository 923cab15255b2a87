"""What the service says it did, out of its /metrics: admitted, denied, by policy, and how full its windows were.

Rule 1: no clock, no I/O. Pages of all replicas are added up; times are µs of one clock, whichever.
Rule 2: a window is too full only if it certainly was. Between two looks at the counters a rule admitted their difference; all of
        it was counted by the store after the first look was begun, less the time that an answer of the store may take to
        be counted here, and before the second had ended. If that is less than a window, no more than the limit may be in it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

STORE_TIMEOUT_US = 100_000
"""The longest that the service waits for the store, unless its STORE_TIMEOUT says otherwise: what the store has counted the
service counts no later than that, or never."""

Pair = tuple[str, str]


@dataclass(slots=True)
class Counts:
    """The counters of all replicas together, at one time or between two."""

    requests: int = 0
    denied: int = 0
    """Over their limits."""
    refused: int = 0
    """For what they say, without being counted."""
    policies: Counter[str] = field(default_factory=Counter)
    """Decided without the store, by the policy; `shed` of them at once."""
    failures: Counter[str] = field(default_factory=Counter)
    """Not decided by the store, by the reason."""
    decisions: Counter[Pair] = field(default_factory=Counter)
    """Requests, by rule and decision."""
    admitted_hits: Counter[str] = field(default_factory=Counter)
    """Hits that the store took, by rule."""

    @property
    def by_policy(self) -> int:
        """How many requests were decided without the store."""
        return self.policies.total() - self.policies["shed"]

    @property
    def admitted(self) -> int:
        """How many requests passed: all but the denied, the refused and those told that there is an error."""
        return self.requests - self.denied - self.refused - self.policies["error"]

    def since(self, before: "Counts") -> "Counts":
        """Return what was counted in between; ValueError if a replica has begun again meanwhile, or has gone."""
        if self.requests < before.requests or any(self.decisions[pair] < n for pair, n in before.decisions.items()):
            raise ValueError("the service's counters went back: a replica was restarted, or has gone")
        return Counts(
            self.requests - before.requests,
            self.denied - before.denied,
            self.refused - before.refused,
            self.policies - before.policies,
            self.failures - before.failures,
            self.decisions - before.decisions,
            self.admitted_hits - before.admitted_hits,
        )


def read(pages: Iterable[str]) -> Counts:
    """Add up the pages of all replicas; ValueError if one of them is not this service's."""
    counts = Counts()
    for page in pages:
        if "ratelimit_svc_requests_total" not in page:
            raise ValueError("this page has none of ratelimit-svc's counters: leave METRICS empty for another service")
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                _add(counts, sample.name, sample.labels, int(sample.value))
    return counts


def _add(counts: Counts, name: str, labels: Mapping[str, str], value: int) -> None:
    match name:
        case "ratelimit_svc_requests_total":
            counts.requests += value
        case "ratelimit_svc_over_limit_total":
            counts.denied += value
        case "ratelimit_svc_bad_requests_total":
            counts.refused += value
        case "ratelimit_svc_policy_decisions_total":
            counts.policies[labels["policy"]] += value
        case "ratelimit_svc_store_failures_total":
            counts.failures[labels["kind"]] += value
        case "ratelimit_svc_rule_decisions_total":
            counts.decisions[labels["rule"], labels["decision"]] += value
        case "ratelimit_svc_rule_hits_total" if labels["decision"] == "allowed":
            counts.admitted_hits[labels["rule"]] += value


class Look(NamedTuple):
    """The counters, read once."""

    begun_us: int
    """When the first replica was asked."""
    ended_us: int
    """When the last one had answered."""
    counts: Counts


def fullest(looks: Sequence[Look], rule: str, window_us: int, *, late_us: int = STORE_TIMEOUT_US) -> int | None:
    """Return the most hits of a rule that were certainly admitted in one window; None if the looks were too far apart.

    Says something of a limit only if the rule has one window: one tenant's, not each tenant's.

    Args:
        looks: in the order in which they were made.
        rule: its id.
        window_us: the length of its window.
        late_us: how long after the store the service may count.
    """
    most, first = None, 0
    for last, look in enumerate(looks):
        while look.ended_us - looks[first].begun_us + late_us >= window_us and first < last:
            first += 1
        if first < last:
            most = max(most or 0, look.counts.admitted_hits[rule] - looks[first].counts.admitted_hits[rule])
    return most
