"""A proxy between one replica and its store, whose faults are switched while it runs.

Rule 1: bytes stay in order, and a connection never lacks some in its midst: where bytes were lost, it is reset when they may
        pass again, as networks do.
Rule 2: what is random is seeded.
Rule 3: no flow control. What is held is what a replica asks before it gives up.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from random import Random
from typing import Self, cast

from ratelimit_svc.demo.child import free_port
from ratelimit_svc.demo.parts import LOOPBACK

TICK_S = 0.1
"""So often it is drawn which of the connections that stand are reset."""


class Way(Enum):
    """What becomes of the bytes that go one way."""

    PASS = auto()
    HOLD = auto()
    """They are kept, and passed on later: a server that hangs."""
    LOSE = auto()
    """They never arrive: a question that was not heard, an answer that was lost."""


class FaultProxy:
    """Listens on a loopback port of its own, and passes bytes on to a server's port.

    Args:
        port: the server's.
        seed: of what is drawn.

    Resource handling: `async with` opens it; on leaving, all its connections are reset.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self.port = free_port()  # kept while it refuses: nobody else shall listen there
        self.questions, self.answers = Way.PASS, Way.PASS
        self.delay_s = 0.0
        """Added to each way."""
        self.reset_one_in: int | None = None
        """1 in so many new connections is reset at once; of those that stand, as many in each tenth of a second."""
        self.accepted = self.resets = 0
        self.ends = 0
        """Of connections, that are open or about to be."""
        self._server_port = port
        self._random = Random(seed)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._ticking: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<FaultProxy: {len(self._links)} connections of {self.accepted}, {self.resets} reset>"

    async def __aenter__(self) -> Self:
        await self.listen()
        self._tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self.cut()
        async with asyncio.timeout(5):
            while self.ends:
                await asyncio.sleep(0.001)

    @property
    def listens(self) -> bool:
        """Whether it takes connections."""
        return self._server is not None

    async def listen(self) -> None:
        """Take connections, again."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: _Link(self), LOOPBACK, self.port)

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    def reset(self) -> None:
        """Reset all connections."""
        for link in list(self._links):
            link.reset()

    async def heal(self) -> None:
        """Pass everything, at once, from now on."""
        self.questions, self.answers, self.delay_s, self.reset_one_in = Way.PASS, Way.PASS, 0.0, None
        await self.mend()

    async def mend(self) -> None:
        """Let go what is held, end what has lost bytes, and take connections again."""
        for link in list(self._links):
            link.heal()
        await self.listen()

    def joined(self, link: "_Link") -> bool:
        """Note a new connection; False: it was reset at once."""
        self.accepted += 1
        self._links.add(link)
        if self.reset_one_in and self._random.randrange(self.reset_one_in) == 0:
            link.reset()
            return False
        return True

    def left(self, link: "_Link") -> None:
        """Forget a connection."""
        self._links.discard(link)

    async def serve(self, link: "_Link") -> None:
        """Connect to the server for it."""
        self.ends += 1
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Far(link), LOOPBACK, self._server_port)
        except OSError:  # the server is down
            self.ends -= 1
            link.close()

    def _tick(self) -> None:
        if self.reset_one_in:
            for link in list(self._links):
                if self._random.randrange(self.reset_one_in) == 0:
                    link.reset()
        self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick)


class _Stream:
    """Bytes that go one way on one connection. `way` says what is to become of them now."""

    def __init__(self, way: Callable[[], Way]) -> None:
        self.to: asyncio.Transport | None = None
        """None: not connected yet."""
        self.lost = False
        self._way = way
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes]] = deque()
        """When each may leave, and what."""
        self._timer: asyncio.TimerHandle | None = None

    def take(self, data: bytes, delay_s: float) -> None:
        """Do with bytes as is said now."""
        if self.lost or self._way() is Way.LOSE:
            self.lost = True
            return
        self._waiting.append((self._loop.time() + delay_s, data))
        self.let_go()

    def let_go(self) -> None:
        """Pass on what is due, and come again for what is not."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.to is None or self._way() is Way.HOLD:
            return
        while self._waiting and self._waiting[0][0] <= self._loop.time():
            self.to.write(self._waiting.popleft()[1])
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self.let_go)

    def close(self) -> None:
        """Pass on nothing more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self.to is not None:
            self.to.abort()


class _Link(asyncio.Protocol):
    """A replica's connection: its end towards the replica, and both streams."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.questions, self.answers = _Stream(lambda: proxy.questions), _Stream(lambda: proxy.answers)
        self.open = True
        self._serving: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.proxy.ends += 1
        self.answers.to = cast("asyncio.Transport", transport)
        if self.proxy.joined(self):
            self._serving = asyncio.create_task(self.proxy.serve(self))

    def data_received(self, data: bytes) -> None:
        self.questions.take(data, self.proxy.delay_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self.proxy.ends -= 1
        self.close()

    def heal(self) -> None:
        """Pass on what was held; end what has lost bytes."""
        if self.questions.lost or self.answers.lost:
            self.reset()
            return
        self.questions.let_go()
        self.answers.let_go()

    def reset(self) -> None:
        """End it, as by a network."""
        self.proxy.resets += 1
        self.close()

    def close(self) -> None:
        """End both connections."""
        self.open = False
        self.proxy.left(self)
        self.questions.close()
        self.answers.close()


class _Far(asyncio.Protocol):
    """The end of a replica's connection towards the server."""

    def __init__(self, link: _Link) -> None:
        self._link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link.questions.to = cast("asyncio.Transport", transport)
        if not self._link.open:  # reset meanwhile
            self._link.questions.close()
        self._link.questions.let_go()

    def data_received(self, data: bytes) -> None:
        self._link.answers.take(data, self._link.proxy.delay_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.proxy.ends -= 1
        self._link.close()
