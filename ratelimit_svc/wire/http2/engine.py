"""The `http2` engine: listens, ticks, drains. Its connections are `peer`s."""

import asyncio
import resource
import socket
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from ratelimit_svc.limiter import Limiter
from ratelimit_svc.metrics.counts import Wire
from ratelimit_svc.wire import unix
from ratelimit_svc.wire.calls import Method
from ratelimit_svc.wire.engine import EngineOptions
from ratelimit_svc.wire.http2.frames import ErrorCode
from ratelimit_svc.wire.http2.handshake import Entrance, Handshake
from ratelimit_svc.wire.http2.peer import Peer
from ratelimit_svc.wire.http2.shared import Shared

BACKLOG = 1024
"""Connections that wait to be accepted: a mesh comes back all at once."""
MOST_CONNECTIONS, FILES_LEFT = 16_384, 200
"""Connections at most, and fewer where the process may not open as many files: some are left for the store, the admin port and
those that are just being turned away."""
ACCEPTED_AT_ONCE = 32
"""Of those; asyncio's own loop accepts as many in one go as it is told to let wait, and without files left it does little else."""
MOST_TICKED = 50
"""Connections looked at in one go: each may have a thousand streams, and requests are waiting."""


class Http2Engine:
    """One gRPC server; see `wire.engine.Engine`."""

    def __init__(self, limiter: Limiter, methods: Mapping[str, Method], options: EngineOptions) -> None:
        self._empty = asyncio.Event()
        """The last connection has gone."""
        self._shared = Shared(
            limiter, methods, options, asyncio.get_running_loop(), self._empty.set, _most_connections()
        )
        self._server: asyncio.Server | Entrance | None = None
        self._ticks: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Http2Engine: {len(self._shared.peers)} connections, {self._shared.streams} calls under way>"

    def wire(self) -> Wire:
        """Return what it knows of its callers; see `wire.engine.Engine`."""
        faults = {code.name: self._shared.faults[code] for code in ErrorCode if code is not ErrorCode.NO_ERROR}
        return Wire(len(self._shared.peers), self._shared.streams, faults)

    async def start(self, host: str, port: int) -> int:
        """Listen. Return the port: the one asked for, or for 0 a free one.

        Raises:
            OSError: the address cannot be had.
        """
        listener = await _listen(host, port)
        await self._accept_at(listener)
        bound: int = listener.getsockname()[1]
        return bound

    async def start_unix(self, path: Path) -> None:
        """Listen on a unix socket; see `wire.engine.Engine`."""
        await self._accept_at(unix.listener(path, BACKLOG))

    async def _accept_at(self, listener: socket.socket) -> None:
        tls, loop = self._shared.options.tls, self._shared.loop
        if tls is None:
            serve = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
            self._server = await serve(lambda: Peer(self._shared), sock=listener, backlog=ACCEPTED_AT_ONCE)
            listener.listen(BACKLOG)
        else:
            self._server = Entrance(self._shared, tls.context, listener, ACCEPTED_AT_ONCE)
        self._ticks = loop.create_task(self._tick(), name="http2 ticks")

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, and wait at most `grace_s` for what was accepted; what is left then is cancelled."""
        if self._server is not None:
            self._server.close()
        self._empty.clear()
        self._shared.stopping = True
        for peer in list(self._shared.peers):
            peer.drain()
        if self._shared.peers:
            try:
                async with asyncio.timeout(grace_s):
                    await self._empty.wait()
            except TimeoutError:
                for peer in list(self._shared.peers):
                    peer.abort()
        for handshake in list(self._shared.handshakes):
            handshake.abort()
        if self._ticks is not None:
            self._ticks.cancel()

    async def _tick(self) -> None:
        """Let each connection know of each second; some at a time."""
        while True:
            self._shared.tick()
            connections: list[Handshake | Peer] = [*self._shared.handshakes, *self._shared.peers]
            turns = range(0, len(connections), MOST_TICKED) or range(1)
            for start in turns:
                for connection in islice(connections, start, start + MOST_TICKED):
                    try:
                        connection.tick()
                    except Exception as error:  # noqa: BLE001 — a defect: for all others time goes on
                        context = {"message": "a connection's second failed", "exception": error}
                        self._shared.loop.call_exception_handler(context)
                await asyncio.sleep(1 / len(turns))


def _most_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(files - FILES_LEFT, files // 2))


async def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. `::` is every address, IPv4 as well."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    try:
        # one port is one process, hence no SO_REUSEPORT: a forgotten process would go on taking a part of the connections
        return socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise OSError(error.errno, f"gRPC cannot listen on {host}:{port}: {error.strerror}") from error
