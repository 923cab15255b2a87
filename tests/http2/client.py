"""A client of the core without a socket: frames in, and in words what comes out."""

from collections.abc import Iterator
from typing import Any

from hpack import Decoder, Encoder

from ratelimit_svc.wire import rls
from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.connection import Connection
from ratelimit_svc.wire.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME,
    HEAD_BYTES,
    PADDED,
    PREFACE,
    PRIORITY,
    ErrorCode,
    Kind,
    Setting,
    frame,
)
from ratelimit_svc.wire.http2.memory import Blocks
from ratelimit_svc.wire.http2.messages import Unfinished
from ratelimit_svc.wire.http2.requests import Ask, Event, What
from ratelimit_svc.wire.http2.streams import Crowd

PATH = f"/{rls.SERVICE}/{rls.METHOD}"
OTHER = "/test.Test/Echo"
"""A path of no RateLimitService's, whose calls stream."""

MOST = 100_000
"""Bytes of a message."""

FIELDS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": PATH,
    ":authority": "ratelimit",
    "te": "trailers",
    "content-type": "application/grpc",
}
"""A call's."""


def message(data: bytes, flag: int = 0) -> bytes:
    """A message as gRPC sends it."""
    return bytes((flag,)) + len(data).to_bytes(4, "big") + data


def block(changes: dict[str, Any] | None = None, **more: Any) -> bytes:
    """A call's header block for any table; `changes` and `more` (with _ for -) replace or add fields, None removes."""
    named = FIELDS | (changes or {}) | {name.replace("_", "-"): value for name, value in more.items()}
    return fields.block(*((name.encode(), str(value).encode()) for name, value in named.items() if value is not None))


def head(number: int, data: bytes | None = None, *, end: bool = False, flags: int = END_HEADERS) -> bytes:
    """A HEADERS frame."""
    return frame(Kind.HEADERS, flags | END_STREAM * end, number, block() if data is None else data)


def body(number: int, data: bytes, *, end: bool = True) -> bytes:
    """A DATA frame."""
    return frame(Kind.DATA, END_STREAM * end, number, data)


def request(number: int, data: bytes = b"x") -> bytes:
    """A whole call as most clients send it."""
    return head(number) + body(number, message(data))


def padded(kind: Kind, flags: int, number: int, data: bytes, padding: int) -> bytes:
    """A frame with padding."""
    return frame(kind, flags | PADDED, number, bytes((padding,)) + data + b"\0" * padding)


def prioritized(number: int, data: bytes, depends_on: int, *, end: bool = False) -> bytes:
    """HEADERS with a priority."""
    return head(number, depends_on.to_bytes(4, "big") + b"\x0f" + data, end=end, flags=END_HEADERS | PRIORITY)


def settings(**values: int) -> bytes:
    """A SETTINGS frame."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(setting(Setting[name], value) for name, value in values.items()))


def setting(name: int, value: int) -> bytes:
    """One setting."""
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


def window(number: int, increment: int) -> bytes:
    """A WINDOW_UPDATE."""
    return frame(Kind.WINDOW_UPDATE, 0, number, increment.to_bytes(4, "big"))


def reset(number: int, code: ErrorCode = ErrorCode.CANCEL) -> bytes:
    """A RST_STREAM."""
    return frame(Kind.RST_STREAM, 0, number, code.to_bytes(4, "big"))


def ping(data: bytes = b"12345678", flags: int = 0) -> bytes:
    """A PING."""
    return frame(Kind.PING, flags, 0, data)


SETTINGS_ACK = frame(Kind.SETTINGS, ACK, 0)
HELLO = PREFACE + frame(Kind.SETTINGS, 0, 0)


class Client:
    """One connection's other end; both sides have said hello unless told not to."""

    def __init__(
        self, *, greeted: bool = True, blocks: Blocks | None = None, most: int = MOST, crowd: Crowd | None = None
    ) -> None:
        self.blocks = blocks or Blocks(PATH)
        self.unfinished = Unfinished()
        self.connection = Connection(self.blocks, self.unfinished, most_message_bytes=most, crowd=crowd)
        self.outgoing, self.streams = self.connection.outgoing, self.connection.streams
        self.asks: list[Ask] = []
        self.events: list[Event] = []
        self.encoder, self._decoder = Encoder(), Decoder()
        if greeted:
            self.send(HELLO)

    def send(self, *data: bytes) -> list[str]:
        """Send all at once. Return what came back, in words."""
        asks, events = self.connection.receive(b"".join(data))
        self.asks += asks
        self.events += events
        return self.heard()

    def tick(self, seconds: int = 1, **patience: int) -> list[str]:
        """Let time pass. Return what came, in words."""
        for _ in range(seconds):
            self.events += self.connection.tick(**patience)
        return self.heard()

    def heard(self) -> list[str]:
        """Return what came since, in words."""
        data = b"".join(self.outgoing.parts)
        self.outgoing.parts.clear()
        return [self._words(*each) for each in frames_in(data)]

    def answer(self, data: bytes = b"answer") -> list[str]:
        """Answer the first request that waits. Return what came."""
        stream, _ = self.asks.pop(0)
        self.outgoing.answer(stream, data)
        return self.heard()

    def forget_table(self) -> None:
        """Acknowledge that there is no table, and say so, as a peer does with its second call."""
        self.send(request(1), SETTINGS_ACK, SETTINGS_ACK, head(3, fields.NO_TABLE + block()), body(3, message(b"x")))
        self.answer(), self.answer()

    @property
    def messages(self) -> list[bytes]:
        """The messages of requests that are whole, and of calls that stream."""
        came = [each for event in self.events if event.what is What.CAME for each in event.messages]
        return [data for _, data in self.asks] + came

    @property
    def happened(self) -> list[str]:
        """Events in words, `began 1`."""
        return [f"{event.what.value} {event.stream.number}" for event in self.events]

    @property
    def held(self) -> tuple[int, int, int]:
        """What must be nothing when nothing is under way: streams, those that wait for a window, bytes."""
        return len(self.streams.open), len(self.outgoing._blocked), self.unfinished.bytes

    def _words(self, kind: int, flags: int, number: int, payload: bytes) -> str:
        end, code = " end" * (flags & END_STREAM), int.from_bytes(payload[-4:], "big")
        words = {
            Kind.SETTINGS: f"settings {payload.hex()}",
            Kind.DATA: f"data {number} {len(payload)}{end}",
            Kind.WINDOW_UPDATE: f"window {number} {code}",
            Kind.PING: f"ping{' ack' * (flags & ACK)} {payload!r}",
        }
        if kind == Kind.SETTINGS and flags & ACK:
            return "settings ack"
        if kind == Kind.HEADERS:
            found = dict(self._decoder.decode(payload, raw=True))
            return " ".join((f"headers {number}", *(found[name].decode() for name in TOLD if name in found))) + end
        if kind == Kind.GOAWAY:
            return f"goaway {int.from_bytes(payload[:4], 'big')} {ErrorCode(int.from_bytes(payload[4:8], 'big')).name}"
        return words[Kind(kind)] if kind != Kind.RST_STREAM else f"reset {number} {ErrorCode(code).name}"


TOLD = (b":status", b"grpc-status")
"""Fields of answers whose values are among the words."""


def frames_in(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Each frame's kind, flags, stream and payload; nothing is cut short."""
    at = 0
    while at < len(data):
        high, low, kind, flags, number = FRAME.unpack_from(data, at)
        begin = at + HEAD_BYTES
        at = begin + (high << 8 | low)
        assert at <= len(data)
        yield kind, flags, number, data[begin:at]


ANSWERED = ["headers 1 200", "data 1 11", "headers 1 0 end"]
"""What a call on stream 1 hears from `Client.answer`."""
