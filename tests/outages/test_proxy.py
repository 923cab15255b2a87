"""The proxy does what it is told, to real connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from tests.outages.proxy import FaultProxy, Way
from tests.waiting import until

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """A proxy before a server that says everything again."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with FaultProxy(server.sockets[0].getsockname()[1]) as opened:
        yield opened
    server.close()
    await server.wait_closed()


@pytest.fixture
async def connect(proxy: FaultProxy) -> AsyncIterator[Callable[..., Awaitable[Ends]]]:
    """Opens connections to a proxy, and closes them at the end."""
    opened: list[asyncio.StreamWriter] = []

    async def connected(to: FaultProxy = proxy) -> Ends:
        reader, writer = await asyncio.open_connection("127.0.0.1", to.port)
        opened.append(writer)
        return reader, writer

    yield connected
    for writer in opened:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def said(ends: Ends, data: bytes = b"") -> bytes:
    """Say something, and return as many bytes of what comes, or none when the connection has ended."""
    if data:
        ends[1].write(data)
    async with asyncio.timeout(10):
        try:
            return await ends[0].readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""


async def silent(ends: Ends) -> bool:
    """Nothing comes while another question would be answered many times."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ends[0].read(1)
    return True


async def test_it_passes(proxy, connect):
    """Both ways, on each connection."""
    for one in [await connect(), await connect()]:
        assert await said(one, b"ab") == b"ab"


@pytest.mark.parametrize("way", ["questions", "answers"])
async def test_what_is_held_comes_later_and_in_order(proxy, connect, way):
    """Nothing is closed meanwhile."""
    one = await connect()
    setattr(proxy, way, Way.HOLD)
    one[1].write(b"ab")
    assert await silent(one)
    one[1].write(b"cd")
    await proxy.heal()
    assert [await said(one), await said(one)] == [b"ab", b"cd"]


@pytest.mark.parametrize("way", ["questions", "answers"])
async def test_what_is_lost_never_comes_and_the_connection_ends_when_it_heals(proxy, connect, way):
    """One that has lost nothing stands."""
    one, other = await connect(), await connect()
    assert await said(other, b"xy") == b"xy"
    setattr(proxy, way, Way.LOSE)
    one[1].write(b"ab")
    assert await silent(one)
    await proxy.heal()
    assert await said(one) == b""
    assert await said(other, b"xy") == b"xy"


async def test_latency_is_added_each_way(proxy, connect):
    """And order is kept when it ends."""
    one = await connect()
    proxy.delay_s = 0.05
    began = asyncio.get_running_loop().time()
    assert await said(one, b"ab") == b"ab"
    assert asyncio.get_running_loop().time() - began >= 0.099
    one[1].write(b"cd")
    await until(lambda: bool(proxy.accepted))
    proxy.delay_s = 0
    assert await said(one, b"ef") + await said(one) == b"cdef"


async def test_who_is_cut_off_is_reset_and_refused(proxy, connect):
    """On the same port it is served again."""
    one, port = await connect(), proxy.port
    assert await said(one, b"ab") == b"ab"
    proxy.cut()
    assert await said(one) == b""
    with pytest.raises(ConnectionError):
        await connect()
    await proxy.heal()
    assert proxy.port == port
    assert await said(await connect(), b"ab") == b"ab"


async def test_one_in_n_is_reset(proxy, connect):
    """Of new ones all, if n is 1; of those that stand too."""
    one = await connect()
    assert await said(one, b"ab") == b"ab"
    proxy.reset_one_in = 1
    assert await said(await connect(), b"ab") == b""
    assert await said(one) == b""
    assert proxy.resets == 2


async def test_the_same_seed_resets_the_same(proxy, connect):
    """Of 60 connections, some."""
    reset = []
    for _ in range(2):
        async with FaultProxy(proxy.port, seed=7) as drawn:
            drawn.reset_one_in = 10
            assert drawn._ticking is not None
            drawn._ticking.cancel()  # only new ones are drawn
            reset.append([await said(await connect(drawn), b"ab") == b"" for _ in range(60)])
    assert reset[0] == reset[1]
    assert 0 < sum(reset[0]) < 30
