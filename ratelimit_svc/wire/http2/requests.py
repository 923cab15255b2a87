"""Requests: what comes on a stream, from its head to its end → whole requests, and what happens to calls. Pure.

A call of the RateLimitService has one message, and comes out whole (`Ask`). Of other calls, which may go on for ever, each thing
that happens comes out by itself (`Event`).
"""

from enum import Enum
from typing import NamedTuple

from ratelimit_svc.wire.calls import CallError, GrpcStatus
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.frames import FIRST_WINDOW, ErrorCode, StreamFault
from ratelimit_svc.wire.http2.heads import Head, malformed
from ratelimit_svc.wire.http2.messages import Messages, Unfinished
from ratelimit_svc.wire.http2.outgoing import Outgoing
from ratelimit_svc.wire.http2.streams import Stream, Streams

MOST_TICKS, FEW_TICKS = 10, 1
"""Seconds that a request may be on its way, and anything else that has to be whole: a frame, a header block, the preface; and a
request when there are very many."""

TINY = 256
"""Bytes of DATA that should have completed a message: read one by one, they would take more of our time than of their sender's."""

Ask = tuple[Stream, bytes]
"""A whole unary request: its stream and its message."""


class What(Enum):
    """What may happen to a call that does not come whole; GONE also to one that did."""

    BEGAN = "began"
    CAME = "came"
    """Messages came."""
    ENDED = "ended"
    """No more will come."""
    GONE = "gone"
    """Its stream is reset, or answered for what was sent on it: nobody waits for an answer."""


class Event(NamedTuple):
    """Something that happened to a call."""

    what: What
    stream: Stream
    messages: tuple[bytes, ...] = ()


class Requests:
    """One connection's.

    Args:
        streams: opened and ended here.
        outgoing: told what is answered at once.
        calm: told what comes.
        unfinished: counts what is held of messages, on all connections.
        most_message_bytes: of one message.
    """

    def __init__(
        self, streams: Streams, outgoing: Outgoing, calm: Calm, unfinished: Unfinished, most_message_bytes: int
    ) -> None:
        self._streams, self._outgoing, self._calm = streams, outgoing, calm
        self._unfinished, self._most_message_bytes = unfinished, most_message_bytes
        self.whole: list[Ask] = []
        self._counted = 0
        self.events: list[Event] = []
        """Whoever reads it puts a new one in its place."""

    def new(self) -> int:
        """Return how many requests have become whole since this was asked last."""
        counted, self._counted = self._counted, len(self.whole)
        return self._counted - counted

    def take(self) -> list[Ask]:
        """Return the requests that are whole; they are kept no longer."""
        whole, self.whole, self._counted = self.whole, [], 0
        return whole

    def begin(self, number: int, head: Head, *, ended: bool) -> None:
        """Open a stream.

        Raises:
            StreamFault: the request is malformed.
        """
        if ended and head.content_length:
            raise malformed("content-length is not 0, and nothing comes")
        stream = self._streams.open[number] = Stream(number, head, self._outgoing.first_window)
        stream.ended = ended
        if head.refusal is not None:
            stream.quick = False
            self._calm.reset()
            self._outgoing.refuse(stream, head.refusal)
        elif not head.unary:
            self._calm.call()
            self.events.append(Event(What.BEGAN, stream))
            if ended:
                self.events.append(Event(What.ENDED, stream))
        elif ended:
            self._fail(stream, CallError(GrpcStatus.UNIMPLEMENTED, "one message is expected, none was sent"))

    def data(self, stream: Stream, data: bytes, length: int, *, ended: bool) -> None:
        """Take the DATA of an open stream; `length` is with its padding.

        Raises:
            StreamFault: it may not come, or is more or less than was said.
        """
        stream.quick = False
        if stream.ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after the end of the stream")
        stream.room -= length
        if stream.room < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window has room for")
        stream.received += len(data)
        if stream.head.content_length is not None and stream.received > stream.head.content_length:
            raise malformed("more DATA than content-length says")
        if ended:  # before anything is answered, so that no RST_STREAM follows
            self._note_end(stream)
        if stream.answered:
            self._calm.frame()
        else:
            self._feed(stream, data)
            stream.owed += length
            self.give_room(stream)
        if ended and stream.number in self._streams.open:
            self._complete(stream)

    def give_room(self, stream: Stream) -> None:
        """Let the peer go on sending, unless the call has not read what came."""
        if stream.owed >= FIRST_WINDOW // 2 and not (stream.full or stream.answered or stream.ended):
            self._outgoing.take_room(stream.number, stream.owed)
            stream.room += stream.owed
            stream.owed = 0

    def end(self, stream: Stream) -> None:
        """Note that the peer has said its last on a stream.

        Raises:
            StreamFault: less came than was said.
        """
        self._note_end(stream)
        self._complete(stream)

    def _note_end(self, stream: Stream) -> None:
        if stream.head.content_length not in (None, stream.received):
            raise malformed("less DATA than content-length says")
        stream.ended = True

    def _complete(self, stream: Stream) -> None:
        """See to a call of which all has come."""
        if stream.answered:
            if stream.last is None:
                self._streams.close(stream)
        elif stream.messages is not None and stream.messages.partial:
            self._fail(stream, CallError(GrpcStatus.INTERNAL, "the last message is cut short"))
        elif not stream.head.unary:
            self.events.append(Event(What.ENDED, stream))
        elif stream.message is None:
            self._fail(stream, CallError(GrpcStatus.UNIMPLEMENTED, "one message is expected, none was sent"))
        else:
            self.whole.append((stream, stream.message))
            stream.message = None
            if stream.messages is not None:
                stream.messages.drop()

    def gone(self, stream: Stream) -> None:
        """Note that nobody waits for an answer any more."""
        self.events.append(Event(What.GONE, stream))

    def tick(self, patience: int) -> None:
        """Note that a second has passed: requests have to end, and answers that are whole to be let out, in `patience` seconds.
        A call that streams may be silent for as long as it likes, but not within a message, nor while much is not read since the
        peer lets no answers out.
        """
        for stream in list(self._streams.open.values()):
            held = stream.full or (stream.messages is not None and stream.messages.partial)
            if stream.answered or held or (stream.head.unary and not stream.ended):
                stream.ticks += 1
                if stream.ticks > patience:
                    self._outgoing.reset(stream, ErrorCode.CANCEL)
                    self.gone(stream)

    def _feed(self, stream: Stream, data: bytes) -> None:
        """Read messages out of DATA."""
        if stream.messages is None:
            stream.messages = Messages(stream.head.encoding, self._most_message_bytes, self._unfinished, self._calm)
        try:
            found = stream.messages.feed(data)
            if found:
                self._found(stream, stream.messages, found)
            elif len(data) < TINY and not stream.ended:
                self._calm.frame()
        except CallError as error:
            self._fail(stream, error)

    def _found(self, stream: Stream, messages: Messages, found: list[bytes]) -> None:
        """Take whole messages."""
        if not stream.head.unary:
            stream.ticks = 0
            self._calm.earn(len(found))
            self.events.append(Event(What.CAME, stream, tuple(found)))
            return
        if len(found) + (stream.message is not None) > 1:
            raise CallError(GrpcStatus.UNIMPLEMENTED, "one message is expected, several were sent")
        stream.message = found[0]
        if not stream.ended:
            messages.keep(found[0])

    def _fail(self, stream: Stream, error: CallError) -> None:
        """End a call for what was sent on it."""
        self._outgoing.end(stream, error.status, error.text)
        self.gone(stream)
