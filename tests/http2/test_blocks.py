"""Header blocks: HPACK (RFC 7541), the peer's table and its end, and what is remembered of blocks once there is none."""

import random

import pytest
from hpack import Encoder

from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.fields import LONGEST_DECODED, MOST_IN_A_LIST, NO_TABLE
from ratelimit_svc.wire.http2.frames import END_HEADERS, ConnectionFault, Kind, frame
from ratelimit_svc.wire.http2.memory import LONGEST_BLOCK, MOST_BLOCKS, MOST_PARTS, Blocks, Remembered
from tests.http2.client import (
    FIELDS,
    OTHER,
    PATH,
    SETTINGS_ACK,
    Client,
    block,
    body,
    frames_in,
    head,
    message,
    padded,
    request,
    settings,
)

TABLE_ASKED = "settings 000100000000"
"""That no table be kept."""

BROKEN = {
    "an index of 0": b"\x80",
    "an index beyond the table": b"\xc0",
    "a name's index beyond the table": b"\x7f\x00\x01x",
    "an index of five bytes": b"\xff\x80\x80\x80\x80\x00",
    "an index of a thousand bytes": b"\xff" + b"\x80" * 1000 + b"\x01",
    "a length of five bytes": b"\x00\x7f\x80\x80\x80\x80\x00",
    "an integer cut short": b"\xff\x80",
    "a literal without a value": b"\x00\x01x",
    "a value cut short": b"\x00\x01x\x05abc",
    "a name cut short": b"\x00\x05x",
    "nothing after the first byte": b"\x00",
    "a larger table than was said": b"\x3f\xe2\x1f",
    "a new size of the table after a field": b"\x82\x20",
    "Huffman's code with its end": b"\x00\x01x\x84\xff\xff\xff\xff",
}


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("case", BROKEN)
def test_a_block_that_cannot_be_decoded_ends_the_connection(case, table):
    """Nothing after it could be (RFC 9113 §4.3), on a new stream, in trailers and on a stream that is refused."""
    for kind in ("call", "trailers", "refused"):
        client, number = Client(), 1
        if not table:
            client.forget_table()
            number = 5
        client.send(head(number, block({":path": OTHER})))
        if kind == "refused":
            client.connection.control.leave()
            client.heard()
        data = (b"" if kind == "trailers" else block()) + BROKEN[case]
        if kind == "trailers" and case.endswith("after a field"):
            data = BROKEN[case]
        heard = client.send(head(number if kind == "trailers" else number + 2, data, end=True))
        assert heard[-1].endswith("COMPRESSION_ERROR"), kind
        assert client.held == (0, 0, 0)


@pytest.mark.parametrize("data", [b"\xff\x80\x80\x80\x80\x01", b"\x00\x7f\x80\x80\x80\x80\x01", b"\x7f" + b"\xff" * 9])
def test_numbers_of_more_than_four_bytes_are_not_even_read(data):
    """The library would: a number of a thousand digits takes it long."""
    with pytest.raises(ConnectionFault, match="too large a number"):
        fields.representations(data)


def test_too_many_fields_end_the_connection():
    """Each costs us more than its sender: one byte."""
    client = Client()
    assert client.send(head(1, b"\x82" * (MOST_IN_A_LIST + 1)))[-1] == "goaway 1 ENHANCE_YOUR_CALM"


def test_a_table_does_not_make_a_little_much():
    """A value of 4 kB, in the table and then by one byte, many times: what fits is told to be too long, beyond it ends."""
    client = Client()
    value = b"\x40\x01x" + fields._text(b"v" * 4000)
    client.send(head(1, block() + value, end=True))
    assert client.send(head(3, block() + b"\xbe" * (LONGEST_DECODED // 4100 - 1)))[0] == "headers 3 431"
    assert client.send(head(5, block() + b"\xbe" * 100))[-1] == "goaway 5 ENHANCE_YOUR_CALM"


# ── the table, and its end ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_is_asked_for_with_the_first_call():
    """Once, and not of one who calls nothing."""
    client = Client()
    assert client.send(head(1, block({":method": "GET"}), end=True))[-1] != TABLE_ASKED
    assert client.send(request(3)) == [TABLE_ASKED]
    assert client.send(request(5)) == []


def test_blocks_mean_what_the_table_says():
    """The same bytes mean another field after an insertion: nothing is looked up while there is a table."""
    client = Client()
    client.send(request(1))
    plain = block() + b"\xbe"  # the newest entry of the table
    for seconds in (1, 2, 3):
        client.send(head(2 * seconds * 10 + 1, block() + b"\x40\x0cgrpc-timeout\x02%dS" % seconds, end=True))
        number = 2 * seconds * 10 + 3
        client.send(head(number, plain), body(number, message(b"x")))
        assert client.asks[-1][0].head.timeout_s == seconds


def test_a_peer_that_acknowledged_and_keeps_its_table_is_decoded():
    """It has to say that the table is gone, in a block; one that never does is decoded with it, for ever."""
    client = Client()
    client.send(request(1), SETTINGS_ACK, SETTINGS_ACK)
    for number in range(3, 23, 2):
        client.send(head(number, client.encoder.encode(FIELDS.items())), body(number, message(b"x")))
    assert len(client.asks) == 11
    assert client.connection._table._decoder is not None


def test_a_table_that_was_given_up_is_not_taken_up_again():
    """A size other than 0 is more than we allow, whether or not the table was used since (RFC 7541 §4.2)."""
    for sizes in (b"\x21", b"\x20\x21", b"\x3f\xe1\x1f"):
        client = Client()
        client.send(request(1), SETTINGS_ACK, SETTINGS_ACK)
        assert client.send(head(3, sizes + block()))[-1] == "goaway 3 COMPRESSION_ERROR"


def test_a_smaller_table_is_the_peers_business():
    """As long as it has not acknowledged, any size up to 4096 may be used."""
    client = Client()
    encoder = Encoder()
    for number, size in enumerate((100, 0, 4096, 50, 0, 1000)):
        encoder.header_table_size = size
        data = encoder.encode((FIELDS | {"x": str(number % 2)}).items())
        client.send(head(1 + 2 * number, data), body(1 + 2 * number, message(b"x")))
    assert len(client.asks) == 6


def test_the_acknowledgement_of_the_first_settings_is_not_that_of_the_table():
    """They are acknowledged in their order (RFC 9113 §6.5.3): the first says nothing about the second."""
    client = Client()
    client.send(request(1), SETTINGS_ACK)
    client.send(head(3, NO_TABLE + block()), body(3, message(b"x")))
    assert client.connection._table._decoder is not None
    client.send(SETTINGS_ACK, head(5, NO_TABLE + block()), body(5, message(b"x")))
    assert client.connection._table._decoder is None


# ── what is remembered ────────────────────────────────────────────────────────────────────────────────────────────────


def without_table() -> Client:
    """A client whose blocks are looked up. The next stream is 5."""
    client = Client()
    client.forget_table()
    return client


def test_a_block_is_looked_up_from_the_third_time_on():
    """The first makes it known, the second worth remembering."""
    client = without_table()
    known = client.blocks.heads.young
    data = block({"x": "1"})
    for number, remembered in ((5, False), (7, True), (9, True)):
        client.send(head(number, data), body(number, message(b"x")))
        assert (data in known) == remembered
    assert len(client.asks) == 3


def test_connections_share_what_is_remembered():
    """It is the same for all that have no table."""
    blocks = Blocks(PATH)
    for _ in range(2):
        client = Client(blocks=blocks)
        client.forget_table()
        client.send(head(5, block({"x": "1"})), body(5, message(b"x")))
    assert block({"x": "1"}) in blocks.heads.young


def test_padding_and_priority_are_no_part_of_a_block():
    """What is remembered is the block itself."""
    client = without_table()
    data = block({"x": "1"})
    client.send(padded(Kind.HEADERS, END_HEADERS, 5, data, 17), body(5, message(b"x")))
    client.send(head(7, b"\0\0\0\0\1" + data, flags=END_HEADERS | 0x20), body(7, message(b"x")))
    assert data in client.blocks.heads.young


def test_a_block_in_pieces_is_put_together_first():
    """Its first frame alone means nothing, though it may look like a whole block."""
    client = without_table()
    for number in (5, 7, 9):
        client.send(request(number))
    more = b"\x00\x0cgrpc-timeout\x021S"
    client.send(head(11, flags=0), frame(Kind.CONTINUATION, END_HEADERS, 11, more), body(11, message(b"x")))
    assert client.asks[-1][0].head.timeout_s == 1


def test_what_differs_in_nothing_that_matters_is_one_shape():
    """Traces: each block is new, and means the same; a value that is not sound is still seen."""
    client = without_table()
    client.send(request(5))
    heads = []
    for number in range(7, 107, 2):
        data = block({"traceparent": random.Random(number).randbytes(20).hex(), "x-request-id": str(number)})
        client.send(head(number, data), body(number, message(b"x")))
        heads.append(client.asks[-1][0].head)
    assert len(set(map(id, heads[3:]))) == 1
    assert client.send(head(107, block({"traceparent": "bad\n", "x-request-id": "1"}))) == ["reset 107 PROTOCOL_ERROR"]
    for number, length in ((109, 126), (111, 127), (113, 5000)):
        client.send(
            head(number, block({"traceparent": "y" * length, "x-request-id": "1"})), body(number, message(b"x"))
        )
        assert client.asks[-1][0].number == number
    assert len(client.blocks.heads) < 10


def test_a_shape_says_nothing_about_what_matters():
    """The same, but for a timeout, a path, an encoding or a field too many."""
    client = without_table()
    numbers = iter(range(5, 10_000, 2))
    for _ in range(3):
        for change in (
            {},
            {"grpc-timeout": "5S"},
            {":path": OTHER},
            {"grpc-encoding": "gzip"},
            {"content-length": "6"},
        ):
            for trace in ("a", "b", "c"):
                number = next(numbers)
                client.send(head(number, block(change | {"traceparent": trace})), body(number, message(b"x")))
                if ":path" in change:
                    assert client.happened[-1] == f"ended {number}"
                    continue
                found = client.asks[-1][0]
                assert found.number == number
                assert (found.head.timeout_s is not None) == ("grpc-timeout" in change)
                assert (found.head.encoding == b"gzip") == ("grpc-encoding" in change)
                assert (found.head.content_length is not None) == ("content-length" in change)


def test_the_order_of_what_matters_and_of_the_rest_counts():
    """The same representations, sound in one order and malformed in the other."""
    client = without_table()
    other = b"\x00\x01x\x01y"
    for number in (5, 7):
        client.send(head(number, block() + other), body(number, message(b"x")))
    assert len(client.asks) == 2
    assert client.send(head(9, other + block())) == ["reset 9 PROTOCOL_ERROR"]


def test_a_value_is_never_taken_for_a_name():
    """Two fields whose literals, read from another place, would be something else."""
    client = without_table()
    evil = b"\x40\x0cgrpc-timeout\x021S"
    for number in range(5, 25, 2):
        data = block() + b"\x00\x01x" + fields._text(evil if number % 4 == 1 else bytes(len(evil)).replace(b"\0", b"y"))
        client.send(head(number, data), body(number, message(b"x")))
        assert client.asks[-1][0].head.timeout_s is None


def test_huffman_and_plain_mean_the_same():
    """Whichever of the two came first."""
    client = without_table()
    encoder = Encoder()
    encoder.header_table_size = 0
    number = 5
    for seconds in (1, 2, 1, 2):
        for huffman in (True, False):
            named = FIELDS | {"grpc-timeout": f"{seconds}S", "x-trace": str(number)}
            client.send(head(number, encoder.encode(named.items(), huffman=huffman)), body(number, message(b"x")))
            assert client.asks[-1][0].head.timeout_s == seconds
            number += 2


# ── our blocks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def blocks_sent(client: Client) -> list[bytes]:
    """Header blocks that wait to be sent; the client's decoder, which may be told to insist on its size, has read them."""
    sent = [payload for kind, _, _, payload in frames_in(b"".join(client.outgoing.parts)) if kind == Kind.HEADERS]
    client.heard()
    return sent


@pytest.mark.parametrize("size", [0, 100, 4095])
@pytest.mark.parametrize("kind", ["an answer", "an error", "no gRPC"])
def test_a_smaller_table_is_answered_at_the_head_of_the_next_block(kind, size):
    """Once (RFC 7541 §4.2): decoders insist on it. None at all fits into whatever they want later."""
    client = Client()
    client.send(settings(HEADER_TABLE_SIZE=size))
    client._decoder.max_allowed_table_size = size
    for number in (1, 3):
        if kind == "no gRPC":
            client.connection.receive(head(number, block({":method": "GET"}), end=True))
        else:
            client.send(request(number))
            stream, _ = client.asks.pop()
            if kind == "an answer":
                client.outgoing.answer(stream, b"x")
            else:
                client.outgoing.end(stream, GrpcStatus.UNKNOWN, "x")
        first, *others = blocks_sent(client)
        assert first.startswith(fields.NO_TABLE) == (number == 1)
        assert not any(other.startswith(fields.NO_TABLE) for other in others)
        client.send(settings(HEADER_TABLE_SIZE=4096), settings(HEADER_TABLE_SIZE=size))


@pytest.mark.parametrize("size", [4096, 65_536])
def test_a_table_that_is_not_smaller_is_no_matter(size):
    """Nothing has to be said."""
    client = Client()
    client.send(settings(HEADER_TABLE_SIZE=size), request(1))
    client.outgoing.answer(client.asks.pop()[0], b"x")
    assert not any(sent.startswith(fields.NO_TABLE) for sent in blocks_sent(client))


def test_trailers_that_settings_set_free_come_after_the_table_of_the_same_settings():
    """They waited behind DATA when they were made; they are sent after the acknowledgement, whatever the order of the settings."""
    client = Client()
    client.send(settings(INITIAL_WINDOW_SIZE=0), request(1))
    client.outgoing.answer(client.asks.pop()[0], b"x")
    assert client.heard() == ["headers 1 200"]
    client._decoder.max_allowed_table_size = 0
    assert client.send(settings(INITIAL_WINDOW_SIZE=100, HEADER_TABLE_SIZE=0)) == [
        "settings ack",
        "data 1 6",
        "headers 1 0 end",
    ]


# ── bounds ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_memory_is_bounded():
    """Blocks, their parts and names that never come again: two generations, and what is used stays."""
    blocks = Blocks(PATH)
    usual = block({"x-usual": "1"})
    for number in range(2 * MOST_PARTS + 1000):
        blocks.head(block({f"x{number}": "1"}), Calm())
        if number % 1000 < 2:
            blocks.head(usual, Calm())
    assert blocks.heads.find(usual) is not None
    assert len(blocks._parts) <= 2 * MOST_PARTS
    assert len(blocks._names) <= 2 * MOST_PARTS
    assert len(blocks.heads) + len(blocks._by_matter) <= 4 * MOST_BLOCKS
    assert len(blocks._once) <= MOST_BLOCKS


def test_long_blocks_are_not_remembered():
    """What is long is decoded each time."""
    client = without_table()
    data = block({"x": "y" * LONGEST_BLOCK})
    for number in (5, 7, 9):
        client.send(head(number, data), body(number, message(b"x")))
    assert data not in client.blocks.heads.young
    assert len(client.asks) == 3


def test_what_is_used_outlives_a_generation():
    """And what is not is dropped with the second."""
    remembered: Remembered[int] = Remembered(3)
    remembered.note(b"used", 1)
    for each in range(10):
        remembered.note(b"%d" % each, each)
        assert remembered.find(b"used") == 1
    assert remembered.find(b"0") is None
    assert len(remembered) <= 6


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 16_000])
def test_literals_are_written_as_they_are_read(length):
    """Lengths about the bounds of an integer's prefix (RFC 7541 §5.1)."""
    field = (b"n" * max(length, 1), b"v" * length)
    data = fields.block(field)
    assert fields.representations(data) == [data]
    assert fields.decode(fields.table(), data) == [field]


def test_a_block_is_cut_where_its_representations_end():
    """As a library's encoder writes them: each by itself, and together the block."""
    encoder = Encoder()
    source = random.Random(1)
    for _ in range(200):
        named = [(source.randbytes(source.choice((3, 200))).hex(), source.randbytes(source.choice((0, 5, 300))).hex()) for _ in range(5)]  # fmt: skip
        data = encoder.encode(named * 2, huffman=source.random() < 0.5)
        found = fields.representations(data)
        assert b"".join(found) == data
        assert len(found) == 10
        with pytest.raises(ConnectionFault):
            fields.representations(data + b"\x00")
