"""Work for nothing: how much of each kind a peer may make of us, and that those who ask may go on."""

import pytest

from ratelimit_svc.wire.http2.calm import FRAMES_A_TICK, MOST_FRAMES, MOST_RESETS
from ratelimit_svc.wire.http2.frames import ACK, Kind, frame
from ratelimit_svc.wire.http2.streams import MOST_STREAMS
from tests.http2.client import (
    OTHER,
    Client,
    block,
    body,
    head,
    message,
    ping,
    request,
    reset,
    setting,
    settings,
    window,
)

CALM = "ENHANCE_YOUR_CALM"

FLOODS = {
    "PING": ping(),
    "answers to PING": ping(flags=ACK),
    "SETTINGS": frame(Kind.SETTINGS, 0, 0),
    "acknowledged SETTINGS": frame(Kind.SETTINGS, ACK, 0),
    "PRIORITY": frame(Kind.PRIORITY, 0, 9, b"\0\0\0\0\1"),
    "WINDOW_UPDATE": window(0, 1),
    "a stream's WINDOW_UPDATE": window(1, 1),
    "a closed stream's WINDOW_UPDATE": window(3, 1),
    "frames of an unknown type": b"\0\0\0\x77\0\0\0\0\0",
    "GOAWAY": frame(Kind.GOAWAY, 0, 0, bytes(8)),
    "empty DATA": body(1, b"", end=False),
    "DATA of one byte": body(1, b"\0", end=False),
    "DATA of a refused request": body(7, b"", end=False),
    "DATA on a stream that is reset": body(5, b"", end=False),
    "HEADERS on a stream that is reset": head(5, b""),
    "RST_STREAM on a closed stream": reset(3),
    "PRIORITY that depends on itself": frame(Kind.PRIORITY, 0, 5, b"\0\0\0\5\1"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_connection(flood):
    """After some thousands at the latest, with the code for it, and nothing is left."""
    client = Client(most=4 * 2**20)
    client.send(head(1, block({":path": OTHER})), body(1, b"\0\0\x3f\xff\xff", end=False))
    client.send(request(3))
    client.answer()
    client.send(head(5), window(5, 0), head(7, block({":method": "GET"})))
    heard = []
    for _ in range(100):
        heard += client.send(FLOODS[flood] * 1000)
        if client.connection.over:
            break
    assert heard[-1] == f"goaway 7 {CALM}"
    assert len(heard) <= MOST_FRAMES + 10
    assert client.held == (0, 0, 0)


@pytest.mark.parametrize("piece", [b"", b"\x00"])
def test_a_flood_of_continuations(piece):
    """Empty ones, and drops of a block that never ends."""
    client = Client()
    heard = client.send(head(1, flags=0), frame(Kind.CONTINUATION, 0, 1, piece) * 2 * MOST_FRAMES)
    assert heard[-1] == f"goaway 0 {CALM}"


RESETS = {
    "rapid reset": lambda number: head(number, block({":path": OTHER})) + reset(number),
    "requests, and reset": lambda number: request(number) + reset(number),
    "WINDOW_UPDATE by 0": lambda number: head(number) + window(number, 0),
    "a window that overflows": lambda number: head(number) + window(number, 2**31 - 1),
    "a PRIORITY that is too short": lambda number: head(number) + frame(Kind.PRIORITY, 0, number, b"1234"),
    "DATA after the end": lambda number: request(number) + body(number, b""),
    "refused": lambda number: head(number, block({":method": "GET"}), end=True),
    "malformed": lambda number: head(number, b"\x82"),
    "more than content-length": lambda number: head(number, block(content_length=1)) + body(number, b"123"),
}


@pytest.mark.parametrize("case", RESETS)
def test_streams_that_are_reset_are_few(case):
    """By the peer, or by us for what it does to them."""
    client = Client()
    heard = []
    for start in range(1, 20_000, 20):
        heard += client.send(*(RESETS[case](number) for number in range(start, start + 20, 2)))
        if client.connection.over:
            break
    assert heard[-1].endswith(CALM)
    assert start / 2 < MOST_RESETS + 20
    assert client.held == (0, 0, 0)


def test_a_peer_whose_requests_are_late_may_reset_them_all():
    """As Envoy does when we do not answer in its 20 ms: what is answered meanwhile earns as much as its reset costs, and of what is
    not, all that a connection may have under way.
    """
    client = Client()
    for number in range(1, 10 * MOST_RESETS, 2):
        client.send(request(number))
        client.answer()
        client.send(reset(number))
    last = 10 * MOST_RESETS
    client.send(*(request(last + number) for number in range(1, 2 * MOST_STREAMS, 2)))
    client.send(*(reset(last + number) for number in range(1, 2 * MOST_STREAMS, 2)))
    assert not client.connection.over


def test_a_client_that_asks_may_say_much_beside():
    """Some pings and window updates with each request, as gRPC's clients do."""
    client = Client()
    for number in range(1, 20_000, 2):
        client.send(request(number), ping(), window(0, 100), window(number, 10), frame(Kind.SETTINGS, 0, 0))
        client.answer()
    assert client.connection.calm.frames > MOST_FRAMES - 10


def test_a_quiet_client_that_pings_is_let_be():
    """Time gives credit, too."""
    client = Client()
    for _ in range(50):
        client.send(ping() * FRAMES_A_TICK)
        client.tick()
    assert not client.connection.over


def test_settings_cost_by_the_piece():
    """One frame may hold 2730, and a new window is one for each open stream."""
    client = Client()
    client.send(*(request(number) for number in range(1, 2000, 2)))
    many = b"".join(setting(4, size) for size in (0, 65_535)) * 1365
    heard = []
    for _ in range(3):
        heard += client.send(frame(Kind.SETTINGS, 0, 0, many))
    assert heard[-1] == f"goaway 1999 {CALM}"
    client = Client()
    assert client.send(frame(Kind.SETTINGS, 0, 0, setting(99, 0) * 2500) * 4)[-1] == f"goaway 0 {CALM}"
    client = Client()
    client.send(*(request(number) for number in range(1, 2000, 2)))
    frames = [settings(INITIAL_WINDOW_SIZE=size) for size in (0, 65_535)] * 1000
    assert len(client.send(*frames)) < 100
    assert client.connection.over


@pytest.mark.parametrize("table", [True, False])
def test_header_blocks_of_very_many_fields_are_few(table):
    """Each field may be one byte, and takes as long as a frame."""
    client, number = Client(), 1
    if not table:
        client.forget_table()
        number = 5
    blocks = 0
    while not client.connection.over:
        data = block({":path": OTHER, "x": number}) + b"\x90" * 490  # one that came before is looked up
        client.send(head(number, data, end=True))
        number, blocks = number + 2, blocks + 1
    assert blocks < 30


def test_a_request_of_many_fields_costs_nothing():
    """Forty, with each request."""
    client = Client()
    data = block({f"x-{number}": "1" for number in range(34)})
    for number in range(1, 4001, 2):
        client.send(head(number, data), body(number, message(b"x")))
        client.answer()
    assert client.connection.calm.frames > MOST_FRAMES - 10


def test_calls_with_a_task_of_their_own_are_few():
    """Health checks: a thousand at once, and a hundred a second; streams that are long have all the messages they like."""
    client, number = Client(), 1
    check = lambda: head(number, block({":path": OTHER})) + body(number, message(b""))  # noqa: E731
    while not client.connection.over:
        client.send(check())
        for stream in list(client.streams.open.values()):
            client.outgoing.end(stream)
        number += 2
    assert 900 < number / 2 < 1100
    client, number = Client(), 1
    for _ in range(30):
        for _ in range(100):
            client.send(check())
            client.outgoing.end(client.streams.open[number])
            number += 2
        client.tick()
    assert not client.connection.over
