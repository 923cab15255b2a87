"""A node: one server, kept connected, with a breaker before it.

`Node.ask` takes calls, each a batch of lines, and its future says of each what became of it (`calls`): `Taken`, `Refused`, which
proves that it did not run, or `Unknown`. It resolves when all are answered, and at the latest when STORE_TIMEOUT is over.

Rules:
1. A node is `up` while a connection stands and the breaker is closed. Else nothing is written but probes: what is asked fails
   at once, and has charged nothing.
2. A connection that has ended is opened anew at once. If that fails, the breaker opens, and its `probe_at` is the only back-off: a
   probe connects if need be, and then writes a key, since a server that refuses takes answers PING all the same.
3. A node that has said nothing since a call was written whose time is up hangs: the breaker opens at once.
4. A fresh connection is not up before a take of nothing has been answered and the receipts of what the last one has lost are read.
5. Where the server is is found out anew whenever a connection is opened, and looked at every LOOK_EVERY_S.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from time import monotonic
from typing import Self, TypeVar

from hiredis import ReplyError

from ratelimit_svc.breaker import Breaker, BreakerState
from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Line
from ratelimit_svc.store.redis import commands, handshake
from ratelimit_svc.store.redis.calls import LEAVE, Call, Calls, Receipts, Tally, Unknown, in_words
from ratelimit_svc.store.redis.connection import Connection
from ratelimit_svc.store.redis.warm import check, warm
from ratelimit_svc.store.redis.where import Address, Where

LOOK_EVERY_S = 1.0
"""An idle connection is asked this often whether it lives, and sentinels, who the primary is."""

EARLY_S = 0.001
"""uvloop rounds its timers to milliseconds, down as well as up."""

MOST_REASONS = 20  # told in one outage: some have figures in them, and are new each time

PING = commands.of(b"PING")
ASKING = commands.of(b"ASKING")

T = TypeVar("T")


def _ignore(*_: object) -> None:
    """Tell nobody."""


class Node:
    """One server.

    Args:
        where: how one logs in there.
        address: where it is; with `find`, what stands here until that is known.
        find: says where it is, whenever a connection is opened; None: at its address.
        timeout_s: how long a call may be waited for.
        latency_s: the longest that an answer in time takes, for the breaker.
        key_prefix: put before the node's own keys: the probe, and the receipts.
        clock: gives the time in µs instead of the server's own, for tests. No call is ever too late then.
        on_up: called with a list of warnings when the node is up.
        on_down: called with the reason when it ceases to be, or if it is not from the start; again with each other reason.
        on_change: called with the address, and what the breaker tells, when that opens and closes.

    Resource handling: `async with` opens it, until a connection stands or the first attempt has failed. On leaving, its task and
    its connection are closed, and outcomes that are not known yet are cancelled.

    Error handling: everything is tried again in the background for ever.
    """

    def __init__(
        self,
        where: Where,
        address: Address,
        *,
        find: Callable[[], Awaitable[Address]] | None = None,
        timeout_s: float = 0.1,
        latency_s: float = 0.05,
        key_prefix: str = "",
        clock: Callable[[], int] | None = None,
        on_up: Callable[[list[str]], None] = _ignore,
        on_down: Callable[[str], None] = _ignore,
        on_change: Callable[[str, BreakerState, str], None] = _ignore,
    ) -> None:
        self._where, self.short, self.address, self._find = where, where.short, address, find
        self._timeout_s = timeout_s
        self._clock = clock
        self._on_up, self._on_down, self._on_change = on_up, on_down, on_change
        self._receipts = Receipts(f"{key_prefix}ratelimit-svc:".encode())
        self._loop = asyncio.get_running_loop()
        self.breaker = Breaker(
            clock=self._loop.time,
            random=Random(),  # noqa: S311 — jitter, no secret
            latency_s=latency_s,
            on_change=self._on_breaker,
        )
        self._tally = Tally(self.breaker, knows_time=clock is None)
        self._connection: Connection | None = None
        self._why_lost = "not connected yet"
        self._warnings: list[str] = []  # not told yet
        self._was_up = False
        self._reasons_told: set[str] = set()
        """In this outage, so that reasons that take turns are told once each."""
        self._changed = asyncio.Event()
        """There is something for the keeper to do."""
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Node {self.address}: {'up' if self.up else f'down, {self.why_down}'}>"

    @property
    def up(self) -> bool:
        """Whether calls are written."""
        return self._connection is not None and self.breaker.closed

    @property
    def why_down(self) -> str:
        """Why not; empty: they are."""
        return self.breaker.why or ("" if self._connection is not None else self._why_lost)

    @property
    def late(self) -> int:
        """How many answers came when nobody waited for them any more."""
        return self._tally.late

    @property
    def late_s(self) -> float:
        """How much later than that, all together."""
        return self._tally.late_s

    def describe(self) -> Mapping[str, object]:
        """Return what health detail shows."""
        return {
            "address": str(self.address),
            "up": self.up,
            "reason": self.why_down,
            "connected": self._connection is not None,
            "in_flight": 0 if self._connection is None else self._connection.asks,
            "late_answers": self.late,
            "breaker": self.breaker.describe(),
        }

    async def __aenter__(self) -> Self:
        await self._connect_now()  # down at the start is no reason not to start
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.address}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])  # to await the task itself would swallow a cancel of who closes
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close("the store is closed")
        self._why_lost = "the store is closed"
        for lost in self._tally.lost:
            lost.outcome.cancel()
        self._tally.lost.clear()

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(
        self,
        calls: Sequence[Sequence[Line]],
        due: float | None = None,
        *,
        slots: Sequence[int] | None = None,
        asking: bool = False,
    ) -> asyncio.Future[list[Call]]:
        """Take batches, all written at once, behind what is in flight; the future has what became of each, in order.

        A call is written once: again only after NOSCRIPT, which proves that it did not run. The future does not fail; it may be
        forgotten or cancelled.

        Args:
            calls: each a batch of lines.
            due: the loop's time in s when nobody waits any more: later, nothing is charged. None: that is never too late.
            slots: in a Cluster, that of each call: its receipt has to be in the same. None: all calls have one receipt.
            asking: whether ASKING goes before each (after ASK). Such a call has no receipt: if it is lost, it is taken to have
                charged nothing.
        """
        return self.ask_then(calls, due, list, slots=slots, asking=asking)

    def ask_then(
        self,
        calls: Sequence[Sequence[Line]],
        due: float | None,
        then: Callable[[list[Call]], T],
        *,
        slots: Sequence[int] | None = None,
        asking: bool = False,
    ) -> asyncio.Future[T]:
        """As `ask`, with a future of what `then` makes of the calls."""
        connection = self._connection
        if connection is None or not self.breaker.closed or connection.full:
            return self._not_asked(len(calls), then)
        now = not_after = 0
        if self._clock is not None:
            now = self._clock()
        elif due is not None:
            not_after = self._tally.clock.latest(due, monotonic())
        receipts, written = [], []
        for at, lines in enumerate(calls):
            slot = None if slots is None else slots[at]
            # after ASK, a receipt might be on the other side; and a key is needed that is where the windows are
            receipt = (lines[0].charges[0].key, 0) if asking else self._receipts.next(slot, lines)
            receipts.append(receipt)
            written.append(commands.take(lines, receipt=receipt[0], number=receipt[1], now=now, not_after=not_after))
        asker = Calls(calls, receipts, then, connection, self._tally)
        connection.ask(written, asker, before=ASKING if asking else b"")
        return asker.answer

    async def command(self, *words: bytes) -> object:
        """Write any other command, and return its reply.

        Raises:
            StoreUnavailableError: Redis refuses it, does not answer in time, or is away.
        """
        connection = self._connection
        if connection is None or not self.breaker.closed or connection.full:
            raise StoreUnavailableError(self._why_not())
        (reply,) = await connection.call(commands.of(*words))
        if isinstance(reply, ReplyError):
            raise StoreUnavailableError(in_words(str(reply)))
        return reply

    def _not_asked(self, many: int, then: Callable[[list[Call]], T]) -> asyncio.Future[T]:
        answer: asyncio.Future[T] = self._loop.create_future()
        answer.set_result(then([Unknown(StoreUnavailableError(self._why_not()))] * many))
        return answer

    def _why_not(self) -> str:
        return self.why_down or "too many calls have no answer yet"

    # ── what happens to it ────────────────────────────────────────────────────────────────────────────────────────────

    def _on_breaker(self, state: BreakerState, why: str) -> None:
        self._changed.set()
        self._on_change(str(self.address), state, why)
        self._tell()

    def _on_lost(self, why: str) -> None:
        """Forget the connection that has ended."""
        self._connection, self._why_lost = None, why
        self._changed.set()
        self.breaker.note_failure(why)
        self._tell()

    def _tell(self) -> None:
        """Say that the node is up, or why it is down, if that is news."""
        was_up, self._was_up = self._was_up, self.up
        if self._was_up:
            if not was_up:
                self._reasons_told.clear()
                warnings, self._warnings = self._warnings, []
                self._on_up(warnings)
        elif self.why_down not in self._reasons_told and len(self._reasons_told) < MOST_REASONS:
            self._reasons_told.add(self.why_down)
            self._on_down(self.why_down)

    # ── the keeper ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self) -> None:
        """Connect whenever there is no connection; probe while the breaker is open; look whether the node lives, and where it is."""
        while True:
            self._changed.clear()
            if not self.breaker.closed:
                wait_s = self.breaker.probe_at - self._loop.time()
                if wait_s > EARLY_S:
                    await self._wait(wait_s)
                else:
                    await self._probe()
            elif self._connection is None:
                await self._connect_now()
            else:
                await self._wait(LOOK_EVERY_S)
                await self._look()

    async def _wait(self, most_s: float) -> None:
        """Wait until something has changed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):  # not wait_for: in Python 3.11 it may swallow a cancel
                await self._changed.wait()

    async def _connect_now(self) -> None:
        """Connect; if that fails, let the breaker say when to try again."""
        try:
            await self._connect()
        except StoreUnavailableError as error:
            self._why_lost = str(error)
            self.breaker.trip(str(error))
        self._tell()

    async def _connect(self) -> None:
        """Open a connection, and make it ready for calls.

        Raises:
            StoreUnavailableError: why there is none.
        """
        try:
            if self._find is not None:
                self.address = await self._find()
            writer, warnings = await handshake.connect(self._where, self.address, timeout_s=self._timeout_s)
        except Exception as error:  # noqa: BLE001 — of any kind: uvloop, redis-py and a broken peer have many
            raise StoreUnavailableError(handshake.reason(error)) from None
        connection = Connection(writer, timeout_s=self._timeout_s, on_lost=self._on_lost)
        await warm(connection, self._tally, self._receipts.probe)
        if not connection.open:  # lost in the very turn in which it was ready
            raise StoreUnavailableError(self._why_lost)
        self._connection, self._warnings = connection, warnings

    async def _probe(self) -> None:
        """Write a key, connecting first if need be, and tell the breaker how it went."""
        self.breaker.probe()
        try:
            if self._connection is None:
                await self._connect()
            assert self._connection is not None
            connection, started_s = self._connection, monotonic()
            async with asyncio.timeout(self.breaker.latency_s):
                (reply,) = await connection.call(commands.of(b"SET", self._receipts.probe, b"1", b"PX", b"1000"))
            check(reply)
        except TimeoutError:
            self.breaker.note_probe_failure(f"a probe has no answer within {self.breaker.latency_s * 1000:g} ms")
        except StoreUnavailableError as error:
            self.breaker.note_probe_failure(str(error))
            if self._connection is not None and LEAVE.search(str(error)):
                self._connection.end(str(error))
        else:
            self.breaker.note_probe(monotonic() - started_s)
        self._tell()

    async def _look(self) -> None:
        """See whether an idle connection lives, and whether the server is where it was."""
        connection = self._connection
        if connection is None or not self.breaker.closed:
            return
        with suppress(StoreUnavailableError):  # the sentinels are away: that is no reason to leave
            if self._find is not None and (found := await self._find()) != self.address:
                connection.end(f"the primary is now at {found}")
                return
        if not connection.open or connection.asks:
            return
        try:
            await connection.call(PING)
        except StoreUnavailableError as error:
            if connection.open:
                self.breaker.trip(str(error))
