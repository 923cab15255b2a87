"""An honest client: one connection, a request every 2 ms. `python -m tests.attacks.honest PORT`.

A process of its own, so that its figures are the server's doing and not the attack's that runs in the tests' process. For each
line on stdin it writes one of JSON: what it has seen since the last.
"""

import json
import select
import socket
import sys
import time
from types import TracebackType
from typing import Self

from ratelimit_svc.model import Entry
from ratelimit_svc.wire.client import request
from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.frames import END_STREAM, HEAD_BYTES, Kind
from tests.bench.frames import ENVOY_HEADERS
from tests.http2.client import HELLO, body, frames_in, head, message, window

PAUSE_S = 0.002
HEAD = fields.block(*((name.encode(), value.encode()) for name, value in ENVOY_HEADERS))
ASKED = message(request("shop", [[Entry("tenant", "honest")]]).SerializeToString())


class Honest:
    """Its connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(HELLO)
        self._number = -1
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self) -> float:
        """Return how many seconds an answer took."""
        self._number += 2
        begun = time.perf_counter()
        self._socket.sendall(head(self._number, HEAD) + body(self._number, ASKED) + window(0, 1000))
        while not self._answered():
            data = self._socket.recv(65_536)
            if not data:
                raise ConnectionError("the server has closed")
            self._unread += data
        return time.perf_counter() - begun

    def _answered(self) -> bool:
        """Read whole frames; return whether the last was the end of an answer."""
        while len(self._unread) >= HEAD_BYTES:
            size = HEAD_BYTES + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < size:
                return False
            frame, self._unread = self._unread[:size], self._unread[size:]
            [(kind, flags, number, _)] = frames_in(frame)
            if kind in {Kind.GOAWAY, Kind.RST_STREAM}:
                raise ConnectionError(f"{Kind(kind).name} for an honest client")
            if kind == Kind.HEADERS and flags & END_STREAM and number == self._number:
                return True
        return False


def main() -> None:
    """Ask until stdin ends."""
    honest, took = Honest(int(sys.argv[1])), [0.0]
    while True:
        took.append(honest.ask())
        if select.select([sys.stdin], [], [], PAUSE_S)[0]:
            if not sys.stdin.readline():
                return
            took.sort()
            told = {
                "asked": len(took),
                "p50": took[len(took) // 2],
                "p99": took[len(took) * 99 // 100],
                "max": took[-1],
            }
            print(json.dumps(told), flush=True)
            took = [0.0]


if __name__ == "__main__":
    main()
