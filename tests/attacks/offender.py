"""An offender: a socket that says what it likes, and reads or does not."""

import re
import select
import socket
import ssl
import time
from collections import Counter
from types import TracebackType
from typing import Self

from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2.frames import HEAD_BYTES, ErrorCode, Kind
from tests.http2.client import HELLO, frames_in

STATUS = re.compile(rb"grpc-status[\x01\x02]([0-9]+)")
PATIENCE_S = 5.0
"""How long an offender goes on, and waits for what becomes of it."""


class Offender:
    """One connection.

    Args:
        port: of the server, on loopback.
        hello: what is sent first.
        reads: whether it reads what it gets.
        tls: as a client; None for plaintext.
    """

    def __init__(
        self, port: int, *, hello: bytes = HELLO, reads: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        opened = socket.socket()
        if not reads:  # so that little is enough
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.settimeout(PATIENCE_S)
        opened.connect(("127.0.0.1", port))
        self._socket = tls.wrap_socket(opened, server_hostname="localhost") if tls else opened
        self._socket.settimeout(0)
        self._reads = reads
        self._unread = b""
        self.sent = 0
        self.heard: Counter[str] = Counter()
        """Frames by their kind."""
        self.code: ErrorCode | None = None
        """Of the last GOAWAY."""
        self.reset_codes: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        """gRPC's, of answers."""
        self.closed = self.stuck = False
        self.send(hello)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Go without a word."""
        self._socket.close()

    @property
    def got(self) -> str:
        """What became of it."""
        said = [] if self.code is None else [self.code.name]
        said += [f"{count} × {name}" for name, count in self.reset_codes.most_common(2)]
        said += [f"{count} × {GrpcStatus(code).name}" for code, count in self.statuses.most_common(2)]
        said += ["closed"] * (self.closed and self.code is None) + ["is read no more"] * self.stuck
        return ", ".join(said) or ("nothing" if self._reads else "does not look")

    def send(self, data: bytes, *, within_s: float = PATIENCE_S) -> bool:
        """Send; return whether all was taken before the server closed, or the time was over."""
        view = memoryview(data)
        ends = time.monotonic() + within_s
        while view and not self.closed and self.code is None:
            readable, writable, _ = select.select(
                [self._socket] if self._reads else [], [self._socket], [], max(ends - time.monotonic(), 0)
            )
            if not readable and not writable:
                self.stuck = True
                return False
            if readable:
                self._read()
            if writable and not self.closed:
                view = view[self._write(view) :]
        return not view

    def flood(self, data: bytes, *, most_bytes: int = 10**8, within_s: float = PATIENCE_S) -> None:
        """Send it again and again until the server has enough, or that many bytes are sent."""
        ends = time.monotonic() + within_s
        begun = self.sent
        while self.sent - begun < most_bytes and (left := ends - time.monotonic()) > 0:
            if not self.send(data, within_s=left):
                break
        if self._reads:
            self.listen(lambda: self.closed or self.code is not None, within_s=max(ends - time.monotonic(), 0))

    def listen(self, enough, *, within_s: float = PATIENCE_S) -> None:
        """Read until it is enough, or the server has closed."""
        ends = time.monotonic() + within_s
        while not (enough() or self.closed) and (left := ends - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                self._read()

    def until_closed(self) -> None:
        """Read until the server has closed."""
        self.listen(lambda: False)

    def _write(self, view: memoryview) -> int:
        try:
            sent = self._socket.send(view[:1_000_000])
        except (BlockingIOError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            self._read()  # the last words
            self.closed = True
            return 0
        self.sent += sent
        return sent

    def _read(self) -> None:
        try:
            data = self._socket.recv(1_000_000)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        self.closed = not data
        self._unread += data
        at = 0
        while len(self._unread) - at >= HEAD_BYTES:
            size = HEAD_BYTES + int.from_bytes(self._unread[at : at + 3], "big")
            if len(self._unread) - at < size:
                break
            for kind, _, _, payload in frames_in(self._unread[at : at + size]):
                self._note(Kind(kind), payload)
            at += size
        self._unread = self._unread[at:]

    def _note(self, kind: Kind, payload: bytes) -> None:
        self.heard[kind.name] += 1
        if kind == Kind.GOAWAY:
            self.code = ErrorCode(int.from_bytes(payload[4:8], "big"))
        elif kind == Kind.RST_STREAM:
            self.reset_codes[ErrorCode(int.from_bytes(payload, "big")).name] += 1
        elif kind == Kind.HEADERS and (status := STATUS.search(payload)):  # the server writes it out, always
            self.statuses[int(status[1])] += 1
