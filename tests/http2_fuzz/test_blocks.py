"""Header blocks: whatever is remembered, cut or matched by shape, a block means what the library says it means."""

from collections.abc import Iterable

import pytest
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.fields import Field
from ratelimit_svc.wire.http2.frames import ConnectionFault, StreamFault
from ratelimit_svc.wire.http2.heads import Head, interpret
from ratelimit_svc.wire.http2.memory import Blocks
from ratelimit_svc.wire.http2.table import Table
from tests.http2_fuzz.ours import QUICK_PATH
from tests.http2_fuzz.wires import CALL, SOUND, extras, oddities, paths

BLOCKS = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))

Meaning = Head | str


def meant(decoded: Iterable[Field]) -> Meaning:
    """Return what the fields mean; the fault's kind where they are malformed."""
    found = list(decoded)
    if fields.size(found) > fields.LONGEST_LIST:
        return "too long"
    try:
        return interpret(found, QUICK_PATH)
    except StreamFault:
        return "malformed"


def said(table: Table, block: bytes) -> Meaning:
    """Return what a table makes of a block, as a connection does: the quick way first."""
    quick = table.quick(block)
    if quick is not None:
        return quick
    try:
        head = table.head(block)
    except StreamFault:
        return "malformed"
    except ConnectionFault:
        return "undecodable"
    return "too long" if head.refusal is not None and head.refusal.http_status == 431 else head


@st.composite
def lists(draw) -> list[Field]:
    """A header list: most are calls that differ in what means nothing."""
    found = [*SOUND, (b":path", draw(paths)), *CALL, *draw(st.lists(extras, max_size=4))]
    if draw(st.integers(0, 5)) == 0:
        found.insert(draw(st.integers(0, len(found))), draw(oddities))
    if draw(st.integers(0, 3)) == 0:
        found.insert(0, found.pop())
    return found


class Peer:
    """A client's compressor, and what decodes it."""

    def __init__(self, blocks: Blocks, *, obeys: bool) -> None:
        self._encoder = Encoder()
        self.table = Table(blocks, Calm())
        self._library = Decoder()
        self.table.acknowledged = obeys
        if obeys:
            self._encoder.header_table_size = 0

    def sends(self, listed: list[Field], *, huffman: bool, sensitive: bool) -> tuple[Meaning, Meaning]:
        """Return what is made of it, by ours and by the library."""
        marked = [NeverIndexedHeaderTuple(*one) for one in listed] if sensitive else listed
        block = self._encoder.encode(marked, huffman=huffman)
        return said(self.table, block), meant(self._library.decode(block, raw=True))


sent = st.lists(
    st.tuples(st.integers(0, 2), lists(), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=8
)


@BLOCKS
@given(sent)
def test_peers_that_share_a_memory(some):
    """Two without a table and one with: in any order, some blocks sent again at once, all mean what the library says."""
    blocks = Blocks(QUICK_PATH)
    peers = [Peer(blocks, obeys=obeys) for obeys in (True, True, False)]
    for which, listed, huffman, sensitive, again in some:
        for _ in range(1 + 2 * again):
            ours, theirs = peers[which].sends(listed, huffman=huffman, sensitive=sensitive)
            assert ours == theirs


NO_TABLE = b"\x20"


def literal(name: bytes, value: bytes, *, huffman: bool = False, first: bytes = b"\x00") -> bytes:
    """Return a literal with a name of its own; `huffman` only says that the value is, whatever it holds."""
    assert max(len(name), len(value)) < 127
    return first + bytes((len(name),)) + name + bytes((len(value) | 0x80 * huffman,)) + value


REQUEST = b"".join(literal(*field) for field in (*SOUND, (b":path", QUICK_PATH.encode()), *CALL))

pieces = st.one_of(
    st.sampled_from(
        (b"\x00", b"\x0f", b"\x10", b"\x1f", b"\x20", b"\x40", b"\x7f", b"\x80", b"\x82", b"\xbe", b"\xff", b"\x81")
    ),
    st.sampled_from(
        (literal(b"traceparent", b"00-ab"), literal(b":path", b"/else"), literal(b"te", b"gzip"), NO_TABLE)
    ),
    st.sampled_from(
        (literal(b"grpc-timeout", b"1m"), literal(b"traceparent", b""), b"\x00\x0btraceparent", b"\x04traceparent")
    ),
    st.binary(max_size=4),
)
values = st.lists(pieces, max_size=4).map(lambda some: b"".join(some)[:126])
"""Values that look like more representations."""


@st.composite
def lookalikes(draw) -> tuple[bytes, bytes]:
    """A block whose values look like more, and one whose value that means nothing is a plain one."""
    one, other, huffman = draw(values), draw(values), draw(st.booleans())
    after = literal(b"x-more", other)
    if draw(st.booleans()):
        after = after[: len(after) - len(other)] + draw(pieces)
    return tuple(  # type: ignore[return-value]
        REQUEST + literal(b"traceparent", value, huffman=code) + after
        for value, code in ((one, huffman), (b"plain", False))
    )


@BLOCKS
@given(st.lists(lookalikes(), min_size=2, max_size=6))
def test_values_that_look_like_more(some):
    """A value is never read as what follows it, and what follows never as a value: also by shape, and cut short anywhere."""
    table = Table(Blocks(QUICK_PATH), Calm())
    table.acknowledged = True
    usual = REQUEST + literal(b"traceparent", b"00-00") + literal(b"x-more", b"1")
    said(table, NO_TABLE + usual)
    said(table, usual)
    for block, plain in some:
        ours, theirs = said(table, block), by_library(block)
        if isinstance(
            theirs, str
        ):  # two faults: the first that is seen; and Huffman's code need not be looked at (memory, Rule 2)
            assert isinstance(ours, str) or ours == by_library(plain)
        else:
            assert ours == theirs


def by_library(block: bytes) -> Meaning:
    """Return what the library says a block means, without a table."""
    library = Decoder()
    library.max_allowed_table_size = library.header_table_size = 0
    try:
        return meant(library.decode(block, raw=True))
    except HPACKError:
        return "undecodable"


def test_bytes_that_mean_something_else_with_a_table():
    """A block that is remembered for those without a table is decoded for one that has one."""
    blocks = Blocks(QUICK_PATH)
    without, other = Peer(blocks, obeys=True), Table(blocks, Calm())
    listed = [*SOUND, (b":path", QUICK_PATH.encode()), *CALL]
    for _ in range(3):
        without.sends(listed, huffman=False, sensitive=False)
    assert blocks.heads.young
    with_table = Encoder()
    other.head(with_table.encode([*SOUND, (b":path", b"/a/b"), *CALL]))
    known = next(iter(blocks.heads.young))
    assert other.quick(known) is None
    assert other.head(known) == meant(listed)


def test_a_field_before_the_pseudo_headers():
    """The same parts, all known, in an order that is malformed."""
    peer = Peer(Blocks(QUICK_PATH), obeys=True)
    usual = [*SOUND, (b":path", QUICK_PATH.encode()), *CALL]
    for listed in (usual, [*usual, (b"x-a", b"1")], [(b"x-a", b"1"), *usual]):
        ours, theirs = peer.sends(listed, huffman=False, sensitive=False)
        assert ours == theirs


@BLOCKS
@given(lists(), st.booleans(), st.sampled_from((0, 60, 4096)))
def test_cut(listed: list[Field], huffman, size):
    """A block is cut into as many pieces as it has fields, and sizes of the table; a shorter one is a fault or one of fewer."""
    encoder = Encoder()
    encoder.encode([(b"x-a", b"b"), (b"x-request-id", b"1")])
    encoder.header_table_size = size
    block = encoder.encode(listed, huffman=huffman)
    found = fields.representations(block)
    assert b"".join(found) == block
    assert sum(not fields.is_table_size(each) for each in found) == len(listed)
    ends = {0}
    for each in found:
        ends.add(max(ends) + len(each))
    for end in range(len(block)):
        if end in ends:
            assert b"".join(fields.representations(block[:end])) == block[:end]
        else:
            with pytest.raises(ConnectionFault):
                fields.representations(block[:end])
