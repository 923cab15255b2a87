"""A Service's address as kube-proxy keeps it: each new connection goes to one of the endpoints, and stays there until it ends."""

import asyncio
from typing import Self

from ratelimit_svc.demo.parts import LOOPBACK

PIECE = 65_536


class ClusterIp:
    """Listens on one port. A connection that is there is left alone when its endpoint leaves the list.

    Resource handling: `async with` opens it; on leaving, all its connections are cut.
    """

    def __init__(self) -> None:
        self.endpoints: list[int] = []
        """Ports of those that are ready."""
        self._connected = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, LOOPBACK, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connected += 1
        endpoint = self.endpoints[self._connected % len(self.endpoints)]
        theirs, onward = await asyncio.open_connection(LOOPBACK, endpoint)
        self._writers |= {writer, onward}
        for source, sink in ((reader, onward), (theirs, writer)):
            task = asyncio.create_task(_pump(source, sink))
            self._tasks.add(task)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass everything on, and the end too."""
    try:
        while data := await source.read(PIECE):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except OSError:
        sink.transport.abort()
