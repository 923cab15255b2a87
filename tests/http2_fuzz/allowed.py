"""Where the core and h2 may differ: each with the section that lets the core do what it does."""

from collections.abc import Callable
from typing import NamedTuple

from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.connection import Connection
from ratelimit_svc.wire.http2.frames import (
    END_HEADERS,
    LARGEST_WINDOW,
    PADDED,
    PRIORITY,
    ErrorCode,
    Kind,
    settings_in,
    unpadded,
)
from tests.http2_fuzz.ours import Step
from tests.http2_fuzz.pieces import REST_KIND, Piece


class Case(NamedTuple):
    """A piece on which they differ."""

    piece: Piece
    ours: Step
    theirs: Step
    connection: Connection

    def resets(self, code: ErrorCode) -> bool:
        """Whether ours ends the stream with this code, and nothing else."""
        return self.ours == Step(resets=[(self.piece.number, code)])

    def ends(self, code: ErrorCode) -> bool:
        """Whether ours ends the connection with this code."""
        return self.ours.over == code


class Allowed(NamedTuple):
    """One kind of difference."""

    name: str
    why: str
    applies: Callable[[Case], bool]
    goes_on: bool = False
    """Both mean the same by what follows, as long as neither has ended the connection."""


QUIET = Step()
ALTSVC, ENABLE_CONNECT_PROTOCOL = 0xA, 8

ALLOWED = (
    Allowed(
        "length at once",
        "RFC 9113 §4.2: a frame is too long by what its head says; h2 waits for all of it",
        lambda case: case.piece.kind == REST_KIND and case.ends(ErrorCode.FRAME_SIZE_ERROR),
    ),
    Allowed(
        "head at once",
        "§5.4.1: of a frame that is not whole yet h2 sees that its kind may not be on that stream; ours looks when it is whole",
        lambda case: (
            case.piece.kind == REST_KIND and case.ours == QUIET and case.theirs.over == ErrorCode.PROTOCOL_ERROR
        ),
    ),
    Allowed(
        "block at once",
        "§5.4.1: HEADERS on a stream that is no client's end the connection as they come; h2 waits for the rest of the header block",
        lambda case: (
            case.piece.kind == Kind.HEADERS
            and not case.piece.has(END_HEADERS)
            and case.ends(ErrorCode.PROTOCOL_ERROR)
            and case.theirs == QUIET
        ),
    ),
    Allowed(
        "first frame",
        "§3.4: the first is SETTINGS with the client's settings; h2 takes an acknowledgement, or another frame",
        lambda case: (
            case.ends(ErrorCode.PROTOCOL_ERROR) and case.connection._expecting and case.connection._block is None
        ),
    ),
    Allowed(
        "either fault",
        "§5.4.1: the connection ends either way; h2 looks at a frame's body before its place, and calls a wrong length of SETTINGS "
        "with ACK (§6.5), PRIORITY and others by other names",
        lambda case: case.ours.over is not None and case.theirs.over is not None,
    ),
    Allowed(
        "all settings count",
        "§6.5.3: values are processed in the order in which they appear; h2 sees the last of each name",
        lambda case: (
            case.piece.kind == Kind.SETTINGS
            and case.ours.over in (ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.PROTOCOL_ERROR)
        ),
    ),
    Allowed(
        "others' settings",
        "§6.5.2: a setting that we do not know is ignored; h2 knows ENABLE_CONNECT_PROTOCOL (RFC 8441), and which values it may have",
        lambda case: (
            case.piece.kind == Kind.SETTINGS
            and case.ours == Step(acks=1)
            and case.theirs.over == ErrorCode.PROTOCOL_ERROR
            and any(name == ENABLE_CONNECT_PROTOCOL and value > 1 for name, value in settings_in(case.piece.payload))
        ),
    ),
    Allowed(
        "idle streams",
        "§5.1: whatever comes on an idle stream but HEADERS and PRIORITY ends the connection; h2 overlooks RST_STREAM",
        lambda case: case.piece.kind == Kind.RST_STREAM and case.ends(ErrorCode.PROTOCOL_ERROR),
    ),
    Allowed(
        "closed streams",
        "§5.1: DATA and HEADERS on a stream that is closed may end the connection; h2 resets the stream",
        lambda case: (
            case.piece.kind in (Kind.DATA, Kind.HEADERS, Kind.CONTINUATION)
            and case.ends(ErrorCode.STREAM_CLOSED)
            and case.theirs.resets == [(case.piece.number, ErrorCode.STREAM_CLOSED)]
        ),
    ),
    Allowed(
        "naked continuation",
        "§6.10: CONTINUATION that continues nothing ends the connection; h2 looks at its stream first, and resets one that was reset",
        lambda case: (
            case.piece.kind == Kind.CONTINUATION
            and case.ends(ErrorCode.PROTOCOL_ERROR)
            and [code for _, code in case.theirs.resets] == [ErrorCode.STREAM_CLOSED]
        ),
    ),
    Allowed(
        "after our reset",
        "§5.1: what comes on a stream that we reset is ignored; h2 resets it again, or ends the connection if both had ended it",
        lambda case: (
            case.ours == QUIET
            and case.connection.streams.was_reset(case.piece.number)
            and ErrorCode.STREAM_CLOSED in (case.theirs.over, *(code for _, code in case.theirs.resets))
        ),
        goes_on=True,
    ),
    Allowed(
        "too much",
        "§6.9.1: DATA beyond a stream's window is the stream's error or the connection's; h2 ends the connection",
        lambda case: (
            case.piece.kind == Kind.DATA
            and case.resets(ErrorCode.FLOW_CONTROL_ERROR)
            and case.theirs.over == ErrorCode.FLOW_CONTROL_ERROR
        ),
    ),
    Allowed(
        "priorities",
        "§6.3, RFC 7540 §5.3.1: a priority of another length, and a stream that depends on itself, are the stream's error; h2 ends the "
        "connection",
        lambda case: (
            (
                case.resets(ErrorCode.PROTOCOL_ERROR)
                or case.resets(ErrorCode.FRAME_SIZE_ERROR)
                or (case.ours == QUIET and not case.piece.has(END_HEADERS))  # the block is heard out first
                or (case.ours == QUIET and case.connection.streams.was_reset(case.piece.number))
            )
            and case.theirs.over is not None
            and (case.piece.kind == Kind.PRIORITY or case.piece.has(PRIORITY))
        ),
    ),
    Allowed(
        "no more window",
        "§6.9: WINDOW_UPDATE by 0 is the stream's error; h2 ends the connection, even for a stream that is closed",
        lambda case: (
            case.piece.kind == Kind.WINDOW_UPDATE
            and int.from_bytes(case.piece.payload, "big") & LARGEST_WINDOW == 0
            and (case.resets(ErrorCode.PROTOCOL_ERROR) or case.ours == QUIET)
            and case.theirs.over == ErrorCode.PROTOCOL_ERROR
        ),
    ),
    Allowed(
        "reserved bit",
        "§6.9: the first bit of an increment means nothing; h2 takes it for a part of the number",
        lambda case: (
            case.piece.kind == Kind.WINDOW_UPDATE
            and case.piece.payload[0] & 0x80 != 0
            and case.theirs.over == ErrorCode.PROTOCOL_ERROR
        ),
    ),
    Allowed(
        "no push",
        "§8.4: a client's PUSH_PROMISE ends the connection; h2 waits for the rest of its header block",
        lambda case: case.piece.kind == Kind.PUSH_PROMISE and case.ends(ErrorCode.PROTOCOL_ERROR),
    ),
    Allowed(
        "all padding",
        "§6.2: HEADERS may be all padding, and no priority lies in it; h2 refuses the one, and reads the other",
        lambda case: (
            case.piece.kind == Kind.HEADERS
            and case.piece.has(PADDED)
            and len(case.piece.payload) - 1 - case.piece.payload[0] in range(6)
            and (case.theirs.over == ErrorCode.PROTOCOL_ERROR or case.piece.has(PRIORITY))
        ),
    ),
    Allowed(
        "extensions",
        "§5.5: a frame of a type that we do not speak is ignored; h2 knows ALTSVC, and how long it has to be",
        lambda case: case.piece.kind == ALTSVC and case.ours == QUIET,
    ),
    Allowed(
        "malformed",
        "§8.1.1: a content-length that is wrong, and HEADERS in the middle, are the stream's error; h2 ends the connection",
        lambda case: (
            case.piece.kind in (Kind.DATA, Kind.HEADERS, Kind.CONTINUATION)
            and case.resets(ErrorCode.PROTOCOL_ERROR)
            and case.theirs.over == ErrorCode.PROTOCOL_ERROR
        ),
    ),
    Allowed(
        "lengths in trailers",
        "RFC 9110 §6.5.1: a content-length in trailers says nothing about the message; h2 reads it",
        lambda case: (
            case.piece.kind in (Kind.HEADERS, Kind.CONTINUATION)
            and case.ours.over is None
            and "content-length" in case.theirs.why
        ),
    ),
    Allowed(
        "unread code",
        "a decision of ours (memory, Rule 2), beside RFC 7541 §5.2 and RFC 9113 §8.2.1: Huffman's code of a value that nobody reads is "
        "not decoded once a peer keeps no table, so that nobody sees whether it is sound; it changes nothing but its own field",
        lambda case: (
            case.connection._table._decoder is None
            and case.ours.over is None
            and not case.ours.resets
            and ("Huffman" in case.theirs.why or has_unsound_code(case.piece))
        ),
    ),
    Allowed(
        "no larger table",
        "RFC 7541 §6.3: no size of the table beyond what we allow; h2 was not told of our 0, since it would refuse peers that go on "
        "without a word, and those we decode",
        lambda case: (
            case.ends(ErrorCode.COMPRESSION_ERROR)
            and case.connection._table.acknowledged
            and case.piece.kind in (Kind.HEADERS, Kind.CONTINUATION)
        ),
    ),
)


def find(case: Case) -> Allowed | None:
    """Return the first that applies."""
    return next((one for one in ALLOWED if one.applies(case)), None)


def has_unsound_code(piece: Piece) -> bool:
    """Return whether a value of these HEADERS is Huffman's code of what no value may be."""
    if piece.kind != Kind.HEADERS or not piece.has(END_HEADERS):
        return False
    block = unpadded(piece.flags, piece.payload)[5 * piece.has(PRIORITY) :]
    coded = [each for each in fields.representations(block) if (at := fields.value_start(each)) and each[at] & 0x80]
    return any(not fields.is_sound_value(value) for each in coded for _, value in fields.decode(fields.table(), each))
