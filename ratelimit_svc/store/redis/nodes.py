"""The nodes of a Cluster, and the map that says which of its slots each of them has.

Rules:
1. The map is renewed from any node that answers: at the start, when something does not fit (MOVED, CLUSTERDOWN, a node that is
   away), and every RENEW_EVERY_S; one renewal at a time, and no more than one in RENEW_AT_MOST_EVERY_S.
2. It is up while any node answers that has slots.
3. A node that leaves the map is closed one renewal later: what is in flight may come to its end.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from random import sample, uniform
from typing import Any, Self

from ratelimit_svc.store.redis import handshake
from ratelimit_svc.store.redis.node import Node
from ratelimit_svc.store.redis.slots import SLOTS, Range, ranges
from ratelimit_svc.store.redis.where import Address, Where

RENEW_EVERY_S = 30.0
RENEW_IN_NEED_EVERY_S = 0.5
"""While a part of the Cluster is away."""
RENEW_AT_MOST_EVERY_S = 0.3
"""All with jitter, so that replicas do not ask in step."""


class Nodes:
    """The nodes of one Cluster.

    Args:
        where: some of them; the others are found.
        make: makes a node, given its address, and `on_up` and `on_down` by name.
        on_up: called with a list of warnings when the first node answers, and with what is away whenever that has changed.
        on_down: called with the reason when no node answers any more, or none does from the start.

    Resource handling: `async with` opens it: it has a map then, and its nodes are connected, as far as they are there. On leaving
    all are closed.
    """

    def __init__(
        self,
        where: Where,
        make: Callable[..., Node],
        *,
        on_up: Callable[[list[str]], None],
        on_down: Callable[[str], None],
    ) -> None:
        self._where, self._make = where, make
        self._on_up, self._on_down = on_up, on_down
        self._loop = asyncio.get_running_loop()
        self.owners: list[Node | None] = [None] * SLOTS
        """By slot: who has it, as far as is known."""
        self._nodes: dict[Address, Node] = {}
        self._opening: dict[Node, asyncio.Task[Any]] = {}
        """Nodes that are connecting for the first time."""
        self._leaving: list[Node] = []
        """Not in the map any more."""
        self._slots: dict[Address, int] = {}
        """How many slots each node has, by the map as it was last renewed."""
        self._stale = asyncio.Event()
        """The map does not fit."""
        self._newest: Address | None = None
        """Who was named last by a MOVED: others may not have heard yet of what it has."""
        self._why_no_map = "not connected yet"
        self._told: tuple[bool, frozenset[Address], int] | None = None
        """What was told last: whether it is up, who is away, and how many slots no node has."""
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Nodes: {len(self._slots) - len(self._away())} of {len(self._slots)} up>"

    @property
    def up(self) -> bool:
        """Whether any node answers."""
        return len(self._away()) < len(self._slots)

    def away(self) -> list[str]:
        """Return what is away and why, in words for people; empty if all slots are served."""
        slots = self._slots
        found = [
            f"{node.address}, which has {slots[node.address]} slots, is away: {node.why_down}" for node in self._away()
        ]
        if unserved := self._unserved():
            found.append(f"{unserved} slots have no node" if slots else self._why_no_map)
        return found

    def by_address(self) -> Mapping[str, Node]:
        """Return all by their addresses."""
        return {str(address): node for address, node in self._nodes.items()}

    def _unserved(self) -> int:
        """Return how many slots no node has."""
        return max(SLOTS - sum(self._slots.values()), 0)

    def _away(self) -> list[Node]:
        return [self._nodes[address] for address in self._slots if not self._nodes[address].up]

    async def __aenter__(self) -> Self:
        await self._renew()  # down at the start is no reason not to start
        self._keeper = asyncio.create_task(self._keep(), name="cluster keeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self.owners, self._slots = [None] * SLOTS, {}
        for node in (*self._nodes.values(), *self._leaving):
            await self._close(node)
        self._nodes.clear()
        self._leaving.clear()

    def renew(self) -> None:
        """Note that the map does not fit."""
        self._stale.set()

    async def learn(self, slot: int, address: Address, due: float) -> Node:
        """Note who has a slot now, as a node says that has had it; return that node, as `at` does."""
        node = await self.at(address, due)
        self.owners[slot] = node
        self._newest = address
        self._stale.set()
        return node

    async def at(self, address: Address, due: float) -> Node:
        """Return the node at an address. A new one is given until `due`, the loop's time in s, to connect."""
        if (node := self._nodes.get(address)) is None:
            on_up, on_down = partial(self._on_node_up, address), self._on_node_down
            node = self._nodes[address] = self._make(address, on_up=on_up, on_down=on_down)
            opening = self._opening[node] = asyncio.create_task(node.__aenter__())
            opening.add_done_callback(lambda _: self._opening.pop(node))
        if node in self._opening:
            await asyncio.wait([self._opening[node]], timeout=max(due - self._loop.time(), 0))
        return node

    async def _close(self, node: Node) -> None:
        """Close a node, which may be still connecting for the first time."""
        if (opening := self._opening.get(node)) is not None:
            opening.cancel()
            await asyncio.wait([opening])
        await node.__aexit__()

    async def _keep(self) -> None:
        """Renew the map whenever it does not fit, and every now and then."""
        while True:
            wait_s = RENEW_IN_NEED_EVERY_S if self.away() else RENEW_EVERY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s * uniform(0.75, 1.25)):  # noqa: S311 — jitter, no secret
                    await self._stale.wait()
            self._stale.clear()
            await self._renew()
            await asyncio.sleep(RENEW_AT_MOST_EVERY_S * uniform(0.75, 1.25))  # noqa: S311 — as above

    async def _renew(self) -> None:
        """Ask one node after the other for the map until one has it: those that are up first, in any order but for the newest owner."""
        known = [*self._nodes.values()]
        up = [node.address for node in known if node.up]
        up = sorted(sample(up, len(up)), key=lambda address: address != self._newest)
        down = [node.address for node in known if not node.up]
        for address in dict.fromkeys((*up, *sample(down, len(down)), *self._where.addresses)):
            try:
                async with handshake.opened(self._where, address, self._where.login) as connection:
                    found = ranges(await handshake.call(connection, b"CLUSTER", b"SLOTS"), address)
            except Exception as error:  # noqa: BLE001 — of any kind, as in a handshake
                self._why_no_map = f"{address}: {handshake.reason(error)}"
                continue
            if found:
                await self._use(found)
                return
            self._why_no_map = f"{address}: its Cluster has no slots"
        self._tell()

    async def _use(self, found: list[Range]) -> None:
        """Put a map in force: connect to who is new, and leave who has no slots any more."""
        owners = dict.fromkeys(one.owner for one in found)
        due = self._loop.time() + self._where.connect_timeout_s
        await asyncio.gather(*(self.at(owner, due) for owner in owners))
        self.owners, self._slots = [None] * SLOTS, dict.fromkeys(owners, 0)
        for first, last, owner in found:
            many = last - first + 1
            self.owners[first : last + 1] = [self._nodes[owner]] * many
            self._slots[owner] += many
        gone = self._leaving.copy()
        self._leaving += [self._nodes.pop(each) for each in self._nodes.keys() - owners.keys()]
        for node in gone:
            await self._close(node)
            self._leaving.remove(node)
        self._tell()

    def _on_node_up(self, address: Address, warnings: Sequence[str]) -> None:
        if warnings:
            self._on_up([f"{address}: {warning}" for warning in warnings])
        if self._slots:  # else they are the nodes of a map that is about to be used, and told of
            self._tell()

    def _on_node_down(self, _: str) -> None:
        self._stale.set()
        if self._slots:
            self._tell()

    def _tell(self) -> None:
        """Say what is up and what is away, if that is news."""
        told = self.up, frozenset(node.address for node in self._away()), self._unserved()
        if told == self._told:
            return
        self._told = told
        if self.up:
            self._on_up(self.away())
        else:
            self._on_down("; ".join(self.away()))
