"""Where windows are kept: `redis`, shared by all replicas, or `memory`, this process's own.

The contract of a store:

`take(lines)` charges a batch, atomically and on the store's own clock. It returns at once; its future holds one grant per
line in order. The batch either happened whole or the future fails with `StoreUnavailableError`; then it may have happened or
not, and is never tried again by the store. Several may be in flight, in any number: how many is the caller's decision, and
bounds what the store holds for them. One batch holds at most MAX_LINES lines and MAX_CHARGES charges.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from ratelimit_svc.model import Grant, Line

MAX_LINES = 128
"""Lines in one batch."""

MAX_CHARGES = 128
"""Charges in one batch, and so in one request: what one call of Redis takes is what everybody else waits for. Measured: 128
of them hold it for 0.8 ms; at worst, with 500 slices each that have to be cut anew, for some 20 ms. 20 000 hold it for 148."""


class Store(Protocol):
    """Keeps windows. See the module's text for the contract."""

    def take(self, lines: Sequence[Line]) -> Awaitable[list[Grant]]:
        """Charge a batch. A future is best: whatever else can be awaited costs the limiter a task.

        The future fails with StoreUnavailableError: the batch was not taken, or it is not known whether it was. Whoever does
        not want the answer any more may forget the future, or cancel it.
        """
        ...
