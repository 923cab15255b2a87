"""The redis store: windows shared by all replicas, counted by the Lua twins inside Redis or Valkey (≥ 6.2).

    where        where Redis is, and how one logs in there
    sentinel     who is the primary, by the sentinels
    handshake    redis-py opens a connection, and hands it over
    connection   commands one behind the other on one connection, each answered in its turn
    calls        takes in flight, what became of each, and the receipts of those that were lost
    warm         what a fresh connection is asked before calls go to it
    clock        the store's clock, as far as its replies tell
    node         one server, kept connected, with a breaker before it
    cluster      the nodes of a Cluster, and which of its slots each of them has (`slots`)
    per_second   one Redis for short windows, another for the rest
    spread       the store of either, whose windows are in several places; `spanning` has lines that span them
    replicas     each process says that it lives, and counts those that do
    commands     a batch as one command, its reply as grants
    script       the Lua twins as one script, which takes a whole batch atomically, on Redis's own clock

This module is the store of one node: a single server, or the primary that sentinels name.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self, cast

from ratelimit_svc.breaker import BreakerState
from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Charge, Grant, Line
from ratelimit_svc.store import Untaken
from ratelimit_svc.store.redis import sentinel
from ratelimit_svc.store.redis.calls import Call, Refused, charged, in_words
from ratelimit_svc.store.redis.commands import Taken
from ratelimit_svc.store.redis.node import Node
from ratelimit_svc.store.redis.where import Kind, Where


def _ignore(*_: object) -> None:
    """Tell nobody."""


class RedisStore:
    """Windows in Redis.

    Args:
        where: one server, or what sentinels watch; or a URL of one server.
        timeout_s: how long a take may be waited for.
        latency_s: the longest that an answer in time takes, for the breaker; None: half of `timeout_s`.
        key_prefix: put before the keys that are the store's own: the probe, which it writes to see whether it may, and the receipt.
        clock: gives the time in µs instead of Redis's own; for tests.
        on_up: called with a list of warnings when the store begins to answer.
        on_down: called with the reason when it ceases to, or if it does not from the start; again with each other reason.
        on_change: called with a node's address, and what its breaker tells, when that opens and closes.

    Resource handling: `async with` opens it; it is usable at once, and up as soon as a connection stands (`up`). On leaving,
    its task and its connection are closed.

    Error handling: lines of takes are Untaken, whatever went wrong; everything else is tried again in the background for ever.
    """

    def __init__(
        self,
        where: Where | str,
        *,
        timeout_s: float = 0.1,
        latency_s: float | None = None,
        key_prefix: str = "",
        clock: Callable[[], int] | None = None,
        on_up: Callable[[list[str]], None] = _ignore,
        on_down: Callable[[str], None] = _ignore,
        on_change: Callable[[str, BreakerState, str], None] = _ignore,
    ) -> None:
        where = Where.of_url(where) if isinstance(where, str) else where
        self._node = Node(
            where,
            where.addresses[0],
            find=partial(sentinel.primary, where) if where.kind is Kind.SENTINEL else None,
            timeout_s=timeout_s,
            latency_s=timeout_s / 2 if latency_s is None else latency_s,
            key_prefix=key_prefix,
            clock=clock,
            on_up=on_up,
            on_down=on_down,
            on_change=on_change,
        )

    def __repr__(self) -> str:
        return f"<RedisStore: {'up' if self.up else f'down, {self._node.why_down}'}>"

    @property
    def up(self) -> bool:
        """Whether takes are written."""
        return self._node.up

    def nodes(self) -> Mapping[str, Node]:
        """Return its nodes by their addresses."""
        return {str(self._node.address): self._node}

    def away(self) -> list[str]:
        """Return why it does not answer, in words for people; empty if it does."""
        return [] if self.up else [f"{self._node.address}: {self._node.why_down}"]

    async def __aenter__(self) -> Self:
        await self._node.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._node.__aexit__()

    def take(self, lines: Sequence[Line], due: float | None = None) -> asyncio.Future[list[Grant | Untaken]]:
        """Charge a batch; see `Store.take`. It is written at once, behind the takes that are in flight, and once."""
        return self._node.ask_then([lines], due, partial(_told, len(lines)))

    async def command(self, key: bytes, *words: bytes) -> object:  # noqa: ARG002 — it has one node for all keys
        """Write any other command to where a key is; see `Node.command`."""
        return await self._node.command(*words)

    # ── as one of several places (`spread`) ───────────────────────────────────────────────────────────────────────────

    def place(self, charge: Charge) -> int:  # noqa: ARG002 — all windows are in one
        """Return the only place there is."""
        return 0

    def ask(self, calls: Mapping[int, Sequence[Line]], due: float | None) -> asyncio.Future[list[Call]]:
        """Take some lines."""
        return self._node.ask([*calls.values()], due)


def _told(many: int, calls: list[Call]) -> list[Grant | Untaken]:
    """Return what became of the lines of the one call."""
    call = calls[0]
    if isinstance(call, Taken):
        if call.grants is None:
            return [Untaken(StoreUnavailableError("Redis got it too late"), late=True)] * many
        return cast("list[Grant | Untaken]", call.grants)  # nobody else has it
    if isinstance(call, Refused):
        return [Untaken(StoreUnavailableError(in_words(call.said)))] * many
    if call.outcome is None:
        return [Untaken(call.error)] * many
    return [Untaken(call.error, charged(call.outcome, at)) for at in range(many)]
