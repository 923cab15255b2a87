"""A connection's bytes, cut: the preface, frames, what is left. And the server's own acts, which are frames that no peer heeds."""

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from ratelimit_svc.wire.http2.frames import FRAME, HEAD_BYTES, LARGEST_FRAME, LARGEST_STREAM, PREFACE


class Act(IntEnum):
    """Frame types that mean to this server: do that now."""

    ANSWER = 0xF0
    """One of the whole requests: the frame's stream says which, counted from the longest waiting, its payload what."""
    SAY = 0xF1
    """A message on one of the calls that do not come whole."""
    END = 0xF2
    """One of those calls, with a status."""
    RESET = 0xF3
    """One of either."""
    TICK = 0xF4
    DRAIN = 0xF5
    LEAVE = 0xF6
    ASK_ALIVE = 0xF7


ACTS = frozenset(Act)
ON_CALLS = frozenset((Act.ANSWER, Act.SAY, Act.END, Act.RESET))
"""Those that the second opinion can take as well."""

PREFACE_KIND, REST_KIND = -1, -2


class Piece(NamedTuple):
    """One frame, or what is none."""

    data: bytes
    """As it comes."""
    kind: int
    flags: int = 0
    number: int = 0
    payload: bytes = b""

    def has(self, flag: int) -> bool:
        """Whether a flag is set."""
        return self.flags & flag != 0


def cut(wire: bytes) -> Iterator[Piece]:
    """Yield what a peer sends, in order."""
    if not wire.startswith(PREFACE):
        yield Piece(wire, REST_KIND)
        return
    yield Piece(PREFACE, PREFACE_KIND)
    yield from frames_of(wire[len(PREFACE) :])


def frames_of(data: bytes) -> Iterator[Piece]:
    """Yield frames, and at last what is no whole one, or too long."""
    at = 0
    while len(data) - at >= HEAD_BYTES:
        high, low, kind, flags, number = FRAME.unpack_from(data, at)
        after = at + HEAD_BYTES + (high << 8 | low)
        if after > len(data) or after - at > HEAD_BYTES + LARGEST_FRAME:
            break
        yield Piece(data[at:after], kind, flags, number & LARGEST_STREAM, data[at + HEAD_BYTES : after])
        at = after
    if at < len(data):
        yield Piece(data[at:], REST_KIND)


def message_of(act: Piece) -> bytes:
    """Return the message of an act: its payload, many times where its flags say so, to be larger than windows."""
    return act.payload * (1 + act.flags)
