"""Verdicts: the store's grants in Envoy's words. Pure.

One status per descriptor, in the request's order: of several limits the one that denies, else the one with least left. What
passes is told what is left and when its window is empty again; what is denied, when it would fit. Times are rounded up to
whole seconds: Envoy rounds down what it is given, and a caller that comes back too early is denied again.

A request is over its limit if one of its gates is, or if it has quotas and all of them are.
"""

from collections.abc import Callable, Sequence

from ratelimit_svc.model import (
    MICROSECONDS,
    UNLIMITED_REMAINING,
    Charge,
    Code,
    Grant,
    Kind,
    Meaning,
    OnStoreFailure,
    Outcome,
    Plan,
    Role,
    Rule,
    Status,
    Verdict,
)

_OK, _OVER_LIMIT = Code.OK, Code.OVER_LIMIT
_SHADOW, _QUOTA = Role.SHADOW, Role.QUOTA
"""By names of their own: to find a member in its class takes 50 ns, each time."""

NO_RULE = Status(Code.OK)
UNLIMITED = Status(Code.OK, remaining=UNLIMITED_REMAINING)


def granted(plan: Plan, grant: Grant) -> Verdict:
    """Return what the last of a line's granted requests is told; `earlier` says what those before it are.

    When a window is empty is told as after all of them: only in buckets does that differ.
    """
    code = _OVER_LIMIT if grant.overdrawn and denying(plan, grant) else _OK
    return Verdict(code, _statuses(plan, grant, _granted))


def _granted(charge: Charge, outcome: Outcome, overdrawn: bool) -> Status:  # noqa: FBT001 — the grant's
    remaining, empty_us, fits_in_us = outcome
    if fits_in_us and charge.role is _SHADOW and charge.rule.role is not _QUOTA:
        return Status(_OK, charge.rule.limit, 0, _seconds(fits_in_us))
    if fits_in_us and (overdrawn or charge.rule.role is _QUOTA):
        return Status(_OVER_LIMIT, charge.rule.limit, max(remaining, 0), _seconds(fits_in_us))
    return Status(_OK, charge.rule.limit, remaining, _seconds(empty_us))


def earlier(verdict: Verdict, later: int, hits: Sequence[int]) -> Verdict:
    """Return what a granted request is told after which so many of its line were granted.

    Args:
        verdict: what the last of them is told.
        later: how many come after this one, and have yet to take their hits off what remains.
        hits: what each of them takes, by descriptor (`taken`).
    """
    statuses = [
        Status(code, limit, remaining + later * each, reset_s)
        for (code, limit, remaining, reset_s), each in zip(verdict.statuses, hits, strict=True)
    ]
    return verdict._replace(statuses=tuple(statuses))


def taken(plan: Plan) -> list[int]:
    """Return how many hits a request takes off what remains for each of its descriptors; for plans that coalesce."""
    return [plan.charges[meaning[0]].hits if isinstance(meaning, tuple) else 0 for meaning in plan.descriptors]


def denied(plan: Plan, grant: Grant) -> Verdict:
    """Return what the rest of a line's requests are told: nothing of theirs was charged."""
    return Verdict(_OVER_LIMIT, _statuses(plan, grant, _denied))


def _denied(charge: Charge, outcome: Outcome, _: bool) -> Status:  # noqa: FBT001 — the grant's
    remaining, empty_us, fits_in_us = outcome
    code = _OVER_LIMIT if fits_in_us > 0 and charge.role is not _SHADOW else _OK
    return Status(code, charge.rule.limit, remaining, _seconds(fits_in_us or empty_us))


def remembered(plan: Plan, grant: Grant) -> Verdict:
    """Return what a request is told whose denial is remembered: of the charges that deny it; no other window was asked."""
    return Verdict(_OVER_LIMIT, _statuses(plan, grant, _remembered))


def _remembered(charge: Charge, outcome: Outcome, overdrawn: bool) -> Status:  # noqa: FBT001 — the grant's
    return _denied(charge, outcome, overdrawn) if outcome.fits_in_us else NO_RULE


def denying(plan: Plan, grant: Grant) -> list[int]:
    """Return which charges deny a request: gates that do not fit, and quotas if none of them does."""
    gates: list[int] = []
    quotas: list[int] = []
    room = False
    for place, (charge, outcome) in enumerate(zip(plan.charges, grant.outcomes, strict=True)):
        if charge.role is Role.GATE and outcome.fits_in_us > 0:
            gates.append(place)
        elif charge.role is Role.QUOTA and charge.kind is not Kind.REFUND:
            quotas.append(place)
            room = room or outcome.fits_in_us == 0
    return gates if room else gates + quotas


def deciding(plan: Plan, grant: Grant) -> int | None:
    """Return which charge denies: of those that do, the one that takes longest to fit, the first of equals."""
    return max(denying(plan, grant), key=lambda place: grant.outcomes[place].fits_in_us, default=None)


def _statuses(plan: Plan, grant: Grant, status: Callable[[Charge, Outcome, bool], Status]) -> tuple[Status, ...]:
    charges, (_, outcomes, overdrawn, _) = plan.charges, grant
    statuses = []
    for meaning in plan.descriptors:
        if not isinstance(meaning, tuple):
            statuses.append(_uncounted(meaning))
        elif len(meaning) == 1:
            statuses.append(status(charges[meaning[0]], outcomes[meaning[0]], overdrawn))
        else:
            each = [(charges[at], status(charges[at], outcomes[at], overdrawn)) for at in meaning]
            statuses.append(_tightest(each))
    return tuple(statuses)


def _tightest(statuses: list[tuple[Charge, Status]]) -> Status:
    """Return the status that tells most of several limits of one descriptor.

    The one that denies longest; else that with least left, and of those the one that is full longest. Shadows only speak
    where there is nothing else.
    """

    def order(told: tuple[Charge, Status]) -> tuple[bool, bool, int, int]:
        charge, status = told
        over = status.code is Code.OVER_LIMIT
        left = 0 if over else status.remaining
        return charge.role is Role.SHADOW, not over, left, -(status.reset_s or 0)

    return min(statuses, key=order)[1]


def _uncounted(rule: Rule | None) -> Status:
    return NO_RULE if rule is None else UNLIMITED


def by_policy(plan: Plan, policy: OnStoreFailure) -> Verdict:
    """Return what a request is told by `allow` or `deny`: no window was asked, so none is described."""
    refused = policy is OnStoreFailure.DENY

    def status(meaning: Meaning) -> Status:
        if not isinstance(meaning, tuple):
            return _uncounted(meaning)
        for charge in (plan.charges[at] for at in meaning):
            if refused and charge.rule.on_store_failure is policy and _denies(charge):
                return Status(Code.OVER_LIMIT, charge.rule.limit, 0, 1)
        return NO_RULE

    return Verdict(Code.OVER_LIMIT if refused else Code.OK, tuple(map(status, plan.descriptors)))


def _denies(charge: Charge) -> bool:
    return charge.role is not Role.SHADOW and charge.kind is not Kind.REFUND


def _seconds(time_us: int) -> int:
    return -(-time_us // MICROSECONDS)
