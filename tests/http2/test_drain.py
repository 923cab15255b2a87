"""The end of a connection: GOAWAY both ways (RFC 9113 §6.8), drain, loss."""

from ratelimit_svc.wire.http2.control import ALIVE_PING, DRAIN_PING
from ratelimit_svc.wire.http2.frames import ACK, END_HEADERS, ErrorCode, Kind, frame, goaway
from tests.http2.client import HELLO, OTHER, Client, block, body, head, message, ping, request, reset, window

FIRST_GOAWAY = [f"goaway {2**31 - 1} NO_ERROR", f"ping {DRAIN_PING!r}"]


def draining() -> Client:
    """One call is under way, the connection is to end, and the peer knows."""
    client = Client()
    client.send(request(1))
    client.connection.drain()
    assert client.heard() == FIRST_GOAWAY
    client.send(request(3))  # was on its way
    assert client.send(ping(DRAIN_PING, ACK)) == ["goaway 3 NO_ERROR"]
    return client


def test_a_drain_refuses_nothing_that_is_on_its_way():
    """Two GOAWAYs: the first asks, the second says what was the last; all up to it are answered."""
    client = draining()
    assert not client.connection.done
    assert client.answer()[-1] == "headers 1 0 end"
    assert client.answer()[-1] == "headers 3 0 end"
    assert client.connection.done
    assert client.held == (0, 0, 0)


def test_calls_that_come_too_late_are_not_seen_to():
    """Nor what belongs to them, well-formed or not; what is on streams before goes on."""
    client = draining()
    assert client.send(request(5), head(7, b"\x00\x01A\x01b"), body(7, b"x"), window(7, 0), reset(5)) == []
    assert client.send(head(9, block()[:5], flags=0), frame(Kind.CONTINUATION, END_HEADERS, 9, block()[5:])) == []
    assert [stream.number for stream, _ in client.asks] == [1, 3]
    assert client.answer()[-1] == "headers 1 0 end"


def test_blocks_of_late_calls_are_decoded():
    """The table has to keep up: a field that a late call put into it is what the next trailers mean."""
    client = Client()
    client.send(head(1, block({":path": OTHER})))
    client.connection.control.leave()
    client.heard()
    named = {":method": "POST", ":scheme": "http", ":path": "/x", "content-type": "application/grpc", "x-late": "1"}
    client.send(head(3, client.encoder.encode(named.items()), end=True))
    trailers = client.encoder.encode([("x-late", "1")])
    assert len(trailers) == 1
    assert client.send(head(1, trailers, end=True)) == []
    assert client.happened == ["began 1", "ended 1"]


def test_a_drain_and_a_leave_are_said_once():
    """However often they are asked for."""
    client = draining()
    client.connection.control.leave()
    client.connection.drain()
    client.connection.control.leave()
    assert client.heard() == []


def test_a_drain_before_the_preface():
    """Nothing can be on its way: one GOAWAY is enough."""
    client = Client(greeted=False)
    client.heard()
    client.connection.drain()
    assert client.heard() == ["goaway 0 NO_ERROR"]
    assert client.connection.done
    client.send(HELLO, request(1))
    assert client.asks == []


def test_a_peer_that_leaves_is_answered():
    """Its GOAWAY ends nothing that is under way."""
    client = Client()
    client.send(request(1), goaway(0, ErrorCode.NO_ERROR, "bye"))
    assert not client.connection.done
    assert client.answer()[-1] == "headers 1 0 end"
    assert client.connection.done
    client.send(request(3))
    assert client.answer()[-1] == "headers 3 0 end"


def test_a_lost_connection_forgets_all():
    """Whoever works for it is told."""
    client = Client()
    client.send(request(1), head(3), body(3, b"\0\0\0\0\x64half", end=False), head(5, block({":path": OTHER})))
    client.send(frame(Kind.SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
    client.answer()
    assert client.held == (3, 0, 9)
    events = client.connection.drop()
    assert [(event.what.value, event.stream.number) for event in events] == [("gone", 1), ("gone", 3), ("gone", 5)]
    assert client.held == (0, 0, 0)
    assert client.send(request(7)) == []
    assert client.connection.drop() == []


def test_an_answer_after_the_end_goes_nowhere():
    """A fault of the connection ends all calls; what the limiter still says is dropped."""
    client = Client()
    client.send(request(1), head(3), body(3, message(b"y")))
    assert client.send(body(0, b""))[-1] == "goaway 3 PROTOCOL_ERROR"
    assert client.happened == ["gone 1", "gone 3"]
    for stream, _ in client.asks:
        client.outgoing.answer(stream, b"late")
    assert client.heard() == []
    client.connection.fail(ErrorCode.NO_ERROR, "again")
    assert client.heard() == []


def test_silence_is_asked_about():
    """And an answer to that is no answer to a drain."""
    client = Client()
    client.connection.control.ask_alive()
    assert client.heard() == [f"ping {ALIVE_PING!r}"]
    assert client.send(ping(ALIVE_PING, ACK)) == []
    assert not client.connection.done
