"""A socket: its bytes to `connection`, the requests to the limiter or to calls, the answers back. The rim; asyncio's protocol.

What is written in one turn of the loop, by however many answers, is one write a connection.
"""

import asyncio
from contextlib import suppress
from functools import partial
from random import uniform
from typing import cast

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2.call import Call
from ratelimit_svc.wire.http2.connection import Connection
from ratelimit_svc.wire.http2.frames import ErrorCode
from ratelimit_svc.wire.http2.requests import Event, What
from ratelimit_svc.wire.http2.shared import TOO_MANY_CALLS, Shared
from ratelimit_svc.wire.http2.streams import Stream

ALIVE_AFTER, DEAD_AFTER = 60, 80
"""Seconds without a word from a peer, after which it is asked whether it is there, and given up."""
MOST_READ = 16 * 1024
"""Bytes of one peer that are seen to in one turn of the loop; what came beyond waits while others have their turn. uvloop reads as
much as there is, megabytes of it."""
MOST_STUCK = 10
"""Seconds that a peer may leave unread what we wrote (more than the kernel and the transport hold)."""
MOST_IDLE = 10
"""Seconds that a peer may say nothing, and have nothing under way, when connections become scarce."""
LAST_WORDS = 2
"""Seconds that a peer has to read why its connection ends, and that a drain waits for it to have read the first GOAWAY."""


class Peer(asyncio.Protocol):
    """One connection's socket."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._submit = shared.submit
        self.connection = Connection(
            shared.blocks,
            shared.unfinished,
            most_message_bytes=shared.options.max_message_bytes,
            crowd=shared.crowd,
        )
        self._outgoing = self.connection.outgoing
        self._to_write = False
        self._silent = self._stuck = self._leaving = 0
        """Seconds that the peer has said nothing, read nothing, and that we wait for it to leave."""
        self._calls: set[Call] = set()
        self._unread = bytearray()
        """What came and was not seen to yet."""
        self._came_at = 0.0
        """When, by the loop's clock in s: callers' time runs meanwhile."""
        self._paused = self._said_last = self._has_turn = False
        self._age: asyncio.TimerHandle | None = None

    # ── the socket ────────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        tls = self._shared.options.tls
        if tls is None and self._shared.full:  # with TLS, its handshake had a place already
            self.connection.drop()
            self._transport.abort()
            return
        self._shared.peers.add(self)
        if tls is not None:
            session = transport.get_extra_info("ssl_object")
            if session.selected_alpn_protocol() != "h2" or not tls.admits(session.getpeercert() or {}):
                self.connection.drop()  # what it has said already is not read, either
                self._transport.abort()
                return
        self.flush()  # the connection says hello by itself
        if self._shared.stopping:
            self.drain()
        age_s = self._shared.options.max_connection_age_s
        if age_s is not None:
            self._age = self._shared.loop.call_later(age_s * uniform(0.9, 1.1), self._retire)  # noqa: S311 — no secret

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        self._shared.peers.discard(self)
        if self._age is not None:
            self._age.cancel()
        for event in self.connection.drop():
            self._happened(event)
        self._outgoing.parts.clear()
        self._unread.clear()
        if not self._shared.peers:
            self._shared.on_last()

    def pause_writing(self) -> None:
        """Read no more from a peer that does not read."""
        self._paused = self._outgoing.held = True
        self._listen()

    def resume_writing(self) -> None:
        self._paused = self._outgoing.held = False
        self._stuck = 0
        self._listen()
        self._look()

    def _listen(self) -> None:
        """Read more, or no more for now: not from a peer that does not read, and what came goes before what is to come."""
        if self._transport.is_closing():
            return
        if not (self._paused or self._unread):
            self._transport.resume_reading()
            return
        self._transport.pause_reading()
        if not (self._paused or self._has_turn):
            self._has_turn = True
            self._shared.loop.call_soon(self._read_some)

    def data_received(self, data: bytes) -> None:
        self._silent = 0
        if len(data) <= MOST_READ and not self._unread:
            self._read(data)
            return
        if not self._unread:
            self._came_at = self._shared.loop.time()
        self._unread += data
        self._listen()

    def _read_some(self) -> None:
        """See to a part of what came, and to the next in another turn."""
        self._has_turn = False
        if self._paused:
            return
        data = bytes(self._unread[:MOST_READ])
        del self._unread[:MOST_READ]  # moves nothing: what is left begins later
        self._read(data, self._shared.loop.time() - self._came_at)
        if self.connection.over:
            self._unread.clear()
        self._listen()

    def _read(self, data: bytes, waited_s: float = 0) -> None:
        asks, events = self.connection.receive(data)
        if events:  # some may be gone already: what nobody waits for is not asked
            asks = [ask for ask in asks if ask[0].number in self.connection.streams.open]
        for stream, message in asks:
            timeout_s = stream.head.timeout_s
            if timeout_s is not None and waited_s:
                timeout_s = max(timeout_s - waited_s, 0)
            try:
                stream.work = self._submit(message, partial(self._answer, stream), timeout_s=timeout_s)
            except Exception as error:  # noqa: BLE001 — a defect: its caller shall not wait in vain
                self._shared.loop.call_exception_handler({"message": "a request failed", "exception": error})
                self._outgoing.end(stream, GrpcStatus.UNKNOWN, "internal error")
        for event in events:
            self._happened(event)
        self._look()
        if self._outgoing.parts:
            self.flush()

    def flush(self) -> None:
        """Write soon."""
        if not self._to_write:
            self._to_write = True
            self._shared.flush(self)

    def write(self) -> None:
        """Write what there is, and close if that is the end."""
        self._to_write = False
        parts = self._outgoing.parts
        if parts and not (self._said_last or self._transport.is_closing()):
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
        parts.clear()
        if self.connection.over or self.connection.done:
            self._end()

    def _end(self) -> None:
        """Let the peer read why, before the socket is closed: closing at once could take the words back."""
        if self._said_last or self._transport.is_closing():
            return
        self._said_last, self._leaving = True, 1
        if self.connection.fault is not ErrorCode.NO_ERROR:
            self._shared.faults[self.connection.fault] += 1
        if not self._transport.can_write_eof():  # TLS
            self._transport.close()
            return
        with suppress(OSError):  # the peer was faster
            self._transport.write_eof()

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, stream: Stream, result: bytes | RateLimitError) -> None:
        """Answer a request; called by the limiter."""
        stream.work = None  # which leads back here: what goes round in a circle only the collector finds
        if isinstance(result, bytes):
            self._outgoing.answer(stream, result)
        else:
            self._outgoing.end(stream, *rls.status_of(result))
        if not self._to_write:
            self._to_write = True
            self._shared.flush(self)

    def _happened(self, event: Event) -> None:
        what, stream, messages = event
        call = stream.work
        if what is What.BEGAN:
            self._begin(stream)
        elif isinstance(call, Call):
            if what is What.CAME:
                call.came(messages)
            elif what is What.ENDED:
                call.ended()
            else:
                call.cancel()
        elif what is What.GONE and call is not None:
            stream.work = None
            self._shared.limiter.cancel(call)

    def _begin(self, stream: Stream) -> None:
        method = self._shared.methods.get(stream.head.path)
        if method is None:
            self._outgoing.end(stream, GrpcStatus.UNIMPLEMENTED, f"unknown method {stream.head.path:.100}")
        elif not self._shared.has_place(self):
            self._outgoing.end(stream, TOO_MANY_CALLS.status, TOO_MANY_CALLS.text)
        else:
            call = stream.work = Call(
                method,
                stream,
                requests=self.connection.requests,
                outgoing=self._outgoing,
                unfinished=self._shared.unfinished,
                flush=self.flush,
            )
            self._shared.calls[call] = self
            self._calls.add(call)
            call.task.add_done_callback(lambda _: self._over(call))

    def _over(self, call: Call) -> None:
        self._shared.calls.pop(call, None)
        self._calls.discard(call)
        call.let_go()

    def _look(self) -> None:
        """Let calls that wait for the peer to read see whether it has."""
        for call in self._calls:
            call.look()

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self) -> None:
        """Note that a second has passed."""
        for event in self.connection.tick(self._shared.patience):
            self._happened(event)
        self._silent += 1
        self._stuck += self._paused
        self._leaving += self._leaving > 0
        if self._silent == ALIVE_AFTER:
            self.connection.control.ask_alive()
        elif self._silent >= DEAD_AFTER or self._stuck > MOST_STUCK:
            self._transport.abort()
        elif self._silent > MOST_IDLE and self._shared.crowded and not self.connection.streams.open:
            self.drain()
        if self._leaving > LAST_WORDS:
            if self._said_last:
                self._transport.abort()
            else:
                self.connection.control.leave()
        if self._outgoing.parts or self.connection.done:
            self.flush()

    def drain(self) -> None:
        """Have the peer go elsewhere; close when its calls are answered."""
        if self._leaving == 0:
            self._leaving = 1
            self.connection.drain()
            self.flush()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self.connection.fail(ErrorCode.NO_ERROR, "the time to drain is over")
        self.write()
        self.cut_off()

    def cut_off(self) -> None:
        """Close without a word."""
        self._transport.abort()

    def _retire(self) -> None:
        """Drain a connection that is old."""
        self.drain()
        grace_s = self._shared.options.max_connection_age_grace_s
        if grace_s is not None:
            self._age = self._shared.loop.call_later(grace_s, self.abort)
