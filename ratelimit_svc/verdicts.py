"""Verdicts: the store's grants in Envoy's words. Pure.

One status per descriptor, in the request's order. What passes is told what is left and when its window is empty again;
what is denied, when it would fit. Times are rounded up to whole seconds: Envoy rounds down what it is given, and a
caller that comes back too early is denied again.
"""

from collections.abc import Callable

from ratelimit_svc.model import (
    MICROSECONDS,
    UNLIMITED_REMAINING,
    Charge,
    Code,
    Grant,
    OnStoreFailure,
    Outcome,
    Plan,
    Role,
    Rule,
    Status,
    Verdict,
)

NO_RULE = Status(Code.OK)
UNLIMITED = Status(Code.OK, remaining=UNLIMITED_REMAINING)


def granted(plan: Plan, grant: Grant, later: int) -> Verdict:
    """Return what one of a line's granted requests is told.

    Args:
        plan: the request's.
        grant: the line's.
        later: how many of the line's grants come after this one, and have yet to be taken off what remains for it.
    """

    def status(charge: Charge, outcome: Outcome) -> Status:
        if charge.role is Role.SHADOW:
            remaining = 0 if outcome.fits_in_us else outcome.remaining
            return Status(Code.OK, charge.rule.limit, remaining, _seconds(outcome.fits_in_us or outcome.empty_us))
        return Status(Code.OK, charge.rule.limit, outcome.remaining + later * charge.hits, _seconds(outcome.empty_us))

    return Verdict(Code.OK, _statuses(plan, grant, status))


def denied(plan: Plan, grant: Grant) -> Verdict:
    """Return what the rest of a line's requests are told: nothing of theirs was charged."""

    def status(charge: Charge, outcome: Outcome) -> Status:
        over = outcome.fits_in_us > 0 and charge.role is Role.GATE
        code = Code.OVER_LIMIT if over else Code.OK
        return Status(code, charge.rule.limit, outcome.remaining, _seconds(outcome.fits_in_us or outcome.empty_us))

    return Verdict(Code.OVER_LIMIT, _statuses(plan, grant, status))


def _statuses(plan: Plan, grant: Grant, status: Callable[[Charge, Outcome], Status]) -> tuple[Status, ...]:
    outcomes = iter(grant.outcomes)
    return tuple(
        status(meaning, next(outcomes)) if isinstance(meaning, Charge) else _uncounted(meaning)
        for meaning in plan.descriptors
    )


def _uncounted(rule: Rule | None) -> Status:
    return NO_RULE if rule is None else UNLIMITED


def by_policy(plan: Plan, policy: OnStoreFailure) -> Verdict:
    """Return what a request is told by `allow` or `deny`: no window was asked, so none is described."""
    refused = policy is OnStoreFailure.DENY

    def status(meaning: Charge | Rule | None) -> Status:
        if not isinstance(meaning, Charge):
            return _uncounted(meaning)
        if refused and meaning.rule.on_store_failure is policy and meaning.role is Role.GATE:
            return Status(Code.OVER_LIMIT, meaning.rule.limit, 0, 1)
        return NO_RULE

    return Verdict(Code.OVER_LIMIT if refused else Code.OK, tuple(map(status, plan.descriptors)))


def _seconds(time_us: int) -> int:
    return -(-time_us // MICROSECONDS)
