"""gRPC's messages: framing, encodings, sizes, and how many a call has."""

import gzip
import zlib

import pytest

from ratelimit_svc.wire.http2.calm import MOST_FRAMES
from ratelimit_svc.wire.http2.frames import LARGEST_FRAME
from tests.http2.client import MOST, OTHER, Client, block, body, head, message

STREAMS = block({":path": OTHER})
GZIP = block(grpc_encoding="gzip")


def test_messages_cut_anywhere_are_the_same():
    """Three messages in two frames, cut at every byte; one of them is empty."""
    messages = [b"first", b"", b"third" * 10]
    data = b"".join(map(message, messages))
    for at in range(len(data) + 1):
        client = Client()
        client.send(head(1, STREAMS), body(1, data[:at], end=False), body(1, data[at:]))
        assert client.messages == messages
        assert client.happened[-1] == "ended 1"
        assert client.held[2] == 0


def test_a_message_in_single_bytes():
    """In as many frames as it has bytes."""
    client = Client()
    client.send(head(1))
    for byte in message(b"abc"):
        client.send(body(1, bytes((byte,)), end=False))
    client.send(body(1, b""))
    assert client.messages == [b"abc"]
    assert client.held == (1, 0, 0)


ENDS = {
    "no message": (b"", "headers 1 200 12 end"),
    "half a prefix": (b"\0\0\0", "headers 1 200 13 end"),
    "half a message": (b"\0\0\0\0\5ab", "headers 1 200 13 end"),
    "two messages": (message(b"a") * 2, "headers 1 200 12 end"),
    "one and a half": (message(b"a") + b"\0\0\0", "headers 1 200 13 end"),
    "compressed, and nobody said so": (message(gzip.compress(b"a"), 1), "headers 1 200 13 end"),
    "a flag that nobody knows": (message(b"a", 2), "headers 1 200 13 end"),
    "4 GB": (b"\0\xff\xff\xff\xff", "headers 1 200 8 end"),
    "4 GB, compressed": (b"\1\xff\xff\xff\xff", "headers 1 200 8 end"),
}


@pytest.mark.parametrize("path", [None, OTHER])
@pytest.mark.parametrize("case", ENDS)
def test_what_is_no_message_of_ours(case, path):
    """The call ends with gRPC's status for it, with the frame that ends the request and without any RST_STREAM."""
    data, words = ENDS[case]
    if path == OTHER and case in {"no message", "two messages"}:
        return  # a call that streams may have any number
    client = Client()
    heard = client.send(head(1, block({":path": path} if path else None)), body(1, data))
    assert heard[-1] == words
    assert client.held == (0, 0, 0)
    assert client.asks == []


def test_headers_alone_are_no_request():
    """END_STREAM on HEADERS: there is no message."""
    client = Client()
    assert client.send(head(1, end=True))[0] == "headers 1 200 12 end"
    assert client.send(head(3, STREAMS, end=True))[-1:] == []
    assert client.happened == ["gone 1", "began 3", "ended 3"]


@pytest.mark.parametrize("most", [1, 100, LARGEST_FRAME - 6, LARGEST_FRAME - 5, LARGEST_FRAME, MOST])
@pytest.mark.parametrize("table", [True, False])
def test_the_largest_message_and_one_byte_more(most, table):
    """Exactly so many bytes are taken, in one frame or in several, and whether or not the call looks as those before it."""
    client, number = Client(most=most), 1
    if not table:
        client.forget_table()
        number = 5
    for extra in (0, 1):
        data = message(b"x" * (most + extra))
        pieces = [data[at : at + LARGEST_FRAME] for at in range(0, len(data), LARGEST_FRAME)]
        client.send(head(number))
        heard = [
            words
            for at, piece in enumerate(pieces)
            for words in client.send(body(number, piece, end=at == len(pieces) - 1))
        ]
        assert ([f"headers {number} 200 8 end"] == heard[:1]) == bool(extra)
        number += 2
    assert [len(each) for each in client.messages] == [most]
    assert client.held == (1, 0, 0)


def test_compressed_messages():
    """gzip, and what says to be identity; compressed or not message by message."""
    client = Client()
    client.send(head(1, GZIP), body(1, message(gzip.compress(b"abc"), 1)))
    client.send(head(3, GZIP), body(3, message(b"def")))
    client.send(head(5, block(grpc_encoding="identity")), body(5, message(b"ghi")))
    data = message(gzip.compress(b"1"), 1) + message(b"2") + message(gzip.compress(b""), 1)
    client.send(head(7, block({":path": OTHER, "grpc-encoding": "gzip"})), body(7, data))
    assert client.messages == [b"abc", b"def", b"ghi", b"1", b"2", b""]


WHOLE = gzip.compress(b"abc")
BROKEN = {
    "cut short": WHOLE[:-1],
    "with something behind it": WHOLE + b"x",
    "two of them": WHOLE * 2,
    "with a wrong sum": WHOLE[:-8] + b"\0\0\0\0" + WHOLE[-4:],
    "with a wrong length": WHOLE[:-4] + b"\0\0\0\0",
    "deflate without gzip": zlib.compress(b"abc"),
    "nothing": b"",
    "anything": b"anything",
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_gzip(case):
    """INTERNAL, as grpc-go says; the connection goes on."""
    client = Client()
    assert client.send(head(1, GZIP), body(1, message(BROKEN[case], 1)))[-1] == "headers 1 200 13 end"
    client.send(head(3), body(3, message(b"x")))
    assert client.messages == [b"x"]


@pytest.mark.parametrize(("extra", "words"), [(0, []), (1, ["headers 1 200 8 end"])])
def test_the_largest_message_counts_after_decompression(extra, words):
    """Exactly so many bytes, and one more."""
    client = Client()
    heard = client.send(head(1, GZIP), body(1, message(gzip.compress(b"x" * (MOST + extra)), 1)))
    assert [each for each in heard if not each.startswith("settings")] == words
    assert [len(each) for each in client.messages] == [MOST] * (not words)


def test_bombs_are_few():
    """Each is a thousand times what it was; all in one read, or one after another."""
    bomb = message(gzip.compress(bytes(4 * 2**20)), 1)
    for at_once in (True, False):
        client = Client(most=4 * 2**20)
        bombs = [head(number, GZIP) + body(number, bomb) for number in range(1, 100, 2)]
        heard = client.send(*bombs) if at_once else [words for each in bombs for words in client.send(each)]
        assert heard[-1].endswith("ENHANCE_YOUR_CALM")
        assert len(client.asks) < 3
        assert client.held == (0, 0, 0) or not at_once


def test_honest_compression_costs_nothing():
    """Requests ten times as long as on the way, more of them than there is credit for."""
    data = message(gzip.compress(b"".join(b"key%d=value%d;" % (each, each * 7) for each in range(2000))), 1)
    client = Client()
    for number in range(1, 2000, 2):
        client.send(head(number, GZIP), body(number, data))
        client.answer()
    assert client.connection.calm.frames > MOST_FRAMES - 10


def test_unfinished_messages_are_bounded():
    """What waits counts, of all streams: whoever brings too much has to go, and those before it stay."""
    client = Client()
    client.unfinished.most = 40_000
    for number in (1, 3, 5):
        client.send(head(number), body(number, (b"\0" + MOST.to_bytes(4, "big") + b"x" * 15_000)[:15_000], end=False))
    assert client.held == (2, 0, 30_000)
    client.send(head(7), body(7, message(b"x" * 16_000)))
    assert client.messages == [b"x" * 16_000]
    client.tick(11)
    assert client.held[2] == 0


def test_whole_messages_whose_call_is_not_ended_count():
    """As they are held: 40 bytes on the way that are 20 000 now."""
    client = Client()
    client.unfinished.most = 50_000
    data = message(gzip.compress(bytes(20_000)), 1)
    heard = [words for number in (1, 3, 5) for words in client.send(head(number, GZIP), body(number, data, end=False))]
    assert heard[-2:] == ["headers 5 200 8 end", "reset 5 NO_ERROR"]
    assert client.held == (2, 0, 40_000)
    client.send(body(1, b""), body(3, b""))
    assert client.held == (2, 0, 0)
    assert len(client.asks) == 2


@pytest.mark.parametrize("data", [b"", b"x"])
def test_tiny_data_costs(data):
    """A message of 4 MB in frames of a byte, or of none: enough is enough."""
    client = Client(most=4 * 2**20)
    client.send(head(1), body(1, b"\0\0\x3f\xff\xff", end=False))
    heard = client.send(body(1, data, end=False) * (MOST_FRAMES + 10))
    assert heard[-1] == "goaway 1 ENHANCE_YOUR_CALM"
    assert client.held == (0, 0, 0)


def test_small_messages_of_a_call_that_streams_cost_nothing():
    """Each in a frame of its own, more of them than there is credit for."""
    client = Client()
    client.send(head(1, STREAMS))
    client.send(body(1, message(b"x"), end=False) * (2 * MOST_FRAMES))
    assert len(client.messages) == 2 * MOST_FRAMES
