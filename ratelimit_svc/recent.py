"""The recent distinct requests: which rule each descriptor met or why none, and how its windows stand now.

What `/debug/requests` shows. "Nothing is limited" and "why was I limited?" are both answered by looking at what is really asked:
the memory of plans has the last distinct requests, and a check asks the store for their windows without counting.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ratelimit_svc.limiter import Limiter
from ratelimit_svc.model import (
    MICROSECONDS,
    Charge,
    Descriptor,
    Kind,
    Line,
    Outcome,
    Overdraft,
    Plan,
    Request,
    Role,
    Rule,
)
from ratelimit_svc.rules.explain import explain
from ratelimit_svc.rules.words import in_words
from ratelimit_svc.store import MAX_LINES, Store, Untaken

MOST_SHOWN = 500
"""Requests on one page, and descriptors, and windows asked for it: a debugging human holds up nobody."""
MOST_LOOKED_AT = 20_000
"""Remembered requests that one page looks through for those that are wanted."""

_Window = tuple[bytes, int, int]
"""What tells the windows of two charges apart, and what they may hold: key, limit, shape. Limits are not in keys."""

Told = dict[str, Any]


class Wanted(NamedTuple):
    """Which of the recent requests."""

    limit: int = 50
    """So many, newest first."""
    domain: str = ""
    """Of this domain only."""
    entry: str = ""
    """Only those with a descriptor that has this entry, `key=value`."""
    unmatched: bool = False
    """Only those with a descriptor that no rule limits."""


class Recent:
    """Looks at recent requests.

    Args:
        limiter: whose requests.
        store: has their windows.
        decode: bytes to Request.
    """

    def __init__(self, limiter: Limiter, store: Store, decode: Callable[[bytes], Request]) -> None:
        self._limiter = limiter
        self._store = store
        self._decode = decode

    async def look(self, wanted: Wanted) -> Told:
        """Return what is known of them, ready for JSON. Counts nothing."""
        remembered = list(islice(self._limiter.plans.newest_first(), MOST_LOOKED_AT))
        # what takes long runs in a thread: plans and rules never change
        found = await asyncio.to_thread(self._find, wanted, remembered)
        charges = {_window(charge): charge for _, plan in found for charge in plan.charges}
        windows, away = await self._windows(list(charges.values()))
        requests = await asyncio.to_thread(lambda: [self._request(*each, windows) for each in found])
        return {
            "remembered": len(self._limiter.plans),
            "store_away": away,
            "shadow_mode": self._limiter.shadow_mode,
            "requests": requests,
        }

    def _find(self, wanted: Wanted, remembered: Iterable[tuple[bytes, Plan]]) -> list[tuple[Request, Plan]]:
        """Return the requests that are wanted, as many as one page holds; always one, if there is one."""
        found: list[tuple[Request, Plan]] = []
        size = 0
        for request, plan in self._wanted(wanted, remembered):
            size += max(len(plan.descriptors), len(plan.charges))
            if found and (size > MOST_SHOWN or len(found) >= wanted.limit):
                break
            found.append((request, plan))
        return found

    def _wanted(self, wanted: Wanted, remembered: Iterable[tuple[bytes, Plan]]) -> Iterator[tuple[Request, Plan]]:
        for data, plan in remembered:
            if wanted.unmatched and None not in plan.descriptors:
                continue
            request = self._decode(data)
            if wanted.domain and request.domain != wanted.domain:
                continue
            if wanted.entry and wanted.entry not in (entry for each in request.descriptors for entry in _entries(each)):
                continue
            yield request, plan

    async def _windows(self, charges: Sequence[Charge]) -> tuple[dict[_Window, Outcome], str]:
        """Return how the windows of these charges stand, and why some are not known.

        Each is asked by a check that nobody is denied by.
        """
        outcomes: dict[_Window, Outcome] = {}
        away = ""
        for start in range(0, len(charges), MAX_LINES):
            some = charges[start : start + MAX_LINES]
            for charge, said in zip(
                some, await self._store.take([Line((_question(charge),), 1) for charge in some]), strict=True
            ):
                if isinstance(said, Untaken):
                    away = str(said.error)
                elif said.outcomes:
                    outcomes[_window(charge)] = said.outcomes[0]
        return outcomes, away

    def _request(self, request: Request, plan: Plan, windows: dict[_Window, Outcome]) -> Told:
        told: Told = {"domain": request.domain}
        if request.hits:
            told["hits"] = request.hits
        told["descriptors"] = [
            self._descriptor(request.domain, descriptor, plan, place, windows)
            for place, descriptor in enumerate(request.descriptors)
        ]
        return told

    def _descriptor(
        self, domain: str, descriptor: Descriptor, plan: Plan, place: int, windows: dict[_Window, Outcome]
    ) -> Told:
        told: Told = {"entries": list(_entries(descriptor))}
        if descriptor.hits is not None:
            told["hits"] = descriptor.hits
        if descriptor.refund:
            told["refund"] = True
        meaning = plan.descriptors[place]
        if isinstance(meaning, Rule):
            return told | {"rule": meaning.id, "unlimited": True}
        if meaning is None:
            rules = self._limiter.rules
            reason = explain(rules, domain, descriptor.entries).reason if rules is not None else "no rules are loaded"
            return told | {"rule": None, "why": reason or "another limit of this request replaces it"}
        return told | {"limits": [_limit(plan.charges[at], windows.get(_window(plan.charges[at]))) for at in meaning]}


def _entries(descriptor: Descriptor) -> Iterator[str]:
    return (f"{entry.key}={entry.value}" for entry in descriptor.entries)


def _window(charge: Charge) -> _Window:
    return charge.key, charge.limit, charge.shape


def _question(charge: Charge) -> Charge:
    """Return what asks for a charge's window and leaves it as it is."""
    return charge._replace(hits=0, role=Role.SHADOW, kind=Kind.CHECK, overdraft=Overdraft.NEVER)


def _limit(charge: Charge, window: Outcome | None) -> Told:
    told: Told = {
        "rule": charge.rule.id,
        "limit": in_words(charge.rule.limit),
        "role": charge.rule.role.name.lower(),
        "tenant": charge.tenant,
        "window": charge.key.decode("utf-8", "replace"),
    }
    if window is None:
        return told
    full_for_us = window.fits_in_us or (window.empty_us if window.remaining == 0 else 0)
    return told | {
        "remaining": window.remaining,
        "used": max(charge.limit - window.remaining, 0),
        "frees_in_s": full_for_us / MICROSECONDS,
        "empty_in_s": window.empty_us / MICROSECONDS,
    }
