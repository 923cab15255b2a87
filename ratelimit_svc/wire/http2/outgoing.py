"""The way out: answers → frames, as far as the peer's windows let them (RFC 9113 §5.2). Pure: `parts` is what to send.

What may not be sent waits with its stream and holds up no other; frames other than DATA never wait. gRPC's words for an
answer (response headers, messages with their prefix, trailers) are written here.
"""

from urllib.parse import quote

from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.frames import (
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    ConnectionFault,
    ErrorCode,
    Kind,
    StreamFault,
    frame,
    reset,
    window_update,
)
from ratelimit_svc.wire.http2.heads import ENCODINGS, Refusal
from ratelimit_svc.wire.http2.messages import PREFIX, PREFIX_BYTES
from ratelimit_svc.wire.http2.streams import Stream, Streams

LONGEST_TEXT = 4096
"""Bytes of a `grpc-message` before it is percent-encoded: it repeats what callers sent, and has to fit into one frame."""

_BEGIN = (b":status", b"200"), (b"content-type", b"application/grpc")
_BEGIN_BLOCK = fields.block(*_BEGIN)
_OK_BLOCK = fields.block((b"grpc-status", b"0"))

_BEGIN_FRAME = frame(Kind.HEADERS, END_HEADERS, 0, _BEGIN_BLOCK)
_OK_FRAME = frame(Kind.HEADERS, END_HEADERS | END_STREAM, 0, _OK_BLOCK)
_BEGIN_START, _OK_START = _BEGIN_FRAME[:5], _OK_FRAME[:5]
"""These frames up to the number of their stream."""


class Outgoing:
    """One connection's way out."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.parts: list[bytes] = []
        """What to send, in order; whoever sends it empties the list."""
        self.window = FIRST_WINDOW
        self.first_window = FIRST_WINDOW
        """Of streams to come: the peer's SETTINGS_INITIAL_WINDOW_SIZE."""
        self.held = False
        """The peer does not read what was sent: who makes more than a few answers waits."""
        self._table_update = b""
        """What the next header block begins with."""
        self._table_told = False
        self._blocked: dict[int, Stream] = {}
        """Streams whose DATA waits for the connection's window, the longest waiting first. Those that have no window of their
        own are not among them: there may be very many, and each WINDOW_UPDATE would look at all in vain."""

    # ── gRPC's answers ────────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, stream: Stream, message: bytes) -> None:
        """Say all of a unary call's answer: headers, one message, and OK."""
        size = PREFIX_BYTES + len(message)
        if not stream.ended or size > stream.window or size > self.window or size > LARGEST_FRAME or self._table_update:
            self.message(stream, message)
            self.end(stream)
            return
        if self._streams.open.pop(stream.number, None) is None:  # it was reset meanwhile
            return
        self.window -= size
        number = stream.number.to_bytes(4, "big")
        data = size.to_bytes(3, "big"), b"\0\0", number, PREFIX.pack(0, len(message)), message
        self.parts.append(b"".join((_BEGIN_START, number, _BEGIN_BLOCK, *data, _OK_START, number, _OK_BLOCK)))

    def message(self, stream: Stream, message: bytes) -> None:
        """Say one message, after the headers if it is the first."""
        if stream.number not in self._streams.open or stream.answered:
            return
        if not stream.begun:
            stream.begun = True
            self._headers(stream, _BEGIN_BLOCK)
        self._data(stream, PREFIX.pack(0, len(message)) + message)

    def end(self, stream: Stream, status: GrpcStatus = GrpcStatus.OK, text: str = "") -> None:
        """Say how a call ends: in trailers, or where there was no message before in the headers (Trailers-Only)."""
        if stream.number not in self._streams.open or stream.answered:
            return
        trailers = [] if stream.begun else list(_BEGIN)
        trailers.append((b"grpc-status", b"%d" % status))
        if text:
            trailers.append((b"grpc-message", percent_encoded(text)))
        if status is GrpcStatus.UNIMPLEMENTED:
            trailers.append((b"grpc-accept-encoding", b",".join(ENCODINGS)))
        self._last(stream, fields.block(*trailers))

    def refuse(self, stream: Stream, refusal: Refusal) -> None:
        """Say why a request is no call of ours."""
        if refusal.http_status == 200:
            self.end(stream, refusal.grpc_status, refusal.text)
            return
        text = refusal.text.encode()
        head = [(b":status", b"%d" % refusal.http_status), (b"content-type", b"text/plain")]
        if refusal.http_status == 405:
            head.append((b"allow", b"POST"))
        stream.begun = True
        self._headers(stream, fields.block(*head, (b"content-length", b"%d" % len(text))))
        self._data(stream, text)
        self._last(stream, b"")

    # ── header blocks ─────────────────────────────────────────────────────────────────────────────────────────────────

    def shrink_table(self) -> None:
        """Note that the peer wants a smaller table than it has by itself. We never put anything into it, but have to say so: once, and
        first thing in the next block that is sent (RFC 7541 §4.2). No size that it may want later is smaller than none.
        """
        if not self._table_told:
            self._table_told, self._table_update = True, fields.NO_TABLE

    def _headers(self, stream: Stream, block: bytes, flags: int = 0) -> None:
        block, self._table_update = self._table_update + block, b""
        self.parts.append(frame(Kind.HEADERS, END_HEADERS | flags, stream.number, block))

    # ── flow control ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _data(self, stream: Stream, data: bytes) -> None:
        if stream.unsent is None:
            stream.unsent = bytearray()
        stream.unsent += data
        self._push(stream)

    def _last(self, stream: Stream, last: bytes) -> None:
        stream.answered, stream.last = True, last
        self._push(stream)

    def _push(self, stream: Stream) -> None:
        """Send what may be sent of a stream."""
        unsent = stream.unsent
        while unsent and (length := min(len(unsent), stream.window, self.window, LARGEST_FRAME)) > 0:
            self.parts.append(frame(Kind.DATA, 0, stream.number, bytes(unsent[:length])))
            del unsent[:length]
            stream.window -= length
            self.window -= length
        if unsent and stream.window > 0:
            self._blocked[stream.number] = stream
            return
        self._blocked.pop(stream.number, None)
        if not unsent and stream.last is not None:
            if stream.last:
                self._headers(stream, stream.last, END_STREAM)
            else:
                self.parts.append(frame(Kind.DATA, END_STREAM, stream.number))
            stream.last = None
            self._ended(stream)

    def _ended(self, stream: Stream) -> None:
        """Our side is ended. A call that is answered needs no more messages; other requests are heard out, not held."""
        if stream.ended:
            self._streams.close(stream)
        elif stream.head.refusal is None or stream.head.refusal.http_status == 200:
            self.reset(stream, ErrorCode.NO_ERROR)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once."""
        self.forget(stream)
        self._streams.note_reset(stream.number)
        self.parts.append(reset(stream.number, code))

    def forget(self, stream: Stream) -> None:
        """Drop a stream and what waits to be sent on it."""
        self._blocked.pop(stream.number, None)
        stream.unsent, stream.last, stream.answered = None, None, True
        self._streams.close(stream)

    def widen(self, increment: int) -> None:
        """Note that the peer takes so much more on the connection.

        Raises:
            ConnectionFault: that is too much.
        """
        self.window += increment
        if self.window > LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is beyond 2^31-1")
        while self._blocked and self.window > 0:
            self._push(self._blocked.pop(next(iter(self._blocked))))  # to the end, if it is blocked again

    def widen_stream(self, stream: Stream, increment: int) -> None:
        """Note that the peer takes so much more on a stream.

        Raises:
            StreamFault: that is too much.
        """
        stream.window += increment
        if stream.window > LARGEST_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "the stream's window is beyond 2^31-1")
        if stream.unsent:
            self._push(stream)

    def resize(self, first_window: int) -> None:
        """Note another SETTINGS_INITIAL_WINDOW_SIZE; windows may become negative (§6.9.2).

        Raises:
            ConnectionFault: a stream's window is too large then.
        """
        change, self.first_window = first_window - self.first_window, first_window
        for stream in list(self._streams.open.values()):
            try:
                self.widen_stream(stream, change)
            except StreamFault as fault:
                raise ConnectionFault(fault.code, fault.text) from None

    def take_room(self, number: int, increment: int) -> None:
        """Tell the peer that we take so much more, on a stream or (0) on the connection."""
        self.parts.append(window_update(number, increment))


def percent_encoded(text: str) -> bytes:
    """Return a `grpc-message`: UTF-8, with what is not printable ASCII, and `%`, percent-encoded (gRPC over HTTP2)."""
    return quote(text.encode("utf-8", "replace")[:LONGEST_TEXT], safe=_PRINTABLE).encode()


_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
