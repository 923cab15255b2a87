"""Streams: those that are open, and those that we reset lately (RFC 9113 §5.1). Pure."""

from typing import Any

from ratelimit_svc.wire.http2.frames import FIRST_WINDOW, LARGEST_STREAM, ConnectionFault, ErrorCode
from ratelimit_svc.wire.http2.heads import Head
from ratelimit_svc.wire.http2.messages import Messages

MOST_STREAMS = 1024
"""Calls under way on one connection (SETTINGS_MAX_CONCURRENT_STREAMS). Envoy opens another connection for more."""
MANY_STREAMS, FEW_STREAMS = 200_000, 16
"""Streams in the whole process (some 50 MB), beyond which a connection may have only a few."""

MOST_REMEMBERED, REMEMBERED_S = MOST_STREAMS, 5
"""Streams that we reset and whose peer may not know yet: what it still sends on them is no fault. As many as may be open, since a
tick may reset all; and so many seconds at least."""


class Stream:
    """One call. What is unusual has its place in the class until it occurs: there are very many of these."""

    ended = False
    """The peer has said its last (half-closed, remote)."""
    begun = False
    """Our response has begun."""
    answered = False
    """We have said our last, or will once it may be sent (half-closed, local)."""
    room = FIRST_WINDOW
    """Bytes of DATA that the peer may still send."""
    owed = 0
    """Bytes that it sent, and that it was not given room for anew."""
    received = 0
    """Bytes of DATA so far, without padding."""
    messages: Messages | None = None
    message: bytes | None = None
    """The one of a unary call that is not ended yet; `messages` counts it."""
    full = False
    """More came than the call has read."""
    unsent: bytearray | None = None
    """DATA for which the peer has no room yet."""
    last: bytes | None = None
    """What ends our side, once all DATA is sent: the block of the trailers, or nothing more than the end."""
    ticks = 0
    """Seconds that the request, or the message of a call that streams, has been unfinished, or that too much was not read."""
    work: Any = None
    """What the socket's side keeps with a call that is under way."""

    def __init__(self, number: int, head: Head, window: int) -> None:
        self.number = number
        self.head = head
        self.quick = head.quick
        """Nothing unusual has come on it yet."""
        self.window = window
        """Bytes of DATA that we may still send."""

    @property
    def asked(self) -> bool:
        """Whether it was a whole request of the RateLimitService's, and is not answered."""
        return self.ended and self.head.unary and not self.answered

    def __repr__(self) -> str:
        return f"<Stream {self.number} {self.head.path}>"


class Crowd:
    """How many streams are open on all connections of the process, and so how many one may have.

    Each connection counts its own as often as it reads and each second; between, what was answered counts still.
    """

    __slots__ = ("most", "streams")

    def __init__(self, most: int = MANY_STREAMS) -> None:
        self.streams = 0
        self.most = most


class Streams:
    """One connection's."""

    __slots__ = ("_age", "_counted", "_crowd", "_older", "_reset", "last", "last_taken", "open")

    def __init__(self, crowd: Crowd) -> None:
        self._crowd, self._counted = crowd, 0
        self.open: dict[int, Stream] = {}
        """Those of which at least one side has more to say."""
        self.last = 0
        """The highest that the peer has used."""
        self.last_taken = LARGEST_STREAM
        """Those beyond are not seen to: we have said that we leave."""
        self._reset: set[int] = set()
        self._older: set[int] = set()
        """Those that we reset lately, in two generations."""
        self._age = 0
        """Seconds of the younger."""

    @property
    def most(self) -> int:
        """How many there may be now."""
        return MOST_STREAMS if self._crowd.streams < self._crowd.most else FEW_STREAMS

    def count(self) -> None:
        """Tell the crowd how many there are now."""
        now = len(self.open)
        self._crowd.streams += now - self._counted
        self._counted = now

    def close(self, stream: Stream) -> None:
        """Forget a stream."""
        self.open.pop(stream.number, None)
        if stream.messages is not None:
            stream.messages.drop()

    def note_reset(self, number: int) -> None:
        """Note that we reset this one."""
        if len(self._reset) >= MOST_REMEMBERED:
            self._grow_old()
        self._reset.add(number)

    def tick(self) -> None:
        """Note that a second has passed: peers know by now what we reset some seconds ago."""
        self._age += 1
        if self._age >= REMEMBERED_S:
            self._grow_old()

    def _grow_old(self) -> None:
        self._older, self._reset, self._age = self._reset, set(), 0

    def check_not_idle(self, number: int, what: str) -> None:
        """Look at the number of a frame that may not be the first on its stream.

        Raises:
            ConnectionFault: it is.
        """
        if number % 2 == 0 or self.last < number <= self.last_taken:  # those of even numbers are ours, and we open none
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {number}, which is idle")

    def was_reset(self, number: int) -> bool:
        """Return whether we reset this one lately."""
        return number in self._reset or number in self._older
