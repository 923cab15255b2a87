"""The core, fed, and what came of it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpack import Decoder

from ratelimit_svc.wire import rls
from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2.connection import Connection
from ratelimit_svc.wire.http2.frames import ACK, END_STREAM, ErrorCode, Kind
from ratelimit_svc.wire.http2.memory import Blocks
from ratelimit_svc.wire.http2.messages import Unfinished
from ratelimit_svc.wire.http2.requests import Ask, Event, What
from tests.http2_fuzz.pieces import REST_KIND, Act, Piece, frames_of, message_of

if TYPE_CHECKING:
    from ratelimit_svc.wire.http2.streams import Stream

QUICK_PATH = f"/{rls.SERVICE}/{rls.METHOD}"
MOST_MESSAGE_BYTES = 4096


@dataclass
class Answer:
    """What was said on one stream."""

    blocks: list[tuple[bytes, bytes]] = field(default_factory=list)
    """`:status` and `grpc-status` of each header block; empty for none."""
    data: bytes = b""
    ended: bool = False


@dataclass
class Step:
    """What a server said and did about one piece."""

    over: int | None = None
    """The connection has ended, with this code."""
    why: str = field(default="", compare=False)
    """And what h2 says about that."""
    resets: list[tuple[int, int]] = field(default_factory=list)
    acks: int = 0
    pongs: list[bytes] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    asks: list[tuple[int, str, float | None, bytes]] = field(default_factory=list)
    """Whole requests: stream, path, seconds, message."""
    calls: list[tuple[int, str, tuple[bytes, ...]]] = field(default_factory=list)
    """What happened to other calls, without their going: stream, what, messages."""


class Said:
    """Reads what a server says."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 2**32  # whatever the peer said, it lets us use

    def read(self, data: bytes) -> Step:
        """Return what it said; what it did is for others to fill in."""
        step = Step()
        answers: dict[int, Answer] = defaultdict(Answer)
        for frame in frames_of(data):
            assert frame.kind != REST_KIND, "half a frame"
            if frame.kind == Kind.GOAWAY and (code := int.from_bytes(frame.payload[4:8], "big")):
                step.over = code
            elif frame.kind == Kind.RST_STREAM:
                step.resets.append((frame.number, int.from_bytes(frame.payload, "big")))
            elif frame.kind == Kind.SETTINGS:
                step.acks += frame.has(ACK)
            elif frame.kind == Kind.PING and frame.has(ACK):
                step.pongs.append(frame.payload)
            elif frame.kind in (Kind.HEADERS, Kind.DATA):
                self._answer(answers[frame.number], frame)
        step.answers = dict(answers)
        return step

    def _answer(self, answer: Answer, frame: Piece) -> None:
        assert not answer.ended, "something after the end"
        if frame.kind == Kind.DATA:
            answer.data += frame.payload
        else:
            fields = dict(self._decoder.decode(frame.payload, raw=True))
            answer.blocks.append((fields.get(b":status", b""), fields.get(b"grpc-status", b"")))
        answer.ended = frame.has(END_STREAM)


class Ours:
    """The core with a server around it that does what acts say."""

    def __init__(self, blocks: Blocks) -> None:
        self.unfinished = Unfinished()
        self.connection = Connection(blocks, self.unfinished, most_message_bytes=MOST_MESSAGE_BYTES)
        self.asks: list[Stream] = []
        self.calls: list[Stream] = []
        """Those that wait for an answer."""
        self._said = Said()
        self.out = b""
        """What the last step sent."""

    def feed(self, parts: Iterable[bytes]) -> Step:
        """Feed some bytes, part by part."""
        asks: list[Ask] = []
        events: list[Event] = []
        for part in parts:
            more, happened = self.connection.receive(part)
            asks += more
            events += happened
        return self._step(asks, events)

    def act(self, act: Piece) -> Step:
        """Do something to one of the calls, or to the connection."""
        match act.kind:
            case Act.ANSWER if self.asks:
                self.connection.outgoing.answer(self.asks.pop(act.number % len(self.asks)), message_of(act))
            case Act.SAY if self.calls:
                self.connection.outgoing.message(self.calls[act.number % len(self.calls)], message_of(act))
            case Act.END if self.calls:
                status = GrpcStatus(act.flags % 17)
                self.connection.outgoing.end(self.calls.pop(act.number % len(self.calls)), status, "so it is")
            case Act.RESET if waiting := self.asks or self.calls:
                self.connection.outgoing.reset(waiting.pop(act.number % len(waiting)), ErrorCode.CANCEL)
            case Act.TICK:
                return self._step([], self.connection.tick())
            case Act.DRAIN:
                self.connection.drain()
            case Act.LEAVE:
                self.connection.control.leave()
            case Act.ASK_ALIVE:
                self.connection.control.ask_alive()
        return self._step([], [])

    def _step(self, asks: list[Ask], events: list[Event]) -> Step:
        parts = self.connection.outgoing.parts
        self.out = b"".join(parts)
        parts.clear()
        step = self._said.read(self.out)
        self._answers_that_come_late(events)
        gone = [event.stream for event in events if event.what is What.GONE]
        for stream, message in asks:
            assert stream in gone or (stream.number in self.connection.streams.open and not stream.answered)
            self.asks.append(stream)
            step.asks.append((stream.number, stream.head.path, stream.head.timeout_s, message))
        for what, stream, messages in events:
            if what is not What.GONE:
                step.calls.append((stream.number, what.value, messages))
            if what is What.BEGAN:
                self.calls.append(stream)
            elif what is What.GONE:
                self.asks, self.calls = ([one for one in some if one is not stream] for some in (self.asks, self.calls))
        return step

    def _answers_that_come_late(self, events: list[Event]) -> None:
        """Whoever still answers a call that is gone says nothing."""
        for what, stream, _ in events:
            if what is What.GONE:
                self.connection.outgoing.message(stream, b"late")
                self.connection.outgoing.end(stream)
                self.connection.outgoing.answer(stream, b"late")
        assert not self.connection.outgoing.parts
