"""Connections of a TLS port until they are `peer`s: each counts from when it is accepted, as one that says nothing holds a file, too.

That is why they are accepted here: a server of asyncio's tells of a TLS connection when its handshake is over. (Nor can a connection
of such a server begin TLS later, by `start_tls`: uvloop reads from it before it can be told not to.)
"""

import socket
import ssl
from contextlib import suppress

from ratelimit_svc.wire.http2.peer import LAST_WORDS, Peer
from ratelimit_svc.wire.http2.shared import Shared

HANDSHAKE_S = 10.0
"""How long a handshake may take."""
HURRIED_S = 2
"""How long when connections are scarce."""
NO_FILES_S = 1.0
"""How long nothing is accepted when it could not be: the system has no files left, or no memory."""


class Entrance:
    """Where connections come in.

    Args:
        shared: of the engine.
        context: for each handshake.
        listener: a socket that listens; closed with the entrance.
        at_once: connections that are accepted before others have their turn.
    """

    def __init__(self, shared: Shared, context: ssl.SSLContext, listener: socket.socket, at_once: int) -> None:
        self._shared, self._context, self._listener, self._at_once = shared, context, listener, at_once
        listener.setblocking(False)
        self._open()

    def close(self) -> None:
        """Accept nothing more."""
        if not self._closed:
            self._shared.loop.remove_reader(self._listener)
            self._listener.close()

    @property
    def _closed(self) -> bool:
        return self._listener.fileno() < 0

    def _open(self) -> None:
        if not self._closed:
            self._shared.loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(self._at_once):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._shared.loop.call_exception_handler({"message": "gRPC cannot accept", "exception": error})
                self._shared.loop.remove_reader(self._listener)
                self._shared.loop.call_later(NO_FILES_S, self._open)
                return
            if self._shared.full:
                accepted.close()
            else:
                Handshake(self._shared, self._context, accepted)


class Handshake:
    """One connection that is not let in yet; it is over by itself."""

    def __init__(self, shared: Shared, context: ssl.SSLContext, accepted: socket.socket) -> None:
        self._shared, self._context, self._socket = shared, context, accepted
        self._seconds = 0
        shared.handshakes.add(self)
        self._task = shared.loop.create_task(self._shake_hands(), name="http2 handshake")

    async def _shake_hands(self) -> None:
        self._socket.setblocking(False)
        try:
            await self._shared.loop.connect_accepted_socket(
                lambda: Peer(self._shared),
                self._socket,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=LAST_WORDS,
            )
        except OSError:  # each error of TLS, of the network and of time is one: the peer's, who may come again
            pass
        except Exception as error:  # noqa: BLE001 — a defect: nobody waits for this task
            self._shared.loop.call_exception_handler({"message": "a handshake failed", "exception": error})
        finally:
            self._shared.handshakes.discard(self)

    def tick(self) -> None:
        """Note that a second has passed."""
        self._seconds += 1
        if self._seconds > HURRIED_S and self._shared.crowded and self in self._shared.handshakes:
            self.abort()

    def abort(self) -> None:
        """Close soon: for the loop, the peer has gone."""
        self._shared.handshakes.discard(self)
        with suppress(OSError):  # it has
            self._socket.shutdown(socket.SHUT_RDWR)
