"""Stub until the real one is here."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Line
from ratelimit_svc.store.redis import commands, handshake
from ratelimit_svc.store.redis.commands import Taken
from ratelimit_svc.store.redis.connection import Connection
from ratelimit_svc.store.redis.where import Address, Where


class Refused(NamedTuple):
    """A call that Redis refused, and so did not run."""

    said: str


class Unknown(NamedTuple):
    """A call without an answer."""

    error: StoreUnavailableError
    outcome: asyncio.Future[Taken | None] | None = None


Call = Taken | Refused | Unknown


class Node:
    def __init__(
        self,
        where: Where,
        address: Address,
        *,
        timeout_s: float,
        key_prefix: str = "",
        clock: Callable[[], int] | None = None,
        on_up: Callable[[list[str]], None],
        on_down: Callable[[str], None],
    ) -> None:
        self.where, self.address, self.timeout_s, self.clock = where, address, timeout_s, clock
        self.on_up, self.on_down = on_up, on_down
        self.connection: Connection | None = None
        self.task: asyncio.Task[None] | None = None
        self.why_down: str | None = "not connected yet"

    @property
    def up(self) -> bool:
        return self.connection is not None

    async def __aenter__(self) -> "Node":
        await self.try_to()
        self.task = asyncio.create_task(self.keep())
        return self

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            if self.connection is None:
                await self.try_to()

    async def try_to(self) -> None:
        try:
            writer, warnings = await handshake.connect(self.where, self.address, timeout_s=self.timeout_s)
        except Exception as error:
            self.why_down = handshake.reason(error)
            self.on_down(self.why_down)
            return
        self.connection = Connection(writer, timeout_s=self.timeout_s, on_answer=lambda _: None, on_lost=self.lost)
        self.why_down = None
        self.on_up(warnings)

    def lost(self, why: str) -> None:
        self.connection = None
        self.why_down = why
        self.on_down(why)

    async def __aexit__(self, *_: object) -> None:
        if self.task:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task
        if self.connection:
            self.connection.close("closed")
            self.connection = None

    def ask(
        self, calls: Sequence[Sequence[Line]], due: float | None, *, asking: bool = False, receipts: bool = True
    ) -> asyncio.Future[list[Call]]:
        answer: asyncio.Future[list[Call]] = asyncio.get_running_loop().create_future()
        told: list[Any] = [None] * len(calls)
        if self.connection is None:
            answer.set_result([Unknown(StoreUnavailableError(self.why_down or ""))] * len(calls))
            return answer
        for at, lines in enumerate(calls):
            if self.connection is None:
                told[at] = Unknown(StoreUnavailableError("lost"))
                continue
            if asking:
                self.connection.ask(commands.of(b"ASKING"), bool)
            tag = lines[0].charges[0].key
            opens = tag.find(b"{") + 1
            tag = tag[opens : tag.find(b"}", opens)] if opens else tag
            take = commands.take(
                lines,
                receipt=lines[0].charges[0].key if asking or not receipts else b"receipt{%b}" % tag,
                now=self.clock() if self.clock else 0,
            )

            def done(future: asyncio.Future[Taken], at: int) -> None:
                error = future.exception()
                if error is None:
                    told[at] = future.result()
                elif str(error).startswith("Redis says: "):
                    told[at] = Refused(str(error).removeprefix("Redis says: "))
                else:
                    told[at] = Unknown(StoreUnavailableError(str(error)))
                if all(one is not None for one in told) and not answer.done():
                    answer.set_result(told)

            self.connection.ask(take, partial(commands.taken, lines=lines)).add_done_callback(partial(done, at=at))
        return answer
