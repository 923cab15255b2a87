"""Connections of a TLS port before they are peers: all count, those that fail fail in silence, and none outlives its engine."""

import asyncio
import errno
import gc
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trustme

from ratelimit_svc.wire.http2.engine import Http2Engine
from ratelimit_svc.wire.http2.frames import PREFACE
from ratelimit_svc.wire.http2.handshake import HURRIED_S, Entrance
from ratelimit_svc.wire.http2.shared import Shared
from tests.certificates import Files
from tests.conformance.served import Served, serving
from tests.http2.client import HELLO
from tests.waiting import until

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with which a socket that is closed sends RST."""


@pytest.fixture
async def told() -> list[dict[str, Any]]:
    """What the loop was told of: errors that nobody caught."""
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    return said


@pytest.fixture
def root() -> trustme.CA:
    """Who vouches for the server."""
    return trustme.CA()


@pytest.fixture
async def served(clock, tmp_path, root) -> AsyncIterator[Served]:
    """An engine with TLS."""
    files = Files(tmp_path)
    files.put(root)
    async with serving("http2", clock, tls=files.tls()) as one:
        yield one


def shared_of(served: Served) -> Shared:
    assert isinstance(served.engine, Http2Engine)
    return served.engine._shared


def client_context(root: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=root.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    return context


@asynccontextmanager
async def silent(served: Served, count: int):
    """Connections that say nothing; the engine has a handshake for each."""
    before = len(shared_of(served).handshakes)
    opened = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(count)]
    await until(lambda: len(shared_of(served).handshakes) == before + count)
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a connection on which nothing was said."""
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            return await reader.read() == b""
    return True


async def test_who_says_nothing_counts(served, root, told):
    """Also against those that would speak; and leaves the place."""
    shared = shared_of(served)
    shared.most_connections = 3
    async with silent(served, 3):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await asyncio.open_connection("127.0.0.1", served.port, ssl=client_context(root))
        assert len(shared.handshakes) == 3
    await until(lambda: not shared.handshakes)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=client_context(root))
    writer.write(HELLO)
    await reader.readexactly(9)
    assert (len(shared.peers), len(shared.handshakes)) == (1, 0)
    writer.transport.abort()
    assert told == []


async def test_handshakes_are_short_when_connections_are_scarce(served):
    """As many go as must."""
    shared = shared_of(served)
    async with silent(served, 16) as readers:
        handshakes = list(shared.handshakes)

        def tick() -> None:
            for handshake in handshakes:
                handshake.tick()

        for _ in range(HURRIED_S + 1):
            tick()
        assert len(shared.handshakes) == 16
        shared.most_connections = 16
        tick()
        assert len(shared.handshakes) == 14
        await asyncio.wait([asyncio.ensure_future(ended(reader)) for reader in readers], return_when="FIRST_COMPLETED")
        assert sum(reader.at_eof() for reader in readers) <= 2


@pytest.mark.parametrize("said", [b"", PREFACE, b"\x16\x03\x01\x02\x00", b"\x16\x03\x01\x00\x01\x01"])
@pytest.mark.parametrize("end", ["FIN", "RST"])
async def test_a_handshake_that_fails_does_so_in_silence(served, told, said, end):
    """Whatever was said before, however it ends: nobody but its peer can do anything about it."""
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        await until(lambda: bool(shared_of(served).handshakes))
        client.send(said)
        if end == "RST":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    await until(lambda: not shared_of(served).handshakes)
    gc.collect()
    assert told == []


async def test_a_client_that_is_gone_leaves_nothing(served, root, told):
    """Neither of its handshake nor of its connection."""
    shared = shared_of(served)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=client_context(root))
    writer.write(HELLO)
    await reader.readexactly(9)
    (peer,) = map(weakref.ref, shared.peers)
    writer.transport.abort()
    await until(lambda: not shared.peers)
    gc.collect()
    assert peer() is None
    assert told == []


async def test_handshakes_end_with_the_engine(served, told):
    """Those that are under way do not hold it up."""
    async with silent(served, 3) as readers:
        await served.engine.stop(60)
        assert all([await ended(reader) for reader in readers])
        assert not shared_of(served).handshakes
    gc.collect()
    assert told == []


async def test_a_listener_that_cannot_accept_is_left_alone_for_a_while(served, told):
    """What cannot be accepted waits; it is told once, not in each turn of the loop."""
    not_listening = socket.socket()
    entrance = Entrance(shared_of(served), ssl.create_default_context(), not_listening, 1)
    entrance._accept()
    entrance.close()
    entrance.close()
    assert [context["exception"].errno for context in told] == [errno.EINVAL]
