"""Whatever comes, and in whatever order: the core raises nothing, what it says is sound, and in the end it holds nothing."""

import gzip

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2.frames import Kind, frame
from tests.http2 import client as its
from tests.http2.client import OTHER, Client, block, body, head, message

NUMBERS = st.sampled_from([1, 3, 5, 7, 9])
BLOCKS = st.sampled_from(
    [
        block(),
        block({":path": OTHER}),
        block({":method": "GET"}),
        block(content_length=6),
        block(grpc_encoding="gzip"),
        block({"x": "1"}),
        b"\x20" + block(),
        b"\x82",
        b"\0\1a\1b",
    ]
)
DATA = st.sampled_from([b"", message(b"x"), message(b"x") * 2, message(b"x")[:3], b"\0\0\1\0\0" + b"y" * 9000, message(gzip.compress(b"z" * 5000), 1)])  # fmt: skip
FRAMES = st.one_of(
    st.builds(head, NUMBERS, BLOCKS, end=st.booleans()),
    st.builds(body, NUMBERS, DATA, end=st.booleans()),
    st.builds(its.window, st.sampled_from([0, 1, 3, 5]), st.sampled_from([0, 1, 100, 2**31 - 1])),
    st.builds(its.reset, NUMBERS),
    st.builds(lambda size: its.settings(INITIAL_WINDOW_SIZE=size), st.sampled_from([0, 5, 2**16, 2**31 - 1])),
    st.just(its.SETTINGS_ACK),
    st.builds(frame, st.sampled_from(list(Kind)), st.integers(0, 255), NUMBERS, st.binary(max_size=12)),
)
STEPS = st.one_of(
    FRAMES,
    FRAMES,
    FRAMES,
    st.sampled_from(["answer", "answer large", "fail", "say", "tick", "drain", "leave", "cut"]),
)


def do(client: Client, step: str) -> None:
    """One thing that happens on our side."""
    connection = client.connection
    match step:
        case "answer" | "answer large" if client.asks:
            client.answer(b"a" * (70_000 if step == "answer large" else 5))
        case "fail" if client.asks:
            client.outgoing.end(client.asks.pop()[0], GrpcStatus.UNKNOWN, "ä")
        case "say":
            for stream in list(client.streams.open.values()):
                if not stream.head.unary:
                    client.outgoing.message(stream, b"b" * 20_000)
        case "tick":
            client.tick(6)
        case "drain":
            connection.drain()
        case "leave":
            connection.control.leave()


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=40), st.integers(1, 400))
def test_nothing_is_left(steps, size):
    """Frames sound and unsound, whole and cut; answers, failures and time between them."""
    client = Client()
    queued = b""
    for step in steps:
        if isinstance(step, bytes):
            queued += step
            continue
        for at in range(0, len(queued), size):
            client.send(queued[at : at + size])
        queued = b""
        do(client, step)
        client.heard()  # reads all that was said: whole frames, headers that can be decoded
    client.send(queued)
    streams = client.streams.open
    assert client.unfinished.bytes >= 0
    assert all(stream.unsent for stream in client.outgoing._blocked.values())
    assert set(client.outgoing._blocked) <= set(streams)
    client.connection.drop()
    assert client.held == (0, 0, 0)
    gone = [event.stream.number for event in client.events if event.what.value == "gone"]
    assert len(gone) == len(set(gone)), "told once"
