"""The redis store: windows shared by all replicas, counted by the Lua twins inside Redis or Valkey (≥ 6.2).

    where        where Redis is, and how one logs in there
    sentinel     who is the primary, by the sentinels
    handshake    redis-py opens a connection, and hands it over
    connection   commands one behind the other on one connection, each answered in its turn
    commands     a batch as one command, its reply as grants
    script       the Lua twins as one script, which takes a whole batch atomically, on Redis's own clock

This module keeps a connection. A store that is away says so at once: a take fails without being tried, and a task of the
store's own connects again.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from random import uniform
from secrets import token_hex
from typing import Self

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Grant, Line
from ratelimit_svc.store import Untaken
from ratelimit_svc.store.redis import commands, handshake, sentinel
from ratelimit_svc.store.redis.connection import Connection
from ratelimit_svc.store.redis.where import Kind, Where

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 0.5
"""Between attempts to connect; doubling, with jitter so that replicas do not come back in step."""
PING_AFTER_S = 1.0
"""An idle connection is asked this often whether it lives."""

PING = commands.of(b"PING")


def _ignore(*_: object) -> None:
    """Tell nobody."""


class RedisStore:
    """Windows in Redis.

    Args:
        where: one server, or what sentinels watch; or a URL of one server.
        timeout_s: how long a take may last before its outcome is unknown and its connection given up.
        key_prefix: put before the one key that is the store's own, which it writes to see whether it may.
        clock: gives the time in µs instead of Redis's own; for tests.
        on_up: called with a list of warnings when the store begins to answer.
        on_down: called with the reason when it ceases to, or if it does not from the start; again with each other reason.

    Resource handling: `async with` opens it; it is usable at once, and up as soon as a connection stands (`up`). On leaving,
    its task and its connection are closed.

    Error handling: takes fail with StoreUnavailableError, whatever went wrong; everything else is tried again in the
    background for ever, less and less often.
    """

    def __init__(
        self,
        where: Where | str,
        *,
        timeout_s: float = 0.1,
        key_prefix: str = "",
        clock: Callable[[], int] | None = None,
        on_up: Callable[[list[str]], None] = _ignore,
        on_down: Callable[[str], None] = _ignore,
    ) -> None:
        self._where = Where.of_url(where) if isinstance(where, str) else where
        self._timeout_s = timeout_s
        self._probe = commands.of(b"SET", f"{key_prefix}ratelimit-svc:probe".encode(), b"1", b"PX", b"1000")
        self._receipt = f"{key_prefix}ratelimit-svc:receipt:{token_hex(8)}".encode()
        self._clock = clock
        self._on_up, self._on_down = on_up, on_down
        self._connection: Connection | None = None
        self._why_down: str | None = "not connected yet"
        """None: up."""
        self._reasons_told: set[str] = set()
        """In this outage, so that reasons that take turns are told once each."""
        self._wait_s = FIRST_WAIT_S
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RedisStore: {'up' if self.up else f'down, {self._why_down}'}>"

    @property
    def up(self) -> bool:
        """Whether a connection stands, and the last take on it was not refused."""
        return self._why_down is None

    async def __aenter__(self) -> Self:
        await self._try_to_connect()  # down at the start is no reason not to start
        self._keeper = asyncio.create_task(self._keep(), name="redis keeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._connection is not None:
            self._connection.close("the store is closed")
            self._connection = None

    def take(self, lines: Sequence[Line], due: float | None = None) -> asyncio.Future[list[Grant | Untaken]]:  # noqa: ARG002
        """Charge a batch; see `Store.take`. It is written at once, behind the takes that are in flight.

        It is sent once: again only after NOSCRIPT, which proves that it did not run.
        """
        answer: asyncio.Future[list[Grant | Untaken]] = asyncio.get_running_loop().create_future()
        if self._connection is None:
            answer.set_result([Untaken(StoreUnavailableError(self._why_down or "not connected"))] * len(lines))
            return answer
        now = 0 if self._clock is None else self._clock()
        command = commands.take(lines, receipt=self._receipt, now=now)
        asked = self._connection.ask(command, partial(commands.taken, lines=lines))

        def settle(asked: asyncio.Future[commands.Taken]) -> None:
            if answer.done():
                return
            error = None if asked.cancelled() else asked.exception()
            if isinstance(error, StoreUnavailableError):
                answer.set_result([Untaken(error)] * len(lines))
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result([*(asked.result().grants or [])])

        asked.add_done_callback(settle)
        return answer

    def _heard(self, refusal: str | None) -> None:
        """Note that the store has answered, or what it refused a command for."""
        if refusal is None:
            self._wait_s = FIRST_WAIT_S
        self._tell(refusal)

    def _give_up(self, why: str) -> None:
        """Forget the connection that is lost."""
        self._connection = None
        self._lost.set()
        self._tell(why)

    def _tell(self, why_down: str | None, warnings: Sequence[str] = ()) -> None:
        """Say that the store is up, or why it is down, if that is news."""
        was_up, self._why_down = self.up, why_down
        if why_down is None and not was_up:
            self._reasons_told.clear()
            self._on_up(list(warnings))
        elif why_down is not None and why_down not in self._reasons_told:
            self._reasons_told.add(why_down)
            self._on_down(why_down)

    async def _keep(self) -> None:
        """Connect whenever there is no connection; ask an idle one whether it lives."""
        while True:
            if self._connection is None:
                await asyncio.sleep(self._wait_s * uniform(0.5, 1))  # noqa: S311 — jitter, no secret
                self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
                await self._try_to_connect()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_AFTER_S):  # not wait_for: in Python 3.11 it may swallow a cancel
                    await self._lost.wait()
            if not self._lost.is_set() and self._connection.idle:
                # a server that refuses takes answers PING all the same: only a write shows that it takes them again
                with suppress(StoreUnavailableError):
                    await self._connection.ask(PING if self.up else self._probe, bool)

    async def _try_to_connect(self) -> None:
        """Open a connection, or tell why there is none."""
        by_sentinels = self._where.kind is Kind.SENTINEL
        try:
            address = await sentinel.primary(self._where) if by_sentinels else self._where.addresses[0]
            writer, warnings = await handshake.connect(self._where, address, timeout_s=self._timeout_s)
        except Exception as error:  # noqa: BLE001 — of any kind: uvloop, redis-py and a broken peer have many
            self._tell(handshake.reason(error))
            return
        self._lost.clear()
        self._connection = Connection(writer, timeout_s=self._timeout_s, on_answer=self._heard, on_lost=self._give_up)
        self._tell(None, warnings)
