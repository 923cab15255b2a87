"""Flow control, both ways (RFC 9113 §5.2, §6.9), and SETTINGS that change it (§6.5, §6.9.2)."""

import pytest

from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2.connection import WINDOW
from ratelimit_svc.wire.http2.frames import FIRST_WINDOW, LARGEST_FRAME, Kind, frame
from tests.http2.client import (
    OTHER,
    SETTINGS_ACK,
    Client,
    block,
    body,
    head,
    message,
    padded,
    request,
    reset,
    setting,
    settings,
    window,
)

STREAMS = head(1, block({":path": OTHER}))
PIECE = b"x" * LARGEST_FRAME
LONG = (b"\0" + (900_000).to_bytes(4, "big") + PIECE)[:LARGEST_FRAME]
"""The beginning of a message of 900 kB, in a frame."""


# ── what we may send ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_waits_for_its_streams_window():
    """And for nothing else: another stream that has room is answered meanwhile."""
    client = Client()
    client.send(settings(INITIAL_WINDOW_SIZE=4), request(1), request(3), window(3, 100))
    assert client.answer() == ["headers 1 200", "data 1 4"]
    assert client.answer() == ["headers 3 200", "data 3 11", "headers 3 0 end"]
    assert client.send(window(1, 6)) == ["data 1 6"]
    assert client.send(window(1, 1)) == ["data 1 1", "headers 1 0 end"]
    assert client.held == (0, 0, 0)


def test_answers_wait_for_the_connections_window_in_turn():
    """The longest waiting first, as far as each one's own window goes; headers and trailers of others never wait."""
    client = Client()
    client.send(settings(INITIAL_WINDOW_SIZE=100_000), *(request(number) for number in (1, 3, 5, 7)))
    assert client.answer(b"x" * (FIRST_WINDOW - 5))[-1] == "headers 1 0 end"
    assert client.answer(b"abc") == ["headers 3 200"]
    assert client.answer(b"abc") == ["headers 5 200"]
    client.outgoing.end(client.asks[0][0], GrpcStatus.INTERNAL, "")
    assert client.heard() == ["headers 7 200 13 end"]
    assert client.held[1] == 2
    assert client.send(window(0, 5)) == ["data 3 5"]
    assert client.send(window(0, 3)) == ["data 5 3"]
    assert client.send(window(0, 100)) == ["data 3 3", "headers 3 0 end", "data 5 5", "headers 5 0 end"]
    assert client.held == (0, 0, 0)


def test_a_window_may_become_negative():
    """A smaller SETTINGS_INITIAL_WINDOW_SIZE counts for what was sent already (§6.9.2)."""
    client = Client()
    client.send(request(1))
    client.answer(b"x" * 100_000)
    assert client.send(settings(INITIAL_WINDOW_SIZE=1000), window(0, 100_000)) == ["settings ack"]
    assert client.held[1] == 0  # it waits for its own window only
    assert client.send(window(1, FIRST_WINDOW - 1000)) == []
    assert client.send(window(1, 7)) == ["data 1 7"]
    assert client.send(settings(INITIAL_WINDOW_SIZE=1001)) == ["settings ack", "data 1 1"]
    assert client.send(settings(INITIAL_WINDOW_SIZE=2**30))[-1] == "headers 1 0 end"
    assert client.held == (0, 0, 0)


def test_a_window_of_nothing_that_comes_and_goes():
    """SETTINGS_INITIAL_WINDOW_SIZE toggled while streams wait: each byte is sent once."""
    client = Client()
    client.send(settings(INITIAL_WINDOW_SIZE=0), *(request(number) for number in range(1, 21, 2)))
    for _ in range(10):
        client.answer()
    heard = []
    for size in (0, 3, 0, 3, 5, 0, 11, 0):
        heard += client.send(settings(INITIAL_WINDOW_SIZE=size))
    for number in range(1, 21, 2):
        data = [words for words in heard if words.startswith(f"data {number} ")]
        assert sum(int(words.split()[2]) for words in data) == len(message(b"answer"))
        assert f"headers {number} 0 end" in heard
    assert client.held == (0, 0, 0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([(2, 0), (2, 1)], ["settings ack"]),
        ([(2, 2)], ["goaway 0 PROTOCOL_ERROR"]),
        ([(4, 2**31 - 1)], ["settings ack"]),
        ([(4, 2**31)], ["goaway 0 FLOW_CONTROL_ERROR"]),
        ([(5, 2**14), (5, 2**24 - 1)], ["settings ack"]),
        ([(5, 2**14 - 1)], ["goaway 0 PROTOCOL_ERROR"]),
        ([(5, 2**24)], ["goaway 0 PROTOCOL_ERROR"]),
        ([(1, 2**32 - 1), (3, 0), (6, 0), (0, 1), (0xFFFF, 1), (0x8, 1)], ["settings ack"]),
    ],
)
def test_settings_are_looked_at(values, words):
    """Each has its range and its code (§6.5.2); those we do not know mean nothing."""
    client = Client()
    assert client.send(frame(Kind.SETTINGS, 0, 0, b"".join(setting(*each) for each in values))) == words


def test_the_last_of_two_values_counts():
    """They are taken in order (§6.5.3)."""
    client = Client()
    client.send(frame(Kind.SETTINGS, 0, 0, setting(4, 100) + setting(4, 2)), request(1))
    assert client.answer() == ["headers 1 200", "data 1 2"]


def test_a_stream_that_overflows_by_settings_ends_the_connection():
    """Its window is beyond 2^31-1 then (§6.9.2)."""
    client = Client()
    client.send(STREAMS, window(1, 2**31 - 1 - FIRST_WINDOW))
    assert client.send(settings(INITIAL_WINDOW_SIZE=FIRST_WINDOW + 1))[-1] == "goaway 1 FLOW_CONTROL_ERROR"


def test_settings_are_acknowledged_before_the_data_that_they_set_free():
    """So that the peer knows by which windows it was sent."""
    client = Client()
    client.send(settings(INITIAL_WINDOW_SIZE=0), request(1))
    client.answer()
    assert client.send(settings(INITIAL_WINDOW_SIZE=99)) == ["settings ack", "data 1 11", "headers 1 0 end"]


def test_acknowledgements_that_nobody_asked_for_mean_nothing():
    """Whatever their number."""
    client = Client()
    assert client.send(SETTINGS_ACK * 10) == []


def test_data_is_cut_into_frames_that_every_peer_takes():
    """Larger frames are allowed by some, and asked for by none."""
    client = Client()
    client.send(settings(INITIAL_WINDOW_SIZE=2**20, MAX_FRAME_SIZE=2**20), window(0, 2**20), request(1))
    assert client.answer(b"x" * 40_000) == [
        "headers 1 200", "data 1 16384", "data 1 16384", "data 1 7237", "headers 1 0 end"
    ]  # fmt: skip


def test_a_reset_drops_what_waits():
    """Nothing of it is sent when the window grows."""
    client = Client()
    client.send(request(1))
    client.answer(b"x" * 100_000)
    assert client.held[:2] == (1, 0)
    assert client.send(reset(1), window(1, 10**6), window(0, 10**6)) == []
    assert client.held == (0, 0, 0)


# ── what we take ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_room_is_given_as_data_is_taken():
    """On the stream by halves of its window, on the connection by quarters."""
    client = Client(most=10**6)
    client.send(STREAMS)
    heard = client.send(body(1, LONG, end=False), body(1, PIECE, end=False))
    assert heard == ["window 1 32768"]
    heard = [words for _ in range(16) for words in client.send(body(1, PIECE, end=False))]
    assert heard.count("window 1 32768") == 8
    assert heard.count(f"window 0 {WINDOW // 4}") == 1


def test_padding_takes_room_too():
    """§6.9.1: the whole payload counts."""
    client = Client()
    client.send(STREAMS)
    pad = padded(Kind.DATA, 0, 1, b"", 255)
    heard = [words for _ in range(200) for words in client.send(pad)]
    assert heard == ["window 1 32768"]


def test_more_than_a_stream_takes_is_its_fault():
    """A call that does not read grants no more."""
    client = Client(most=10**6)
    client.send(STREAMS)
    client.streams.open[1].full = True
    assert client.send(body(1, LONG, end=False), *[body(1, PIECE, end=False)] * 2) == []
    assert client.send(body(1, PIECE, end=False)) == ["reset 1 FLOW_CONTROL_ERROR"]
    assert client.held == (0, 0, 0)


def test_more_than_the_connection_takes_ends_it():
    """All in one read, before any room could be given: also of streams that are closed, and with padding."""
    client = Client()
    client.send(*(head(number, block({":method": "GET"})) for number in range(1, 64, 2)))
    frames = [body(number, PIECE, end=False) for number in range(1, 64, 2) for _ in range(3)]
    heard = client.send(*frames)
    assert heard[-1] == "goaway 63 FLOW_CONTROL_ERROR"
    assert client.held == (0, 0, 0)


def test_data_of_refused_streams_gives_its_room_back():
    """What is thrown away is taken, for the connection."""
    client = Client()
    client.send(head(1, block({":method": "GET"})))
    heard = [words for _ in range(3) for words in client.send(body(1, PIECE, end=False))]
    for number in range(3, 40, 2):
        client.send(head(number, block({":method": "GET"})))
        heard += client.send(body(number, PIECE))
    assert heard.count(f"window 0 {WINDOW // 4}") == 1
    assert not [words for words in heard if words.startswith("window 1 ")]


def test_no_room_is_given_on_a_stream_that_has_ended():
    """Its caller has no more to send."""
    client = Client(most=10**6)
    client.send(STREAMS)
    assert client.send(body(1, message(PIECE * 3)[:LARGEST_FRAME], end=False)) == []
    assert client.send(body(1, message(PIECE * 3)[LARGEST_FRAME : 2 * LARGEST_FRAME])) == [
        "headers 1 200 13 end"
    ]  # fmt: skip
