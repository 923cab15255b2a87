"""What all connections of one engine share: the memory of header blocks, and what is bounded for the whole process."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.waiting import Waiting
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.calls import CallError, GrpcStatus, Method
from ratelimit_svc.wire.engine import EngineOptions
from ratelimit_svc.wire.http2.call import Call
from ratelimit_svc.wire.http2.frames import ErrorCode
from ratelimit_svc.wire.http2.memory import Blocks
from ratelimit_svc.wire.http2.messages import Unfinished
from ratelimit_svc.wire.http2.requests import FEW_TICKS, MOST_TICKS
from ratelimit_svc.wire.http2.streams import MANY_STREAMS, Crowd
from ratelimit_svc.wire.http2.traced import TracedLimiter

if TYPE_CHECKING:
    from ratelimit_svc.wire.http2.handshake import Handshake
    from ratelimit_svc.wire.http2.peer import Peer

MOST_CALLS = 1000
"""Calls that have a task of their own, in the whole process."""

CROWD = MANY_STREAMS // 2
"""Streams in the whole process, beyond which requests that do not come to their end are not waited for."""
TOO_MANY_CALLS = CallError(GrpcStatus.RESOURCE_EXHAUSTED, f"more than {MOST_CALLS} calls are under way")


@dataclass(slots=True)
class Shared:
    """What all connections of an engine have in common."""

    limiter: Limiter
    methods: Mapping[str, Method]
    options: EngineOptions
    loop: asyncio.AbstractEventLoop
    on_last: Callable[[], None]
    """Called when the last connection has gone."""
    most_connections: int
    blocks: Blocks = field(init=False)
    unfinished: Unfinished = field(default_factory=Unfinished)
    crowd: Crowd = field(default_factory=Crowd)
    peers: set["Peer"] = field(default_factory=set)
    handshakes: set["Handshake"] = field(default_factory=set)
    """Connections that are no peers yet."""
    calls: dict[Call, "Peer"] = field(default_factory=dict)
    """Those with a task of their own, the oldest first, and whose they are."""
    faults: Counter[ErrorCode] = field(default_factory=Counter)
    """Connections ended for what their peers did."""
    many_streams: int = CROWD
    stopping: bool = False
    """Who connects now, its handshake may have begun before, is told so at once."""
    patience: int = MOST_TICKS
    """Seconds that a request may take to come."""
    _unwritten: list["Peer"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blocks = Blocks(f"/{rls.SERVICE}/{rls.METHOD}", self.options.traces)

    @property
    def submit(self) -> Callable[..., Waiting | None]:
        """What connections ask: the limiter, or who stands before it where spans are asked for."""
        traces = self.options.traces
        return self.limiter.submit if traces is None else TracedLimiter(self.limiter, traces).submit

    @property
    def crowded(self) -> bool:
        """Whether connections are scarce."""
        return len(self.peers) + len(self.handshakes) > self.most_connections * 7 // 8

    @property
    def full(self) -> bool:
        """Whether there is no place for another connection."""
        return len(self.peers) + len(self.handshakes) >= self.most_connections

    @property
    def streams(self) -> int:
        """How many calls are under way."""
        return sum(len(peer.connection.streams.open) for peer in list(self.peers))

    def tick(self) -> None:
        """Note that a second has passed."""
        self.patience = MOST_TICKS if self.streams < self.many_streams else FEW_TICKS

    def flush(self, peer: "Peer") -> None:
        """Write what a connection has to say, when this turn of the loop has said all."""
        if not self._unwritten:
            self.loop.call_soon(self._write)
        self._unwritten.append(peer)

    def has_place(self, peer: "Peer") -> bool:
        """Return whether a connection may have one more call with a task. Where there are too many, the connection that has the
        most loses its oldest: one that opens very many watches takes the place of nobody else's health checks.
        """
        if len(self.calls) < MOST_CALLS:
            return True
        counts = Counter(self.calls.values())
        [(hog, most)] = counts.most_common(1)
        if counts[peer] >= most:
            return False
        oldest = next(call for call, whose in self.calls.items() if whose is hog)
        del self.calls[oldest]
        oldest.end(TOO_MANY_CALLS)
        return True

    def _write(self) -> None:
        peers, self._unwritten = self._unwritten, []
        for peer in peers:
            try:
                peer.write()
            except Exception as error:  # noqa: BLE001 — a defect: the others have something to say, too
                self.loop.call_exception_handler({"message": "a connection could not write", "exception": error})
                peer.cut_off()
