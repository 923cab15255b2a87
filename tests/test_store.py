"""Every store test runs on every store: memory, Redis, Valkey. Then what only one of them has."""

import asyncio
import os
import random
import re
import signal
from itertools import groupby

import pytest
import redis

from ratelimit_svc.demo.parts import redis as redis_6_2
from ratelimit_svc.demo.parts import valkey
from ratelimit_svc.model import Grant, Line, Outcome, Role
from ratelimit_svc.store import MAX_LINES
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.store.redis.script import SCRIPT
from tests.histories import MINUTE, charge
from tests.taking import granted, untaken, why_not
from tests.waiting import until

SECOND = 1_000_000


async def test_a_limit_holds_and_comes_back(store, clock):
    """Two of two pass, the third does not, and one window and a slice later it does."""
    two = [Line((charge("k", 2),), 1)]
    assert [(await store.take(two))[0].granted for _ in range(3)] == [1, 1, 0]
    clock.now += MINUTE + SECOND
    assert (await store.take(two))[0] == Grant(1, (Outcome(1, MINUTE + SECOND, 0),))


async def test_a_batch_of_many_lines_is_answered_in_order(store):
    """As many lines as a batch may hold, with one charge or several, shadows and checks among them."""
    last = (
        MAX_LINES - 1
    )  # denied, and so after all others: on a Cluster they would see what it charges until that is undone
    lines = [
        Line((charge(f"k{number}", last - number), charge("all", 10_000, hits=2), charge("s", 3, role=Role.SHADOW)), 1)
        for number in range(MAX_LINES)
    ]
    grants = await store.take(lines)
    assert [grant.granted for grant in grants] == [1] * last + [0]
    assert [grant.outcomes[1].remaining for grant in grants[:last]] == [
        10_000 - 2 * number for number in range(1, MAX_LINES)
    ]
    assert [grant.outcomes[2].remaining for grant in grants[:5]] == [2, 1, 0, 0, 0]


async def test_several_takes_at_once_keep_apart(store):
    """Callers that do not wait for each other get each their own answer."""
    answers = await asyncio.gather(*(store.take([Line((charge(f"k{n}", n + 1),), 1)]) for n in range(50)))
    assert [grant.outcomes[0].remaining for (grant,) in answers] == list(range(50))


async def test_keys_may_hold_any_bytes(store):
    """A key is bytes, not text."""
    one = [Line((charge(bytes(range(256)), 1),), 1)]
    assert (await store.take(one))[0].granted == 1
    assert (await store.take(one))[0].granted == 0


# ── memory ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_memory_forgets_windows_that_hold_nothing(clock):
    """Two windows after its last move nothing of a key is left."""
    memory = MemoryStore(clock)
    for number in range(100):
        memory.take_now([Line((charge(f"k{number}", 5),), 1)])
        clock.now += SECOND
    assert len(memory) == 100
    memory.take_now([Line((charge("k0", 5),), 1)])
    clock.now += 2 * MINUTE - SECOND
    memory.expire(clock.now)
    assert len(memory) == 1
    clock.now += SECOND
    memory.expire(clock.now)
    assert len(memory) == 0
    assert memory._expiries == []


async def test_memory_is_bounded_under_a_flood_of_new_keys(clock):
    """A flood of keys costs no more than the bound: the windows that end first are forgotten early, and counted."""
    memory = MemoryStore(clock, most_keys=100)
    memory.take_now([Line((charge("long", 1, window=3600 * SECOND),), 1)])
    for number in range(10_000):
        memory.take_now([Line((charge(f"flood{number}", 1),), 1)])
        assert len(memory) <= 100
        assert len(memory._expiries) <= 101
    assert memory.forgotten == 10_001 - 100
    assert memory.take_now([Line((charge("long", 1, window=3600 * SECOND),), 1)])[0].granted == 0


async def test_memory_looks_at_few_windows_to_make_room(clock):
    """When all windows have moved on since they were put in order, one more key does not put all of them in order anew."""
    memory = MemoryStore(clock, most_keys=2_000)
    day = 86_400 * SECOND
    for _ in range(2):
        for number in range(2_000):
            memory.take_now([Line((charge(f"k{number}", 9, window=day),), 1)])
        clock.now += day // 30
    before = {key: at for at, key in memory._expiries}
    memory.take_now([Line((charge("one more", 9, window=day),), 1)])
    assert len(memory) == 2_000
    assert 0 < sum(before.get(key) != at for at, key in memory._expiries) < 100


async def test_memory_keeps_one_heap_entry_a_window(clock):
    """A busy key does not grow the heap."""
    memory = MemoryStore(clock)
    for _ in range(1000):
        memory.take_now([Line((charge("k", 2**31),), 1)])
        clock.now += SECOND
    assert len(memory._expiries) == 1


# ── redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_flushed_script_is_loaded_again(server, clock):
    """SCRIPT FLUSH costs one more round trip and no request: NOSCRIPT proves that nothing was charged."""
    async with RedisStore(server.url, clock=clock, timeout_s=5) as store:
        with redis.Redis(port=server.port, host="127.0.0.1") as client:
            client.flushall()
            await store.take([Line((charge("k", 5),), 1)])
            client.script_flush()
            assert (await granted(store.take([Line((charge("k", 5),), 1)])))[0].outcomes[0].remaining == 3


async def test_redis_gives_the_time_in_production(server):
    """Without a clock of its own the store uses Redis's, in µs."""
    async with RedisStore(server.url, timeout_s=5) as store:
        with redis.Redis(port=server.port, host="127.0.0.1") as client:
            client.flushall()
            (grant,) = await granted(store.take([Line((charge("k", 5),), 1)]))
            seconds, _ = client.time()
            stored = client.get("k")
    import struct

    width, head, *_ = struct.unpack_from("<4d", stored, 2)
    assert abs(head * width / SECOND - seconds) <= 2
    assert MINUTE <= grant.outcomes[0].empty_us <= MINUTE + SECOND


async def test_a_store_that_is_not_there_says_so_at_once_and_comes_back_by_itself(tmp_path):
    """Down at the start it is usable and raises; it is up soon after the server is; killed, it raises; and so on."""
    told: list[str] = []
    server = valkey(tmp_path)
    one = [Line((charge("k", 100),), 1)]
    async with RedisStore(
        server.url, timeout_s=5, on_up=lambda _: told.append("up"), on_down=lambda _: told.append("down")
    ) as store:
        await untaken(store.take(one))
        for _ in range(2):
            await server.start()
            await until(lambda: store.up)
            assert (await granted(store.take(one)))[0].granted == 1
            await server.kill()
            await until(lambda: not store.up)
            await untaken(store.take(one))
    # an outage may have several reasons, each told once: closed, refused
    assert [what for what, _ in groupby(told)] == ["down", "up", "down", "up", "down"]
    assert len(told) < 15


async def test_a_hanging_server_costs_the_timeout_once(tmp_path):
    """A take on a stopped process ends in time, the next ones at once. When it goes on, those that lay in its socket are too late."""
    loop = asyncio.get_running_loop()
    one = [Line((charge("k", 100),), 1)]
    async with valkey(tmp_path) as server, RedisStore(server.url, timeout_s=0.2, latency_s=5) as store:
        await granted(store.take(one))
        os.kill(server.pid, signal.SIGSTOP)
        started = loop.time()
        takes = [store.take(one, started + 0.2) for _ in range(5)]
        ended = [await untaken(take) for take in takes]
        assert 0.15 < loop.time() - started < 2
        assert {str(one.error) for (one,) in ended} == {"no answer within 200 ms"}
        assert not store.up
        (refused,) = await untaken(store.take(one))
        assert refused.outcome is None
        node = store.nodes()[server.address]
        await until(lambda: not node.describe()["connected"])
        os.kill(server.pid, signal.SIGCONT)
        await until(lambda: store.up)
        outcomes = [one.outcome for (one,) in ended if one.outcome is not None]
        assert await asyncio.gather(*outcomes) == [0] * 5
        assert (await granted(store.take(one)))[0].outcomes[0].remaining == 98


async def test_a_slow_store_may_be_waited_for(tmp_path):
    """A timeout of more than a second is kept, and not cut by the client library's own."""
    async with valkey(tmp_path) as server, RedisStore(server.url, timeout_s=20) as store:
        os.kill(server.pid, signal.SIGSTOP)
        taking = store.take([Line((charge("k", 100),), 1)])
        assert await asyncio.wait([taking], timeout=1.5) == (set(), {taking})
        os.kill(server.pid, signal.SIGCONT)
        assert (await granted(taking))[0].granted == 1


@pytest.mark.parametrize("make", [valkey, redis_6_2])
async def test_a_primary_that_became_a_replica_is_left(tmp_path, make):
    """READONLY: the address may have a new primary behind it, so the connection is given up; it comes back with the primary."""
    told: list[str] = []
    async with (
        make(tmp_path / "one") as server,
        make(tmp_path / "two") as other,
        RedisStore(server.url, timeout_s=5, on_down=told.append) as store,
    ):
        with redis.Redis(port=server.port, host="127.0.0.1") as client:
            await store.take([Line((charge("k", 100),), 1)])
            client.replicaof("127.0.0.1", str(other.port))
            await untaken(store.take([Line((charge("k", 100),), 1)]))
            assert len(told) == 1
            assert re.search("READONLY|read only", told[0])
            await until(lambda: len(told) > 1)
            assert "it is a replica" in told[1]
            client.replicaof("NO", "ONE")
        await until(lambda: store.up)
        assert (await granted(store.take([Line((charge("k", 100),), 1)])))[0].granted == 1


async def test_an_idle_connection_that_dies_is_noticed_without_a_request(tmp_path):
    """Health tells the truth also when nobody asks for limits."""
    async with valkey(tmp_path) as server, RedisStore(server.url, timeout_s=1) as store:
        assert store.up
        await server.kill()
        await until(lambda: not store.up)
        assert "down" in repr(store)


async def test_warnings_at_start(tmp_path):
    """An operator is told if Redis may evict windows."""
    told: list[str] = []
    server = valkey(tmp_path, args=["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"])
    async with server, RedisStore(server.url, timeout_s=5, on_up=told.extend):
        pass
    assert len(told) == 1
    assert "allkeys-lru" in told[0]
    assert "noeviction" in told[0]


async def test_what_is_evicted_counts_no_more(tmp_path):
    """Under any policy but noeviction a full Redis drops windows: their limits may be used once more, and nothing else happens."""
    one = [Line((charge("k", 1),), 1)]
    server = valkey(tmp_path, args=["--maxmemory", "20mb", "--maxmemory-policy", "allkeys-lru"])
    async with server, RedisStore(server.url, timeout_s=5) as store:
        assert [(await granted(store.take(one)))[0].granted for _ in range(2)] == [1, 0]
        with redis.Redis(port=server.port, host="127.0.0.1") as client:
            number = 0
            while client.exists("k"):
                client.set(f"other:{number}", bytes(100_000))
                number += 1
                assert number < 10_000
        assert store.up
        assert [(await granted(store.take(one)))[0].granted for _ in range(2)] == [1, 0]


async def test_a_password_is_used_and_a_wrong_one_is_told(tmp_path):
    """AUTH is redis-py's; its refusal is a reason for being down, not a crash."""
    async with valkey(tmp_path) as server:
        with redis.Redis(port=server.port, host="127.0.0.1") as client:
            client.config_set("requirepass", "s3cret")
        url = f"redis://:s3cret@{server.address}"
        async with RedisStore(url, timeout_s=5) as store:
            assert (await granted(store.take([Line((charge("k", 1),), 1)])))[0].granted == 1
        async with RedisStore(f"redis://:wrong@{server.address}", timeout_s=5) as store:
            assert re.search(r"(?i)password|auth", await why_not(store.take([Line((charge("k", 1),), 1)])))


RUBBISH = [
    b"",
    b"+OK\r\n",
    b"$-1\r\n",
    b":1\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"-ERR no\r\n",
    b"-NOAUTH first\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"$3\r\n\xff\xfe\xfd\r\n",
    b"*1\r\n:1\r\n",
    b"*3\r\n:1\r\n:1\r\n$1\r\nx\r\n",
    random.Random(1).randbytes(1000),
]


async def test_a_peer_that_answers_rubbish_is_away():
    """Whatever is answered, at whichever step (hello, script, INFO, PING, take), a take is untaken."""
    await asyncio.gather(*(ask_rubbish(reply, sound) for reply in RUBBISH for sound in range(6)))


async def ask_rubbish(reply: bytes, sound: int) -> None:
    """Take from a peer whose first `sound` answers are right."""
    good = [b"+OK\r\n", b"+OK\r\n", b"$0\r\n\r\n", b"+PONG\r\n"]

    async def rubbish(reader, writer):
        for number in range(20):
            if not await reader.read(100_000):
                break
            writer.write(good[number] if number < min(sound, len(good)) else reply)
        writer.close()

    server = await asyncio.start_server(rubbish, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, RedisStore(f"redis://127.0.0.1:{port}", timeout_s=0.05) as store:
        for _ in range(2):
            await untaken(store.take([Line((charge("k", 1),), 1)]))
        keeper = store.nodes()[f"127.0.0.1:{port}"]._keeper
        assert keeper is not None
        assert not keeper.done()


async def test_connections_that_are_reset_are_opened_anew(server):
    """Reset while idle or in use, again and again, the store comes back each time."""
    async with RedisStore(server.url, timeout_s=5) as store:
        with redis.Redis(port=server.port, host="127.0.0.1") as client:
            for _ in range(6):
                await until(lambda: store.up)
                client.client_kill_filter(_type="normal", skipme=True)
                await store.take([Line((charge("k", 2**31),), 1)])
        await until(lambda: store.up)
        assert (await granted(store.take([Line((charge("k", 2**31),), 1)])))[0].granted == 1


async def test_nothing_is_left_behind(server):
    """Closing a store ends its task and its connection."""
    before = asyncio.all_tasks()
    async with RedisStore(server.url, timeout_s=5) as store:
        await store.take([Line((charge("k", 1),), 1)])
        with redis.Redis(port=server.port, host="127.0.0.1") as client:
            during = len(client.client_list())
    assert asyncio.all_tasks() == before
    with redis.Redis(port=server.port, host="127.0.0.1") as client:
        await until(lambda: len(client.client_list()) < during)


def test_the_script_is_small():
    """The script is loaded at each connection and kept by Redis: it stays a page or two an algorithm."""
    assert len(SCRIPT) < 28_000


def test_no_constant_is_made_anew_in_each_call():
    """Constants stand where they are used: as locals of the script they would cost every call."""
    assert re.findall(rb"^ *local [A-Z_, ]+ =", SCRIPT, re.MULTILINE) == []
