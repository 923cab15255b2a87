"""One connection that keeps a number of requests under way: a reply read is a request sent.

Rule 1: one read's frames in one pass, one write for all requests that follow from them. It must cost less than the server.
Rule 2: a reply is what ends its stream after a DATA frame with a RateLimitResponse, whose overall code is its first field.
        Response header blocks are not decoded: what ends without such a message is an error, whatever its status says.
Rule 3: flow control is honoured both ways. A message never needs more than one frame or one stream's first window.
"""

import asyncio
from time import perf_counter
from typing import cast

from tests.bench import frames
from tests.bench.frames import DATA, HEADER, HEADER_SIZE, HEADERS, STREAM
from tests.bench.workloads import Feed

RECEIVE_WINDOW = 16 << 20
"""What a server may send before it is told that we have read: replies never wait for us."""
ERROR, OK, OVER_LIMIT = 0, 1, 2
"""The two codes of a RateLimitResponse that are answers; UNKNOWN is none."""


class Tally:
    """What all connections of a load were answered."""

    def __init__(self) -> None:
        self.answers = [0, 0, 0]
        """By code: errors, OK, OVER_LIMIT."""
        self.latencies_s: list[float] = []
        """Of each reply, from the write of its request to the read that ended it; not of requests without a reply."""
        self.lost = 0
        """Connections that the server ended, or told to go."""
        self.last_read_s = 0.0
        self.longest_silence_s = 0.0
        """The longest time without a reply on any connection: a stall of the server, or ours."""

    def restart(self) -> None:
        """Forget what was counted so far: it was to warm up."""
        self.answers[:] = [0, 0, 0]
        self.latencies_s.clear()
        self.last_read_s, self.longest_silence_s = perf_counter(), 0.0

    def copy(self) -> "Tally":
        """Return what was counted so far."""
        seen = Tally()
        seen.answers, seen.latencies_s = list(self.answers), list(self.latencies_s)
        seen.longest_silence_s = self.longest_silence_s
        return seen

    @property
    def total(self) -> int:
        """Requests that are over."""
        return sum(self.answers)


class Connection(asyncio.Protocol):
    """A client's end. `quiet` is set when nothing is under way and nothing more will be sent; `closed` when it is lost."""

    def __init__(self, feed: Feed, tally: Tally, *, in_flight: int, requests: int | None = None) -> None:
        """Send at most `requests`; None: until `stop`."""
        self._feed = feed
        self.tally = tally
        self._in_flight = in_flight
        self._left = requests
        self._transport: asyncio.Transport | None = None
        self._started: dict[int, float] = {}
        self._codes: dict[int, int] = {}
        self._pieces: dict[int, bytes] = {}
        """Messages that came in several frames, so far."""
        self._rest = b""
        self._next_stream = 1
        self._window = frames.DEFAULT_WINDOW
        """What we may send on the connection."""
        self._read_since_update = 0
        self._leaving = False
        """We end it, or have been told to go."""
        self._ready = False
        """The server's SETTINGS have come: we know what it allows."""
        self._blocks = frames.Blocks(b"", b"")
        self._begins = True
        """The next block is the first since the server said what table it offers."""
        self.quiet = asyncio.Event()
        self.closed = asyncio.Event()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello: no pushes, and room for replies."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            frames.PREFACE
            + frames.frame(frames.SETTINGS, 0, 0, frames.setting(0x2, 0))
            + frames.frame(frames.WINDOW_UPDATE, 0, 0, STREAM.pack(RECEIVE_WINDOW))
        )

    def data_received(self, data: bytes) -> None:
        """Count the replies in one pass, and send as many requests."""
        now = perf_counter()
        if self._rest:
            data = self._rest + data
        tally, codes, started = self.tally, self._codes, self._started
        took, answers = tally.latencies_s.append, tally.answers
        at, end, done, unpack = 0, len(data), 0, HEADER.unpack_from
        while end - at >= HEADER_SIZE:
            upper, lower, kind, flags, stream = unpack(data, at)
            length = upper << 8 | lower
            following = at + HEADER_SIZE + length
            if following > end:
                break
            if kind == HEADERS:
                if flags & frames.END_STREAM and (began := started.pop(stream, None)) is not None:
                    took(now - began)
                    answers[codes.pop(stream, ERROR)] += 1
                    done += 1
            elif kind == DATA:
                self._read_since_update += length
                # not compressed; field 1, a varint of one byte
                if (
                    length >= 7
                    and not flags
                    and data[at + 9] == 0
                    and data[at + 14] == 8
                    and data[at + 15] <= OVER_LIMIT
                ):
                    codes[stream] = data[at + 15]
                else:
                    self._odd_data(stream, flags, data[at + HEADER_SIZE : following])
            else:
                self._control(kind, flags, stream, data[at + HEADER_SIZE : following])
            at = following
        self._rest = data[at:]
        if done:
            tally.longest_silence_s = max(tally.longest_silence_s, now - tally.last_read_s)
            tally.last_read_s = now
        if self._read_since_update > RECEIVE_WINDOW // 2:
            self._tell_read()
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """What was under way has no answer."""
        self._fail(list(self._started))
        self._left = 0
        self.tally.lost += not self._leaving
        self.quiet.set()
        self.closed.set()

    # what the load calls

    def stop(self) -> None:
        """Send nothing more; `quiet` once the replies are there."""
        self._left = 0
        self._look_quiet()

    def close(self) -> None:
        """Say goodbye and close."""
        self._leaving = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames.frame(frames.GOAWAY, 0, 0, STREAM.pack(0) + STREAM.pack(frames.NO_ERROR)))
            self._transport.close()

    def abandon(self) -> None:
        """Be gone, as a client that has crashed; what is under way is nobody's any more."""
        self._leaving = True
        self._started.clear()
        assert self._transport is not None
        self._transport.abort()

    def break_off(self, part: float) -> None:
        """Send this part of a request's bytes, and close."""
        self._leaving = True
        assert self._transport is not None
        if not self._transport.is_closing():
            whole = self._requests(range(self._next_stream, self._next_stream + 2, 2))
            self._transport.write(whole[: 1 + int(part * (len(whole) - 1))])
            self._transport.close()

    # sending

    def _send(self) -> None:
        """Send as many requests as are wanted and allowed, in one write."""
        wanted = self._in_flight - len(self._started)
        if self._left is not None:
            wanted = min(wanted, self._left)
        feed = self._feed
        if wanted <= 0 or not self._ready or (wanted := min(wanted, self._window // feed.message_size)) <= 0:
            self._look_quiet()
            return
        streams = range(self._next_stream, self._next_stream + 2 * wanted, 2)
        written = self._requests(streams)
        self._next_stream = streams.stop
        self._window -= wanted * feed.message_size
        if self._left is not None:
            self._left -= wanted
        self._started.update(dict.fromkeys(streams, perf_counter()))
        assert self._transport is not None
        self._transport.write(written)

    def _requests(self, streams: range) -> bytes:
        """Return the frames of the next requests on these streams."""
        feed = self._feed
        out: list[bytes] = []
        block, data = self._blocks.then, frames.start(feed.message_size, DATA, frames.END_STREAM)
        headers, number_of = self._headers(block), STREAM.pack
        for stream, message, trace in zip(streams, feed.messages, feed.traces, strict=False):
            number = number_of(stream)
            out += (headers, number, block, trace, data, number, message)
        if self._begins:
            self._begins = False
            out[0], out[2] = self._headers(self._blocks.first), self._blocks.first
        return b"".join(out)

    def _headers(self, block: bytes) -> bytes:
        return frames.start(len(block) + self._feed.trace_size, HEADERS, frames.END_HEADERS)

    def _look_quiet(self) -> None:
        if self._left == 0 and not self._started:
            self.quiet.set()

    def _tell_read(self) -> None:
        assert self._transport is not None
        self._transport.write(frames.frame(frames.WINDOW_UPDATE, 0, 0, STREAM.pack(self._read_since_update)))
        self._read_since_update = 0

    # what comes seldom

    def _odd_data(self, stream: int, flags: int, payload: bytes) -> None:
        """Put together a message that did not come in one frame; END_STREAM without trailers ends without an answer."""
        if flags & frames.PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        whole = self._pieces[stream] = self._pieces.get(stream, b"") + payload
        if len(whole) >= 7:
            answered = whole[0] == 0 and whole[5] == 8 and whole[6] <= OVER_LIMIT
            self._codes[stream] = whole[6] if answered else ERROR
            del self._pieces[stream]
        if flags & frames.END_STREAM:
            self._fail([stream])

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == frames.SETTINGS and not flags & frames.ACK:
            self._use(frames.settings(payload))
            self._transport.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        elif kind == frames.PING and not flags & frames.ACK:
            self._transport.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.WINDOW_UPDATE and stream == 0:
            self._window += STREAM.unpack(payload)[0]
        elif kind == frames.RST_STREAM:
            self._fail([stream])
        elif kind == frames.GOAWAY:
            last = STREAM.unpack_from(payload)[0]
            self.tally.lost += not self._leaving
            self._left, self._leaving = 0, True
            self._fail([under_way for under_way in self._started if under_way > last])

    def _use(self, told: dict[int, int]) -> None:
        if told.get(frames.INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW) < self._feed.message_size:
            raise ValueError("the server's streams have no room for one request")
        self._in_flight = min(self._in_flight, told.get(frames.MAX_CONCURRENT_STREAMS, self._in_flight))
        if frames.HEADER_TABLE_SIZE in told or not self._ready:
            self._blocks = frames.blocks(told.get(frames.HEADER_TABLE_SIZE, frames.DEFAULT_TABLE))
            self._begins = True
        self._ready = True

    def _fail(self, streams: list[int]) -> None:
        for stream in streams:
            if self._started.pop(stream, None) is not None:
                self.tally.answers[ERROR] += 1
            self._codes.pop(stream, None)
            self._pieces.pop(stream, None)
