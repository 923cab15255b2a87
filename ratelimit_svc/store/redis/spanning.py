"""Spanning: a line whose windows are in several places, taken in parts, one for each place, and put together again. Pure.

A place is what one script can reach: a slot of a Cluster, or one of two Redises. All or nothing holds for the line all the
same: what was charged in one place for a request that another place denies is given back, as undos (`Kind.UNDO`).

Rules:
1. In a place all gates are one part, n times: so many are granted as in the place with the fewest, and the rest of each part
   is undone.
2. A quota or a shadow is a part of its own, sent as a gate: whether it was charged its grant says. With quotas one of them has
   to fit.
3. A refund is only looked at (it is sent with 0 hits) and given when the request is granted: what was given back cannot be
   taken again without being in somebody's way.
4. A part that is not answered makes the line unanswered, and all that others have charged is undone.

What is told is what one script on one server would have told, with these exceptions. All of them err to the strict side, and
none lets more pass than the limit:
a. Between a charge and its undo others see the charge, and may be denied for it (`Grant.passing`).
b. What is undone is told as it was, but for the time until its window is empty, and for what remains where it had overdrawn.
c. A key that a request names as a refund and as something else: nothing is given back before the rest is decided.
d. A key that it names more than once, and not as gates only: how long until each would fit is told without the others; and a
   budget is overdrawn by the second of two quotas or shadows only if the first has left anything.
e. A check makes its key a budget although another place denies the request.
f. An undo that gets lost leaves its hits charged until the window forgets them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ratelimit_svc.model import BAD_KEY, Charge, Grant, Kind, Line, Outcome, Overdraft, Role


class Part(NamedTuple):
    """What is asked in one place."""

    place: int
    line: Line
    charges: tuple[int, ...]
    """Which of the spanning line's charges these are."""


class Told(NamedTuple):
    """What was answered to a part."""

    now: int
    """The place's time of the answer, in µs."""
    grant: Grant


class Whole(NamedTuple):
    """What a line's parts come to."""

    grant: Grant
    undo: list[Part]
    """What has to be given back."""
    refund: list[Part]
    """What may be given back, now that the line is granted; `refunded` puts the answers into the grant."""


def split(line: Line, places: Sequence[int]) -> list[Part]:
    """Return the parts of a line.

    Args:
        line: n requests of gates only, or one of any kind.
        places: where each of its charges is.
    """
    together: dict[int, list[int]] = {}
    parts = []
    for at, (charge, place) in enumerate(zip(line.charges, places, strict=True)):
        if charge.kind is Kind.REFUND or charge.role is Role.GATE:
            together.setdefault(place, []).append(at)
        else:
            parts.append(Part(place, Line((charge._replace(role=Role.GATE),), 1), (at,)))
    for place, several in together.items():
        parts.append(Part(place, Line(tuple(_asked(line.charges[at]) for at in several), line.n), tuple(several)))
    return parts


def _asked(charge: Charge) -> Charge:
    """Return a gate as it is; a refund as one that gives nothing back yet."""
    return charge._replace(hits=0, role=Role.GATE) if charge.kind is Kind.REFUND else charge


def combine(line: Line, parts: Sequence[Part], told: Sequence[Told]) -> Whole:
    """Return what the parts of a line come to.

    Args:
        line: as it was given to `split`.
        parts: what that made of it.
        told: what was answered to each of them.
    """
    if any(answer.grant.granted == BAD_KEY for answer in told):
        return Whole(Grant(BAD_KEY, ()), undo_all(parts, told), [])
    granted = _granted(line, parts, told)
    outcomes = dict[int, Outcome]()
    undo = []
    overdrawn = False
    for part, answer in zip(parts, told, strict=True):
        shadow = all(
            line.charges[at].role is Role.SHADOW for at in part.charges
        )  # refunds of shadows stand beside gates
        kept = min(granted, answer.grant.granted)
        back = answer.grant.granted - kept
        if back and _counts(part):
            undo.append(_undo(part, answer, back))
        overdrawn = overdrawn or (kept > 0 and answer.grant.overdrawn and not shadow)
        for at, charge, outcome in zip(part.charges, part.line.charges, answer.grant.outcomes, strict=True):
            outcomes[at] = _undone(charge, outcome, back, line.n) if back else outcome
    ordered = tuple(outcomes[at] for at in range(len(line.charges)))
    return Whole(Grant(granted, ordered, overdrawn), undo, _refunds(line, parts) if granted else [])


def undo_all(parts: Sequence[Part], told: Sequence[Told | None]) -> list[Part]:
    """Return what gives back all that parts have charged. None: a part that has not answered."""
    return [
        _undo(part, answer, answer.grant.granted)
        for part, answer in zip(parts, told, strict=True)
        if answer is not None and answer.grant.granted > 0 and _counts(part)
    ]


def refunded(grant: Grant, part: Part, outcomes: Sequence[Outcome]) -> Grant:
    """Return a granted line's grant with what was told when a refund of it was given."""
    told = dict(zip(part.charges, outcomes, strict=True))
    return grant._replace(outcomes=tuple(told.get(at, outcome) for at, outcome in enumerate(grant.outcomes)))


def _granted(line: Line, parts: Sequence[Part], told: Sequence[Told]) -> int:
    """Return how many of the line's n requests are granted."""
    granted, quotas = line.n, []
    for part, answer in zip(parts, told, strict=True):
        charge = line.charges[part.charges[0]]
        if charge.role is Role.GATE or charge.kind is Kind.REFUND:
            granted = min(granted, answer.grant.granted)
        elif charge.role is Role.QUOTA:
            quotas.append(answer.grant.granted)
    return granted if not quotas or any(quotas) else 0


def _counts(part: Part) -> bool:
    """Return whether a part has anything to undo: not if it only asks."""
    return any(charge.kind is Kind.POSITIVE for charge in part.line.charges)


def _undo(part: Part, answer: Told, requests: int) -> Part:
    """Return what gives back what a part has charged for so many requests."""
    counted = [place for place, charge in enumerate(part.line.charges) if charge.kind is Kind.POSITIVE]
    charges = (part.line.charges[place] for place in counted)
    undos = tuple(
        charge._replace(
            kind=Kind.UNDO,
            hits=charge.hits * requests,
            limit=answer.now,
            role=Role.GATE,
            overdraft=Overdraft.NEVER,
        )
        for charge in charges
    )
    return Part(part.place, Line(undos, 1), tuple(part.charges[place] for place in counted))


def _undone(charge: Charge, outcome: Outcome, requests: int, n: int) -> Outcome:
    """Return how a charge stands when so many requests of it are undone.

    Of n > 1 requests one more would fit then. A single one is told how it stood: it fitted, or would have overdrawn.
    """
    remaining, empty_us, fits_in_us = outcome
    overshot = n == 1 and remaining <= 0 and (fits_in_us > 0 or charge.overdraft is Overdraft.ALWAYS)
    if charge.kind is Kind.POSITIVE and not overshot:
        remaining += requests * charge.hits
    return Outcome(max(remaining, 0), empty_us, 0 if n > 1 else fits_in_us)


def _refunds(line: Line, parts: Sequence[Part]) -> list[Part]:
    """Return what a granted line gives back."""
    found = []
    for part in parts:
        places = tuple(at for at in part.charges if line.charges[at].kind is Kind.REFUND and line.charges[at].hits)
        if places:
            found.append(Part(part.place, Line(tuple(line.charges[at] for at in places), 1), places))
    return found
