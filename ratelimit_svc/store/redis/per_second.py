"""Per second: short windows on a Redis of their own (REDIS_PERSECOND), all others on the usual one.

Windows shorter than a minute are written with almost every request and worth little when they are lost; longer ones are the
other way round. A request that has both spans two places, as it does in a Cluster.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

from ratelimit_svc.model import MICROSECONDS, Charge, Line
from ratelimit_svc.store.redis.node import Node
from ratelimit_svc.store.redis.spread import Answer, Asking, Places

SHORT_US = 60 * MICROSECONDS
"""Windows shorter than this are short: SECOND is, and so are multiples of it, as long as they stay below MINUTE."""


def _ignore() -> None:
    """Tell nobody."""


class PerSecond:
    """Two Redises, each of one place or of many. It is the `Places` of a `SpreadStore`.

    Args:
        usual: for windows of a minute and longer.
        short: for shorter ones.
        on_open: called when both have been opened, be they up or not.

    Resource handling: `async with` opens both, and closes them.
    """

    def __init__(self, usual: Places, short: Places, *, on_open: Callable[[], None] = _ignore) -> None:
        self._usual, self._short, self._on_open = usual, short, on_open
        self.opened = False
        """Whether both have been, so that what one of them tells is worth something."""
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<PerSecond: {self._usual!r}, {self._short!r} for short windows>"

    @property
    def up(self) -> bool:
        """Whether any of the two answers."""
        return self._usual.up or self._short.up

    def away(self) -> list[str]:
        """Return what does not answer and why, in words for people."""
        return [*self._usual.away(), *(f"for windows shorter than a minute: {away}" for away in self._short.away())]

    def nodes(self) -> Mapping[str, Node]:
        """Return the servers of both by their addresses."""
        return {**self._usual.nodes(), **self._short.nodes()}

    async def __aenter__(self) -> Self:
        await asyncio.gather(self._usual.__aenter__(), self._short.__aenter__())
        self.opened = True
        self._on_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._usual.__aexit__(), self._short.__aexit__())

    async def command(self, key: bytes, *words: bytes) -> object:
        """Write any other command to the usual Redis, and return its reply; see `Node.command`."""
        return await self._usual.command(key, *words)

    def place(self, charge: Charge) -> int:
        """Return a place of the usual Redis as it is there, one of the other as a negative number."""
        if charge.window_us < SHORT_US:
            return -1 - self._short.place(charge)
        return self._usual.place(charge)

    def ask(self, calls: Mapping[int, Sequence[Line]], due: float | None) -> Asking:
        """Take some lines in each place; see `Places.ask`."""
        usual = {place: lines for place, lines in calls.items() if place >= 0}
        if len(usual) == len(calls):
            return self._usual.ask(usual, due)
        short = {-1 - place: lines for place, lines in calls.items() if place < 0}
        if not usual:
            return self._short.ask(short, due)
        answer: asyncio.Future[list[Answer]] = self._loop.create_future()
        both = self._usual.ask(usual, due), self._short.ask(short, due)
        for asked in both:
            asked.add_done_callback(partial(_tell_when_both, answer, list(calls), both))
        return answer


def _tell_when_both(
    answer: asyncio.Future[list[Answer]],
    places: Sequence[int],
    both: tuple[Asking, Asking],
    _: object,
) -> None:
    """Put the answers of both in the order of the calls."""
    if answer.done() or not all(asked.done() for asked in both):
        return
    usual, short = (iter(asked.result()) for asked in both)
    answer.set_result([next(usual if place >= 0 else short) for place in places])
