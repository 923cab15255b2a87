"""One caller's connection to a replica: requests as Envoy sends them, each with a deadline of its own, and what became of each.

Rule 1: a call is noted before it is written and after it is read, so what is in between is never judged too long.
Rule 2: nothing is given up: a call without an answer in time is waited for, so that it shows how late it was.
Rule 3: response header blocks are decoded only where a call ends without an answer. We offer no table, so each stands alone.

Frames and header blocks are the bench's (`tests.bench.frames`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import cast

from hpack import Decoder

from ratelimit_svc.demo.parts import LOOPBACK, Replica
from ratelimit_svc.model import Entry
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_svc.wire.client import request
from tests.bench import frames
from tests.bench.frames import DATA, HEADER, HEADER_SIZE, HEADERS, STREAM

DOMAIN = "shop"
LOST = "the connection was lost"
"""The status of a call that ended with its connection."""
ROOM = 1 << 30
"""What a replica may send us: no answer waits for our leave."""


@dataclass(slots=True)
class Call:
    """A request, and what became of it. Times by `perf_counter`."""

    tenant: str
    replica: str
    timeout_s: float
    """What the caller grants."""
    sent_s: float = 0.0
    answered_s: float | None = None
    """None: not yet."""
    reply: bytes = b""
    """A RateLimitResponse; empty: it ended without."""
    status: str = ""
    """Why it ended without."""

    @property
    def admitted(self) -> bool:
        """It may pass."""
        return self.reply[:2] == b"\x08\x01"

    @property
    def limited(self) -> bool:
        """It is over a limit."""
        return self.reply[:2] == b"\x08\x02"

    @property
    def remaining(self) -> int:
        """What the answer says is left."""
        (status,) = rls_pb2.RateLimitResponse.FromString(self.reply).statuses
        return int(status.limit_remaining)


def message(tenant: str) -> bytes:
    """Return the gRPC message that asks for one hit of a tenant."""
    return frames.message(request(DOMAIN, [[Entry("tenant", tenant)]]).SerializeToString())


def block(timeout_s: float) -> bytes:
    """Return a header block, for a server that offers no table, of a caller with such a timeout."""
    own = {"grpc-timeout": f"{timeout_s * 1000:.0f}m", "x-envoy-expected-rq-timeout-ms": f"{timeout_s * 1000:.0f}"}
    return frames.blocks(0, [(name, own.get(name, value)) for name, value in frames.ENVOY_HEADERS]).then


class Caller(asyncio.Protocol):
    """A caller's end. `ready` is set when it may ask, `closed` when the connection is gone.

    Args:
        replica: the name of whom it asks.
        on_refused: given the calls that the replica said, in leaving, it has not looked at: another may be asked.
    """

    def __init__(self, replica: str, on_refused: Callable[[Call], None] = lambda _: None) -> None:
        self.replica = replica
        self.ready, self.closed = asyncio.Event(), asyncio.Event()
        self.leaving = False
        """The replica has said that it takes no more calls here."""
        self.under_way: dict[int, Call] = {}
        self._on_refused = on_refused
        self._transport: asyncio.Transport | None = None
        self._next_stream = 1
        self._rest = b""

    def __repr__(self) -> str:
        return f"<Caller of {self.replica}: {len(self.under_way)} under way>"

    @property
    def open(self) -> bool:
        """Whether it may ask."""
        return self.ready.is_set() and not self.leaving and not self.closed.is_set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            frames.PREFACE
            + frames.frame(frames.SETTINGS, 0, 0, frames.setting(0x2, 0) + frames.setting(frames.HEADER_TABLE_SIZE, 0))
            + frames.frame(frames.WINDOW_UPDATE, 0, 0, STREAM.pack(ROOM))
        )

    def ask(self, call: Call, block: bytes, message: bytes) -> None:
        """Send a request."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        assert self._transport is not None
        self.under_way[stream] = call
        before = b"\x20" if stream == 1 else b""  # RFC 7541, 4.2: that the table has shrunk is told once
        call.replica, call.sent_s = self.replica, perf_counter()
        self._transport.write(
            frames.frame(HEADERS, frames.END_HEADERS, stream, before + block)
            + frames.frame(DATA, frames.END_STREAM, stream, message)
        )

    def close(self) -> None:
        """Leave."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        now, data, at = perf_counter(), self._rest + data, 0
        while len(data) - at >= HEADER_SIZE:
            upper, lower, kind, flags, stream = HEADER.unpack_from(data, at)
            following = at + HEADER_SIZE + (upper << 8 | lower)
            if following > len(data):
                break
            self._frame(now, kind, flags, stream, data[at + HEADER_SIZE : following])
            at = following
        self._rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        for stream in list(self.under_way):
            self._end(stream, perf_counter(), LOST)

    def _frame(self, now: float, kind: int, flags: int, stream: int, payload: bytes) -> None:
        call = self.under_way.get(stream)
        if kind == DATA and call is not None:
            call.reply = payload[5:]  # a reply is one frame: it is some sixty bytes
        elif kind == HEADERS and flags & frames.END_STREAM and call is not None:
            self._end(stream, now, "" if call.reply else _status(payload))
        elif kind == frames.RST_STREAM and call is not None:
            self._end(stream, now, f"RST_STREAM {STREAM.unpack(payload)[0]}")
        elif kind == frames.GOAWAY:
            self._go_away(STREAM.unpack_from(payload)[0])
        elif not flags & frames.ACK and kind in (frames.SETTINGS, frames.PING):
            assert self._transport is not None
            self._transport.write(frames.frame(kind, frames.ACK, 0, payload if kind == frames.PING else b""))
            self.ready.set()

    def _end(self, stream: int, now: float, status: str) -> None:
        call = self.under_way.pop(stream)
        call.answered_s, call.status = now, status

    def _go_away(self, last: int) -> None:
        self.leaving = True
        for stream in [stream for stream in self.under_way if stream > last]:
            self._on_refused(self.under_way.pop(stream))


def _status(block: bytes) -> str:
    told = {str(name): str(value) for name, value in Decoder().decode(block)}
    return f"grpc-status {told.get('grpc-status')}: {told.get('grpc-message', '')}"


async def connect(replica: Replica, on_refused: Callable[[Call], None] = lambda _: None) -> Caller:
    """Open a connection that may be asked on; OSError or TimeoutError where there is nobody."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(2):
        _, caller = await loop.create_connection(lambda: Caller(replica.name, on_refused), LOOPBACK, replica.grpc_port)
        await caller.ready.wait()
    return caller
