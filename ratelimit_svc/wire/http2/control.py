"""The frames of a connection itself: SETTINGS, PING, WINDOW_UPDATE, GOAWAY, PRIORITY (RFC 9113 §6). Pure."""

from operator import itemgetter

from ratelimit_svc.wire.http2 import frames
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.fields import LONGEST_LIST
from ratelimit_svc.wire.http2.frames import (
    ACK,
    FIRST_TABLE,
    LARGEST_FRAME,
    LARGEST_STREAM,
    LARGEST_WINDOW,
    ConnectionFault,
    ErrorCode,
    Kind,
    Setting,
    StreamFault,
)
from ratelimit_svc.wire.http2.outgoing import Outgoing
from ratelimit_svc.wire.http2.streams import MOST_STREAMS, Streams
from ratelimit_svc.wire.http2.table import Table

HELLO = {Setting.MAX_CONCURRENT_STREAMS: MOST_STREAMS, Setting.MAX_HEADER_LIST_SIZE: LONGEST_LIST}

DRAIN_PING, ALIVE_PING = b"draining", b"anybody?"
"""What we ask back. When the first comes, the peer has seen that we drain, and what it sent before has come."""


class Control:
    """One connection's."""

    def __init__(self, outgoing: Outgoing, streams: Streams, table: Table, calm: Calm) -> None:
        self._outgoing, self._streams, self._table, self._calm = outgoing, streams, table, calm
        self.leaving = False
        """One side has said that no new calls will come, or be taken."""
        self._unacknowledged = 0
        """SETTINGS of ours that the peer has not acknowledged."""
        self._no_table_asked = self._draining = False

    def frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """See to a frame.

        Raises:
            ConnectionFault, StreamFault: it breaks the protocol, or is one too many.
        """
        self._calm.frame()
        if kind == Kind.SETTINGS:
            self._on_settings(flags, number, payload)
        elif kind == Kind.PING:
            self._on_ping(flags, number, payload)
        elif kind == Kind.WINDOW_UPDATE:
            self._on_window_update(number, payload)
        elif kind == Kind.GOAWAY:
            self._on_goaway(number, payload)
        elif kind == Kind.PRIORITY:
            self._on_priority(number, payload)
        elif kind == Kind.PUSH_PROMISE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE is not for clients")
        # else an extension's, which we do not speak (§5.5)

    def hello(self) -> None:
        """Say what we take, in the first frame of ours."""
        self._settings(HELLO)

    def ask_for_no_table(self) -> None:
        """Ask the peer to compress without a table: once, with its first call. Not in our first SETTINGS, because probes (h2spec)
        look at those and use a table all the same.
        """
        if not self._no_table_asked:
            self._no_table_asked = True
            self._settings({Setting.HEADER_TABLE_SIZE: 0})

    def _settings(self, values: dict[Setting, int]) -> None:
        self._unacknowledged += 1
        self._outgoing.parts.append(frames.settings(values))

    def drain(self) -> None:
        """Ask the peer to go elsewhere with new calls, without refusing those that are under way to us (§6.8)."""
        if not self.leaving:
            self._draining = True
            self._outgoing.parts.append(frames.goaway(LARGEST_STREAM, ErrorCode.NO_ERROR, "draining"))
            self._outgoing.parts.append(frames.frame(Kind.PING, 0, 0, DRAIN_PING))

    def leave(self) -> None:
        """Take no new calls any more."""
        if self._streams.last_taken == LARGEST_STREAM:
            self._streams.last_taken = self._streams.last
            self._outgoing.parts.append(frames.goaway(self._streams.last, ErrorCode.NO_ERROR, "draining"))
        self.leaving = True

    def ask_alive(self) -> None:
        """Ask the peer whether it is there."""
        self._outgoing.parts.append(frames.frame(Kind.PING, 0, 0, ALIVE_PING))

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        """§6.5."""
        _check_no_stream(Kind.SETTINGS, number)
        if flags & ACK:
            frames.check_length(Kind.SETTINGS, payload, 0)
            self._unacknowledged -= 1
            self._table.acknowledged = self._no_table_asked and self._unacknowledged <= 0
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS whose length is no multiple of 6")
        self._calm.frame(len(payload) // 6)
        before = len(self._outgoing.parts)
        # the table's size is the first by name: a larger window may set trailers free, and they come after the acknowledgement
        for name, value in sorted(frames.settings_in(payload), key=itemgetter(0)):
            self._apply(name, value)
        # what is applied is acknowledged, and before the DATA that a larger window sets free
        self._outgoing.parts.insert(before, frames.frame(Kind.SETTINGS, ACK, 0))

    def _apply(self, name: int, value: int) -> None:
        if name == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH is {value}; it is 0 or 1")
        if name == Setting.INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is beyond 2^31-1")
            self._calm.resized(len(self._streams.open))
            self._outgoing.resize(value)
        elif name == Setting.HEADER_TABLE_SIZE and value < FIRST_TABLE:
            self._outgoing.shrink_table()
        elif name == Setting.MAX_FRAME_SIZE and not LARGEST_FRAME <= value < 2**24:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE is {value}; 2^14 … 2^24-1")
        # larger frames are allowed, not asked for

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        """§6.7."""
        _check_no_stream(Kind.PING, number)
        frames.check_length(Kind.PING, payload, 8)
        if not flags & ACK:
            self._outgoing.parts.append(frames.frame(Kind.PING, ACK, 0, payload))
        elif self._draining and payload == DRAIN_PING:
            self.leave()

    def _on_window_update(self, number: int, payload: bytes) -> None:
        """§6.9."""
        frames.check_length(Kind.WINDOW_UPDATE, payload, 4)
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if number == 0:
            if increment == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self._outgoing.widen(increment)
            return
        stream = self._streams.open.get(number)
        if stream is None:
            self._streams.check_not_idle(number, "WINDOW_UPDATE")
        elif increment == 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        else:
            self._outgoing.widen_stream(stream, increment)

    def _on_goaway(self, number: int, payload: bytes) -> None:
        """§6.8."""
        _check_no_stream(Kind.GOAWAY, number)
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")
        self.leaving = True

    def _on_priority(self, number: int, payload: bytes) -> None:
        """§6.3: checked, and ignored."""
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if (fault := frames.priority_fault(number, payload)) is not None:
            raise StreamFault(*fault)


def _check_no_stream(kind: Kind, number: int) -> None:
    if number != 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{kind.name} on stream {number}")
