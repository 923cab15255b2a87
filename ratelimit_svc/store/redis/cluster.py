"""A Cluster: which of its nodes has which slot, and what is done when that changes.

Calls go to the nodes that the map names, each node's in one write. Most are answered there; a call that is refused because its
slot is elsewhere, or on its way, is followed.

Rules:
1. A call is sent again only after a refusal, which proves that it did not run, and not past its time.
       MOVED        the map learns, and the call goes there
       ASK          this once, it goes where it says
       TRYAGAIN     the slot is on its way, with some of the call's keys on either side: again after TRY_AGAIN_S
       any other    the call's lines are untaken
2. While a slot is on its way only calls whose keys are all on one side are served. So a call is cut then: each of its lines goes
   alone, without a receipt.
3. The map is renewed from any node that answers: at the start, when something does not fit (MOVED, CLUSTERDOWN, a node that is
   away), and every RENEW_EVERY_S; one renewal at a time, and no more than one in RENEW_AT_MOST_EVERY_S.
4. A node that is away takes only its own slots with it. The Cluster is up while any of them answers.
5. A node that leaves the map is closed one renewal later: what is in flight may come to its end.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from random import sample, uniform
from typing import Any, Self

from ratelimit_svc.breaker import BreakerState
from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Charge, Line
from ratelimit_svc.store.redis import handshake
from ratelimit_svc.store.redis.calls import Call, Refused, Unknown
from ratelimit_svc.store.redis.node import Node
from ratelimit_svc.store.redis.slots import SLOTS, Range, ranges, redirect, slot_of, tag_of
from ratelimit_svc.store.redis.spread import Answer, Several
from ratelimit_svc.store.redis.where import Address, Where

RENEW_EVERY_S = 30.0
RENEW_IN_NEED_EVERY_S = 0.5
"""While a part of the Cluster is away."""
RENEW_AT_MOST_EVERY_S = 0.2
"""All with jitter, so that replicas do not ask in step."""

TRY_AGAIN_S = 0.005
MOST_HOPS = 5
"""MOVED or ASK one after the other, without TRYAGAIN between them: nodes that send a call round in circles do not agree yet."""


def _ignore(*_: object) -> None:
    """Tell nobody."""


class Cluster:
    """The nodes of a Cluster, and the map of its slots. It is the `Places` of a `SpreadStore`.

    Args:
        where: some of the nodes; the others are found.
        timeout_s: how long a call may last before its outcome is unknown.
        latency_s: the longest that an answer in time takes, for each node's breaker.
        key_prefix: put before the nodes' own keys.
        clock: gives the time in µs instead of Redis's own; for tests.
        on_up: called with a list of warnings when the first node answers, and with what is away whenever a part of it is.
        on_down: called with the reason when no node answers any more, or none does from the start.
        on_change: called with a node's address, and what its breaker tells, when that opens and closes.

    Resource handling: `async with` opens it, and on leaving it is closed, with all nodes.

    Error handling: what cannot be taken is `Unknown`; all else is tried again in the background for ever.
    """

    def __init__(
        self,
        where: Where,
        *,
        timeout_s: float = 0.1,
        latency_s: float = 0.05,
        key_prefix: str = "",
        clock: Callable[[], int] | None = None,
        on_up: Callable[[list[str]], None] = _ignore,
        on_down: Callable[[str], None] = _ignore,
        on_change: Callable[[str, BreakerState, str], None] = _ignore,
    ) -> None:
        self._where = where
        self._timeout_s, self._latency_s = timeout_s, latency_s
        self._key_prefix, self._clock = key_prefix, clock
        self._on_up, self._on_down, self._on_change = on_up, on_down, on_change
        self._loop = asyncio.get_running_loop()
        self._nodes: dict[Address, Node] = {}
        self._leaving: list[Node] = []
        """Not in the map any more."""
        self._owners: list[Node | None] = [None] * SLOTS
        self._ranges: list[Range] = []
        """The map as it was last renewed."""
        self._stale = asyncio.Event()
        """The map does not fit."""
        self._why_no_map = "not connected yet"
        self._told: tuple[bool, frozenset[Address]] | None = None
        """What was told last: whether it is up, and who is away."""
        self._tasks: set[asyncio.Task[Any]] = set()
        """The keeper, connecting nodes, and who follows calls that were refused."""

    def __repr__(self) -> str:
        owners = self._slots_of()
        return f"<Cluster: {len(owners) - len(self._away())} of {len(owners)} nodes up>"

    @property
    def up(self) -> bool:
        """Whether any node answers."""
        return len(self._away()) < len(self._slots_of())

    def away(self) -> list[str]:
        """Return what is away and why, in words for people; empty if all slots are served."""
        slots = self._slots_of()
        found = [f"{node.address}, which has {slots[node.address]} slots: {node.why_down}" for node in self._away()]
        if (unserved := SLOTS - sum(slots.values())) > 0:
            found.append(f"{unserved} slots have no node" if slots else self._why_no_map)
        return found

    def nodes(self) -> Mapping[str, Node]:
        """Return the nodes by their addresses."""
        return {str(address): node for address, node in self._nodes.items()}

    def _slots_of(self) -> dict[Address, int]:
        """Return how many slots each node has."""
        slots: dict[Address, int] = {}
        for first, last, owner in self._ranges:
            slots[owner] = slots.get(owner, 0) + last - first + 1
        return slots

    def _away(self) -> list[Node]:
        return [self._nodes[address] for address in self._slots_of() if not self._nodes[address].up]

    async def __aenter__(self) -> Self:
        await self._renew()  # down at the start is no reason not to start
        self._begin(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._owners, self._ranges = [None] * SLOTS, []
        for node in (*self._nodes.values(), *self._leaving):
            await node.__aexit__()
        self._nodes.clear()
        self._leaving.clear()

    # ── the way of a call ─────────────────────────────────────────────────────────────────────────────────────────────

    def command(self, key: bytes, *words: bytes) -> asyncio.Future[object]:
        """Write any other command to the node that has a key's slot; see `Node.command`. It is not followed if that is not so."""
        if (node := self._owners[slot_of(key)]) is not None:
            return node.command(*words)
        reply: asyncio.Future[object] = self._loop.create_future()
        reply.set_exception(_away(None).error)
        reply.exception()  # it counts as seen, so that the loop does not complain if it was forgotten
        return reply

    def place(self, charge: Charge) -> int:
        """Return the slot of a charge's window."""
        return slot_of(charge.key)

    def ask(self, calls: Mapping[int, Sequence[Line]], due: float | None) -> asyncio.Future[list[Answer]]:
        """Take some lines of each slot; see `Places.ask`."""
        asked = _Asked(calls, due, self._loop.create_future())
        by_node: dict[Node | None, list[int]] = {}
        for slot in calls:
            by_node.setdefault(self._owners[slot], []).append(slot)
        asked.left = len(by_node)
        for node, slots in by_node.items():
            if node is None or not node.up:
                self._stale.set()
                self._on_answers(asked, node, slots, [_away(node)] * len(slots))
            else:
                answers = node.ask([calls[slot] for slot in slots], due)
                answers.add_done_callback(partial(self._on_answered, asked, node, slots))
        if not calls:
            asked.tell()
        return asked.answer

    def _on_answered(
        self, asked: "_Asked", node: Node, slots: Sequence[int], answers: asyncio.Future[list[Call]]
    ) -> None:
        self._on_answers(asked, node, slots, answers.result())

    def _on_answers(self, asked: "_Asked", node: Node | None, slots: Sequence[int], calls: Sequence[Call]) -> None:
        """Note what one node has answered; when it was the last, answer, or follow what was refused."""
        for slot, call in zip(slots, calls, strict=True):
            asked.told[slot] = call
            if node is not None and isinstance(call, Refused):
                asked.refused[slot] = node, call
        asked.left -= 1
        if asked.left == 0:
            if asked.refused:
                self._begin(self._follow_all(asked))
            else:
                asked.tell()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ── calls that were refused ───────────────────────────────────────────────────────────────────────────────────────

    async def _follow_all(self, asked: "_Asked") -> None:
        """Follow the calls that were refused, all at once, and answer."""
        due = self._loop.time() + self._timeout_s
        due = due if asked.due is None else min(due, asked.due)
        try:
            followed = await asyncio.gather(
                *(self._follow(asked.calls[slot], call, node, due) for slot, (node, call) in asked.refused.items())
            )
            asked.told.update(zip(asked.refused, followed, strict=True))
        finally:
            asked.tell()

    async def _follow(
        self, lines: Sequence[Line], call: Call, node: Node, due: float, *, receipt: bool = True
    ) -> Answer:
        """Send a call that a node has refused to where its slot is, until it is taken or its time is up."""
        hops = 0
        while isinstance(call, Refused) and hops < MOST_HOPS and self._loop.time() < due:
            to = redirect(call.said, node.address)
            if to is not None and not to.once:
                hops += 1
                node = self._owners[to.slot] = await self._node(to.to, due)
                self._stale.set()
            elif receipt and (to is not None or call.said.startswith("TRYAGAIN")):
                return Several(await asyncio.gather(*(self._take_alone(line, node, due) for line in lines)))
            elif to is not None:
                hops += 1
                target = await self._node(to.to, due)
                (call,) = await target.ask([lines], due, asking=True)
                continue
            elif call.said.startswith("TRYAGAIN"):
                hops = 0
                await asyncio.sleep(TRY_AGAIN_S)
                node = self._owners[slot_of(lines[0].charges[0].key)] or node
            else:
                self._stale.set()
                break
            (call,) = await node.ask([lines], due, asking=not receipt)
        return call

    async def _take_alone(self, line: Line, node: Node, due: float) -> Answer:
        """Take one line of a slot that is on its way. With a receipt, its keys would hardly be on one side."""
        (call,) = await node.ask([[line]], due, asking=True)
        return await self._follow([line], call, node, due, receipt=False)

    # ── the map ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self) -> None:
        """Renew the map whenever it does not fit, and every now and then."""
        while True:
            wait_s = RENEW_IN_NEED_EVERY_S if self._away() or not self._ranges else RENEW_EVERY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s * uniform(0.75, 1.25)):  # noqa: S311 — jitter, no secret
                    await self._stale.wait()
            self._stale.clear()
            await self._renew()
            await asyncio.sleep(RENEW_AT_MOST_EVERY_S * uniform(0.75, 1.25))  # noqa: S311 — as above

    async def _renew(self) -> None:
        """Ask one node after the other for the map until one has it: those that answer first, in any order."""
        known = [*self._nodes.values()]
        up = [node.address for node in known if node.up]
        down = [node.address for node in known if not node.up]
        for address in dict.fromkeys((*sample(up, len(up)), *sample(down, len(down)), *self._where.addresses)):
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
        owners = {one.owner for one in found}
        await asyncio.gather(
            *(self._node(owner, self._loop.time() + self._where.connect_timeout_s) for owner in owners)
        )
        self._owners = [None] * SLOTS
        for first, last, owner in found:
            self._owners[first : last + 1] = [self._nodes[owner]] * (last - first + 1)
        self._ranges = found
        gone, self._leaving = self._leaving, [self._nodes.pop(each) for each in self._nodes.keys() - owners]
        for node in gone:
            await node.__aexit__()
        self._tell()

    async def _node(self, address: Address, due: float) -> Node:
        """Return the node at an address. A new one is given until `due` to connect."""
        if (node := self._nodes.get(address)) is None:
            node = self._nodes[address] = Node(
                self._where,
                address,
                timeout_s=self._timeout_s,
                latency_s=self._latency_s,
                key_prefix=self._key_prefix,
                tag_of=_tag_of,
                clock=self._clock,
                on_up=partial(self._on_node_up, address),
                on_down=self._on_node_down,
                on_change=self._on_change,
            )
            opening = self._begin(node.__aenter__())
            await asyncio.wait([opening], timeout=due - self._loop.time())
        return node

    def _on_node_up(self, address: Address, warnings: Sequence[str]) -> None:
        if warnings:
            self._on_up([f"{address}: {warning}" for warning in warnings])
        self._tell()

    def _on_node_down(self, _: str) -> None:
        self._stale.set()
        self._tell()

    def _tell(self) -> None:
        """Say what is up and what is away, if that is news."""
        told = self.up, frozenset(node.address for node in self._away())
        if told == self._told:
            return
        self._told = told
        if self.up:
            self._on_up(self.away())
        else:
            self._on_down("; ".join(self.away()))


class _Asked:
    """Calls that are under way."""

    __slots__ = ("answer", "calls", "due", "left", "refused", "told")

    def __init__(
        self, calls: Mapping[int, Sequence[Line]], due: float | None, answer: "asyncio.Future[list[Answer]]"
    ) -> None:
        self.calls = calls
        """By slot."""
        self.due = due
        self.answer = answer
        self.left = 0
        """Nodes that have not answered yet."""
        self.told: dict[int, Answer] = {}
        self.refused: dict[int, tuple[Node, Refused]] = {}
        """By slot, which node has refused it, and how."""

    def tell(self) -> None:
        """Answer."""
        if not self.answer.done():  # nobody wants it any more
            self.answer.set_result([self.told[slot] for slot in self.calls])


def _away(node: Node | None) -> Unknown:
    why = "no node has this slot" if node is None else f"{node.address}: {node.why_down}"
    return Unknown(StoreUnavailableError(why))


def _tag_of(lines: Sequence[Line]) -> bytes:
    """Return the tag that brings a call's receipt to the slot of its windows."""
    return tag_of(lines[0].charges[0].key)
