"""A real client's state machine at the other end: whatever the windows and the order, each answer is exact, and nobody starves."""

from dataclasses import dataclass, field

import h2.events
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_svc.wire.http2 import frames
from ratelimit_svc.wire.http2.connection import Connection
from ratelimit_svc.wire.http2.frames import Kind
from ratelimit_svc.wire.http2.memory import Blocks
from ratelimit_svc.wire.http2.messages import Unfinished
from ratelimit_svc.wire.http2.requests import What
from ratelimit_svc.wire.http2.streams import Stream
from tests.http2_fuzz.ours import QUICK_PATH
from tests.http2_fuzz.pieces import frames_of
from tests.http2_fuzz.wires import messages

ECHO = "/test.Echo/Echo"
PLENTY = 2**20


@dataclass
class Call:
    """One call, as the client sees it."""

    unary: bool
    sent: list[bytes]
    unsent: bytes = b""
    ended: bool = False
    """The client has said its last."""
    status: bytes = b""
    data: bytes = b""
    grpc_status: bytes = b""

    def expected(self) -> bytes:
        """What has to come back."""
        return messages([reply(self.sent[0])] if self.unary else [reply(one) for one in self.sent], compressed=False)


def reply(message: bytes) -> bytes:
    """Return what the server makes of a message: something longer."""
    return message * 3 + b"!"


@dataclass
class Exchange:
    """Two ends and what is under way between them."""

    first_window: int
    """As the client said last."""
    calls: dict[int, Call] = field(default_factory=dict)
    to_server: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)
    asks: list[tuple[Stream, bytes]] = field(default_factory=list)
    echoes: list[tuple[Stream, bytes | None]] = field(default_factory=list)
    """Messages to send back; None: the end."""

    def __post_init__(self) -> None:
        self.client = H2Connection(H2Configuration(header_encoding=None))
        first = {SettingCodes.INITIAL_WINDOW_SIZE: self.first_window, SettingCodes.ENABLE_PUSH: 0}
        self.client.local_settings = Settings(client=True, initial_values=first)
        self.client.initiate_connection()
        self.unfinished = Unfinished()
        self.server = Connection(Blocks(QUICK_PATH), self.unfinished, most_message_bytes=PLENTY)

    # ── what may happen, in any order ─────────────────────────────────────────────────────────────────────────────────

    def call(self, number: int, *, unary: bool, sent: list[bytes], huffman: bool) -> None:
        """Begin a call."""
        call = self.calls[number] = Call(unary, sent, messages(sent, compressed=False))
        head = [(":method", "POST"), (":scheme", "http"), (":path", QUICK_PATH if unary else ECHO), (":authority", "x")]
        more = [
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("traceparent", f"00-{number * huffman:032x}-01"),
        ]
        self.client.send_headers(number, head + more)
        if not call.unsent:
            self.say(number, 0)

    def say(self, which: int, length: int) -> None:
        """Send some of a request."""
        number, call = self._one(which, lambda call: not call.ended)
        if call is None:
            return
        room = self.client.local_flow_control_window(number)
        length = min(length, room, len(call.unsent), 16384)
        part, call.unsent = call.unsent[:length], call.unsent[length:]
        call.ended = not call.unsent
        if part or call.ended:
            self.client.send_data(number, part, end_stream=call.ended)

    def carry(self, length: int) -> None:
        """Bring bytes to the server."""
        self.to_server += self.client.data_to_send()
        data = bytes(self.to_server[:length])
        del self.to_server[:length]
        asks, events = self.server.receive(data)
        self.asks += asks
        for what, stream, came in events:
            assert what is not What.GONE
            self.echoes += [(stream, message) for message in came]
            if what is What.ENDED:
                self.echoes.append((stream, None))

    def answer(self, which: int) -> None:
        """Answer something: a request, or the next of what has to be echoed."""
        if self.asks and (which % 2 or not self.echoes):
            stream, message = self.asks.pop(which % len(self.asks))
            self.server.outgoing.answer(stream, reply(message))
        elif self.echoes:
            stream, echo = self.echoes.pop(0)
            if echo is None:
                self.server.outgoing.end(stream)
            else:
                self.server.outgoing.message(stream, reply(echo))

    def bring(self, length: int) -> None:
        """Bring bytes to the client."""
        parts = self.server.outgoing.parts
        self.to_client += b"".join(parts)
        parts.clear()
        data = bytes(self.to_client[:length])
        del self.to_client[:length]
        for event in self.client.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    self.calls[event.stream_id].status = dict(event.headers)[b":status"]
                case h2.events.DataReceived():
                    self.calls[event.stream_id].data += event.data
                case h2.events.TrailersReceived():
                    assert not self.calls[event.stream_id].grpc_status
                    self.calls[event.stream_id].grpc_status = dict(event.headers)[b"grpc-status"]
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    raise AssertionError(event)

    def grant(self, which: int, length: int) -> None:
        """Let the server send more, on one stream or on the connection."""
        if which % 3 == 0:
            self.client.increment_flow_control_window(length)
            return
        number, call = self._one(which // 3, lambda call: not call.grpc_status)
        if call is not None:
            try:
                self.client.increment_flow_control_window(length, number)
            except StreamClosedError:
                assert call.grpc_status

    def resize(self, window: int) -> None:
        """Change the windows of all streams. Larger ones only, once there are some: h2's client can bear no negative window."""
        if self.calls and window < self.first_window:
            return
        self.first_window = window
        self.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})

    def _one(self, which: int, fits) -> tuple[int, Call | None]:
        found = [(number, call) for number, call in self.calls.items() if fits(call)]
        return found[which % len(found)] if found else (0, None)

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self) -> None:
        """Go on until all is said; each round lets a little more through, so that the number of rounds is bounded."""
        for _ in range(400):
            for number, call in self.calls.items():
                if not call.ended:
                    self.say(list(self.calls).index(number), 0)
            for which in range(len(self.calls)):
                self.say(which, PLENTY)
            self.carry(PLENTY)
            while self.asks or self.echoes:
                self.answer(1)
            self.bring(PLENTY)
            if all(call.grpc_status for call in self.calls.values()):
                break
            for which in range(len(self.calls)):
                self.grant(3 * which + 1, 5000)
            self.grant(0, 5000)


sizes = st.sampled_from((0, 1, 2, 5, 9, 10, 60, 500, 16384, PLENTY))
whiches = st.integers(0, 30)
some_messages = st.lists(st.binary(max_size=6) | st.integers(0, 9000).map(bytes), min_size=1, max_size=4)
actions = st.one_of(
    st.tuples(st.just("call"), st.booleans(), some_messages, st.booleans()),
    st.tuples(st.just("say"), whiches, sizes),
    st.tuples(st.just("carry"), sizes),
    st.tuples(st.just("carry"), st.just(PLENTY)),
    st.tuples(st.just("answer"), whiches),
    st.tuples(st.just("bring"), sizes),
    st.tuples(st.just("grant"), whiches, st.integers(1, 3000)),
    st.tuples(st.just("resize"), st.sampled_from((0, 1, 100, 65535))),
)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from((0, 1, 7, 1000, 65535)), st.lists(actions, min_size=5, max_size=40))
def test_each_answer_is_exact(first_window, steps):
    """Calls of both kinds over windows of any size: what comes back is what has to, whole, with OK, and once."""
    exchange = Exchange(first_window)
    number = 1
    for name, *how in steps:
        if name == "call":
            unary, sent, huffman = how
            exchange.call(number, unary=unary, sent=sent[:1] if unary else sent, huffman=huffman)
            number += 2
        else:
            getattr(exchange, name)(*how)
    exchange.finish()
    for call in exchange.calls.values():
        assert (call.status, call.data, call.grpc_status) == (b"200", call.expected(), b"0")
    assert not exchange.server.over
    assert not exchange.server.streams.open
    assert exchange.unfinished.bytes == 0


@pytest.mark.parametrize("room", [1, 100, 16384])
def test_no_stream_waits_while_others_are_served(room: int):
    """Room on the connection goes round: answers that are all too long for it get on at the same pace."""
    exchange = Exchange(2**31 - 1)
    for number in (1, 3, 5, 7):
        exchange.call(number, unary=True, sent=[bytes(100_000)], huffman=False)
    for which in (0, 1, 2, 3) * 20:
        exchange.say(which, PLENTY)
        exchange.carry(PLENTY)
        exchange.bring(PLENTY)
    while exchange.asks:
        exchange.answer(1)
    exchange.bring(PLENTY)
    sent = dict.fromkeys((1, 3, 5, 7), 0)
    for _ in range(8):
        exchange.server.receive(frames.window_update(0, room))
        for frame in frames_of(b"".join(exchange.server.outgoing.parts)):
            sent[frame.number] += len(frame.payload) * (frame.kind == Kind.DATA)
        exchange.server.outgoing.parts.clear()
    assert set(sent.values()) == {2 * room}
