"""Where windows are kept: `redis`, shared by all replicas, or `memory`, this process's own.

The contract of a store:

`take(lines, due)` charges a batch on the store's own clock, and each line of it atomically. It returns at once; its future
holds one entry per line, in order: a grant, or `Untaken` where there is none. A batch is never tried again by the store once it
may have happened. Several may be in flight, in any number: how many is the caller's decision, and bounds what the store holds
for them. One batch holds at most MAX_LINES lines and MAX_CHARGES charges.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Grant, Line

MAX_LINES = 128
"""Lines in one batch."""

MAX_CHARGES = 128
"""Charges in one batch, and so in one request: what one call of Redis takes is what everybody else waits for. Measured: 128
of them hold it for 0.8 ms; at worst, with 500 slices each that have to be cut anew, for some 20 ms. 20 000 hold it for 148."""


class Untaken(NamedTuple):
    """A line without a grant."""

    error: StoreUnavailableError
    """Why there is none."""
    outcome: asyncio.Future[int] | None = None
    """None: it charged nothing. Else nobody knows yet what it did: this will say how many of the line's n requests turned out
    to be charged. It is cancelled if that will never be known."""
    late: bool = False
    """True if the store got it when nobody waited for it any more, and so charged nothing."""


class Store(Protocol):
    """Keeps windows. See the module's text for the contract."""

    def take(self, lines: Sequence[Line], due: float | None = None) -> Awaitable[list[Grant | Untaken]]:
        """Charge a batch. A future is best: whatever else can be awaited costs the limiter a task.

        It does not fail, and it does not last: what has no answer in time is `Untaken`. Whoever does not want the answer any more
        may forget the future, or cancel it.

        Args:
            lines: what to charge.
            due: when nobody waits for the answer any more, by the loop's clock in s; charged later it would be in vain.
        """
        ...
