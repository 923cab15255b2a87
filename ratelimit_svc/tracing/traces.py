"""Which requests are sampled, and what becomes of them: the way from a request's headers to its span."""

import asyncio
from collections.abc import Callable
from random import random
from time import time_ns
from typing import NamedTuple

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.tracing.context import Field, Parent, parent


class Trace(NamedTuple):
    """A sampled request."""

    parent: Parent | None
    """None: it begins a trace."""
    began_ns: int
    """When it came, in ns since the epoch."""


Record = Callable[[Trace, bytes, bytes | RateLimitError, int], None]
"""Takes a sampled request, its bytes, what it was told, and when (ns since the epoch)."""


class Traces:
    """Which requests are sampled.

    Args:
        rate: of the requests that belong to no trace, this share is; 0 or less: none, 1 or more: all. The others are if their
            callers' spans are.
        record: told of each, once it is answered.
        chance: a number from 0 to 1, another one each time.
        clock: ns since the epoch.
    """

    def __init__(
        self, rate: float, record: Record, *, chance: Callable[[], float] = random, clock: Callable[[], int] = time_ns
    ) -> None:
        self._rate, self._record = rate, record
        self._chance, self._clock = chance, clock

    def begun(self, field: Field) -> Trace | None:
        """Return the trace of a request that comes now, with these headers; None: it is not sampled."""
        found = parent(field)
        sampled = self._chance() < self._rate if found is None else found.sampled
        return Trace(found, self._clock()) if sampled else None

    def answered(self, trace: Trace, request: bytes, answer: bytes | RateLimitError) -> None:
        """Note what a sampled request was told, now."""
        try:
            self._record(trace, request, answer, self._clock())
        except Exception as error:  # noqa: BLE001 — a defect: the request is answered, and others wait
            context = {"message": "a span could not be made", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
