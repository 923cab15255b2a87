"""Calls: takes that were written at once to one server, what became of each, and the receipts that tell it when no answer does.

A receipt is a key beside the windows, in which the script keeps the number of the last call that changed anything. Calls of one
node run in the order of their numbers. So a call that was lost with its connection was taken if its number is no greater than
its receipt's; else it charged nothing, or what it charged is gone with the receipt.

A receipt that cannot be read (it has expired, holds something else, may not be read) tells that nothing was charged: the
strict answer, for what policy let pass meanwhile is then owed.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from secrets import token_hex
from time import monotonic
from typing import Any, NamedTuple

from hiredis import ReplyError

from ratelimit_svc.breaker import Breaker
from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Line
from ratelimit_svc.store.redis import commands
from ratelimit_svc.store.redis.clock import StoreClock
from ratelimit_svc.store.redis.commands import Taken
from ratelimit_svc.store.redis.connection import Connection
from ratelimit_svc.store.redis.slots import tag_of

ELSEWHERE = ("MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN Hash slot not served")
"""Refusals of a node of a Cluster that is well: not here, not now, or nowhere."""

LEAVE = re.compile(r"READONLY|MASTERDOWN|read only replica", re.IGNORECASE)
"""Refusals of a primary that is none any more: the address may have another one behind it. Redis 6.2 has its script's words around it."""

Outcome = asyncio.Future[Taken | None]
"""What will tell of a call that nobody waits for any more: what was taken, or None if nothing was charged. A receipt tells neither
grants nor times: then all is said to be granted, at the time 0. It is cancelled if the node is closed before it knows."""


class Refused(NamedTuple):
    """A call that Redis answered with an error, which proves that it did not run."""

    said: str
    """Redis's own words."""


class Unknown(NamedTuple):
    """A call without an answer."""

    error: StoreUnavailableError
    outcome: Outcome | None = None
    """None: it was not sent, and charged nothing."""


Call = Taken | Refused | Unknown
"""What became of a call; `Taken` may be too late (its grants are None), and charged nothing then."""


_NOT_YET = Unknown(StoreUnavailableError("no answer yet"))


class Lost(NamedTuple):
    """A call whose connection has ended."""

    lines: Sequence[Line]
    receipt: bytes
    number: int
    """Greater than that of the last; 0: it has no receipt."""
    outcome: Outcome


class Receipts:
    """The keys of a node's receipts, and the numbers that they keep; and the key that its probes write.

    Args:
        prefix: put before them.
    """

    def __init__(self, prefix: bytes) -> None:
        self._key = prefix + f"receipt:{token_hex(8)}".encode()
        self._probe = prefix + b"probe"
        self._in_slots: dict[int, bytes] = {}
        self._slot: int | None = None
        """That of the last call."""
        self._number = 0

    @property
    def probe(self) -> bytes:
        """Return the key of a probe: in a Cluster where the last call was. A node says nothing of itself about slots it has not."""
        return self._probe if self._slot is None else b"%b:probe" % self._in_slots[self._slot]

    def next(self, slot: int | None, lines: Sequence[Line]) -> tuple[bytes, int]:
        """Return the next call's receipt and its number, greater than that of the last.

        In a Cluster each slot has a receipt of its own: the tag of the first key that was seen there brings it there, too.
        """
        self._number += 1
        if slot is None:
            return self._key, self._number
        self._slot = slot
        key = self._in_slots.get(slot)
        if key is None:
            key = self._in_slots[slot] = b"%b{%b}" % (self._key, tag_of(lines[0].charges[0].key))
        return key, self._number


class Tally:
    """What a node's answers tell of it.

    Args:
        breaker: the node's.
        knows_time: whether its clock is to be known, for `not_after`.
    """

    __slots__ = ("breaker", "clock", "knows_time", "late", "late_s", "lost")

    def __init__(self, breaker: Breaker, *, knows_time: bool) -> None:
        self.breaker = breaker
        self.knows_time = knows_time
        self.clock = StoreClock()
        self.late = 0
        """Answers that came when nobody waited for them any more."""
        self.late_s = 0.0
        """How much later than that, all together."""
        self.lost: list[Lost] = []
        """Calls whose receipts have to be read; not more than a connection may have in flight."""


class Calls:
    """Some calls, written at once: the `Asker` of a connection.

    Args:
        calls: the lines of each.
        receipts: the receipt of each, and its number.
        then: makes the answer of what became of the calls.
        connection: carries them.
        tally: notes what their answers tell.
    """

    __slots__ = (
        "_calls",
        "_connection",
        "_gave_up_s",
        "_outcomes",
        "_receipts",
        "_refused",
        "_tally",
        "_then",
        "_told",
        "_written_s",
        "answer",
        "left",
    )

    def __init__(
        self,
        calls: Sequence[Sequence[Line]],
        receipts: Sequence[tuple[bytes, int]],
        then: Callable[[list[Call]], Any],
        connection: Connection,
        tally: Tally,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._calls, self._receipts = calls, receipts
        self._then, self._connection, self._tally = then, connection, tally
        self._written_s = monotonic()
        self._gave_up_s = 0.0
        """When nobody waited any more."""
        self.left = len(calls)
        self._told: list[Call] = [_NOT_YET] * self.left
        self._refused = ""
        """What Redis said, if it refused one for a reason of its own."""
        self._outcomes: dict[int, Outcome] | None = None
        """Of those that were not answered when nobody waited any more; None: somebody waits."""
        self.answer: asyncio.Future[Any] = loop.create_future()
        """Resolved when all are answered, their time is up, or the connection has ended."""

    def on_reply(self, at: int, reply: object) -> None:
        """Note what became of a call; answer if it was the last."""
        call = self._refuse(reply) if isinstance(reply, ReplyError) else commands.taken(reply, self._calls[at])
        self._told[at] = call
        self.left -= 1
        if self._outcomes is not None:
            outcome = self._outcomes[at]
            if not outcome.done():
                outcome.set_result(call if isinstance(call, Taken) and call.grants is not None else None)
        if not self.left:
            self._finish(call)
            if self._refused and LEAVE.search(self._refused):
                self._connection.end(in_words(self._refused))

    def on_time_up(self, why: str) -> None:
        """Answer what is known. If nothing has been heard since this was written, the node hangs."""
        breaker = self._tally.breaker
        if self._connection.heard_s <= self._written_s and breaker.closed:
            breaker.trip(why)
        else:
            breaker.note_failure(why)
        self._give_up(why)

    def on_lost(self, why: str) -> None:
        """Answer what is known; what is not, receipts have to tell."""
        if not self.left:
            return
        outcomes = self._give_up(why) if self._outcomes is None else self._outcomes
        self._tally.lost += [
            Lost(self._calls[at], *self._receipts[at], outcome)
            for at, outcome in outcomes.items()
            if not outcome.done()
        ]

    def _finish(self, last: Call) -> None:
        """Answer; note how long it took, and what the last call tells of the store's clock."""
        tally, heard_s = self._tally, self._connection.heard_s
        if tally.knows_time and isinstance(last, Taken):
            tally.clock.note(last.now, self._written_s, heard_s)
        if self._outcomes is not None:
            tally.late += 1
            tally.late_s += heard_s - self._gave_up_s
            return
        if self._refused:
            tally.breaker.note_failure(in_words(self._refused))
        else:
            tally.breaker.note(heard_s - self._written_s)
        if not self.answer.done():
            self.answer.set_result(self._then(self._told))

    def _refuse(self, error: ReplyError) -> Refused:
        said = str(error)
        if not said.startswith(ELSEWHERE):
            self._refused = said
        return Refused(said)

    def _give_up(self, why: str) -> dict[int, Outcome]:
        """Let nobody wait any more; return the outcomes that are not known yet."""
        loop = self.answer.get_loop()
        self._gave_up_s = monotonic()
        outcomes: dict[int, Outcome] = {
            at: loop.create_future() for at, call in enumerate(self._told) if call is _NOT_YET
        }
        self._outcomes = outcomes
        told = self._told.copy()
        for at, outcome in outcomes.items():
            told[at] = Unknown(StoreUnavailableError(why), outcome)
        if not self.answer.done():
            self.answer.set_result(self._then(told))
        return outcomes


def charged(outcome: Outcome, at: int) -> asyncio.Future[int]:
    """Return what will tell of one line of a call how many of its requests were charged."""
    line: asyncio.Future[int] = outcome.get_loop().create_future()

    def on_outcome(_: object) -> None:
        if line.done():
            return
        if outcome.cancelled():
            line.cancel()
            return
        call = outcome.result()
        line.set_result(0 if call is None or call.grants is None else max(call.grants[at].granted, 0))

    outcome.add_done_callback(on_outcome)
    return line


def in_words(said: str) -> str:
    """Return an error of Redis's as a reason for people."""
    return f"Redis says: {said.removeprefix('ERR ')}"
