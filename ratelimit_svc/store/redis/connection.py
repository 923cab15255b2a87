"""A connection of the store: commands are written one behind the other, and each is answered in its turn.

It is a protocol on a transport that `handshake` has opened: TCP, a unix socket or TLS, on either loop. On the way of a
command there is no task, no lock and no timer of its own: one write, one future, one place in the line.

Rules:
1. A command is written once. Only NOSCRIPT, which proves that it did not run, has it written again, with the script.
2. A command without an answer in time, an answer to nothing, or one that cannot be understood ends the connection: what it
   still carries could not be told from the answers to later ones. All that wait then fail.
3. What is written and not yet sent is not bounded here: it is at most what waits for answers, and the caller decides how many
   takes do (some 50 kB each at the most, MAX_CHARGES of the longest keys). What has no answer in time goes with the connection.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import hiredis

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.store.redis import commands

EARLY_S = 0.0005
"""What is due so soon is due now: uvloop rounds its timers to milliseconds, down as well as up."""

CLOSED = "the connection was closed"

T = TypeVar("T")

_NOTHING = object()
"""What the parser says while it has no whole reply."""


@dataclass(slots=True)
class Asked:
    """A command that waits for its answer."""

    command: bytes
    read: Callable[[Any], Any]
    """Makes the result of the reply; what it raises ends the connection."""
    answer: asyncio.Future[Any]
    due: float
    """When its time is up, by the loop's clock in s. Sent again, it has no more of it."""


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        writer: an open one of which nothing is unread. Its transport becomes this protocol's.
        timeout_s: how long a command may take.
        on_answer: called with each answer: None, or what Redis says that it refused the command for.
        on_lost: called once, with the reason, when the connection has ended in any other way than by `close`.
    """

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        *,
        timeout_s: float,
        on_answer: Callable[[str | None], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._on_answer, self._on_lost = on_answer, on_lost
        self._replies = hiredis.Reader(notEnoughData=_NOTHING, errors="replace")
        self._asked: deque[Asked] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._open = True
        self._writer = writer  # which would close its transport if it were forgotten
        self._transport = writer.transport
        self._transport.set_protocol(self)

    def __repr__(self) -> str:
        return f"<Connection: {'open' if self._open else 'closed'}, {len(self._asked)} in flight>"

    @property
    def idle(self) -> bool:
        """Whether nothing waits for an answer."""
        return not self._asked

    def ask(self, command: bytes, read: Callable[[Any], T]) -> asyncio.Future[T]:
        """Write a command, and return what will be made of its reply.

        The future fails with StoreUnavailableError; it may be forgotten or cancelled.
        """
        asked = Asked(command, read, self._loop.create_future(), self._loop.time() + self._timeout_s)
        self._send(asked)
        if self._timer is None and self._open:
            self._timer = self._loop.call_at(asked.due, self._ring)
        return asked.answer

    def close(self, why: str) -> None:
        """End the connection, and with it all that waits; what is not sent yet is not sent any more."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        while self._asked:
            fail(self._asked.popleft().answer, why)

    def _send(self, asked: Asked) -> None:
        self._asked.append(asked)
        try:
            self._transport.write(asked.command)
        except Exception as error:  # noqa: BLE001 — of any kind: transports differ in how they say that they are closed
            self._end(str(error) or CLOSED)

    def _end(self, why: str) -> None:
        """Close, and tell why, before anybody who waits is told."""
        if self._open:
            self._open = False
            try:
                self._on_lost(why)
            finally:
                self.close(why)

    def _ring(self) -> None:
        """End the connection if the time of anything that waits is up; else look again when it would be."""
        self._timer = None
        if not self._asked:
            return
        due = min(asked.due for asked in self._asked)  # not always the first's: what is sent again is the last
        if due <= self._loop.time() + EARLY_S:
            self._end(f"no answer within {self._timeout_s * 1000:g} ms")
        else:
            self._timer = self._loop.call_at(due, self._ring)

    # ── what the transport calls ──────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Settle what is answered."""
        try:
            self._replies.feed(data)
            while self._open and (reply := self._replies.gets()) is not _NOTHING:
                self._settle(reply)
        except Exception as error:  # noqa: BLE001 — of any kind: the peer may say anything
            self._end(str(error) or type(error).__name__)

    def eof_received(self) -> None:
        """End the connection: who sends nothing more answers nothing more."""
        self._end(CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is not ended yet."""
        self._end(CLOSED if exc is None else str(exc) or type(exc).__name__)

    def _settle(self, reply: object) -> None:
        """Answer the first of those that wait."""
        if not self._asked:
            raise hiredis.ProtocolError(f"it said {reply!r:.50} without being asked")
        if isinstance(reply, hiredis.ReplyError):
            self._refuse(str(reply))
            return
        result = self._asked[0].read(reply)
        answer = self._asked.popleft().answer
        self._on_answer(None)
        if not answer.done():
            answer.set_result(result)

    def _refuse(self, said: str) -> None:
        """Fail the first of those that wait; send it again if the script was not there; leave what has become a replica."""
        why = f"Redis says: {said.removeprefix('ERR ')}"
        if "READONLY" in said.upper():
            self._end(why)  # the address may have a new primary behind it
            return
        asked = self._asked.popleft()
        if said.startswith("NOSCRIPT") and (again := commands.bring_script(asked.command)) is not None:
            asked.command = again
            self._send(asked)
            return
        self._on_answer(why)
        fail(asked.answer, why)


def fail(answer: asyncio.Future[Any], why: str) -> None:
    """Fail a future unless it is done or nobody wants it any more."""
    if not answer.done():
        answer.set_exception(StoreUnavailableError(why))
        answer.exception()  # it counts as seen, so that the loop does not complain if it was forgotten
