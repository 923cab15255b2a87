"""The states of a stream: RFC 9113 §5.1, and how many there may be (§5.1.2)."""

import pytest

from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2.frames import Kind, frame
from ratelimit_svc.wire.http2.requests import FEW_TICKS, MOST_TICKS
from ratelimit_svc.wire.http2.streams import FEW_STREAMS, MOST_REMEMBERED, MOST_STREAMS, REMEMBERED_S, Crowd, Streams
from tests.http2.client import (
    FIELDS,
    OTHER,
    Client,
    block,
    body,
    head,
    message,
    prioritized,
    request,
    reset,
    window,
)

OTHER_HEAD = block({":path": OTHER})
TRAILERS = b"\0\1a\1b"
PRIORITY_OF_1 = frame(Kind.PRIORITY, 0, 1, b"\0\0\0\3\1")


def half_closed() -> Client:
    """A client that has said its last on stream 1, and waits."""
    client = Client()
    client.send(request(1))
    return client


def closed() -> Client:
    """One whose call is answered."""
    client = half_closed()
    client.answer()
    return client


def reset_by_client() -> Client:
    """One that has reset its call."""
    client = half_closed()
    client.send(reset(1))
    return client


def reset_by_us() -> Client:
    """One whose call we have reset."""
    client = Client()
    client.send(head(1), window(1, 0))
    return client


def refused() -> Client:
    """One whose request is refused in HTTP's words, and not ended: it is heard out."""
    client = Client()
    assert client.send(head(1, block({":method": "GET"})))[0] == "headers 1 405"
    return client


CLOSED, OF_STREAM = "goaway {} STREAM_CLOSED", "reset 1 STREAM_CLOSED"

AFTERWARDS = [
    # state, what comes, what is heard
    (half_closed, body(1, b"x"), [OF_STREAM]),
    (half_closed, head(1, TRAILERS, end=True), [OF_STREAM]),
    (half_closed, PRIORITY_OF_1 + window(1, 1), []),
    (half_closed, reset(1), []),
    (closed, body(1, b"x"), ["goaway 1 STREAM_CLOSED"]),
    (closed, head(1), ["goaway 1 STREAM_CLOSED"]),
    (closed, head(1, TRAILERS, end=True), ["goaway 1 STREAM_CLOSED"]),
    (closed, PRIORITY_OF_1 + window(1, 1) + window(1, 0) + reset(1), []),
    (reset_by_client, body(1, b"x"), ["goaway 1 STREAM_CLOSED"]),
    (reset_by_client, head(1), ["goaway 1 STREAM_CLOSED"]),
    (reset_by_client, PRIORITY_OF_1 + window(1, 1) + reset(1), []),
    # the peer may not know yet
    (reset_by_us, body(1, message(b"x"), end=False) + body(1, b"") + head(1, TRAILERS, end=True), []),
    (reset_by_us, body(1, b"x") * 3 + PRIORITY_OF_1 + window(1, 1) + window(1, 0) + reset(1), []),
    (refused, body(1, b"x" * 10_000, end=False) * 3 + body(1, b""), []),
    (refused, head(1, TRAILERS, end=True), []),
    (refused, body(1, b"") + body(1, b""), ["goaway 1 STREAM_CLOSED"]),
    (refused, reset(1), []),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(AFTERWARDS)))
def test_what_may_come_in_which_state(case):
    """As §5.1 says; what is a stream's fault leaves the connection as it was."""
    state, data, words = AFTERWARDS[case]
    client = state()
    assert client.send(data) == words
    if not client.connection.over:
        client.asks.clear()
        client.send(request(3))
        assert client.answer()[-1] == "headers 3 0 end"
        assert client.connection.receive(b"") == ([], [])
    assert client.held[1:] == (0, 0)
    assert not client.connection.over or client.held == (0, 0, 0)


@pytest.mark.parametrize(("last", "then"), [(5, 3), (5, 5), (101, 1)])
def test_numbers_only_grow(last, then):
    """§5.1.1: what was skipped is closed."""
    client = Client()
    client.send(request(last))
    assert client.send(head(then, None, end=False))[-1].startswith(("goaway", "reset"))


def test_frames_on_a_skipped_stream():
    """It is closed, not idle."""
    client = Client()
    client.send(request(5))
    assert client.send(window(3, 1), reset(3)) == []
    assert client.send(body(3, b"x")) == ["goaway 5 STREAM_CLOSED"]


def test_an_answer_to_one_who_has_gone_is_not_sent():
    """Reset by the peer before the answer: nothing is said on the stream, nothing is kept."""
    client = half_closed()
    client.send(reset(1))
    assert client.happened == ["gone 1"]
    assert client.answer() == []
    assert client.held == (0, 0, 0)


def test_nothing_is_said_on_a_stream_that_is_gone():
    """Neither messages nor an end, whoever has ended it."""
    client = Client()
    client.send(head(1, OTHER_HEAD), head(3, OTHER_HEAD))
    stream, other = client.streams.open[1], client.streams.open[3]
    client.send(reset(1))
    client.outgoing.end(other)
    assert client.heard() == ["headers 3 200 0 end", "reset 3 NO_ERROR"]
    for gone in (stream, other):
        client.outgoing.message(gone, b"x")
        client.outgoing.end(gone, GrpcStatus.INTERNAL, "late")
    assert client.heard() == []
    assert repr(stream) == f"<Stream 1 {OTHER}>"


def test_trailers_with_a_priority_of_their_own():
    """It is looked at there, too, when the block is decoded."""
    client = Client()
    client.send(head(1, OTHER_HEAD))
    assert client.send(prioritized(1, TRAILERS, 1, end=True)) == ["reset 1 PROTOCOL_ERROR"]
    client.send(head(3, OTHER_HEAD))
    assert client.send(prioritized(3, TRAILERS, 1, end=True)) == []
    assert client.happened[-1] == "ended 3"


def test_a_request_that_is_reset_in_the_same_read_is_gone():
    """So is one whose stream breaks the protocol; those beside them are not."""
    client = Client()
    client.send(request(1), request(3), reset(1), request(5), window(5, 0))
    assert client.happened == ["gone 1", "gone 5"]
    assert [stream.number for stream, _ in client.asks if stream.number in client.streams.open] == [3]


def test_an_answer_before_the_end_of_the_request():
    """Is followed by RST_STREAM(NO_ERROR): the rest is not needed (§8.1); what is on its way is no fault."""
    client = Client()
    heard = client.send(head(1), body(1, message(b"a") + message(b"b"), end=False))
    assert heard[-2:] == ["headers 1 200 12 end", "reset 1 NO_ERROR"]
    assert client.send(body(1, b"more"), reset(1)) == []
    assert client.held == (0, 0, 0)


def test_an_answer_to_a_request_that_has_ended_needs_no_reset():
    """The same, where the last frame brings the fault."""
    client = Client()
    heard = client.send(head(1), body(1, message(b"a") + message(b"b")))
    assert heard[-1] == "headers 1 200 12 end"
    assert client.send(body(1, b"more")) == ["goaway 1 STREAM_CLOSED"]


def test_as_many_streams_as_are_allowed_and_no_more():
    """The next is refused, may be tried again, and its header block is decoded all the same (§5.1.2)."""
    client = Client()
    client.send(*(head(1 + 2 * each) for each in range(MOST_STREAMS)))
    number = 1 + 2 * MOST_STREAMS
    named = FIELDS | {":path": OTHER, "x-only-here": "1"}
    fresh = client.encoder.encode(named.items())
    assert client.send(head(number, fresh)) == [f"reset {number} REFUSED_STREAM"]
    assert client.send(body(number, message(b"x"))) == []
    client.send(body(1, message(b"x")))
    client.answer()
    again = client.encoder.encode(named.items())
    assert len(again) < len(fresh)  # it is in the table now
    assert client.send(head(number + 2, again)) == []
    assert client.happened == [f"began {number + 2}"]


def test_the_same_on_the_quick_path():
    """Without a table a call that looks as those before it is counted, too."""
    client = Client()
    client.forget_table()
    client.send(*(head(5 + 2 * each) for each in range(MOST_STREAMS)))
    number = 5 + 2 * MOST_STREAMS
    assert client.send(head(number)) == [f"reset {number} REFUSED_STREAM"]
    assert client.held[0] == MOST_STREAMS


def test_resets_of_ours_are_remembered_for_as_many_as_may_be_open():
    """A tick may give up all that are open, and their peer may not know yet; only then it breaks the protocol."""
    client = Client()
    numbers = [1 + 2 * each for each in range(MOST_STREAMS)]
    client.send(*map(head, numbers))
    heard = client.tick(MOST_TICKS + 1)
    assert heard == [f"reset {number} CANCEL" for number in numbers]
    assert client.send(*(body(number, b"x") for number in numbers[-MOST_REMEMBERED:])) == []
    assert client.held == (0, 0, 0)


def test_resets_are_forgotten_when_their_peer_must_know():
    """Some seconds later; and sooner where there are very many: what is remembered is bounded."""
    streams = Streams(Crowd())
    streams.note_reset(1)
    for _ in range(REMEMBERED_S):
        streams.tick()
        assert streams.was_reset(1)
    for _ in range(REMEMBERED_S):
        streams.tick()
    assert not streams.was_reset(1)
    for number in range(1, 6 * MOST_REMEMBERED, 2):
        streams.note_reset(number)
        assert streams.was_reset(number)
    assert not streams.was_reset(1)
    assert len(streams._reset) + len(streams._older) <= 2 * MOST_REMEMBERED


def test_where_very_many_streams_are_open_a_connection_may_have_few():
    """All together have no more than the process may have; when they are less, each may have as many as ever."""
    crowd = Crowd(most=100)
    greedy, modest = Client(crowd=crowd), Client(crowd=crowd)
    for start in range(1, 400, 20):
        greedy.send(*(head(number) for number in range(start, start + 20, 2)))
    assert crowd.streams == len(greedy.streams.open) == 100
    modest.send(*(request(number) for number in range(1, 2 * FEW_STREAMS, 2)))
    assert len(modest.asks) == FEW_STREAMS
    assert modest.send(request(2 * FEW_STREAMS + 1)) == [f"reset {2 * FEW_STREAMS + 1} REFUSED_STREAM"]
    greedy.connection.drop()
    assert crowd.streams == FEW_STREAMS
    assert modest.send(request(2 * FEW_STREAMS + 3)) == []
    while modest.asks:
        modest.answer()
    modest.tick()
    assert crowd.streams == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (head(1), ["reset 1 CANCEL"]),
        (head(1) + body(1, b"\0\0\0\0\5abc", end=False), ["reset 1 CANCEL"]),
        (head(1) + body(1, message(b"x"), end=False), ["reset 1 CANCEL"]),
        (head(1, block({":method": "GET"})), ["reset 1 CANCEL"]),
        (head(1, OTHER_HEAD), []),
        (head(1, OTHER_HEAD) + body(1, b"\0\0\0\0\5abc", end=False), ["reset 1 CANCEL"]),
        (head(1, OTHER_HEAD) + body(1, message(b"x"), end=False), []),
        (request(1), []),
    ],
)
def test_what_never_ends_is_given_up(data, words):
    """A message has some seconds to come, and so has a request of one; a call that streams may be silent between them."""
    client = Client()
    client.send(data)
    assert client.tick(MOST_TICKS) == []
    assert client.tick() == words
    assert not words or client.held == (0, 0, 0)


def test_each_message_of_a_stream_has_its_own_time():
    """A long call may be within one whenever it is looked at."""
    client = Client()
    client.send(head(1, OTHER_HEAD) + body(1, message(b"x")[:3], end=False))
    for _ in range(3):
        assert client.tick(MOST_TICKS) == []
        client.send(body(1, message(b"x")[3:] + message(b"x")[:3], end=False))
    assert client.tick(MOST_TICKS) == []
    assert client.tick() == ["reset 1 CANCEL"]


def test_where_there_are_very_many_nobody_waits_for_long():
    """Of requests that do not end; those that are with the limiter are not touched."""
    client = Client()
    client.send(head(1), request(3), head(5, OTHER_HEAD))
    assert client.tick(FEW_TICKS, patience=FEW_TICKS) == []
    assert client.tick(patience=FEW_TICKS) == ["reset 1 CANCEL"]
    assert client.tick(5, patience=FEW_TICKS) == []


def test_an_answer_that_nobody_lets_out_is_given_up():
    """A peer that grants no window for an answer holds it for some seconds."""
    client = half_closed()
    client.send(frame(Kind.SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
    assert client.answer() == ["headers 1 200"]
    assert client.tick(MOST_TICKS) == []
    assert client.tick() == ["reset 1 CANCEL"]
    assert client.held == (0, 0, 0)


UNFINISHED = {
    "a preface": (b"PRI * HT", "goaway 0 SETTINGS_TIMEOUT"),
    "nothing at all": (b"", "goaway 0 SETTINGS_TIMEOUT"),
    "no SETTINGS": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "goaway 0 PROTOCOL_ERROR"),
}


@pytest.mark.parametrize("case", UNFINISHED)
def test_a_peer_that_never_says_hello(case):
    """It is given up after some seconds."""
    data, words = UNFINISHED[case]
    client = Client(greeted=False)
    client.heard()
    client.send(data)
    assert client.tick(MOST_TICKS) == []
    assert client.tick() == [words]


@pytest.mark.parametrize("data", [head(1), head(1, block()[:30], flags=0) + head(1)])
def test_a_frame_that_comes_one_byte_a_second_is_given_up(data):
    """And so is a header block that is not ended."""
    client = Client()
    for at in range(MOST_TICKS + 1):
        client.send(data[at : at + 1])
        heard = client.tick()
    assert heard == ["goaway 0 PROTOCOL_ERROR"]


def test_a_header_block_in_drops_is_given_up():
    """CONTINUATIONs are whole frames, and their block is not: it has its ten seconds."""
    client = Client()
    client.send(head(1, block()[:1], flags=0))
    for at in range(1, 1 + MOST_TICKS):
        assert client.tick() == []
        client.send(frame(Kind.CONTINUATION, 0, 1, block()[at : at + 1]))
    assert client.tick() == ["goaway 0 PROTOCOL_ERROR"]


def test_a_slow_peer_that_goes_on_is_not_given_up():
    """Each second the rest of a frame and half of the next."""
    client = Client()
    client.send(head(1, OTHER_HEAD), body(1, message(b"x"), end=False)[:7])
    for _ in range(3 * MOST_TICKS):
        assert client.tick() == []
        client.send((body(1, message(b"x"), end=False) * 2)[7:22])
    assert not client.connection.over
