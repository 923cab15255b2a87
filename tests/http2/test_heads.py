"""What a request is: RFC 9113 §8.1 to §8.3, and gRPC's headers."""

import pytest

from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.heads import timeout
from tests.http2.client import FIELDS, PATH, Client, block, body, head, message, request

MALFORMED = {
    # §8.2
    "a name in upper case": block({"X-Other": "1"}),
    "a name that is no token": block({"a b": "1"}),
    "a name with a colon within": block({"a:b": "1"}),
    "an empty name": block() + b"\0\0\1x",
    "a name beyond ASCII": block() + b"\0\2\xc3\xa4\1x",
    "a value with a line end": block({"x": "a\nb"}),
    "a value with a carriage return": block({"x": "a\rb"}),
    "a value with a zero": block({"x": "a\0b"}),
    "a value that begins with a blank": block({"x": " a"}),
    "a value that ends with a tab": block({"x": "a\t"}),
    # §8.2.2
    "connection": block(connection="close"),
    "proxy-connection": block(proxy_connection="close"),
    "keep-alive": block(keep_alive="1"),
    "transfer-encoding": block(transfer_encoding="chunked"),
    "upgrade": block(upgrade="h2c"),
    "te that is not trailers": block(te="gzip"),
    # §8.3
    "a pseudo-header for responses": block({":status": "200"}),
    "a pseudo-header nobody knows": block({":other": "1"}),
    "no :method": block({":method": None}),
    "no :scheme": block({":scheme": None}),
    "no :path": block({":path": None}),
    "an empty :path": block({":path": ""}),
    "a pseudo-header twice": block() + fields.block((b":path", PATH.encode())),
    "a pseudo-header twice at the head": fields.block((b":method", b"POST")) + block(),
    "a pseudo-header after a field": fields.block((b"x", b"1")) + block(),
    "nothing": b"",
    # §8.1.1
    "two lengths": block(content_length=6) + fields.block((b"content-length", b"7")),
    "a length that is no number": block(content_length="-1"),
    "a length of many digits": block(content_length="9" * 30),
}


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_malformed_is_reset(case, table):
    """With or without a table, the first time and the second; the connection goes on."""
    client, number = Client(), 1
    if not table:
        client.forget_table()
        number = 5
    for each in (number, number + 2):
        assert client.send(head(each, MALFORMED[case], end=True))[-1] == f"reset {each} PROTOCOL_ERROR"
    client.send(request(number + 4))
    assert client.messages == [b"x"]


LENGTHS = [
    # content-length, DATA frames, what is heard or nothing
    (6, [message(b"x")], None),
    (6, [message(b"x")[:2], message(b"x")[2:]], None),
    (5, [message(b"x")], "reset 1 PROTOCOL_ERROR"),
    (7, [message(b"x")], "reset 1 PROTOCOL_ERROR"),
    (7, [message(b"x"), b""], "reset 1 PROTOCOL_ERROR"),
    (5, [message(b"x")[:2], message(b"x")[2:]], "reset 1 PROTOCOL_ERROR"),
    (0, [message(b"x")], "reset 1 PROTOCOL_ERROR"),
]


@pytest.mark.parametrize(("length", "pieces", "words"), LENGTHS)
def test_content_length_is_what_comes(length, pieces, words):
    """§8.1.1: no more and no less."""
    client = Client()
    client.send(head(1, block(content_length=length)))
    heard = [
        words for at, piece in enumerate(pieces) for words in client.send(body(1, piece, end=at == len(pieces) - 1))
    ]
    heard = [each for each in heard if not each.startswith("settings")]
    assert heard == ([] if words is None else [words])
    assert client.messages == ([b"x"] if words is None else [])


def test_content_length_without_content():
    """HEADERS that end the stream bring nothing."""
    client = Client()
    assert client.send(head(1, block(content_length=6), end=True)) == ["reset 1 PROTOCOL_ERROR"]
    assert client.send(head(3, block(content_length=0), end=True))[0] == "headers 3 200 12 end"
    assert client.send(head(5, block(content_length=6)), body(5, b"abc", end=False), head(5, b"\0\1a\1b", end=True))[-1] == "reset 5 PROTOCOL_ERROR"  # fmt: skip


TRAILERS = [
    (b"", True, None),
    (fields.block((b"x", b"y")), True, None),
    (fields.block((b"X", b"y")), True, "reset 1 PROTOCOL_ERROR"),
    (fields.block((b":path", b"/")), True, "reset 1 PROTOCOL_ERROR"),
    (fields.block((b"connection", b"close")), True, "reset 1 PROTOCOL_ERROR"),
    (fields.block((b"x", b"y")), False, "reset 1 PROTOCOL_ERROR"),
    (b"\x80", True, "goaway 1 COMPRESSION_ERROR"),
    (b"\x7f" + b"\xff" * 40, True, "goaway 1 COMPRESSION_ERROR"),
]


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(("data", "end", "words"), TRAILERS)
def test_trailers(data, end, words, table):
    """They end a request, mean nothing, and have to be sound (§8.1)."""
    client, number = Client(), 1
    if not table:
        client.forget_table()
        number = 5
    client.send(head(number), body(number, message(b"x"), end=False))
    heard = client.send(head(number, data, end=end))
    assert heard == ([] if words is None else [words.replace("1", str(number), 1)])
    assert client.messages == ([b"x"] if words is None else [])
    assert words is None or client.held == (0, 0, 0)


REFUSED = {
    "GET": (block({":method": "GET"}), "405"),
    "HEAD": (block({":method": "HEAD"}), "405"),
    "no content-type": (block(content_type=None), "415"),
    "JSON": (block(content_type="application/json"), "415"),
    "gRPC-Web": (block(content_type="application/grpc-web"), "415"),
    "gRPC of JSON": (block(content_type="application/grpc+json"), "415"),
    "a header list of more than 16 KiB": (block({"x": "y" * 16_100}), "431"),
    "one of many fields": (block({f"x{each}": "y" for each in range(500)}), "431"),
    "an encoding we do not have": (block(grpc_encoding="snappy"), "200 12 end"),
    "a timeout that is none": (block(grpc_timeout="soon"), "200 13 end"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("table", [True, False])
def test_what_is_sound_and_no_call_of_ours(case, table):
    """It is told in HTTP's words, or in gRPC's, with the first frame and the second time as well."""
    client, number = Client(), 1
    if not table:
        client.forget_table()
        number = 5
    data, status = REFUSED[case]
    for each in (number, number + 2):
        heard = client.send(head(each, data, end=True))
        assert heard[0] == f"headers {each} {status}"
        assert heard[-1].startswith((f"headers {each}", f"data {each}"))
        assert heard[-1].endswith(" end")
    assert client.held == (0, 0, 0)
    assert client.events == []


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"])
def test_what_a_call_may_say_to_be(kind):
    """`+proto` and parameters are gRPC's."""
    client = Client()
    client.send(head(1, block(content_type=kind)), body(1, message(b"x")))
    assert client.messages == [b"x"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("20m", 0.02), ("5u", 5e-6), ("7n", 7e-9), ("99999999H", 359999996400.0), ("0m", 0)],
)  # fmt: skip
def test_timeouts(text, seconds):
    """Every unit, the largest and none at all."""
    client = Client()
    client.send(head(1, block(grpc_timeout=text)), body(1, message(b"x")))
    [(stream, _)] = client.asks
    assert stream.head.timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "m", "1", "1s", "1h", "-1m", "+1m", "1.5S", " 1S", "123456789m", "1m1m", "1\u0661m"]
)
def test_what_is_no_timeout(text):
    """It is an error, not a guess."""
    with pytest.raises(ValueError, match="malformed grpc-timeout"):
        timeout(text.encode())


@pytest.mark.parametrize("text", ["", "plain", "100 %", "dömäne", "\n\t\0", "日本🚦", "x" * 10_000, "é" * 10_000])
def test_texts_are_percent_encoded(text):
    """What is not printable ASCII, and %; what is very long is cut, and always fits into a frame."""
    client = Client()
    client.send(request(1))
    stream, _ = client.asks[0]
    client.outgoing.end(stream, GrpcStatus.UNKNOWN, text)
    assert client.heard() == ["headers 1 200 2 end"]


def test_nothing_about_a_call_is_guessed_from_another():
    """Calls that differ in one field that matters, again and again, without a table: each is itself."""
    client = Client()
    client.forget_table()
    numbers = iter(range(5, 1000, 2))
    for _ in range(4):
        for change in ({"grpc-timeout": "1S"}, {"grpc-timeout": "2S"}, {}, {"x-other": "1"}, {"x-other": "2"}):
            client.send(head(number := next(numbers), block(change)), body(number, message(b"x")))
            stream, _ = client.asks[-1]
            assert stream.head.timeout_s == {"1S": 1, "2S": 2}.get(change.get("grpc-timeout", ""))
            assert stream.head.path == FIELDS[":path"]
