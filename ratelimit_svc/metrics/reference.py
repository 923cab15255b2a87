"""What the reference implementation counts, counted beside ours, for those who read it under its names.

Each charge is counted under its descriptor's full key (`domain.key_value.key`), from what the store says of its window:

    total_hits       all that a rule is asked for, also in requests that are denied elsewhere, or that the store did not decide
    within_limit     those that fit; in a denied request the descriptors that fit count too, although they are charged nothing
    over_limit       those that do not. Of hits of which some would have fitted, the others
    near_limit       those that take the window beyond `floor(limit × NEAR_LIMIT_RATIO)`, up to the limit
    shadow_mode      what is over the limit of a rule in shadow mode
    total_negative_hits                what is given back
    over_limit_with_local_cache        what was denied from memory, where LOCAL_CACHE_SIZE_IN_BYTES asks for one
    domain_not_found                   descriptors of a domain that no rule file has

Rule 1: nobody reads it, nothing is counted: whoever counts asks first whether there is a `Counted`.
Rule 2: a line of n requests takes one computation for each charge: what n requests in turn are near the limit telescopes.
Rule 3: callers' own values in keys are bounded by MOST_CALLERS_KEYS; what comes after is counted under the rule's own key.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import floor
from struct import Struct

from ratelimit_svc.metrics.times import Times
from ratelimit_svc.model import (
    Charge,
    Descriptor,
    Grant,
    Kind,
    OnStoreFailure,
    Outcome,
    Plan,
    Request,
    Role,
    Rule,
)

MOST_KEYS = 10_000
"""Keys of rules as they are configured. Each has up to five lines in a page."""
MOST_CALLERS_KEYS = 10_000
"""Keys that callers choose: values in metrics, limits that they bring along, domains that nobody knows. They have a number of
their own, and take no rule's place."""
LONGEST_KEY = 300
"""Characters of a key that callers choose."""

OTHER = "other"
"""Domain and key of what has no room."""
_OTHERS = f"{OTHER}.{OTHER}"

_GATE, _QUOTA, _SHADOW, _REFUND = Role.GATE, Role.QUOTA, Role.SHADOW, Kind.REFUND
"""By names of their own: to find a member in its class takes 50 ns, each time."""


@dataclass(slots=True)
class KeyCounts:
    """Hits of one key, counted by the reference implementation's words."""

    total_hits: int = 0
    over_limit: int = 0
    near_limit: int = 0
    over_limit_with_local_cache: int = 0
    within_limit: int = 0
    shadow_mode: int = 0
    total_negative_hits: int = 0
    domain_not_found: int = 0


class ReferenceCounts:
    """All that is counted so.

    Args:
        near_limit_ratio: where "near the limit" begins (NEAR_LIMIT_RATIO).
        local_cache: whether what is denied from memory is told apart (LOCAL_CACHE_SIZE_IN_BYTES).
        most_keys: of rules as they are configured.
        most_callers_keys: of those that callers choose.
    """

    def __init__(
        self,
        *,
        near_limit_ratio: float = 0.8,
        local_cache: bool = False,
        most_keys: int = MOST_KEYS,
        most_callers_keys: int = MOST_CALLERS_KEYS,
    ) -> None:
        self._near = lru_cache(4096)(lambda limit: near_limit(limit, near_limit_ratio))
        self.local_cache = local_cache
        self.keys: dict[str, KeyCounts] = {}
        self._most_keys, self._most_callers_keys = most_keys, most_callers_keys
        self._callers = 0
        """How many of these were chosen by callers."""
        self.times = Times()

    def __repr__(self) -> str:
        return f"<ReferenceCounts: {len(self.keys)} keys>"

    # ── where ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def of(self, plan: Plan, request: Request, *, known: bool) -> tuple[KeyCounts, ...]:
        """Return where the charges of a plan are counted: kept with it (`Plan.counted`).

        Args:
            plan: whose.
            request: what it means.
            known: whether there are rules for its domain.
        """
        if not known:
            return (self._at(_clean(request.domain), OTHER, callers=True),)
        places: dict[int, KeyCounts] = {}
        for descriptor, meaning in zip(request.descriptors, plan.descriptors, strict=True):
            if isinstance(meaning, tuple):
                for at in meaning:
                    places[at] = self._place(request.domain, descriptor, plan.charges[at].rule)
        return tuple(places[at] for at in range(len(plan.charges)))

    def _place(self, domain: str, descriptor: Descriptor, rule: Rule) -> KeyCounts:
        configured = _configured_key(domain, rule.levels or (OTHER,))
        if descriptor.limit is not None:
            asked = [_level(entry.key, entry.value) for entry in descriptor.entries]
        elif rule.label:
            asked = _as_asked(descriptor, rule)
        else:
            return self._at(configured, _OTHERS)
        return self._at(_key(domain, asked), configured, callers=True)

    def _at(self, key: str, instead: str, *, callers: bool = False) -> KeyCounts:
        """Return the counts of a key, or of what is counted instead of it where there is no room."""
        if (counts := self.keys.get(key)) is not None:
            return counts
        if callers:
            if self._callers >= self._most_callers_keys or len(key) > LONGEST_KEY:
                return self._at(instead, _OTHERS)
            self._callers += 1
        elif len(self.keys) - self._callers >= self._most_keys:
            return self.keys.setdefault(instead, KeyCounts())
        return self.keys.setdefault(key, KeyCounts())

    # ── how many ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def answered(self, plan: Plan) -> None:
        """Count a request that asks no window: of an unknown domain each descriptor is counted, else nothing is."""
        self.times.at_once += 1
        for counts in plan.counted:
            counts.domain_not_found += len(plan.descriptors)

    def settled(self, plan: Plan, grant: Grant, passed: int, came_s: Sequence[float], now_s: float) -> None:
        """Count the requests of a line that are answered now.

        Args:
            plan: what each of them asked.
            grant: what the store says of the line.
            passed: how many of them passed; the others were denied.
            came_s: when each of them came, in that order.
            now_s: by the same clock.
        """
        if passed:
            self.granted(plan, grant, passed)
        if passed < len(came_s):
            self.denied(plan, grant, len(came_s) - passed)
        self.times.note(came_s, now_s)

    def granted(self, plan: Plan, grant: Grant, n: int) -> None:
        """Count n requests that were charged, the last that were."""
        for counts, charge, outcome in zip(plan.counted, plan.charges, grant.outcomes, strict=True):
            hits = n * charge.hits
            if not hits:
                continue
            if charge.kind is _REFUND:
                counts.total_negative_hits += hits
            elif outcome.fits_in_us == 0 or (charge.role is _GATE and not grant.overdrawn):
                counts.total_hits += hits
                counts.within_limit += hits
                limit = charge.limit
                after, near = limit - outcome.remaining, self._near(limit)
                if after > near:
                    counts.near_limit += after - max(after - hits, near)
            elif outcome.remaining < 0:  # overdrawn: its window has these hits, too
                self._ask(counts, charge, outcome._replace(remaining=outcome.remaining + hits), n)
            else:
                self._ask(counts, charge, outcome, n)

    def denied(self, plan: Plan, grant: Grant, n: int) -> None:
        """Count n requests that were charged nothing: what each of their windows would have said to them alone."""
        for counts, charge, outcome in zip(plan.counted, plan.charges, grant.outcomes, strict=True):
            if charge.kind is not _REFUND:
                self._ask(counts, charge, outcome, n)

    def remembered(self, plan: Plan, grant: Grant, places: Sequence[int], n: int) -> None:
        """Count n requests that were denied from memory. What is not known to be over its limit counts as within."""
        for place, (counts, charge) in enumerate(zip(plan.counted, plan.charges, strict=True)):
            hits = n * charge.hits
            if place not in places:
                counts.total_hits += hits
                counts.within_limit += hits
            elif self.local_cache:
                counts.total_hits += hits
                counts.over_limit += hits
                counts.over_limit_with_local_cache += hits
            else:
                self._ask(counts, charge, grant.outcomes[place], n)
        self.times.at_once += n

    def by_policy(self, plan: Plan, share: Plan, grant: Grant | None) -> None:
        """Count a request that the store did not decide: what it asks for, and what a local share of the limits says of it.

        Args:
            plan: the request's own.
            share: by which it was decided, see `policy.Decision`.
            grant: of the windows in memory; None where none was asked.
        """
        for place, (counts, charge) in enumerate(zip(plan.counted, plan.charges, strict=True)):
            if charge.kind is _REFUND:
                continue
            if grant is None or charge.rule.on_store_failure is not OnStoreFailure.LOCAL:
                counts.total_hits += charge.hits
                continue
            outcome, cut = grant.outcomes[place], share.charges[place]
            charged = grant.granted and (outcome.fits_in_us == 0 or outcome.remaining < 0)
            if charged:  # the share's window has it: before, there was room for it
                outcome = outcome._replace(remaining=outcome.remaining + charge.hits)
            self._ask(counts, cut._replace(role=charge.role), outcome, 1)

    def _ask(self, counts: KeyCounts, charge: Charge, outcome: Outcome, n: int) -> None:
        """Count n requests, each of which meets a window as it stands."""
        hits, limit = charge.hits, charge.limit
        before, near = limit - outcome.remaining, self._near(limit)
        after = before + hits
        counts.total_hits += n * hits
        if outcome.fits_in_us == 0:
            counts.within_limit += n * hits
            counts.near_limit += n * max(0, after - max(before, near))
            return
        over = after - limit if before < limit < after else hits
        counts.over_limit += n * over
        if over < hits:
            counts.near_limit += n * (limit - max(near, before))
        if charge.role is _SHADOW and charge.rule.role is not _QUOTA:
            counts.shadow_mode += n * over


_FLOAT32 = Struct("f")


def near_limit(limit: int, ratio: float) -> int:
    """Return where "near the limit" begins, in the reference's arithmetic: numbers of 32 bits, and their product of as many."""

    def float32(number: float) -> float:
        rounded: float = _FLOAT32.unpack(_FLOAT32.pack(number))[0]
        return rounded

    return floor(float32(float32(limit) * float32(ratio)))


def _as_asked(descriptor: Descriptor, rule: Rule) -> list[str]:
    """Return the levels of a key with the request's own values where the rule says so (`value_to_metric`, `detailed_metric`)."""
    steps = zip(descriptor.entries, rule.levels, rule.label, strict=False)
    levels = [_level(entry.key, entry.value) if step is None else level for entry, level, step in steps]
    depth = len(levels)
    if rule.label[depth - 1] is None:  # else the level has it
        levels[-1] += "".join(step or "" for step in rule.label[depth:]).replace("#", "_", 1)
    return levels


def _level(key: str, value: str) -> str:
    return f"{key}_{value}" if value else key


def _key(domain: str, levels: Sequence[str]) -> str:
    return _clean(".".join((domain, *levels)))


_configured_key = lru_cache(4096)(_key)
"""Of rules, which are met again and again. Callers' keys are not remembered."""


_UNFIT = re.compile(r"[:|\x00-\x1f\x7f]")
"""What would end a name in statsd's protocol, or a line."""
_IPV4 = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", re.ASCII)


def _clean(name: str) -> str:
    """Return a name as statsd may have it. The dots of an address are no levels; any other dot is one."""
    return _IPV4.sub(lambda address: address[0].replace(".", "_"), _UNFIT.sub("_", name))
