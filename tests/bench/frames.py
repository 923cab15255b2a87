"""Requests as the bytes of HTTP/2: frames (RFC 9113), header blocks (RFC 7541), gRPC's five bytes before a message.

Rule 1: pure. Bytes that do not change from one request to the next are made once; `connection` puts them together.
Rule 2: where the server offers a dynamic table, what Envoy sends is in it from the second request on, one byte a header.
        Where it offers none, every header is written out. So each server is asked as Envoy would ask it.

What it does not know: Huffman codes. They make a block shorter and its decoding dearer: no server is the worse for it.
"""

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

HEADER = Struct(">HBBBI")
"""A frame's header: its length (the upper 16 bits, the lower 8), type, flags and stream."""
STREAM = Struct(">I")
HEADER_SIZE = 9

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 0x1, 0x3, 0x4
NO_ERROR, CANCEL = 0x0, 0x8

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65_535
DEFAULT_TABLE = 4_096

TRACEPARENT = b"\x00\x0btraceparent\x37"
"""A traceparent before its 55 characters: never in the table, for it does not come again."""
TRACEPARENT_SIZE = 55

_STATIC = {(":method", "POST"): 3, (":scheme", "http"): 6}
_STATIC_NAMES = {":authority": 1, ":path": 4, "content-type": 31}
_FIRST_DYNAMIC = 62

ENVOY_HEADERS = (
    (":method", "POST"),
    (":path", "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"),
    (":authority", "ratelimit.default.svc.cluster.local"),
    (":scheme", "http"),
    ("te", "trailers"),
    ("grpc-timeout", "5000m"),  # Envoy's own is 20m; here a slow server is to be measured, not cut off
    ("content-type", "application/grpc"),
    ("x-envoy-internal", "true"),
    ("x-forwarded-for", "10.0.0.17"),
    ("x-envoy-expected-rq-timeout-ms", "5000"),
)
"""What Envoy 1.40 sends, in its order (tests/e2e/test_bench.py asks it). A traceparent comes after these."""


class Blocks(NamedTuple):
    """The header block of a connection's first request, and of those that follow; each without traceparent."""

    first: bytes
    then: bytes


def blocks(table_size: int, fields: Sequence[tuple[str, str]] = ENVOY_HEADERS) -> Blocks:
    """Return the blocks for a server whose SETTINGS_HEADER_TABLE_SIZE is this."""
    if table_size < DEFAULT_TABLE:
        plain = b"".join(_field(name, value, prefix=4, pattern=0x00) for name, value in fields)
        return Blocks(b"\x20" + plain, plain)  # RFC 7541, 4.2: a table that shrinks is told at the next block's start
    first = b"".join(_field(name, value, prefix=6, pattern=0x40) for name, value in fields)
    added = sum(field not in _STATIC for field in fields)
    index = iter(range(_FIRST_DYNAMIC + added - 1, 0, -1))  # the newest has the lowest
    return Blocks(first, b"".join(_integer(_STATIC.get(field) or next(index), 7, 0x80) for field in fields))


def _field(name: str, value: str, *, prefix: int, pattern: int) -> bytes:
    if known := _STATIC.get((name, value)):
        return _integer(known, 7, 0x80)
    index = _STATIC_NAMES.get(name, 0)
    return _integer(index, prefix, pattern) + (b"" if index else _text(name)) + _text(value)


def _text(text: str) -> bytes:
    return _integer(len(text), 7, 0x00) + text.encode()


def _integer(value: int, prefix: int, pattern: int) -> bytes:
    """RFC 7541, 5.1."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([pattern | value])
    encoded, value = bytearray([pattern | most]), value - most
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def start(length: int, kind: int, flags: int) -> bytes:
    """Return a frame's header up to its stream, which comes next."""
    return HEADER.pack(length >> 8, length & 0xFF, kind, flags, 0)[:5]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    return start(len(payload), kind, flags) + STREAM.pack(stream) + payload


def setting(name: int, value: int) -> bytes:
    """Return one entry of a SETTINGS frame."""
    return name.to_bytes(2, "big") + STREAM.pack(value)


def settings(payload: bytes) -> dict[int, int]:
    """Return what a SETTINGS frame says."""
    return {
        int.from_bytes(payload[at : at + 2], "big"): int.from_bytes(payload[at + 2 : at + 6], "big")
        for at in range(0, len(payload) - 5, 6)
    }


def message(payload: bytes) -> bytes:
    """Return a gRPC message: not compressed, its length, itself."""
    return b"\x00" + STREAM.pack(len(payload)) + payload
