"""Slow and half-open connections, on an engine whose seconds are the test's; the rest of each case is in tests/http2."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from ratelimit_svc.wire.http2.engine import Http2Engine
from ratelimit_svc.wire.http2.frames import PREFACE, ErrorCode, Kind
from ratelimit_svc.wire.http2.peer import DEAD_AFTER, LAST_WORDS, MOST_IDLE, MOST_STUCK
from ratelimit_svc.wire.http2.requests import FEW_TICKS, MOST_TICKS
from tests.attacks.honest import ASKED
from tests.conformance.served import Served, serving
from tests.http2.client import HELLO, SETTINGS_ACK, block, body, frames_in, head, ping, reset, settings, window
from tests.waiting import until


@pytest.fixture
async def served(clock) -> AsyncIterator[Served]:
    """The engine."""
    async with serving("http2", clock) as one:
        yield one


def engine_of(served: Served) -> Http2Engine:
    assert isinstance(served.engine, Http2Engine)
    return served.engine


async def seconds(served: Served, count: int) -> None:
    """Let time pass, for every connection."""
    for _ in range(count):
        engine_of(served)._shared.tick()
        for peer in list(engine_of(served)._shared.peers):
            peer.tick()
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(served: Served, data: bytes):
    """A connection that has said this, and is known to the engine."""
    before = engine_of(served).wire().connections
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        writer.write(data)
        await writer.drain()
        await until(lambda: engine_of(served).wire().connections > before)
        said = [peer.connection for peer in engine_of(served)._shared.peers]
        await until(lambda: not data or all(each._greeted or each._rest for each in said))
        yield reader, writer
    finally:
        writer.close()


async def last_word(reader: asyncio.StreamReader) -> ErrorCode | None:
    """Read to the end; return the code of the last GOAWAY."""
    async with asyncio.timeout(10):
        data = await reader.read()
    codes = [payload[4:8] for kind, _, _, payload in frames_in(data) if kind == Kind.GOAWAY]
    return ErrorCode(int.from_bytes(codes[-1], "big")) if codes else None


SLOW = {
    "nothing": (b"", ErrorCode.SETTINGS_TIMEOUT),
    "half a preface": (PREFACE[:10], ErrorCode.SETTINGS_TIMEOUT),
    "a preface only": (PREFACE, ErrorCode.PROTOCOL_ERROR),
    "half a frame": (HELLO + head(1)[:20], ErrorCode.PROTOCOL_ERROR),
    "half a header block": (HELLO + head(1, flags=0), ErrorCode.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("case", SLOW)
async def test_half_open_connections_are_closed(served, case):
    """With a code, after some seconds; meanwhile others are answered."""
    data, code = SLOW[case]
    async with connected(served, data) as (reader, _):
        await seconds(served, MOST_TICKS)
        assert engine_of(served).wire().connections == 1
        await seconds(served, 1)
        assert await last_word(reader) is code
    assert (await served.ask()).overall_code == 1
    await seconds(served, LAST_WORDS + 1)


async def test_a_message_that_never_ends_is_given_up(served):
    """Its stream only."""
    async with connected(served, HELLO + head(1) + body(1, ASKED[:-1], end=False)) as (reader, writer):
        await until(lambda: engine_of(served)._shared.unfinished.bytes > 0)
        await seconds(served, MOST_TICKS + 1)
        assert engine_of(served)._shared.unfinished.bytes == 0
        assert engine_of(served).wire().calls == 0
        writer.write(ping())
        data = b""
        async with asyncio.timeout(10):
            while b"12345678" not in data:
                data += await reader.read(1000)
    assert engine_of(served).wire().calls == 0


async def test_one_byte_a_second(served):
    """However long it goes on, a header block does not get more time by it."""
    data = HELLO + head(1)
    async with connected(served, data[:30]) as (reader, writer):
        for byte in data[30:]:
            writer.write(bytes((byte,)))
            await seconds(served, 1)
            if not engine_of(served).wire().connections or reader.at_eof():
                break
        assert await last_word(reader) is ErrorCode.PROTOCOL_ERROR


async def test_a_silent_peer_is_asked_and_then_given_up(served):
    """A connection without a word, whose socket is still open, is asked by PING; without an answer it is closed."""
    async with connected(served, HELLO) as (reader, _):
        await seconds(served, DEAD_AFTER)
        data = b""
        async with asyncio.timeout(10):
            with suppress(ConnectionError):  # it is cut off
                while chunk := await reader.read(1000):
                    data += chunk
        assert b"anybody?" in data
        await until(lambda: not engine_of(served).wire().connections)


async def test_a_peer_that_does_not_read_is_given_up(served):
    """What we wrote waits in its window and our buffers for some seconds; then the connection is cut."""
    wide = settings(INITIAL_WINDOW_SIZE=2**31 - 1) + window(0, 2**30)
    pour = head(1, block({":path": "/test.Test/Pour"})) + body(1, b"\0\0\0\0\0")
    async with connected(served, HELLO + wide + pour) as (_, writer):
        writer.transport.pause_reading()
        [peer] = engine_of(served)._shared.peers
        await until(lambda: peer._paused)
        said = served.methods.poured
        await seconds(served, MOST_STUCK)
        assert served.methods.poured <= said + 2
        assert engine_of(served).wire().connections == 1
        await seconds(served, 1)
        await until(lambda: not engine_of(served).wire().connections)
    assert (await served.ask()).overall_code == 1


async def test_idle_connections_leave_when_they_are_scarce(served):
    """Those that have said nothing for a while and have nothing under way; a call keeps its connection."""
    shared = engine_of(served)._shared
    watch = head(1, block({":path": "/test/Hang"}))
    async with connected(served, HELLO), connected(served, HELLO + watch):
        shared.most_connections = 2
        await seconds(served, MOST_IDLE + 1 + LAST_WORDS + 1)
        await until(lambda: engine_of(served).wire().connections == 1)
        assert engine_of(served).wire().calls == 1
        async with connected(served, HELLO):
            assert engine_of(served).wire().connections == 2
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            with suppress(ConnectionError):  # it is turned away
                assert await reader.read() == b""
            writer.close()


async def test_requests_are_not_waited_for_when_they_are_very_many(served):
    """More streams than there should be: those that have not come to their end have a second."""
    engine_of(served)._shared.many_streams = 3
    async with connected(served, HELLO + SETTINGS_ACK + b"".join(head(number) for number in (1, 3, 5, 7))):
        await until(lambda: engine_of(served).wire().calls == 4)
        await seconds(served, FEW_TICKS + 1)
        assert engine_of(served).wire().calls == 0


async def test_requests_that_are_reset_at_once_are_not_asked(served):
    """In the same read: nobody waits for the answer. The one beside them is."""
    data = b"".join(head(number) + body(number, ASKED) + reset(number) for number in range(1, 21, 2))
    async with connected(served, HELLO + data + head(21) + body(21, ASKED)):
        await until(lambda: len(served.limiter.timeouts_s) > 0)
        assert len(served.limiter.timeouts_s) == 1
