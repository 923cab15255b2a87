"""Preface and frames: RFC 9113 §3.4, §4, §5.5, §6.7, §6.9, §6.10."""

import pytest

from ratelimit_svc.wire.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    LARGEST_FRAME,
    PADDED,
    PREFACE,
    PRIORITY,
    Kind,
    frame,
)
from tests.http2.client import (
    ANSWERED,
    HELLO,
    OTHER,
    SETTINGS_ACK,
    Client,
    block,
    body,
    head,
    message,
    padded,
    ping,
    prioritized,
    request,
    reset,
    settings,
    window,
)

OURS = "settings 000300000400000600004000"
"""What we take: 1024 streams, header lists of 16 KiB."""


def test_the_server_says_its_settings_first():
    """At once, and widens the connection's window (§3.4, §6.9.2)."""
    client = Client(greeted=False)
    assert client.heard() == [OURS, "window 0 983041"]
    assert client.send(HELLO) == ["settings ack"]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\0" * 30,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r.",
    ],
)
def test_what_is_no_preface(data):
    """HTTP/1, TLS, zeros, and one that is wrong at its end."""
    client = Client(greeted=False)
    client.heard()
    assert client.send(data) == ["goaway 0 PROTOCOL_ERROR"]
    assert client.connection.over
    assert client.send(HELLO, request(1)) == []


def test_a_preface_byte_by_byte():
    """It may come in any number of pieces, and with what follows."""
    client = Client(greeted=False)
    client.heard()
    heard = [words for byte in HELLO + request(1) for words in client.send(bytes((byte,)))]
    assert heard == ["settings ack", "settings 000100000000"]
    assert client.answer() == ANSWERED


@pytest.mark.parametrize("first", [ping(), SETTINGS_ACK, request(1), window(0, 1), frame(Kind(0), 0, 0)])
def test_the_first_frame_is_settings(first):
    """Any other is a connection error (§3.4), their acknowledgement, too."""
    client = Client(greeted=False)
    client.heard()
    assert client.send(PREFACE, first) == ["goaway 0 PROTOCOL_ERROR"]


ON_1 = head(1, block({":path": OTHER}))
"""A call that streams, and is open."""

FAULTS = {
    # §4.2: sizes
    "a frame that is too large": (frame(Kind.DATA, 0, 1, b"\0" * (LARGEST_FRAME + 1)), "goaway 1 FRAME_SIZE_ERROR"),
    "one of 16 MB, of which only the head came": (b"\xff\xff\xff\0\0\0\0\0\1", "goaway 1 FRAME_SIZE_ERROR"),
    # §6.1: DATA
    "DATA on stream 0": (body(0, b"x"), "goaway 1 PROTOCOL_ERROR"),
    "DATA with more padding than it is long": (frame(Kind.DATA, PADDED, 1, b"\x05abcd"), "goaway 1 PROTOCOL_ERROR"),
    "DATA without a length of its padding": (frame(Kind.DATA, PADDED, 1), "goaway 1 FRAME_SIZE_ERROR"),
    # §6.2: HEADERS
    "HEADERS on stream 0": (head(0), "goaway 1 PROTOCOL_ERROR"),
    "HEADERS on a server's stream": (head(2), "goaway 1 PROTOCOL_ERROR"),
    "HEADERS with more padding than they are long": (
        frame(Kind.HEADERS, PADDED | END_HEADERS, 3, b"\xff" + block()),
        "goaway 1 PROTOCOL_ERROR",
    ),
    "HEADERS too short for their priority": (
        frame(Kind.HEADERS, PRIORITY | END_HEADERS, 3, b"\0\0\0\0"),
        "goaway 1 FRAME_SIZE_ERROR",
    ),
    "HEADERS that depend on themselves": (prioritized(3, block(), 3), "reset 3 PROTOCOL_ERROR"),
    # §6.3: PRIORITY
    "PRIORITY on stream 0": (frame(Kind.PRIORITY, 0, 0, b"\0" * 5), "goaway 1 PROTOCOL_ERROR"),
    "PRIORITY of 4 bytes": (frame(Kind.PRIORITY, 0, 1, b"\0" * 4), "reset 1 FRAME_SIZE_ERROR"),
    "PRIORITY of 6 bytes on an idle stream": (frame(Kind.PRIORITY, 0, 9, b"\0" * 6), "goaway 1 FRAME_SIZE_ERROR"),
    "PRIORITY that depends on itself": (frame(Kind.PRIORITY, 0, 1, b"\0\0\0\1\0"), "reset 1 PROTOCOL_ERROR"),
    # §6.4: RST_STREAM
    "RST_STREAM on stream 0": (reset(0), "goaway 1 PROTOCOL_ERROR"),
    "RST_STREAM on an idle stream": (reset(3), "goaway 1 PROTOCOL_ERROR"),
    "RST_STREAM of 3 bytes": (frame(Kind.RST_STREAM, 0, 1, b"\0\0\0"), "goaway 1 FRAME_SIZE_ERROR"),
    # §6.5: SETTINGS
    "SETTINGS on a stream": (frame(Kind.SETTINGS, 0, 1), "goaway 1 PROTOCOL_ERROR"),
    "SETTINGS of 5 bytes": (frame(Kind.SETTINGS, 0, 0, b"\0" * 5), "goaway 1 FRAME_SIZE_ERROR"),
    "an acknowledgement of something": (frame(Kind.SETTINGS, ACK, 0, b"\0" * 6), "goaway 1 FRAME_SIZE_ERROR"),
    # §6.6: PUSH_PROMISE
    "PUSH_PROMISE": (frame(Kind.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), "goaway 1 PROTOCOL_ERROR"),
    # §6.7: PING
    "PING on a stream": (frame(Kind.PING, 0, 1, b"\0" * 8), "goaway 1 PROTOCOL_ERROR"),
    "PING of 7 bytes": (ping(b"1234567"), "goaway 1 FRAME_SIZE_ERROR"),
    "an answer of 9 bytes": (ping(b"123456789", ACK), "goaway 1 FRAME_SIZE_ERROR"),
    # §6.8: GOAWAY
    "GOAWAY on a stream": (frame(Kind.GOAWAY, 0, 1, b"\0" * 8), "goaway 1 PROTOCOL_ERROR"),
    "GOAWAY of 7 bytes": (frame(Kind.GOAWAY, 0, 0, b"\0" * 7), "goaway 1 FRAME_SIZE_ERROR"),
    # §6.9: WINDOW_UPDATE
    "WINDOW_UPDATE of 3 bytes": (frame(Kind.WINDOW_UPDATE, 0, 0, b"\0\0\1"), "goaway 1 FRAME_SIZE_ERROR"),
    "WINDOW_UPDATE by 0": (window(0, 0), "goaway 1 PROTOCOL_ERROR"),
    "WINDOW_UPDATE by 0 of a stream": (window(1, 0), "reset 1 PROTOCOL_ERROR"),
    "WINDOW_UPDATE on an idle stream": (window(3, 1), "goaway 1 PROTOCOL_ERROR"),
    "a window beyond 2^31-1": (window(0, 2**31 - 1), "goaway 1 FLOW_CONTROL_ERROR"),
    "a stream's window beyond 2^31-1": (window(1, 2**31 - 1), "reset 1 FLOW_CONTROL_ERROR"),
    # §6.10: CONTINUATION
    "CONTINUATION of nothing": (frame(Kind.CONTINUATION, END_HEADERS, 1), "goaway 1 PROTOCOL_ERROR"),
    "CONTINUATION on another stream": (
        head(3, flags=0) + frame(Kind.CONTINUATION, END_HEADERS, 5),
        "goaway 1 PROTOCOL_ERROR",
    ),
    "PING within a header block": (head(3, flags=0) + ping(), "goaway 1 PROTOCOL_ERROR"),
    "an unknown frame within a header block": (head(3, flags=0) + b"\0\0\0\x77\0\0\0\0\3", "goaway 1 PROTOCOL_ERROR"),
    "HEADERS within a header block": (head(3, flags=0) + head(3), "goaway 1 PROTOCOL_ERROR"),
    "a header block of more than 16 KiB": (
        head(3, b"\0" * 16_000, flags=0) + frame(Kind.CONTINUATION, 0, 3, b"\0" * 400),
        "goaway 1 ENHANCE_YOUR_CALM",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_breaks_the_protocol_ends_what_it_is_on(fault):
    """A stream or the connection, with the RFC's code; on one that goes on, the next call is answered."""
    client = Client()
    client.send(ON_1)
    data, words = FAULTS[fault]
    assert client.send(data) == [words]
    assert client.connection.over == words.startswith("goaway")
    assert not client.connection.over or client.held == (0, 0, 0)
    client.send(request(5))
    assert (client.answer() if client.asks else []) == (
        [] if client.connection.over else [each.replace(" 1 ", " 5 ", 1) for each in ANSWERED]
    )


def sound(number: int) -> dict[str, bytes]:
    """Calls that are unusual and sound, on one stream."""
    data = message(b"x")
    return {
        "padded HEADERS and DATA": (
            padded(Kind.HEADERS, END_HEADERS, number, block(), 200) + padded(Kind.DATA, END_STREAM, number, data, 9)
        ),
        "DATA of padding only": head(number) + padded(Kind.DATA, 0, number, b"", 255) + body(number, data),
        "HEADERS with a priority": prioritized(number, block(), 0) + body(number, data),
        "a PRIORITY before its stream": frame(Kind.PRIORITY, 0, number, b"\0\0\0\x63\1") + request(number),
        "frames of unknown types, flags and reserved bits": (
            b"\0\0\3\x77\xff\xff\xff\xff\xff123"
            + frame(Kind.HEADERS, END_HEADERS | 0xC2, number, block())
            + frame(Kind.DATA, END_STREAM | 0xF2, 2**31 + number, data)
        ),
        "a header block in pieces": (
            head(number, block()[:1], flags=0)
            + frame(Kind.CONTINUATION, 0, number)
            + frame(Kind.CONTINUATION, END_HEADERS, number, block()[1:])
            + body(number, data)
        ),
        "a message in pieces, some of them empty": (
            head(number)
            + b"".join(body(number, piece, end=False) for piece in (b"", data[:2], data[2:5], data[5:]))
            + body(number, b"")
        ),
        "trailers": head(number) + body(number, data, end=False) + head(number, b"\0\1a\1b", end=True),
        "HEADERS with the reserved bit": (
            frame(Kind.HEADERS, END_HEADERS, 2**31 + number, block()) + body(number, data)
        ),
        "settings nobody knows": frame(Kind.SETTINGS, 0, 0, b"\xff\xff\0\0\0\1") + request(number),
        "SETTINGS that allow us no streams": settings(MAX_CONCURRENT_STREAMS=0) + request(number),
    }


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("case", sound(1))
def test_what_is_unusual_and_sound(case, table, size):
    """It is a request like any other, however it is cut on the way, and whether or not the like of it has come before."""
    client, number = Client(), 1
    if not table:
        client.forget_table()
        number = 5
    data = sound(number)[case]
    for at in range(0, len(data), size):
        client.send(data[at : at + size])
    assert client.messages == [b"x"]
    assert client.answer() == [each.replace(" 1 ", f" {number} ", 1) for each in ANSWERED]
    assert client.held == (0, 0, 0)


def test_pings_are_answered_and_answers_are_not():
    """§6.7."""
    client = Client()
    assert client.send(ping(b"abcdefgh"), ping(b"whatever", ACK)) == ["ping ack b'abcdefgh'"]


def test_whole_requests_before_a_fault_are_not_asked():
    """Their connection has ended: nobody would hear the answer."""
    client = Client()
    heard = client.send(request(1), request(3), body(0, b""))
    assert heard[-1] == "goaway 3 PROTOCOL_ERROR"
    assert (client.asks, client.held) == ([], (0, 0, 0))


def test_what_came_before_a_fault_of_a_stream_is():
    """A stream's fault is its own."""
    client = Client()
    heard = client.send(request(1), head(3, block({":path": OTHER})), window(3, 0), request(5))
    assert "reset 3 PROTOCOL_ERROR" in heard
    assert [stream.number for stream, _ in client.asks] == [1, 5]
