"""Sender: lines → a statsd server, every STATS_FLUSH_INTERVAL.

Rule 1: what a server has not taken is not noted as told, so the next flush tells it with what has come since. At most the one
        chunk that was under way when a connection broke is told twice.
Rule 2: a connection that takes nothing is waited for, and no flush follows meanwhile: there is never more than one.
Rule 3: one line in the log for each change.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from ratelimit_svc.metrics.stats import Stat
from ratelimit_svc.statsd.lines import Chunk, Lines

CONNECT_S = 5.0
"""A connection has so long to stand."""
REFUSED_S = 0.05
"""A datagram that nobody wants is refused within this time, if at all."""
LAST_S = 1.0
"""The last flush has so long: the process is about to end."""

MOST_TCP_BYTES = 32_768
MOST_UDP_BYTES = 1_432
"""Of one chunk: of a datagram, what fits into a frame of Ethernet."""


class Where(NamedTuple):
    """The server."""

    host: str
    port: int
    tcp: bool = True

    def __str__(self) -> str:
        return f"{'tcp' if self.tcp else 'udp'}://{self.host}:{self.port}"


class Tcp:
    """A connection over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        writer.transport.set_write_buffer_limits(high=0)  # so that `drain` waits until the system has taken all

    @classmethod
    async def open(cls, where: Where) -> "Tcp":
        return cls(*await asyncio.open_connection(where.host, where.port))

    def lost(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    async def send(self, chunks: Iterable[Chunk]) -> AsyncIterator[Chunk]:
        """Send chunks, and return each once the system has it.

        Raises:
            OSError: the connection is broken.
        """
        for chunk in chunks:
            self._writer.write(chunk.data)
            await self._writer.drain()
            yield chunk

    def close(self) -> None:
        self._writer.transport.abort()


class Udp:
    """A socket that sends datagrams to one place. What becomes of them nobody knows, but that nobody listens is told."""

    def __init__(self, to: socket.socket) -> None:
        self._to = to

    @classmethod
    async def open(cls, where: Where) -> "Udp":
        loop = asyncio.get_running_loop()
        family, kind, protocol, _, address = (await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_DGRAM))[0]
        to = socket.socket(family, kind, protocol)
        to.setblocking(False)
        to.connect(address)  # sends nothing: what is refused is told to a socket that has a place only
        return cls(to)

    def lost(self) -> bool:
        """Return whether somebody has refused, later than REFUSED_S."""
        return self._to.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    async def send(self, chunks: Iterable[Chunk]) -> AsyncIterator[Chunk]:
        """Send each chunk as a datagram, and return them if nobody says soon that nobody listens there.

        Raises:
            OSError: nobody does.
        """
        sent = list(chunks)
        for chunk in sent:
            await asyncio.get_running_loop().sock_sendall(self._to, chunk.data)
        await asyncio.sleep(REFUSED_S)
        if self.lost():
            raise ConnectionRefusedError("nobody listens")
        for chunk in sent:
            yield chunk

    def close(self) -> None:
        self._to.close()


class Sender:
    """Tells one server.

    Args:
        where: the server.
        read: returns all numbers; called in a thread, since there may be many.
        lines: writes them.
        every_s: how often.
        on_change: called when the server is there, with "", and when it is not, with the reason.

    Resource handling: `close` tells the rest, if that goes at once, and ends the connection.
    """

    def __init__(
        self,
        where: Where,
        read: Callable[[], Iterable[Stat]],
        lines: Lines,
        *,
        every_s: float,
        on_change: Callable[[str], None],
    ) -> None:
        self._where, self._read, self._lines = where, read, lines
        self._every_s, self._on_change = every_s, on_change
        self._open: Tcp | Udp | None = None
        self._up: bool | None = None
        """None: nobody knows yet."""

    def __repr__(self) -> str:
        return f"<Sender to {self._where}>"

    async def keep(self) -> None:
        """Tell for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()

    async def flush(self) -> None:
        """Tell what is new; what cannot be told now is told later."""
        try:
            there = await self._connection()
            chunks = await asyncio.to_thread(lambda: list(self._lines.chunks(self._read())))
            async for chunk in there.send(chunks):
                self._lines.note(chunk)
        except (OSError, TimeoutError) as error:
            self._drop()
            self._note(up=False, reason=str(error) or type(error).__name__)
        else:
            self._note(up=True)

    async def close(self) -> None:
        """Tell the rest, and go."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self.flush()
        self._drop()

    async def _connection(self) -> Tcp | Udp:
        if self._open is not None and self._open.lost():
            self._drop()
        if self._open is None:
            async with asyncio.timeout(CONNECT_S):
                self._open = await (Tcp if self._where.tcp else Udp).open(self._where)
        return self._open

    def _drop(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _note(self, *, up: bool, reason: str = "") -> None:
        if up is not self._up:
            self._up = up
            self._on_change(reason)
