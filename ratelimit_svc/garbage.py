"""Garbage: the collector's full passes, kept off the way of requests.

A full pass looks at everything that is alive: 80 000 remembered plans take it 100 ms and more, in which nobody is answered.
By default one comes whenever a quarter of what is alive is new, which is often, since plans come and go. They need none: plans and
what they hold form no cycles, so they are freed as they are forgotten. What does form cycles is little, and is collected while
it is young, as ever; the rest waits for a time when nobody asks.
"""

import asyncio
import gc
from collections.abc import Callable

LOOK_EVERY_S = 1.0
"""A time without a request that is taken for quiet."""
COLLECT_EVERY_S = 60.0

NEVER = 1_000_000_000
"""So many passes over the middle generation before one over all."""


def spare_the_loop() -> None:
    """Take what is there now, modules above all, out of the collector's sight, and end full passes of its own accord."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, NEVER)
    gc.collect()
    gc.freeze()


class Quiet:
    """Says when to collect.

    Args:
        requests: how many there had been at the start.
        now_s: the time then.
    """

    def __init__(self, requests: int, now_s: float) -> None:
        self._requests = self._collected_of = requests
        self._collected_s = now_s

    def look(self, requests: int, now_s: float) -> bool:
        """Return whether to collect now: no request came since the last look, but some since the last collection."""
        quiet, self._requests = requests == self._requests, requests
        if not quiet or requests == self._collected_of or now_s - self._collected_s < COLLECT_EVERY_S:
            return False
        self._collected_of, self._collected_s = requests, now_s
        return True


async def collect_when_quiet(requests: Callable[[], int]) -> None:
    """Collect all garbage at times when nobody asks. Never returns.

    Args:
        requests: how many there have been.
    """
    loop = asyncio.get_running_loop()
    quiet = Quiet(requests(), loop.time())
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if quiet.look(requests(), loop.time()):
            gc.collect()
