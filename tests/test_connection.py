"""Takes in flight on one connection: answered in order, whatever transport it is and whatever happens to it."""

import asyncio
import gc
import os
import signal
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain

import pytest
import redis
import trustme

from ratelimit_svc.demo.parts import valkey
from ratelimit_svc.model import Grant, Line
from ratelimit_svc.store import MAX_CHARGES, Untaken
from ratelimit_svc.store.keys import MAX_KEY
from ratelimit_svc.store.redis import RedisStore, commands
from ratelimit_svc.store.redis.connection import MOST_ASKS, SILENCE_S, Connection
from tests.histories import charge
from tests.proxying import Proxy
from tests.taking import granted, untaken, why_not
from tests.test_store import RUBBISH
from tests.waiting import until

LIMIT = 100_000
ONE = [Line((charge("k", LIMIT),), 1)]
ANSWER = len(b"$40\r\n") + 40 + len(b"\r\n")
"""Bytes of the answer to ONE."""


def left(grants: Sequence[Grant | Untaken]) -> int:
    """How much is left of ONE's limit."""
    (grant,) = grants
    assert isinstance(grant, Grant), grant
    assert grant.granted == 1
    return grant.outcomes[0].remaining


@pytest.fixture
def client(server):
    """A plain client of each server in turn, which is empty."""
    with redis.Redis(port=server.port, host="127.0.0.1") as opened:
        opened.flushall()
        yield opened


@asynccontextmanager
async def proxied(port: int, *, timeout_s: float = 5) -> AsyncIterator[tuple[Proxy, RedisStore]]:
    """A store behind a proxy."""
    async with Proxy(port) as proxy, RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout_s=timeout_s) as store:
        assert store.up
        yield proxy, store


async def ended(*takes: asyncio.Future[list[Grant | Untaken]]) -> list[str]:
    """Wait for takes of one line that are not taken, and return what they say."""
    return [await why_not(take) for take in takes]


def wire_stands(store: RedisStore) -> bool:
    """Whether there is one."""
    (node,) = store.nodes().values()
    return node._connection is not None


def wire(store: RedisStore) -> Connection:
    """The store's connection."""
    (node,) = store.nodes().values()
    assert node._connection is not None
    return node._connection


async def test_several_in_flight_are_answered_in_order(server, client):
    """None waits for another: all are written at once, and each gets the answer to its own, in the order of the takes."""
    answered: list[int] = []
    async with RedisStore(server.url, timeout_s=5) as store:
        takes = [store.take(ONE) for _ in range(MOST_ASKS)]
        for number, take in enumerate(takes):
            take.add_done_callback(partial(lambda number, _: answered.append(number), number))
        assert f"{MOST_ASKS} in flight" in repr(wire(store))
        assert [left(grants) for grants in await asyncio.gather(*takes)] == [LIMIT - n - 1 for n in range(MOST_ASKS)]
        assert answered == list(range(MOST_ASKS))
        assert "0 in flight" in repr(wire(store))


async def test_answers_may_come_one_byte_at_a_time(server, client):
    """An answer is whole when its last byte is there."""
    async with proxied(server.port) as (proxy, store):
        proxy.piece = 1
        takes = [store.take(ONE) for _ in range(5)]
        assert [left(grants) for grants in await asyncio.gather(*takes)] == [LIMIT - n - 1 for n in range(5)]


async def test_a_connection_that_dies_in_the_middle_of_several(server, client):
    """Those answered are answered; the others fail, may have happened, and are not sent again."""
    async with proxied(server.port) as (proxy, store):
        proxy.passes, proxy.instead = ANSWER + 10, None
        first, *others = [store.take(ONE) for _ in range(3)]
        assert left(await first) == LIMIT - 1
        await ended(*others)
        await until(lambda: store.up)
        assert left(await store.take(ONE)) == LIMIT - 4


async def test_the_second_of_three_has_no_answer_in_time(server, client):
    """The first is answered; the others are waited for as long as one may be. Not heard of any more, the connection ends."""
    loop = asyncio.get_running_loop()
    async with proxied(server.port, timeout_s=0.3) as (proxy, store):
        proxy.passes = ANSWER
        started = loop.time()
        first, second, third = [store.take(ONE) for _ in range(3)]
        assert left(await first) == LIMIT - 1
        (one,) = await untaken(second)
        assert str(one.error) == "no answer within 300 ms"
        assert 0.25 < loop.time() - started < 2
        await untaken(third)
        assert one.outcome is not None
        assert not one.outcome.done()
        await until(lambda: not wire_stands(store))
        assert loop.time() - started > SILENCE_S - 0.1
        await until(lambda: store.up)
        assert await one.outcome == 1
        assert left(await store.take(ONE)) == LIMIT - 4


async def test_a_late_answer_is_read_and_tells_what_it_did(server, client):
    """Its caller is told in time; the connection stays, and the answer, when it comes at last, is counted and resolves the outcome."""
    async with proxied(server.port, timeout_s=0.2) as (proxy, store):
        connection = wire(store)
        proxy.hold()
        several = [store.take([Line((charge("k", 5),), n)]) for n in (3, 4)]
        said = [await untaken(take) for take in several]
        proxy.let_go()
        assert [await one.outcome for (one,) in said if one.outcome] == [3, 2]
        (node,) = store.nodes().values()
        assert node.late == 2
        assert 0 < node.late_s < 10
        await until(lambda: store.up)
        assert wire(store) is connection


async def test_callers_do_not_wait_behind_one_another(server, client):
    """More than may wait for an answer is refused at once, and charges nothing."""
    async with proxied(server.port) as (proxy, store):
        proxy.hold()
        takes = [store.take(ONE) for _ in range(MOST_ASKS)]
        (one,) = await untaken(store.take(ONE))
        assert str(one.error) == "too many calls have no answer yet"
        assert one.outcome is None
        proxy.let_go()
        assert [left(await take) for take in takes] == [LIMIT - n - 1 for n in range(MOST_ASKS)]


async def test_each_take_has_its_time_from_when_it_was_written(server, client):
    """One that is written later may take longer: the timer of an earlier one, answered long ago, does not end it."""
    loop = asyncio.get_running_loop()
    async with proxied(server.port, timeout_s=0.4) as (proxy, store):
        await store.take(ONE)
        first_written = loop.time()
        await until(lambda: loop.time() > first_written + 0.2)
        proxy.passes = 0
        started = loop.time()
        await ended(store.take(ONE))
        assert 0.35 < loop.time() - started < 2


async def test_a_take_that_is_sent_again_has_no_more_time(server, client):
    """Sent again behind one that was written later, it ends when its own time is up."""
    loop = asyncio.get_running_loop()
    async with proxied(server.port, timeout_s=1) as (proxy, store):
        proxy.passes = 0
        started = loop.time()
        first = store.take(ONE)
        await until(lambda: loop.time() > started + 0.7)
        second = store.take(ONE)
        proxy.say(b"-NOSCRIPT No matching script\r\n")
        await ended(first)
        assert 0.9 < loop.time() - started < 1.5
        await ended(second)


async def test_rubbish_in_the_middle_of_several(server, client):
    """Whatever is said in place of the second answer, it and the third fail; nothing is taken for an answer."""

    async def one_kind(number: int, rubbish: bytes) -> None:
        line = [Line((charge(f"k{number}", LIMIT),), 1)]
        async with proxied(server.port, timeout_s=0.3) as (proxy, store):
            proxy.passes, proxy.instead = ANSWER, rubbish
            connection = wire(store)
            first, *others = [store.take(line) for _ in range(3)]
            assert left(await first) == LIMIT - 1
            await ended(*others)
            await until(lambda: store.up and wire(store) is not connection)
            assert left(await store.take(line)) == LIMIT - 4

    wrong_size = b"$48\r\n" + bytes(48) + b"\r\n"
    await asyncio.gather(*(one_kind(*kind) for kind in enumerate([*RUBBISH, wrong_size, b"$-7\r\n", b"-\xff\xfe\r\n"])))


async def test_who_speaks_without_being_asked_is_left(server, client):
    """An answer to nothing would be taken for the answer to the next: the connection ends, also while nobody waits."""
    told: list[str] = []
    async with (
        Proxy(server.port) as proxy,
        RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout_s=5, on_down=told.append) as store,
    ):
        proxy.say(b"+hello\r\n")
        await until(lambda: bool(told))
        assert told == ["it said b'hello' without being asked"]
        await until(lambda: store.up)
        assert left(await store.take(ONE)) == LIMIT - 1


async def test_a_script_flushed_under_several_in_flight(server, client):
    """All of them did not run, and say so; each is sent again, with the script, and counts once."""
    async with RedisStore(server.url, timeout_s=5) as store:
        client.script_flush()
        takes = [store.take(ONE) for _ in range(20)]
        more = asyncio.get_running_loop().create_future()
        takes[0].add_done_callback(lambda _: more.set_result([store.take(ONE) for _ in range(20)]))
        remaining = [left(grants) for grants in await asyncio.gather(*takes)]
        remaining += [left(grants) for grants in await asyncio.gather(*await more)]
        assert sorted(remaining) == [LIMIT - n - 1 for n in reversed(range(40))]


async def test_scripts_flushed_again_and_again_under_load(server, client):
    """Whenever the script goes, every take counts exactly once."""
    async with RedisStore(server.url, timeout_s=5) as store:

        async def caller() -> list[int]:
            return [left(await store.take(ONE)) for _ in range(200)]

        async def flusher() -> None:
            async with asyncio.timeout(30):
                while True:
                    await asyncio.to_thread(client.script_flush)

        flushing = asyncio.create_task(flusher())
        told = await asyncio.gather(*(caller() for _ in range(8)))
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
    assert sorted(chain.from_iterable(told)) == list(range(LIMIT - 1600, LIMIT))


async def test_what_nobody_waits_for_any_more_is_not_complained_of(server, client):
    """Futures that fail and are forgotten are no news for the loop; one that is cancelled takes nobody else's answer."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with proxied(server.port) as (proxy, store):
        cancelled, kept = store.take(ONE), store.take(ONE)
        cancelled.cancel()
        assert left(await kept) == LIMIT - 2
        proxy.passes, proxy.instead = 0, None
        connection = wire(store)
        for _ in range(3):
            store.take(ONE)
        await until(lambda: not connection.open)
        store.take(ONE)
        gc.collect()
        await until(lambda: store.up)
    assert complaints == []


async def test_closing_the_store_fails_what_is_in_flight(server, client):
    """Nobody waits for a closed store."""
    async with proxied(server.port) as (proxy, store):
        proxy.passes = 0
        takes = [store.take(ONE) for _ in range(3)]
    assert await ended(*takes) == ["the store is closed"] * 3


async def test_what_a_stuck_peer_leaves_unsent_is_forgotten_in_time(tmp_path):
    """What cannot be sent is kept as long as its take may last, and never sent later; a take is at most 50 kB of it."""
    key = "k" * MAX_KEY
    largest = [Line(tuple(charge(f"{number:03}{key}"[:MAX_KEY], LIMIT) for number in range(MAX_CHARGES)), 1)]
    size = len(commands.take(largest, receipt=bytes(100)))
    assert 30_000 < size < 50_000
    async with valkey(tmp_path) as server, RedisStore(server.url, timeout_s=0.5) as store:
        os.kill(server.pid, signal.SIGSTOP)
        transport = wire(store)._transport
        takes = [store.take(largest) for _ in range(MOST_ASKS)]
        assert await ended(store.take(largest)) == ["too many calls have no answer yet"]
        assert transport.get_write_buffer_size() <= MOST_ASKS * size
        assert set(await ended(*takes)) == {"no answer within 500 ms"}
        await until(transport.is_closing)
        await until(lambda: transport.get_write_buffer_size() == 0)
        assert not store.up
        os.kill(server.pid, signal.SIGCONT)
        await until(lambda: store.up)


# ── transports ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_unix_socket(tmp_path):
    """unix:// is redis-py's, and what it opens carries takes as any other."""
    socket = tmp_path / "s"
    async with (
        valkey(tmp_path, args=["--unixsocket", str(socket)]),
        RedisStore(f"unix://{socket}", timeout_s=5) as store,
    ):
        takes = [store.take(ONE) for _ in range(10)]
        assert [left(grants) for grants in await asyncio.gather(*takes)] == [LIMIT - n - 1 for n in range(10)]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the proxy's certificates."""
    return trustme.CA()


@asynccontextmanager
async def behind_tls(port: int, authority: trustme.CA) -> AsyncIterator[Proxy]:
    """The server's port behind TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with Proxy(port, tls=context) as proxy:
        yield proxy


async def test_tls(server, client, authority, tmp_path):
    """rediss:// is redis-py's; large batches and many of them pass; one that is cut or hangs is left, and comes back."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    many = [Line((charge(f"{number}", LIMIT),), 1) for number in range(MAX_CHARGES)]
    async with behind_tls(server.port, authority) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={tmp_path}/ca.pem"
        async with RedisStore(url, timeout_s=5) as store:
            takes = [store.take(many) for _ in range(30)]
            told = [[grant.outcomes[0].remaining for grant in await granted(take)] for take in takes]
            assert told == [[LIMIT - n - 1] * MAX_CHARGES for n in range(30)]
            proxy.passes, proxy.instead = ANSWER, None
            first, second = store.take(ONE), store.take(ONE)
            assert left(await first) == LIMIT - 1
            await ended(second)
            await until(lambda: store.up)
            assert left(await store.take(ONE)) == LIMIT - 3
        async with RedisStore(url, timeout_s=0.3) as store:
            proxy.passes, proxy.instead = 0, b""
            assert await ended(store.take(ONE)) == ["no answer within 300 ms"]
            await until(lambda: store.up)


async def test_a_certificate_of_somebody_else_is_refused(server, authority, tmp_path):
    """Who cannot show a certificate that is trusted is told no key and no limit."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    async with behind_tls(server.port, authority) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={tmp_path}/other.pem"
        async with RedisStore(url, timeout_s=5) as store:
            (why,) = await ended(store.take(ONE))
            assert "CERTIFICATE_VERIFY_FAILED" in why
