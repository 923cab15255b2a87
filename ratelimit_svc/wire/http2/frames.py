"""Frames as RFC 9113 numbers them, and the bytes of those that we send. Pure."""

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113 §3.4)."""

FRAME = Struct(">HBBBL")
"""A frame's head: length (16 and 8 bits), kind, flags, stream (§4.1)."""
HEAD_BYTES = 9

LARGEST_FRAME = 2**14
"""Of those sent to us: SETTINGS_MAX_FRAME_SIZE as it is without a word of ours."""
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 2**16 - 1
"""Flow-control windows without a word of either side (§6.9.2)."""
FIRST_TABLE = 4096
"""Bytes of the table of header fields, likewise (§6.5.2)."""
LARGEST_STREAM = 2**31 - 1


class Kind(IntEnum):
    """Frame types, §6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


ACK, END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
"""Flags."""


PRIORITY_BYTES = 5
"""Of a priority, §6.3."""


class Setting(IntEnum):
    """Settings, §6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection ends, §7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):  # noqa: N818 — RFC 9113's "connection error"; Python has another of that name
    """What a peer did that ends its connection (§5.4.1)."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class StreamFault(Exception):  # noqa: N818 — RFC 9113's "stream error"
    """What a peer did that ends one stream (§5.4.2)."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    length = len(payload)
    return FRAME.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """Return our SETTINGS."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def settings_in(payload: bytes) -> list[tuple[int, int]]:
    """Return what a SETTINGS frame says, in its order; its length is a multiple of 6."""
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE; stream 0 is the connection."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def reset(stream: int, code: ErrorCode) -> bytes:
    """Return a RST_STREAM."""
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: ErrorCode, text: str = "") -> bytes:
    """Return a GOAWAY: streams up to `last` were or will be seen to."""
    return frame(Kind.GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode())


def check_length(kind: Kind, payload: bytes, length: int) -> None:
    """Look at the length of a frame that has one of its own.

    Raises:
        ConnectionFault: it has another.
    """
    if len(payload) != length:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{kind.name} of {len(payload)} bytes; it has {length}")


Fault = tuple[ErrorCode, str]
"""What a StreamFault is made of where it has to wait: an exception that is kept, and then raised, goes round in a circle with the
frames that kept it, and only the collector finds those."""


def priority_fault(stream: int, priority: bytes) -> Fault | None:
    """Return what is wrong with a priority, in a frame of its own or in HEADERS (RFC 7540 §5.3.1, §6.3); nobody heeds it."""
    if len(priority) != PRIORITY_BYTES:
        return ErrorCode.FRAME_SIZE_ERROR, f"a priority of {len(priority)} bytes; it has {PRIORITY_BYTES}"
    if int.from_bytes(priority[:4], "big") & LARGEST_STREAM == stream:
        return ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself"
    return None


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return a payload without its padding (§6.1).

    Raises:
        ConnectionFault: it has more than it is long.
    """
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a length of its padding")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame with more padding than it is long")
    return payload[1 : len(payload) - padding]


def header_block(flags: int, stream: int, payload: bytes) -> tuple[bytes, Fault | None]:
    """Return what a HEADERS frame holds of its block, and what is wrong with its priority (§6.2).

    Raises:
        ConnectionFault: it is shorter than what it says to hold.
    """
    block = unpadded(flags, payload)
    if not flags & PRIORITY:
        return block, None
    if len(block) < PRIORITY_BYTES:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for the priority they say to hold")
    return block[PRIORITY_BYTES:], priority_fault(stream, block[:PRIORITY_BYTES])


_SETTING = Struct(">HL")
