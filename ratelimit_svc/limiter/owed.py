"""Owed: hits that were let pass without the store, to be charged when it is back.

What a replica's share of a limit let pass in an outage, or while a take's outcome was unknown, rides on the next take of its
window's key, in front of it, and counts even beyond the limit: so an outage ends without a second burst. It is dropped when the
hits would have left their window anyway. What is kept is bounded: beyond `most_keys` a debt is dropped for each new one.

Pure but for the clock it is handed.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from ratelimit_svc.model import MAX_HITS, Charge, Grant, Kind, Line, Overdraft, Plan, Role
from ratelimit_svc.store import Untaken

LOOKED_AT = 100
"""Debts looked at for one that is over, at one time: requests are waiting."""


@dataclass(slots=True)
class Debt:
    """Hits of one window that the store has yet to be told of."""

    charge: Charge
    """Any of those that make it up: they have the same window."""
    hits: int
    until_us: int
    """When the last of them would have left the window."""

    def line(self) -> Line:
        """Return what tells the store: it counts, whatever the window holds."""
        owed = self.charge._replace(
            hits=self.hits, role=Role.GATE, kind=Kind.POSITIVE, overdraft=Overdraft.ALWAYS, tenant="", label=""
        )
        return Line((owed,), 1)


class Owed:
    """All debts of this process, by the keys of their windows.

    Args:
        clock: the time in µs, that of the windows in memory.
        most_keys: how many are kept at most; 0: none.
    """

    def __init__(self, clock: Callable[[], int], *, most_keys: int) -> None:
        self._clock = clock
        self._most_keys = most_keys
        self._debts: OrderedDict[bytes, Debt] = OrderedDict()
        self.charged = 0
        """Hits that the store was told of."""
        self.dropped = 0
        """Hits dropped because there were too many debts."""

    def __len__(self) -> int:
        return len(self._debts)

    def __repr__(self) -> str:
        return f"<Owed: {len(self)} windows>"

    def add(self, debt: Debt) -> None:
        """Owe it, beside what is owed already."""
        held = self._debts.get(debt.charge.key)
        if held is not None:
            held.hits = min(held.hits + debt.hits, MAX_HITS)
            held.until_us = max(held.until_us, debt.until_us)
            return
        self._debts[debt.charge.key] = debt
        if len(self._debts) > self._most_keys:
            self.dropped += self._debts.popitem(last=False)[1].hits

    def take_out(self, lines: Iterable[Line], most: int) -> list[Debt]:
        """Take out the debts on the windows of these lines, so many at most; what is left waits for the next take."""
        found: list[Debt] = []
        now = self._clock()
        for line in lines:
            for charge in line.charges:
                if (
                    len(found) < most
                    and (debt := self._debts.pop(charge.key, None)) is not None
                    and debt.until_us > now
                ):
                    found.append(debt)
        return found

    def settle(self, debt: Debt, said: Grant | Untaken) -> None:
        """Note what the store says of a debt that was taken out: it is charged, or owed again."""
        if isinstance(said, Grant):  # BAD_KEY too: whoever spoilt a window's key has to mend it
            self.charged += debt.hits * max(said.granted, 0)
        elif said.outcome is None:
            self.add(debt)
        else:
            said.outcome.add_done_callback(partial(self._on_outcome, debt))

    def _on_outcome(self, debt: Debt, outcome: asyncio.Future[int]) -> None:
        charged = 0 if outcome.cancelled() else outcome.result()
        self.charged += debt.hits * charged
        if not charged:
            self.add(debt)

    def expire(self) -> None:
        """Drop debts whose hits would have left their windows: of the next LOOKED_AT, so that all have their turn."""
        now = self._clock()
        for _ in range(min(LOOKED_AT, len(self._debts))):
            key, debt = self._debts.popitem(last=False)
            if debt.until_us > now:
                self._debts[key] = debt


def debts(plan: Plan, share: Plan, grant: Grant, now_us: int) -> list[Debt]:
    """Return what one request that this replica's share let pass owes the store.

    Args:
        plan: the request's own, with the whole limits.
        share: the same, cut to this replica's share.
        grant: what that was granted.
        now_us: when, by the clock of the windows in memory.
    """
    return [
        Debt(charge, charge.hits, now_us + outcome.empty_us)
        for charge, cut, outcome in zip(plan.charges, share.charges, grant.outcomes, strict=True)
        if charge.kind is Kind.POSITIVE and (outcome.fits_in_us == 0 or cut.role is Role.GATE)
    ]
