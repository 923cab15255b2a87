"""A connection of the store: commands are written one behind the other, and each is answered in its turn.

It is a protocol on a transport that `handshake` has opened: TCP, a unix socket or TLS, on either loop. On the way of a
command there is no task, no lock and no timer of its own: one write, one place in the line.

Rules:
1. A command is written once. Only NOSCRIPT, which proves that it did not run, has it written again, with the script.
2. Whoever asks is told when the time is up, and waits no longer. The command keeps its place in the line: its answer is read
   when it comes, however late.
3. What ends the connection: silence (something is asked, and not one byte has come for SILENCE_S), its end, an answer to nothing,
   and one that cannot be understood: what it still carries could not be told from the answers to later ones.
4. An error that Redis says is an answer; what it means is for whoever has asked to judge.
5. The clock is `monotonic`, which is the loop's, but exact: uvloop's own stands still in each of its turns, and has whole ms.
6. What is written and not yet answered is bounded by MOST_ASKS, and so is what is not yet sent: some 50 kB each at the most
   (MAX_CHARGES of the longest keys).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

import hiredis

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.store.redis import commands

SILENCE_S = 1.0
"""Or as long as a command may take, if that is longer."""

MOST_ASKS = 64
"""Without an answer: beyond them the connection is `full`."""

EARLY_S = 0.0005
"""What is due so soon is due now: uvloop rounds its timers to milliseconds, down as well as up."""

STALL_S, LOOK_S = 0.005, 0.001
"""A timer that rings so late shows that our own loop stood still. Answers may then lie in the socket, where uvloop looks after its
timers: it is given so long to do so, once."""

CLOSED = "the connection was closed"

_NOTHING = object()
"""What the parser says while it has no whole reply."""


class Asker(Protocol):
    """Who asks some commands at once."""

    left: int
    """How many of them have no answer yet; counted down by `on_reply`."""

    def on_reply(self, at: int, reply: object) -> None:
        """Take the answer to one of them, an error as well. What it raises ends the connection, as not to be understood."""
        ...

    def on_time_up(self, why: str) -> None:
        """Wait no longer."""
        ...

    def on_lost(self, why: str) -> None:
        """Know that no answer will come any more."""
        ...


class Replies:
    """Some commands whose replies are wanted as they are."""

    __slots__ = ("_replies", "answer", "left")

    def __init__(self, many: int) -> None:
        self.left = many
        self._replies: list[object] = [None] * many
        self.answer: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()

    def on_reply(self, at: int, reply: object) -> None:
        """Keep it."""
        self._replies[at] = reply
        self.left -= 1
        if not self.left and not self.answer.done():
            self.answer.set_result(self._replies)

    def on_time_up(self, why: str) -> None:
        """Say so."""
        self.on_lost(why)

    def on_lost(self, why: str) -> None:
        """Say why."""
        if not self.answer.done():
            self.answer.set_exception(StoreUnavailableError(why))
            self.answer.exception()  # it counts as seen, so that the loop does not complain if it was forgotten


class Sent(NamedTuple):
    """A command that waits for its answer."""

    asker: Asker | None
    """None: nobody wants it."""
    at: int
    """Which of the asker's commands it is."""
    command: bytes
    before: bytes
    """A command that goes before it whenever it is written, and whose answer nobody wants; empty: none."""
    written_s: float


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        writer: an open one of which nothing is unread. Its transport becomes this protocol's.
        timeout_s: how long a command may take before whoever asks is told that its time is up.
        on_lost: called once, with the reason, when the connection has ended in any other way than by `close`; before the askers.
    """

    def __init__(self, writer: asyncio.StreamWriter, *, timeout_s: float, on_lost: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._silence_s = max(SILENCE_S, timeout_s)
        self._on_lost = on_lost
        self._replies = hiredis.Reader(notEnoughData=_NOTHING, errors="replace")
        self._sent: deque[Sent] = deque()
        self._patient: deque[tuple[float, Asker]] = deque()
        """Those who still wait, and when their time is up, on the clock in s. Some may be answered already."""
        self.asks = 0
        """How many have not been answered in full."""
        self.heard_s = 0.0
        """When the last bytes came."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = 0.0
        self._has_looked = False
        self.open = True
        self._writer = writer  # which would close its transport if it were forgotten
        self._transport = writer.transport
        self._transport.set_protocol(self)

    def __repr__(self) -> str:
        return f"<Connection: {'open' if self.open else 'closed'}, {self.asks} in flight>"

    @property
    def full(self) -> bool:
        """Whether so much waits for an answer that nothing more may be asked."""
        return self.asks >= MOST_ASKS

    def ask(self, asked: Sequence[bytes], asker: Asker, *, before: bytes = b"") -> None:
        """Write some commands.

        Args:
            asked: the commands; one or more.
            asker: is told of their answers.
            before: another that goes before each of them, for what it does and not for its answer; empty: none.
        """
        now = monotonic()
        self.asks += 1
        due = now + self._timeout_s
        self._patient.append((due, asker))
        if (self._timer is None or self._rings_s > due) and self.open:
            self._wake_at(due)
        if len(asked) == 1 and not before:
            self._sent.append(Sent(asker, 0, asked[0], before, now))
            self._write(asked[0])
            return
        self._write(b"".join([self._queue(asker, at, command, before, now) for at, command in enumerate(asked)]))

    def call(self, *asked: bytes) -> asyncio.Future[list[object]]:
        """Write some commands, and return what will be their replies, errors among them.

        It fails with StoreUnavailableError when the time is up, or the connection has ended; it may be forgotten or cancelled.
        """
        replies = Replies(len(asked))
        self.ask(asked, replies)
        return replies.answer

    def end(self, why: str) -> None:
        """End the connection, and tell why, before anybody who waits is told."""
        if self.open:
            self.open = False
            try:
                self._on_lost(why)
            finally:
                self.close(why)

    def close(self, why: str) -> None:
        """End the connection, and with it all that waits; what is not sent yet is not sent any more."""
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        left = dict.fromkeys(sent.asker for sent in self._sent if sent.asker is not None)
        self._sent.clear()
        self._patient.clear()
        self.asks = 0
        for asker in left:
            asker.on_lost(why)

    def _queue(self, asker: Asker, at: int, command: bytes, before: bytes, now: float) -> bytes:
        """Put a command at the end of the line, and return what has to be written."""
        if before:
            self._sent.append(Sent(None, 0, before, b"", now))
        self._sent.append(Sent(asker, at, command, before, now))
        return before + command

    def _write(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except Exception as error:  # noqa: BLE001 — of any kind: transports differ in how they say that they are closed
            self.end(str(error) or CLOSED)

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wake_at(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = at_s
        self._timer = self._loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        """Tell those whose time is up; end the connection if it is silent; else look again when there is something to see."""
        self._timer = None
        now = monotonic()
        if now - self._rings_s > STALL_S and not self._has_looked:
            self._has_looked = True
            self._wake_at(now + LOOK_S)
            return
        self._has_looked = False
        self._impatient(now + EARLY_S)
        if not self._sent or not self.open:
            return
        silent_at = max(self.heard_s, self._sent[0].written_s) + self._silence_s
        if silent_at <= now + EARLY_S:
            self.end(_no_answer(self._silence_s))
        elif self._timer is None:
            self._wake_at(min(silent_at, self._patient[0][0]) if self._patient else silent_at)

    def _impatient(self, now: float) -> None:
        """Tell those whose time is up."""
        while self._patient and (self._patient[0][0] <= now or not self._patient[0][1].left):
            _, asker = self._patient.popleft()
            if asker.left:
                asker.on_time_up(_no_answer(self._timeout_s))

    # ── what the transport calls ──────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Hand out what is answered."""
        self.heard_s = monotonic()
        try:
            self._replies.feed(data)
            while self.open and (reply := self._replies.gets()) is not _NOTHING:
                self._settle(reply)
        except Exception as error:  # noqa: BLE001 — of any kind: the peer may say anything
            self.end(str(error) or type(error).__name__)

    def eof_received(self) -> None:
        """End the connection: who sends nothing more answers nothing more."""
        self.end(CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is not ended yet."""
        self.end(CLOSED if exc is None else str(exc) or type(exc).__name__)

    def _settle(self, reply: object) -> None:
        """Answer the first of those that wait; write it again if the script was not there."""
        if not self._sent:
            raise hiredis.ProtocolError(f"it said {reply!r:.50} without being asked")
        asker, at, command, before, _ = self._sent[0]
        if asker is None:
            self._sent.popleft()
            return
        if isinstance(reply, hiredis.ReplyError) and (again := _again(command, str(reply))):
            self._sent.popleft()
            self._write(self._queue(asker, at, again, before, monotonic()))
            return
        asker.on_reply(
            at, reply
        )  # if it cannot be understood, who has asked is still in the line when the connection ends
        if not self.open:
            return
        self._sent.popleft()
        if not asker.left:
            self.asks -= 1
            if self._patient and self._patient[0][1] is asker:
                self._patient.popleft()


def _again(command: bytes, said: str) -> bytes | None:
    """Return what has to be written in place of a command that was refused; None: nothing, its answer is its answer."""
    return commands.bring_script(command) if said.startswith("NOSCRIPT") else None


def _no_answer(within_s: float) -> str:
    return f"no answer within {within_s * 1000:g} ms"
