"""A Cluster as one store's places: its slots. Which node has which of them `nodes` knows.

Calls go to the nodes that the map names, each node's in one write. Most are answered there; a call that is refused because its
slot is elsewhere, or on its way, is followed.

Rules:
1. A call is sent again only after a refusal, which proves that it did not run, and not past its time.
       MOVED        the map learns, and the call goes there
       ASK          this once, it goes where it says
       TRYAGAIN     the slot is on its way, with some of the call's keys on either side: again after TRY_AGAIN_S
       any other    the call's lines are untaken
2. While a slot is on its way, a call is served only if all its keys are on one side. So it is cut then: each of its lines goes
   alone, without a receipt; and ASK counts only if a call without a receipt was told so: Redis 6.2 says it also if only the
   receipt is missing, and would count on both sides then.
3. A node that is away takes only its own slots with it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

from ratelimit_svc.breaker import BreakerState
from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Charge, Line
from ratelimit_svc.store.redis.calls import Call, Refused, Unknown
from ratelimit_svc.store.redis.node import Node
from ratelimit_svc.store.redis.nodes import Nodes
from ratelimit_svc.store.redis.slots import redirect, slot_of
from ratelimit_svc.store.redis.spread import Answer, Several
from ratelimit_svc.store.redis.where import Where

TRY_AGAIN_S = 0.005
MOST_HOPS = 3
"""MOVED or ASK one after the other, without a rest between them: nodes that send a call round in circles do not agree yet, and will
soon."""


def _ignore(*_: object) -> None:
    """Tell nobody."""


class Cluster:
    """A Cluster. It is the `Places` of a `SpreadStore`.

    Args:
        where: some of the nodes; the others are found.
        timeout_s: how long a call may be waited for.
        latency_s: the longest that an answer in time takes, for each node's breaker.
        key_prefix: put before the nodes' own keys.
        clock: gives the time in µs instead of Redis's own; for tests.
        on_up: called with a list of warnings when the first node answers, and with what is away whenever that has changed.
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
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        make = partial(
            Node,
            where,
            timeout_s=timeout_s,
            latency_s=latency_s,
            key_prefix=key_prefix,
            clock=clock,
            on_change=on_change,
        )
        self._nodes = Nodes(where, make, on_up=on_up, on_down=on_down)
        self._following: set[asyncio.Task[None]] = set()
        """Who follows calls that were refused."""
        self._closing = False

    def __repr__(self) -> str:
        return f"<Cluster: {self._nodes!r}>"

    @property
    def up(self) -> bool:
        """Whether any node answers."""
        return self._nodes.up

    def away(self) -> list[str]:
        """Return what is away and why, in words for people; empty if all slots are served."""
        return self._nodes.away()

    def nodes(self) -> Mapping[str, Node]:
        """Return the nodes by their addresses."""
        return self._nodes.by_address()

    async def __aenter__(self) -> Self:
        await self._nodes.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        following = list(self._following)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        await self._nodes.__aexit__()

    async def command(self, key: bytes, *words: bytes) -> object:
        """Write any other command to the node that has a key's slot, and return its reply; see `Node.command`.

        It is not followed: where it is refused since the slot has moved, the next one will find it.
        """
        if (node := self._nodes.owners[slot_of(key)]) is None:
            raise _away(None).error
        try:
            return await node.command(*words)
        except StoreUnavailableError:
            self._nodes.renew()
            raise

    def place(self, charge: Charge) -> int:
        """Return the slot of a charge's window."""
        return slot_of(charge.key)

    def ask(self, calls: Mapping[int, Sequence[Line]], due: float | None) -> asyncio.Future[list[Answer]]:
        """Take some lines of each slot; see `Places.ask`."""
        asked = _Asked(calls, due, self._loop)
        by_node: dict[Node | None, list[int]] = {}
        for slot in calls:
            by_node.setdefault(self._nodes.owners[slot], []).append(slot)
        asked.left = len(by_node)
        for node, slots in by_node.items():
            if node is None or not node.up:
                self._on_answers(asked, node, slots, [_away(node)] * len(slots))
            else:
                answers = node.ask([calls[slot] for slot in slots], due, slots=slots)
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
            if asked.refused and not self._closing:
                task = self._loop.create_task(self._follow_all(asked))
                self._following.add(task)
                task.add_done_callback(self._following.discard)
            else:
                asked.tell()

    # ── calls that were refused ───────────────────────────────────────────────────────────────────────────────────────

    async def _follow_all(self, asked: "_Asked") -> None:
        """Follow the calls that were refused, all at once, and answer."""
        due = asked.started + self._timeout_s
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
        while isinstance(call, Refused) and self._loop.time() < due:
            to = redirect(call.said, node.address)
            if hops == MOST_HOPS:
                hops = 0
                await asyncio.sleep(TRY_AGAIN_S)
            if to is not None and not to.once:
                hops += 1
                node = await self._nodes.learn(to.slot, to.to, due)
            elif receipt and (to is not None or call.said.startswith("TRYAGAIN")):
                return Several(await asyncio.gather(*(self._take_alone(line, node, due) for line in lines)))
            elif to is not None:
                hops += 1
                target = await self._nodes.at(to.to, due)
                (call,) = await target.ask([lines], due, asking=True)
                continue
            elif call.said.startswith("TRYAGAIN"):
                hops = 0
                await asyncio.sleep(TRY_AGAIN_S)
                node = self._nodes.owners[slot_of(lines[0].charges[0].key)] or node
            else:
                self._nodes.renew()
                break
            (call,) = await node.ask([lines], due, slots=[slot_of(lines[0].charges[0].key)], asking=not receipt)
        return call

    async def _take_alone(self, line: Line, node: Node, due: float) -> Answer:
        """Take one line of a slot that is on its way. With a receipt, its keys would hardly be on one side."""
        (call,) = await node.ask([[line]], due, asking=True)
        return await self._follow([line], call, node, due, receipt=False)


class _Asked:
    """Calls that are under way."""

    __slots__ = ("answer", "calls", "due", "left", "refused", "started", "told")

    def __init__(self, calls: Mapping[int, Sequence[Line]], due: float | None, loop: asyncio.AbstractEventLoop) -> None:
        self.calls = calls
        """By slot."""
        self.started = loop.time()
        self.due = due
        self.answer: asyncio.Future[list[Answer]] = loop.create_future()
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
