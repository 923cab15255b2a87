"""What the demo claims at its end, and whether it is so: facts in, sentences out.

No clock, no I/O, no process: `story` gathers the facts, `proof` does the arithmetic.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ratelimit_svc.demo.proof import ENOUGH, Period, fullness, got, least
from ratelimit_svc.demo.traffic import LIMITED, NO_ANSWER, PASSED, Seen
from ratelimit_svc.model import DEFAULT_SLICES, MICROSECONDS

WINDOW_US = MICROSECONDS
ENOUGH_WHEN_SHARED = 0.75
"""The part that a tenant must get of its limit while each replica gives its own share of it: Envoy spreads requests evenly,
but not exactly."""


class Claim(NamedTuple):
    """One sentence of the proof."""

    text: str
    held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What happened, as seen from outside. Times in µs of the wall clock, in their order."""

    replicas: int
    limits: Mapping[str, int]
    """Requests per second of each tenant, at the start."""
    raised: str
    """The tenant whose limit was raised."""
    raised_to: int
    started_us: int
    edited_us: int
    """Just before the rules were edited."""
    in_force_us: int
    """Both replicas had loaded them."""
    killed_us: int
    """Just before the store was killed."""
    back_us: int
    """Both replicas had it again."""
    ended_us: int
    seen: Mapping[str, Seen]
    arrived: Mapping[str, int]
    """Requests that reached the application."""
    unanswered: int
    """Requests for which Envoy had no answer in time, and let them pass."""
    by_share: int
    """Requests answered from a local share while the store was there."""
    fallen: tuple[str, ...]
    """Processes that ended, and were not killed by the story."""

    def outage_bound(self, limit: int) -> int:
        """Return what any window may hold that an outage touches: the limit, and every replica's share of it, rounded up."""
        return 2 * limit + self.replicas - 1

    def limit_after(self, tenant: str) -> int:
        """Return the tenant's limit after the raise."""
        return self.raised_to if tenant == self.raised else self.limits[tenant]

    def periods(self, tenant: str) -> list[Period]:
        """Return what a window may hold, and when. A window that sees both of two limits may hold the greater."""
        before, after = self.limits[tenant], self.limit_after(tenant)
        return [
            Period(self.started_us, before),
            Period(self.edited_us, after),
            Period(self.killed_us, self.outage_bound(after)),
            Period(self.back_us, after),
        ]


def claims(facts: Facts) -> list[Claim]:
    """Return all that must hold."""
    return [
        *(claim for tenant in facts.seen for claim in _never_more(facts, tenant)),
        *(claim for tenant in facts.seen for claim in _never_starved(facts, tenant)),
        *_always_answered(facts),
    ]


def _never_more(facts: Facts, tenant: str) -> Iterator[Claim]:
    """Promise 1, and promise 4 for the outage."""
    outage = facts.outage_bound(facts.limit_after(tenant))
    for bound in fullness(facts.seen[tenant].passed, facts.periods(tenant), WINDOW_US):
        what = "windows that the outage touched held at most" if bound.most == outage else "no second held more than"
        yield Claim(f"{tenant}: {what} {bound.most}; the fullest held {bound.seen}", bound.held)


def _never_starved(facts: Facts, tenant: str) -> Iterator[Claim]:
    before, after = facts.limits[tenant], facts.limit_after(tenant)
    spans = (
        ("at first", facts.started_us, facts.edited_us, before, ENOUGH),
        ("after the edit", facts.in_force_us, facts.killed_us, after, ENOUGH),
        ("without Valkey", facts.killed_us, facts.back_us, after, ENOUGH_WHEN_SHARED),
        ("with it again", facts.back_us, facts.ended_us, after, ENOUGH),
    )
    for when, start, end, limit, enough in spans:
        due = least(end - start, limit=limit, window_us=WINDOW_US, slices=DEFAULT_SLICES, enough=enough)
        passed = got(facts.seen[tenant].passed, start, end)
        seconds = (end - start) / MICROSECONDS
        yield Claim(f"{tenant}: {when}, {passed} passed in {seconds:.1f} s; {due} are due at least", passed >= due)


def _always_answered(facts: Facts) -> Iterator[Claim]:
    statuses = {status for seen in facts.seen.values() for status in seen.statuses}
    sent = sum(seen.sent for seen in facts.seen.values())
    slowest = max(seen.slowest_us for seen in facts.seen.values()) / 1000
    odd = sorted(statuses - {PASSED, LIMITED})
    names = ", ".join("none" if status == NO_ANSWER else str(status) for status in odd)
    yield Claim(
        f"all {sent} answers were 200 or 429, the slowest after {slowest:.0f} ms"
        + (f"; but also: {names}" * bool(odd)),
        not odd,
    )
    yield Claim(f"Envoy waited in vain for {facts.unanswered} answers of the service", facts.unanswered == 0)
    yield Claim(f"{facts.by_share} answers came from a local share while Valkey was there", facts.by_share == 0)
    passed = {tenant: seen.statuses[PASSED] for tenant, seen in facts.seen.items()}
    yield Claim(
        f"the application got the {sum(passed.values())} requests that passed, and no other",
        passed == dict(facts.arrived),
    )
    yield Claim("no process fell over" + "".join(f"; but: {name}" for name in facts.fallen), not facts.fallen)
