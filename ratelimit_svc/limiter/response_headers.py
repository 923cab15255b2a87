"""Response headers: what Envoy adds to each answer of the application, so that its callers see how they stand. Pure.

    RateLimit-Limit: 100    RateLimit-Remaining: 42    RateLimit-Reset: 7

One descriptor is shown, chosen as the reference implementation does: the last that is over its limit and no quota, else the first
with least left. Envoy's own `X-RateLimit-…` (`enable_x_ratelimit_headers`) are made of the same statuses, with no help of ours.
"""

from collections.abc import Sequence

from ratelimit_svc.model import UNLIMITED_REMAINING, Code, Meaning, Plan, Role, Status, Verdict


def describe(plan: Plan, verdict: Verdict, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return the headers of one answer; none where no limit was met.

    Args:
        plan: what was asked.
        verdict: what is answered.
        names: what the limit, what is left of it, and the seconds until it is there again are called.
    """
    shown = _shown(plan, verdict)
    if shown is None or shown.limit is None:
        return ()
    return tuple(zip(names, (shown.limit.requests_per_unit, shown.remaining, shown.reset_s or 0), strict=True))


def _shown(plan: Plan, verdict: Verdict) -> Status | None:
    shown, least = None, UNLIMITED_REMAINING
    for meaning, status in zip(plan.descriptors, verdict.statuses, strict=True):
        if status.limit is None:
            continue
        over = status.code is Code.OVER_LIMIT
        if over and not _is_quota(plan, meaning, status):
            shown, least = status, -1
        elif (left := 0 if over else status.remaining) < least:
            shown, least = status, left
    return shown


def _is_quota(plan: Plan, meaning: Meaning, status: Status) -> bool:
    """Return whether the limit that a status tells of is a quota."""
    places = meaning if isinstance(meaning, tuple) else ()
    rules = (plan.charges[at].rule for at in places)
    return any(rule.role is Role.QUOTA for rule in rules if rule.limit is status.limit)
