"""One server behind a breaker: what becomes of takes that are lost, late or refused, and how the node comes back."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import redis

from ratelimit_svc.breaker import BreakerState
from ratelimit_svc.demo.parts import RedisServer, valkey
from ratelimit_svc.demo.parts import redis as redis_6_2
from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import BAD_KEY, Line
from ratelimit_svc.store import Untaken
from ratelimit_svc.store.redis import RedisStore, handshake
from ratelimit_svc.store.redis.calls import Refused, Unknown
from ratelimit_svc.store.redis.commands import Taken
from ratelimit_svc.store.redis.node import Node
from ratelimit_svc.store.redis.where import Address, Where
from tests.histories import MINUTE, charge
from tests.proxying import Proxy
from tests.taking import granted, untaken, why_not
from tests.waiting import until

LIMIT = 100
SECOND = 1_000_000
LONG_S = 10.0
"""For a latency: no answer is slow."""


def line(n: int = 1, key: str = "k") -> list[Line]:
    """So many requests of one hit."""
    return [Line((charge(key, LIMIT),), n)]


def node_of(store: RedisStore) -> Node:
    """The one node of a store."""
    (node,) = store.nodes().values()
    return node


@pytest.fixture
def client(server):
    """A plain client of each server in turn, which is empty."""
    with redis.Redis(port=server.port, host="127.0.0.1") as opened:
        opened.flushall()
        yield opened


@asynccontextmanager
async def proxied(
    port: int, *, timeout_s: float = 5, latency_s: float = LONG_S
) -> AsyncIterator[tuple[Proxy, RedisStore]]:
    """A store behind a proxy."""
    url = "redis://127.0.0.1:{}"
    async with (
        Proxy(port) as proxy,
        RedisStore(url.format(proxy.port), timeout_s=timeout_s, latency_s=latency_s) as store,
    ):
        assert store.up
        yield proxy, store


async def outcome_of(said: Untaken) -> int:
    """How many turn out to be charged."""
    assert said.outcome is not None
    async with asyncio.timeout(10):
        return await said.outcome


async def left(store: RedisStore, key: str = "k") -> int:
    """How much is left, after one more."""
    return (await granted(store.take(line(key=key))))[0].outcomes[0].remaining


# ── lost ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_lost_take_that_ran_is_told_by_its_receipt(server, client):
    """The answer is swallowed and the connection cut: it was charged, and is known to be."""
    async with proxied(server.port) as (proxy, store):
        await granted(store.take(line(2)))
        proxy.passes, proxy.instead = 0, None
        lost = [store.take([*line(3), *line(4, "j")]), store.take(line(5))]
        (three, four), (five,) = [await untaken(take) for take in lost]
        assert [await outcome_of(said) for said in (three, four, five)] == [3, 4, 5]
        await until(lambda: store.up)
        assert await left(store) == LIMIT - 2 - 3 - 5 - 1
        assert await left(store, "j") == LIMIT - 4 - 1


async def test_a_lost_take_that_did_not_run_is_told_so(server, client):
    """The question never arrives: nothing was charged, and it is not sent again."""
    async with proxied(server.port) as (proxy, store):
        await granted(store.take(line(2)))
        proxy.deaf = True
        take = store.take(line(3))
        proxy.cut()
        (said,) = await untaken(take)
        proxy.deaf = False
        assert await outcome_of(said) == 0
        await until(lambda: store.up)
        assert await left(store) == LIMIT - 2 - 1


async def test_of_several_lost_takes_those_that_ran_are_told_apart(server, client):
    """The first ran, the second did not."""
    async with proxied(server.port) as (proxy, store):
        proxy.hold()
        first = store.take(line(3))
        await until(lambda: client.exists("k") == 1)
        proxy.deaf = True
        second = store.take(line(4))
        await asyncio.sleep(0)
        proxy.cut()
        said = [(await untaken(take))[0] for take in (first, second)]
        proxy.deaf = False
        proxy.let_go()
        assert [await outcome_of(one) for one in said] == [3, 0]


@pytest.mark.parametrize("spoilt", ["gone", "another kind", "no number"])
async def test_a_receipt_that_cannot_be_read_tells_that_nothing_was_charged(server, client, spoilt):
    """The strict answer: what was let pass meanwhile is owed."""
    async with proxied(server.port) as (proxy, store):
        proxy.hold()
        take = store.take(line(3))
        await until(lambda: client.exists("k") == 1)
        (receipt,) = client.keys("*receipt*")
        client.delete(receipt)
        if spoilt == "another kind":
            client.lpush(receipt, "1")
        elif spoilt == "no number":
            client.set(receipt, "one")
        proxy.cut()
        (said,) = await untaken(take)
        proxy.let_go()
        assert await outcome_of(said) == 0
        await until(lambda: store.up)


async def test_outcomes_of_a_node_that_never_comes_back_are_given_up_with_it(tmp_path):
    """Until then nobody knows."""
    async with valkey(tmp_path) as server, Proxy(server.port) as proxy:
        async with RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout_s=5) as store:
            proxy.hold()
            take = store.take(line())
            await server.kill()
            proxy.cut()
            (said,) = await untaken(take)
            await until(lambda: not store.up)
            assert said.outcome is not None
            assert not said.outcome.done()
        await until(said.outcome.cancelled)


# ── late ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_arrives_too_late_charges_nothing_and_says_so(server, client):
    """Past its time by the server's clock, which the handshake has told."""
    loop = asyncio.get_running_loop()
    async with RedisStore(server.url, timeout_s=5) as store:
        (said,) = await untaken(store.take(line(), loop.time() - 1))
        assert said.late
        assert said.outcome is None
        assert store.up
        await granted(store.take(line(), loop.time() + LONG_S))
        assert await left(store) == LIMIT - 2


async def test_a_slow_server_is_left_alone_but_not_left(server, client):
    """Answers that come late open the breaker, and are counted; the connection stays, and serves again when they are fast."""
    told: list[BreakerState] = []
    async with (
        Proxy(server.port) as proxy,
        RedisStore(
            f"redis://127.0.0.1:{proxy.port}", timeout_s=0.1, on_change=lambda _, state, __: told.append(state)
        ) as store,
    ):
        node = node_of(store)
        connection = node._connection
        proxy.delay_s = 0.3
        said = await untaken(store.take(line(3)))
        assert told == [BreakerState.OPEN]
        assert (await untaken(store.take(line())))[0].outcome is None
        assert await outcome_of(said[0]) == 3
        assert node.late == 1
        assert 0 < node.late_s < LONG_S
        proxy.delay_s = 0
        await until(lambda: store.up)
        assert node._connection is connection
        assert told == [BreakerState.OPEN, BreakerState.CLOSED]


# ── refused ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def refused_until_down(store: RedisStore, why: str) -> None:
    """Take until the store is down for it; nothing is charged."""
    async with asyncio.timeout(10):
        while store.up:
            (said,) = await untaken(store.take(line(key="refused")))
            assert said.outcome is None
            assert why in str(said.error), said
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("make", [valkey, redis_6_2])
async def test_a_server_without_memory_is_down_until_it_has_some(tmp_path, make):
    """OOM: nothing is half done. The store finds out by itself when it is over."""
    async with make(tmp_path) as server, RedisStore(server.url, timeout_s=5, latency_s=0.05) as store:
        await granted(store.take([Line((charge("k", LIMIT),), 1)]))
        with redis.Redis(port=server.port, host="127.0.0.1") as client:
            client.config_set("maxmemory", "1")
            said = await why_not(store.take([Line((charge("k", LIMIT), charge("j", LIMIT)), 1)]))
            assert said.startswith("Redis says: ")
            await refused_until_down(store, "Redis says: ")
            assert not client.exists("j", "refused")
            client.config_set("maxmemory", "0")
        await until(lambda: store.up)
        (grant,) = await granted(store.take([Line((charge("k", LIMIT), charge("j", LIMIT)), 1)]))
        assert [outcome.remaining for outcome in grant.outcomes] == [LIMIT - 2, LIMIT - 1]


@pytest.mark.parametrize("make", [valkey, redis_6_2])
async def test_a_server_whose_disk_is_full_is_down_until_it_can_save(tmp_path, make):
    """MISCONF: a snapshot could not be written, and the server takes no writes until one can."""
    async with make(tmp_path) as server, RedisStore(server.url, timeout_s=5) as store:
        with redis.Redis(port=server.port, host="127.0.0.1") as client:

            def saved(how: str) -> bool:
                with suppress(redis.ResponseError):  # one is under way
                    client.bgsave()
                return bool(client.info("persistence")["rdb_last_bgsave_status"] == how)

            (tmp_path / "dump.rdb").mkdir()  # a name that no file can take
            client.config_set("save", "3600 1000000")
            await granted(store.take(line()))
            await until(lambda: saved("err"))
            await refused_until_down(store, "MISCONF")
            (tmp_path / "dump.rdb").rmdir()
            await until(lambda: saved("ok"))
        await until(lambda: store.up)
        assert await left(store) == LIMIT - 2


@pytest.mark.parametrize("make", [valkey, redis_6_2])
@pytest.mark.parametrize("forbidden", ["set", "evalsha"])
async def test_a_user_who_may_not_is_told(tmp_path, make, forbidden):
    """Without a permission that takes need the store is down, and says why; given it, it comes up by itself."""
    async with make(tmp_path) as server:
        with redis.Redis(port=server.port, host="127.0.0.1") as client:
            client.execute_command("ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all", f"-{forbidden}")
            async with RedisStore(f"redis://u:p@{server.address}", timeout_s=5) as store:
                await refused_until_down(store, "Redis says: ")
                assert re.search("permission|can't run", node_of(store).why_down)
                client.execute_command("ACL", "SETUSER", "u", f"+{forbidden}")
                await until(lambda: store.up)
                assert await left(store) == LIMIT - 1


async def test_a_poisoned_key_is_only_its_own_lines_trouble(server, client):
    """Whatever else is under a key: its line says so, the others are taken, and the store is up."""
    client.lpush("poisoned", "x")
    async with RedisStore(server.url, timeout_s=5) as store:
        bad, good = await granted(store.take([*line(key="poisoned"), *line()]))
        assert (bad.granted, good.granted) == (BAD_KEY, 1)
        assert store.up


async def test_flushed_under_load_windows_begin_anew_and_nobody_is_failed(server, client):
    """FLUSHALL forgets what was counted, and that is all."""
    async with RedisStore(server.url, timeout_s=5) as store:
        for _ in range(20):
            takes = [store.take(line(10)) for _ in range(15)]
            await asyncio.to_thread(client.flushall)
            for take in takes:
                (grant,) = await granted(take)
                assert grant.granted in range(11)
        client.flushall()
        assert await left(store) == LIMIT - 1


async def test_a_replica_promoted_with_a_slower_clock_is_only_stricter(server, client, clock):
    """What the old primary counted is not over any sooner; no window has more than the limit, on either clock."""
    async with RedisStore(server.url, timeout_s=5, clock=clock) as store:
        assert (await granted(store.take(line(LIMIT))))[0].granted == LIMIT
        clock.now -= 10 * SECOND
        assert (await granted(store.take(line())))[0].granted == 0
        clock.now += MINUTE
        assert (await granted(store.take(line())))[0].granted == 0
        clock.now += 10 * SECOND + 2 * SECOND
        assert (await granted(store.take(line())))[0].granted == 1


# ── the node itself ───────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def a_node(server: RedisServer) -> AsyncIterator[Node]:
    """A node of a server."""
    where = Where.of_url(server.url)
    async with Node(where, where.addresses[0], timeout_s=5, latency_s=LONG_S) as node:
        yield node


async def test_several_calls_go_at_once_and_each_is_answered(server, client):
    """In order, on one future."""
    async with a_node(server) as node:
        calls = await node.ask([line(2), line(3), line(4, "j")])
        assert [call.grants[0].outcomes[0].remaining for call in calls if isinstance(call, Taken) and call.grants] == [
            LIMIT - 2,
            LIMIT - 5,
            LIMIT - 4,
        ]


async def test_a_call_after_ask_has_no_receipt(server, client):
    """Its last key is one of its own, and is not overwritten."""
    async with a_node(server) as node:
        for n in range(1, 4):
            (call,) = await node.ask([line()], asking=True)
            assert isinstance(call, Taken)
            assert call.grants is not None
            assert call.grants[0].outcomes[0].remaining == LIMIT - n
        assert client.keys("*receipt*") == []


async def test_an_error_is_for_whoever_asks_to_judge(server, client):
    """One refused call of several is told as refused, the others are taken."""
    async with Proxy(server.port) as proxy:
        where = Where.of_url(f"redis://127.0.0.1:{proxy.port}")
        async with Node(where, where.addresses[0], timeout_s=5) as node:
            proxy.hold()
            asked = node.ask([line(), line(2)])
            proxy.say(b"-MOVED 1 127.0.0.1:1\r\n")
            proxy.let_go()
            refused, taken = await asked
            assert refused == Refused("MOVED 1 127.0.0.1:1")
            assert isinstance(taken, Taken)
            assert node.breaker.closed


async def test_a_server_that_has_moved_is_followed(redis_server, valkey_server):
    """What says where it is (the sentinels) is asked again and again, and the old place is left although it answers."""
    places = [Address("127.0.0.1", one.port) for one in (redis_server, valkey_server)]
    here = places[0]

    async def find() -> Address:
        return here

    async with Node(Where.of_url(redis_server.url), Address("nowhere", 1), find=find, timeout_s=5) as node:
        assert node.up
        assert node.address == places[0]
        here = places[1]
        await until(lambda: node.address == places[1] and node.up)
        assert isinstance((await node.ask([line(key="moved")]))[0], Taken)
        with redis.Redis(port=valkey_server.port, host="127.0.0.1") as client:
            assert client.delete("moved") == 1


async def test_a_connection_that_is_lost_is_opened_anew_at_once(server, client):
    """One that is reset now and then opens no breaker."""
    async with proxied(server.port) as (proxy, store):
        node = node_of(store)
        connections = {node._connection}
        for number in range(2, 5):
            assert await left(store) >= 0
            proxy.cut()
            await until(lambda: store.up and node._connection not in connections)
            connections.add(node._connection)
            assert len(connections) == number
        assert node.breaker.opened == 0


async def test_other_commands(server, client):
    """They are answered, or fail."""
    async with a_node(server) as node:
        assert await node.command(b"PING") == b"PONG"
        with pytest.raises(StoreUnavailableError, match="Redis says: unknown command"):
            await node.command(b"NONSENSE")
        assert node.up
    with pytest.raises(StoreUnavailableError, match="the store is closed"):
        await node.command(b"PING")
    (call,) = await node.ask([line()])
    assert isinstance(call, Unknown)
    assert call.outcome is None


async def test_connects_leave_no_garbage(valkey_server):
    """In a long outage nothing grows: what a connect leaves, good or failed, is freed without the collector.

    (An error that Redis says to redis-py does form a cycle; it is young when it is dropped, and the collector's short passes go on.)
    """

    async def connect(address: Address) -> None:
        where = Where((address,), connect_timeout_s=0.1)
        with suppress(OSError, StoreUnavailableError, redis.ConnectionError):
            writer, _ = await handshake.connect(where, address, timeout_s=0.1)
            writer.transport.abort()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hanging.append(writer)

    hanging: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(hang, "127.0.0.1", 0) as silent:
        addresses = [Address("127.0.0.1", port) for port in (1, valkey_server.port, silent.sockets[0].getsockname()[1])]
        for address in addresses:
            await connect(address)
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for address in addresses * 3:
                await connect(address)
            gc.collect()
            left = {type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("redis")}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            for writer in hanging:
                writer.transport.abort()
    assert left == set()
