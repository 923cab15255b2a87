"""Each difference that is allowed occurs, so that none is kept that h2 has mended or that never was."""

import pytest
from hpack import Encoder

from ratelimit_svc.wire.http2.fields import NO_TABLE
from ratelimit_svc.wire.http2.frames import ACK, END_HEADERS, END_STREAM, PADDED, PREFACE, ErrorCode, Kind
from ratelimit_svc.wire.http2.memory import Blocks
from tests.http2_fuzz.allowed import ALLOWED
from tests.http2_fuzz.judge import judge
from tests.http2_fuzz.ours import QUICK_PATH, Ours
from tests.http2_fuzz.pieces import Act, cut
from tests.http2_fuzz.wires import CALL, SOUND, Fields, Frame, four, messages, padded

MESSAGE = messages([b"hello"], compressed=False)


def head(number: int, *more: tuple[bytes, bytes], flags: int = END_HEADERS) -> Frame:
    """Return a request's HEADERS, a call's if nothing else is said."""
    fields: Fields = (*SOUND, (b":path", QUICK_PATH.encode()), *(more or CALL))
    return Frame(Kind.HEADERS, flags, number, Encoder().encode(fields))


def trailers(number: int, *fields: tuple[bytes, bytes]) -> Frame:
    """Return the HEADERS that end a request."""
    return Frame(Kind.HEADERS, END_HEADERS | END_STREAM, number, Encoder().encode(fields))


HELLO = (Frame(Kind.SETTINGS), Frame(Kind.SETTINGS, ACK))
NO_TABLE_KNOWN = Frame(Kind.SETTINGS, ACK)
CALLED = (head(1), Frame(Kind.DATA, END_STREAM, 1, MESSAGE))
ANSWERED = (*CALLED, Frame(Act.ANSWER, 0, 0, b"so"))
CODED = head(1).payload + b"\0\1x\x81\x07"
"""A block with a value in Huffman's code: 0."""
NO_TABLE_KEPT = (
    *CALLED,
    NO_TABLE_KNOWN,
    Frame(Kind.HEADERS, END_HEADERS, 3, NO_TABLE + CODED),
    Frame(Kind.HEADERS, END_HEADERS, 5, CODED),
)
OURS_RESET = (*CALLED, Frame(Act.RESET))
SELF = four(1) + b"\x10"

EXAMPLES: dict[str, tuple[Frame, ...]] = {
    "length at once": (*HELLO, Frame(0x42, length=2**14 + 1)),
    "head at once": (*HELLO, Frame(Kind.DATA, length=1)),
    "block at once": (*HELLO, head(2, flags=0)),
    "first frame": (Frame(Kind.SETTINGS, ACK),),
    "either fault": (*HELLO, Frame(Kind.SETTINGS, ACK, 0, bytes(6))),
    "all settings count": (*HELLO, Frame(Kind.SETTINGS, 0, 0, b"\0\4" + four(2**31) + b"\0\4" + four(0))),
    "others' settings": (*HELLO, Frame(Kind.SETTINGS, 0, 0, b"\0\x08" + four(2))),
    "idle streams": (*HELLO, *CALLED, Frame(Kind.RST_STREAM, 0, 3, four(8))),
    "closed streams": (*HELLO, *ANSWERED, Frame(Kind.DATA, 0, 1, b"more")),
    "naked continuation": (*HELLO, *OURS_RESET, head(3), Frame(Kind.CONTINUATION, END_HEADERS, 1)),
    "after our reset": (*HELLO, *OURS_RESET, Frame(Kind.DATA, 0, 1, b"more")),
    "too much": (*HELLO, head(1, (b"content-type", b"text/html")), *[Frame(Kind.DATA, 0, 1, bytes(2**14))] * 4),
    "priorities": (*HELLO, *CALLED, Frame(Kind.PRIORITY, 0, 1, SELF)),
    "no more window": (*HELLO, *CALLED, Frame(Kind.WINDOW_UPDATE, 0, 1, four(0))),
    "reserved bit": (*HELLO, *CALLED, Frame(Kind.WINDOW_UPDATE, 0, 1, four(2**31 + 1))),
    "no push": (*HELLO, *CALLED, Frame(Kind.PUSH_PROMISE, 0, 1, four(2))),
    "all padding": (*HELLO, Frame(Kind.HEADERS, PADDED, 1, padded(b"", 9))),
    "extensions": (*HELLO, Frame(0xA)),
    "malformed": (*HELLO, head(1, (b"content-length", b"4"), *CALL), Frame(Kind.DATA, 0, 1, MESSAGE)),
    "lengths in trailers": (
        *HELLO,
        head(1),
        Frame(Kind.DATA, 0, 1, MESSAGE),
        trailers(1, (b"content-length", b"many")),
    ),
    "unread code": (*HELLO, *NO_TABLE_KEPT, Frame(Kind.HEADERS, END_HEADERS, 7, head(1).payload + b"\0\1x\x81\0")),
    "no larger table": (
        *HELLO,
        head(1),
        NO_TABLE_KNOWN,
        Frame(Kind.HEADERS, END_HEADERS, 3, b"\x21" + head(3).payload),
    ),
}
"""A connection for each."""


def test_all_have_an_example():
    assert list(EXAMPLES) == [one.name for one in ALLOWED]


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_occurs(name: str):
    """h2 and the core differ, in that and in nothing else."""
    wire = PREFACE + b"".join(frame.data() for frame in EXAMPLES[name])
    assert judge(wire) == [name]


def test_a_length_that_is_wrong_in_the_usual_frames():
    """One HEADERS, one DATA: the way that is quick looks at content-length, too."""
    frames = *HELLO, head(1, (b"content-length", b"4"), *CALL), Frame(Kind.DATA, END_STREAM, 1, MESSAGE)
    assert judge(PREFACE + b"".join(frame.data() for frame in frames)) == ["malformed"]


def test_the_table_keeps_up_with_what_is_ignored():
    """Trailers on a stream that we reset are decoded: what they put into the table is used by the next call."""
    encoder = Encoder()
    fields = (*SOUND, (b":path", QUICK_PATH.encode()), *CALL)
    begun = Frame(Kind.HEADERS, END_HEADERS, 1, encoder.encode(fields))
    two = Frame(Kind.DATA, 0, 1, MESSAGE * 2)
    late = Frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, encoder.encode([(b"x-new", b"1"), (b"x-other", b"2")]))
    again = Frame(Kind.HEADERS, END_HEADERS, 3, encoder.encode([*fields, (b"x-new", b"1")]))
    frames = *HELLO, begun, two, late, again, Frame(Kind.DATA, END_STREAM, 3, MESSAGE)
    assert judge(PREFACE + b"".join(frame.data() for frame in frames)) == ["after our reset"]


def test_a_known_block_on_a_stream_of_ours():
    """A block that is looked up does not open a stream that no client may open: both end the connection."""
    block = head(1).payload
    first = head(1), NO_TABLE_KNOWN, Frame(Kind.HEADERS, END_HEADERS, 3, NO_TABLE + block)
    known = [Frame(Kind.HEADERS, END_HEADERS, number, block) for number in (5, 7, 9, 12)]
    ours = Ours(Blocks(QUICK_PATH))
    steps = [
        ours.feed([piece.data]) for piece in cut(PREFACE + b"".join(one.data() for one in (*HELLO, *first, *known)))
    ]
    assert [step.over for step in steps] == [*[None] * (len(steps) - 1), ErrorCode.PROTOCOL_ERROR]


def test_code_of_what_no_value_may_be():
    """As code that is none: it is not looked at."""
    line = b"\0\1x\x84\xff\xff\xff\xf3"  # 30 bits of it are a line feed
    frames = *HELLO, *NO_TABLE_KEPT, Frame(Kind.HEADERS, END_HEADERS, 7, head(1).payload + line)
    assert judge(PREFACE + b"".join(frame.data() for frame in frames)) == ["unread code"]
