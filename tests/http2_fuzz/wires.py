"""Connections, written by Hypothesis: what clients do, in any order, and then a little damage."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from hpack import Encoder, NeverIndexedHeaderTuple
from hypothesis import strategies as st

from ratelimit_svc.wire.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME,
    PADDED,
    PRIORITY,
    Kind,
    Setting,
)
from tests.http2_fuzz.ours import QUICK_PATH
from tests.http2_fuzz.pieces import Act

LARGEST = 2**31 - 1


class Frame(NamedTuple):
    """One frame to send."""

    kind: int
    flags: int = 0
    number: int = 0
    payload: bytes = b""
    length: int | None = None
    """Another than it has."""

    def data(self) -> bytes:
        """Return its bytes."""
        length = len(self.payload) if self.length is None else self.length
        return FRAME.pack(length >> 8, length & 0xFF, self.kind, self.flags, self.number) + self.payload


# ── what clients send ─────────────────────────────────────────────────────────────────────────────────────────────────

Fields = tuple[tuple[bytes, bytes], ...]

SOUND: Fields = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"ratelimit"))
CALL: Fields = ((b"te", b"trailers"), (b"content-type", b"application/grpc"))

paths = st.sampled_from((QUICK_PATH.encode(), QUICK_PATH.encode(), b"/grpc.health.v1.Health/Watch", b"/nobody/knows"))

hexes = st.integers(0, 2**64 - 1).map(lambda number: b"%016x" % number)
extras = st.one_of(
    hexes.map(lambda text: (b"traceparent", b"00-" + text * 2 + b"-" + text + b"-01")),
    hexes.map(lambda text: (b"x-request-id", text)),
    st.sampled_from(
        (
            (b"grpc-timeout", b"20m"),
            (b"grpc-timeout", b"1H"),
            (b"user-agent", b"grpc-python/1.85 grpc-c (linux; chttp2)"),
            (b"grpc-encoding", b"identity"),
            (b"grpc-accept-encoding", b"identity, gzip"),
            (b"x-envoy-internal", b"true"),
            (b"token-bin", b"AAECAw"),
            (b"cookie", b"a=b"),
        )
    ),
    st.tuples(
        st.from_regex(rb"\Ax-[a-z]{1,8}\Z"), st.binary(max_size=20).map(lambda b: b.translate(None, b"\0\r\n").strip())
    ),
)
oddities = st.sampled_from(
    (
        (b":method", b"GET"),
        (b":path", b"/again"),
        (b":status", b"200"),
        (b":odd", b"1"),
        (b"X-Upper", b"1"),
        (b"", b"nameless"),
        (b"connection", b"close"),
        (b"te", b"gzip"),
        (b"x-bad", b"a\nb"),
        (b"x-space", b" a"),
        (b"content-length", b"11"),
        (b"content-length", b"0"),
        (b"content-length", b"many"),
        (b"content-type", b"text/html"),
        (b"grpc-encoding", b"zstd"),
        (b"grpc-timeout", b"soon"),
        (b"host", b"ratelimit"),
        (b"x-long", b"y" * 300),
    )
)


@dataclass(frozen=True)
class Call:
    """One call, as a client means it."""

    fields: Fields
    body: bytes
    cuts: tuple[int, ...] = ()
    """Where its DATA is cut."""
    padding: int | None = None
    priority: bytes | None = None
    head_cut: int | None = None
    """How much of its header block stands in HEADERS."""
    huffman: bool = True
    sensitive: bool = False
    trailers: Fields | None = None
    end: bool = True
    """Whether it ends."""
    bare: bool = False
    """Ends with an empty DATA frame."""


def messages(parts: list[bytes], *, compressed: bool) -> bytes:
    """Return messages in gRPC's frames."""
    some = [gzip.compress(part, mtime=0) if compressed else part for part in parts]
    return b"".join(bytes((compressed,)) + len(part).to_bytes(4, "big") + part for part in some)


@st.composite
def calls(draw) -> Call:
    """A call: mostly of one message, as Envoy makes it."""
    usual = draw(st.integers(0, 3)) > 0
    own = draw(st.lists(extras, max_size=3))
    fields = (*SOUND, (b":path", draw(paths)), *CALL, *own)
    if usual:
        body = messages([draw(st.binary(max_size=12))], compressed=False)
        return Call(fields, body, huffman=draw(st.booleans()))
    compressed = draw(st.booleans())
    if compressed:
        fields = (*fields, (b"grpc-encoding", b"gzip"))
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(fields)))
        fields = (*fields[:at], draw(oddities), *fields[at:])
    if draw(st.integers(0, 9)) == 0:
        fields = tuple(field for number, field in enumerate(fields) if number != draw(st.integers(0, 5)))
    parts = draw(st.lists(st.binary(max_size=8) | st.integers(0, 5000).map(bytes), max_size=3))
    return Call(
        fields,
        messages(parts, compressed=compressed),
        cuts=tuple(draw(st.lists(st.integers(0, 40), max_size=4))),
        padding=draw(st.none() | st.integers(0, 255)),
        priority=draw(st.none() | st.just(b"\0\0\0\0\x10") | st.binary(min_size=5, max_size=5)),
        head_cut=draw(st.none() | st.integers(0, 30)),
        huffman=draw(st.booleans()),
        sensitive=draw(st.booleans()),
        trailers=draw(st.none() | st.just(()) | st.lists(extras | oddities, max_size=2).map(tuple)),
        end=draw(st.integers(0, 4)) > 0,
        bare=draw(st.booleans()),
    )


class Client:
    """Writes frames, with one table for all blocks."""

    def __init__(self, *, obeys: bool) -> None:
        self._encoder = Encoder()
        self._next = 1
        self._obeys = obeys
        self._acknowledged = False

    def resize(self, size: int) -> None:
        """Give the table another size, of a client that does not know that it shall keep none."""
        if not self._obeys:
            self._encoder.header_table_size = size

    def acknowledges(self) -> list[Frame]:
        """Acknowledge, once, that no table is to be kept, which we ask with the first call; and keep none if it obeys."""
        if not self._obeys or self._acknowledged:
            return []
        self._acknowledged = True
        self._encoder.header_table_size = 0
        return [Frame(Kind.SETTINGS, ACK)]

    def frames(self, call: Call) -> Iterator[list[Frame]]:
        """Yield what has to stay together; nothing is encoded before its turn."""
        number = self._next
        self._next += 2
        data = list(self._data(call, number))
        ends_here = call.end and not data and call.trailers is None
        yield self._block(call, number, call.fields, END_STREAM if ends_here else 0)
        for frame in data:
            yield [frame]
        if call.end and call.trailers is not None:
            yield self._block(replace(call, priority=None), number, call.trailers, END_STREAM)

    def _block(self, call: Call, number: int, fields: Fields, flags: int) -> list[Frame]:
        listed = [NeverIndexedHeaderTuple(*one) for one in fields] if call.sensitive else list(fields)
        block = self._encoder.encode(listed, huffman=call.huffman)
        cut = len(block) if call.head_cut is None else call.head_cut
        first, rest = block[:cut], block[cut:]
        if call.priority is not None:
            flags, first = flags | PRIORITY, call.priority + first
        if call.padding is not None:
            flags, first = flags | PADDED, padded(first, call.padding)
        if not rest:
            return [Frame(Kind.HEADERS, flags | END_HEADERS, number, first)]
        half = len(rest) // 2
        more = [Frame(Kind.CONTINUATION, 0, number, rest[:half])] if half else []
        return [
            Frame(Kind.HEADERS, flags, number, first),
            *more,
            Frame(Kind.CONTINUATION, END_HEADERS, number, rest[half:]),
        ]

    @staticmethod
    def _data(call: Call, number: int) -> Iterator[Frame]:
        at, parts = 0, []
        for length in call.cuts:
            parts.append(call.body[at : at + length])
            at += length
        if call.body[at:] or not parts:
            parts.append(call.body[at:])
        if call.bare:
            parts.append(b"")
        for place, part in enumerate(parts):
            last = call.end and call.trailers is None and place == len(parts) - 1
            flags = END_STREAM if last else 0
            if call.padding is None:
                yield Frame(Kind.DATA, flags, number, part)
            else:
                yield Frame(Kind.DATA, flags | PADDED, number, padded(part, call.padding))


def padded(payload: bytes, length: int) -> bytes:
    """Return a payload with padding."""
    return bytes((length,)) + payload + bytes(length)


def four(number: int) -> bytes:
    """Return 32 bits."""
    return number.to_bytes(4, "big")


def frames(*parts: st.SearchStrategy) -> st.SearchStrategy[Frame]:
    """Frames of these parts."""
    return st.tuples(*parts).map(lambda some: Frame(*some))


numbers = st.sampled_from((0, 1, 1, 3, 3, 5, 7, 9, 2, 21, LARGEST))
small = st.sampled_from((0, 1, 2, 5, 16, 100, 16384, 65535, 2**24, LARGEST))
SETTINGS = (
    *((Setting.INITIAL_WINDOW_SIZE, value) for value in (0, 5, 20, 65535, LARGEST, 2**31)),
    *((Setting.MAX_FRAME_SIZE, value) for value in (16384, 20000, 1)),
    *((Setting.ENABLE_PUSH, value) for value in (0, 1, 2)),
    *((Setting.HEADER_TABLE_SIZE, value) for value in (0, 4096, 65536)),
    *((Setting.MAX_CONCURRENT_STREAMS, value) for value in (0, 100)),
    (Setting.MAX_HEADER_LIST_SIZE, 100),
    (99, 5),
)
settings = st.lists(st.sampled_from(SETTINGS), max_size=3).map(
    lambda pairs: b"".join(name.to_bytes(2, "big") + four(value) for name, value in pairs)
)

controls = st.one_of(
    frames(st.just(Kind.WINDOW_UPDATE), st.just(0), numbers, small.map(four)),
    frames(st.just(Kind.SETTINGS), st.just(0), st.just(0), settings),
    frames(st.just(Kind.PING), st.sampled_from((0, 0, ACK)), st.just(0), hexes.map(lambda text: text[:8])),
    frames(st.just(Kind.RST_STREAM), st.just(0), numbers, small.map(four)),
    frames(st.just(Kind.PRIORITY), st.just(0), numbers, small.map(lambda n: four(n) + b"\x10")),
    frames(st.just(Kind.GOAWAY), st.just(0), st.just(0), small.map(lambda n: four(n) + four(0) + b"bye")),
    frames(st.just(0x42), st.integers(0, 255), numbers, st.binary(max_size=10)),
    frames(st.just(Kind.DATA), st.sampled_from((0, END_STREAM)), numbers, st.binary(max_size=10)),
    frames(st.just(Kind.SETTINGS), st.just(ACK)),
    st.just(Frame(Kind.PING, 0, 0, b"draining")),
    st.just(Frame(Kind.PING, ACK, 0, b"draining")),
)
often = st.sampled_from((Act.ANSWER, Act.ANSWER, Act.ANSWER, Act.SAY, Act.SAY, Act.END, Act.RESET))
acts = frames(often, st.sampled_from((0, 0, 0, 1, 12, 255)), st.integers(0, 3), st.binary(max_size=30))
rare_acts = frames(st.sampled_from((Act.TICK, Act.TICK, Act.DRAIN, Act.LEAVE, Act.ASK_ALIVE)))


@dataclass(frozen=True)
class Resize:
    """The client's table gets another size."""

    size: int


steps = st.one_of(calls(), calls(), calls(), acts, controls, st.sampled_from((0, 100, 4096)).map(Resize))


@st.composite
def connections(draw) -> list[Frame]:
    """A connection without its preface."""
    client = Client(obeys=draw(st.integers(0, 3)) > 0)
    frames = [Frame(Kind.SETTINGS, 0, 0, draw(settings) if draw(st.booleans()) else b""), Frame(Kind.SETTINGS, ACK)]
    waiting: list[Iterator[list[Frame]]] = []
    for step in draw(st.lists(steps, min_size=1, max_size=8)):
        if isinstance(step, Frame):
            frames.append(step)
        elif isinstance(step, Resize):
            client.resize(step.size)
        else:
            begun = client.frames(step)
            frames += [*next(begun), *client.acknowledges()]
            waiting.append(begun)
        for _ in range(draw(st.integers(0, 3)) if waiting else 0):
            frames += next(waiting[draw(st.integers(0, len(waiting) - 1))], [])
    for one in waiting:
        for some in one:
            frames += some
    if draw(st.integers(0, 7)) == 0:
        frames.insert(draw(st.integers(2, len(frames))), draw(rare_acts))
    return [*frames, *draw(st.lists(acts, max_size=2))]
