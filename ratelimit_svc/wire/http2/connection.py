"""One connection: bytes in → requests; answers go through `outgoing`. RFC 9113 for a server; no socket, no clock, no asyncio.

Rule 1: the usual frames, a call's HEADERS and its one DATA, are read where they lie, in one pass over all that came; whatever
        is unusual about a frame sends it to its kind's method.
Rule 2: `receive` never raises. What breaks the protocol ends its stream (RST_STREAM) or the connection (GOAWAY, and `over`);
        and so does what is only too much (`calm`).
Rule 3: memory is bounded by the numbers here and in `fields`, `memory`, `messages`, whatever is sent or left unread.
"""

from typing import NamedTuple

from ratelimit_svc.wire.http2 import frames
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.control import Control
from ratelimit_svc.wire.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    FRAME,
    HEAD_BYTES,
    LARGEST_FRAME,
    LARGEST_STREAM,
    PREFACE,
    ConnectionFault,
    ErrorCode,
    Fault,
    Kind,
    StreamFault,
)
from ratelimit_svc.wire.http2.heads import check_trailers, malformed
from ratelimit_svc.wire.http2.memory import Blocks
from ratelimit_svc.wire.http2.messages import PREFIX, PREFIX_BYTES, Unfinished
from ratelimit_svc.wire.http2.outgoing import Outgoing
from ratelimit_svc.wire.http2.requests import MOST_TICKS, Ask, Event, Requests
from ratelimit_svc.wire.http2.streams import Crowd, Stream, Streams
from ratelimit_svc.wire.http2.traced import table

WINDOW = 2**20
"""Bytes of DATA that may be under way to us on one connection. They count as taken when they are read: `messages` bounds what is
held of them."""
LONGEST_BLOCK = 16 * 1024
"""Bytes of a header block, in however many frames (CONTINUATION flood, VU#421644)."""

DATA, HEADERS = int(Kind.DATA), int(Kind.HEADERS)


class _Block(NamedTuple):
    """A header block of which more is to come."""

    number: int
    ended: bool
    data: bytearray
    fault: Fault | None


class Connection:
    """One peer, from its preface on.

    Args:
        blocks: the memory of header blocks, shared by all connections; it knows which method's calls come whole.
        unfinished: counts what is held of messages, on all connections.
        most_message_bytes: of one message.
        crowd: counts streams, on all connections; None: there is no other.
    """

    def __init__(
        self, blocks: Blocks, unfinished: Unfinished, *, most_message_bytes: int, crowd: Crowd | None = None
    ) -> None:
        self.streams = Streams(crowd or Crowd())
        self.outgoing = Outgoing(self.streams)
        self.calm = Calm()
        self.requests = Requests(self.streams, self.outgoing, self.calm, unfinished, most_message_bytes)
        self.over = False
        """Nothing that comes is read any more; `outgoing` may hold a last word."""
        self.fault = ErrorCode.NO_ERROR
        """Why, if that was the peer's doing."""
        self._table = table(blocks, self.calm)
        self.control = Control(self.outgoing, self.streams, self._table, self.calm)
        self._rest = b""
        self._greeted = False
        self._expecting = True
        """The next frame has to be a certain one: the first SETTINGS, or a CONTINUATION."""
        self._block: _Block | None = None
        self._room = WINDOW
        """Bytes of DATA that the peer may still send."""
        self._owed = 0
        """Bytes that it sent, and that it was not given room for anew."""
        self._quick = min(LARGEST_FRAME, PREFIX_BYTES + most_message_bytes)
        """Bytes of DATA that may hold a message by itself."""
        self._ticks = 0
        """Seconds that the connection waits for the rest of something."""
        self.control.hello()
        self.outgoing.take_room(0, WINDOW - FIRST_WINDOW)

    # ── bytes in ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def receive(self, data: bytes) -> tuple[list[Ask], list[Event]]:
        """Read what came. Return the requests that are whole now, and what else happened since; look at the requests first."""
        if self.over:
            return [], []
        if self._rest:
            data, self._rest = self._rest + data, b""
        try:
            at = 0 if self._greeted else self._greet(data)
            if self._greeted:
                at = self._read(data, at)
            self._rest = data[at:]
            if at and not self._expecting:
                self._ticks = 0
            if self._owed >= WINDOW // 4:
                self.outgoing.take_room(0, self._owed)
                self._room += self._owed
                self._owed = 0
        except ConnectionFault as fault:
            self.fail(fault.code, fault.text)
        self.streams.count()
        self.calm.earn(self.requests.new())
        return self.requests.take(), self._take_events()

    def _greet(self, data: bytes) -> int:
        """Look for the preface (§3.4). Return where the frames begin."""
        if data[: len(PREFACE)] != PREFACE[: len(data)]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2 without upgrade; no preface came")
        if len(data) < len(PREFACE):
            return 0
        self._greeted = True
        return len(PREFACE)

    def _read(self, data: bytes, at: int) -> int:
        """Read all whole frames from `at` on. Return where the first begins that is not whole."""
        end = len(data)
        streams, open_, quick_head, longest = self.streams, self.streams.open, self._table.quick, self._quick
        most = self.streams.most
        while end - at >= HEAD_BYTES:
            high, low, kind, flags, number = FRAME.unpack_from(data, at)
            length = high << 8 | low
            if length > LARGEST_FRAME:
                text = f"a frame of {length} bytes; at most {LARGEST_FRAME}"
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, text)
            begin, after = at + HEAD_BYTES, at + HEAD_BYTES + length
            if after > end:
                break
            at = after
            if self._expecting:
                self._check_expected(kind, flags, number & LARGEST_STREAM)
            elif kind == DATA:
                stream = open_.get(number)
                if stream is not None and flags == END_STREAM and stream.quick and PREFIX_BYTES <= length <= longest:
                    compressed, size = PREFIX.unpack_from(data, begin)
                    whole = compressed == 0 and size == length - PREFIX_BYTES and length <= self._room
                    if whole and stream.head.content_length in (None, length):
                        self._room -= length
                        self._owed += length
                        stream.ended, stream.quick = True, False
                        self.requests.whole.append((stream, data[begin + PREFIX_BYTES : after]))
                        continue
            elif (
                kind == HEADERS and flags == END_HEADERS and streams.last < number <= streams.last_taken and number & 1
            ):
                head = quick_head(data[begin:after])
                if head is not None and head.quick and len(open_) < most:
                    streams.last = number
                    open_[number] = Stream(number, head, self.outgoing.first_window)
                    continue
            self._frame(kind, flags, number & LARGEST_STREAM, data[begin:after])
        return at

    def _check_expected(self, kind: int, flags: int, number: int) -> None:
        if self._block is None:
            if kind != Kind.SETTINGS or flags & ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame has to be SETTINGS")
            self._expecting = False
        elif kind != Kind.CONTINUATION or number != self._block.number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is not ended, and CONTINUATION has to come")

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """See to a frame that is not one of the usual."""
        self.calm.earn(self.requests.new())  # before it costs: they may all have come in one read
        try:
            if kind == Kind.DATA:
                self._on_data(flags, number, payload)
            elif kind == Kind.HEADERS:
                self._on_headers(flags, number, payload)
            elif kind == Kind.CONTINUATION:
                self._on_continuation(flags, number, payload)
            elif kind == Kind.RST_STREAM:
                self._on_reset(number, payload)
            else:
                self.control.frame(kind, flags, number, payload)
        except StreamFault as fault:
            self._reset(number, fault)

    # ── header blocks ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        """§6.2."""
        if number % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {number}, which is no client's")
        data, fault = frames.header_block(flags, number, payload)
        block = _Block(number, bool(flags & END_STREAM), bytearray(data), fault)
        if flags & END_HEADERS:
            self._on_block(block)
        else:
            self._block, self._expecting = block, True

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        """§6.10."""
        block = self._block
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"CONTINUATION on stream {number} continues nothing")
        self.calm.frame()
        block.data.extend(payload)
        if len(block.data) > LONGEST_BLOCK:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block has more than {LONGEST_BLOCK} bytes")
        if flags & END_HEADERS:
            self._block, self._expecting = None, False
            self._on_block(block)

    def _on_block(self, block: _Block) -> None:
        """See to a whole header block: it is decoded whatever becomes of its stream, since the table has to keep up."""
        number, ended, data = block.number, block.ended, bytes(block.data)
        stream = self.streams.open.get(number)
        if stream is not None:
            self._on_trailers(stream, data, block.fault, ended=ended)
            return
        new = number > self.streams.last
        if not new and not self.streams.was_reset(number):
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {number}, which is closed")
        if not new or number > self.streams.last_taken:
            self.calm.frame()
            self._table.fields(data)
            return
        self.streams.last = number
        head = self._table.head(data)
        if block.fault is not None:
            raise StreamFault(*block.fault)
        if len(self.streams.open) >= (most := self.streams.most):
            raise StreamFault(ErrorCode.REFUSED_STREAM, f"more than {most} streams")
        self.requests.begin(number, head, ended=ended)
        if head.refusal is None:
            self.control.ask_for_no_table()

    def _on_trailers(self, stream: Stream, block: bytes, fault: Fault | None, *, ended: bool) -> None:
        """§8.1: the fields after the messages."""
        found = self._table.fields(block)
        if fault is not None:
            raise StreamFault(*fault)
        if stream.ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after the end of the stream")
        if not ended:
            raise malformed("HEADERS after the first that do not end the stream")
        check_trailers(found)
        stream.quick = False
        self.requests.end(stream)

    # ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        """§6.1."""
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0")
        self._room -= len(payload)
        self._owed += len(payload)
        if self._room < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window has room for")
        data = frames.unpadded(flags, payload)
        stream = self.streams.open.get(number)
        if stream is not None:
            self.requests.data(stream, data, len(payload), ended=bool(flags & END_STREAM))
            return
        self.streams.check_not_idle(number, "DATA")
        if number <= self.streams.last_taken and not self.streams.was_reset(number):
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"DATA on stream {number}, which is closed")
        self.calm.frame()

    def _on_reset(self, number: int, payload: bytes) -> None:
        """§6.4."""
        self.streams.check_not_idle(number, "RST_STREAM")
        frames.check_length(Kind.RST_STREAM, payload, 4)
        stream = self.streams.open.get(number)
        self.calm.reset(asked=stream is not None and stream.asked)
        if stream is not None:
            self.outgoing.forget(stream)
            self.requests.gone(stream)

    def _reset(self, number: int, fault: StreamFault) -> None:
        """End a stream for what the peer did on it."""
        if number > self.streams.last or number % 2 == 0:  # idle, and may not be reset
            raise ConnectionFault(fault.code, fault.text)
        stream = self.streams.open.get(number)
        self.calm.reset(asked=stream is not None and stream.asked)
        if stream is not None:
            self.outgoing.reset(stream, fault.code)
            self.requests.gone(stream)
        else:
            self.streams.note_reset(number)
            self.outgoing.parts.append(frames.reset(number, fault.code))

    # ── time, and the end ─────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, patience: int = MOST_TICKS) -> list[Event]:
        """Note that a second has passed: what should have come by now is not waited for. Return what happened to calls."""
        self.calm.tick()
        self.streams.tick()
        self.requests.tick(patience)
        self.streams.count()
        if self._rest or self._expecting:
            self._ticks += 1
            if self._ticks > MOST_TICKS:
                code = ErrorCode.PROTOCOL_ERROR if self._greeted else ErrorCode.SETTINGS_TIMEOUT
                self.fail(code, "the rest of a frame, a header block or the preface did not come in time")
        return self._take_events()

    def drain(self) -> None:
        """Ask the peer to go elsewhere with new calls: at first without refusing any, since some are under way (§6.8)."""
        if self._greeted:
            self.control.drain()
        else:
            self.control.leave()

    @property
    def done(self) -> bool:
        """Whether one side leaves, and nothing is under way."""
        return self.control.leaving and not self.streams.open

    def fail(self, code: ErrorCode, text: str) -> None:
        """End the connection, for what the peer did or did not do."""
        if not self.over:
            self.fault = code
            self.outgoing.parts.append(frames.goaway(self.streams.last, code, text))
            self._forget_all()

    def drop(self) -> list[Event]:
        """Forget all calls: the connection is lost. Return what happens to them."""
        self._forget_all()
        return self._take_events()

    def _forget_all(self) -> None:
        self.over = True
        self._rest, self._block = b"", None
        self.requests.take()
        for stream in list(self.streams.open.values()):
            self.outgoing.forget(stream)
            self.requests.gone(stream)
        self.streams.count()

    def _take_events(self) -> list[Event]:
        events, self.requests.events = self.requests.events, []
        return events
