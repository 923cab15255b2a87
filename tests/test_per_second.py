"""Short windows on a Redis of their own: each window is where it belongs, and a request that has both is one request."""

from itertools import permutations

import pytest
from redis import Redis

from ratelimit_svc.demo.child import until as until_it_is
from ratelimit_svc.demo.parts import valkey
from ratelimit_svc.model import Grant, Line
from ratelimit_svc.store import Untaken
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.store.redis.cluster import Cluster
from ratelimit_svc.store.redis.per_second import PerSecond
from ratelimit_svc.store.redis.spread import SpreadStore
from ratelimit_svc.store.redis.where import Address, Kind, Where
from ratelimit_svc.store.redis.which import store_at
from tests.clusters import ClusterServers
from tests.histories import MINUTE, charge
from tests.waiting import until

SECOND = 1_000_000


def keys_of(port: int) -> set[bytes]:
    """The windows that a server has."""
    with Redis(host="127.0.0.1", port=port) as client:
        return {key for key in client.keys("*") if not key.startswith(b"ratelimit-svc:")}


@pytest.fixture
def empty(valkey_server, redis_server):
    """Two servers, empty: for the usual windows, and for short ones."""
    for server in (valkey_server, redis_server):
        with Redis(host="127.0.0.1", port=server.port) as client:
            client.flushall()
    return valkey_server, redis_server


async def test_windows_are_where_they_belong(empty):
    """Shorter than a minute: there; a minute and longer: here. Both in one request: all or nothing."""
    usual, short = empty
    places = PerSecond(RedisStore(usual.url, timeout_s=5), RedisStore(short.url, timeout_s=5))
    async with SpreadStore(places) as store:
        assert store.up
        assert {node.address.port for node in store.nodes().values()} == {usual.port, short.port}
        answers = await store.take(
            [
                Line((charge("second", 5, window=30 * SECOND),), 1),
                Line((charge("minute", 5, window=MINUTE),), 1),
                Line((charge("both short", 9, window=MINUTE - 1), charge("both long", 2, window=MINUTE)), 3),
            ]
        )
        assert [answer.granted for answer in answers if isinstance(answer, Grant)] == [1, 1, 2]
        (again,) = await store.take([Line((charge("both short", 3, window=MINUTE - 1),), 2)])
        assert isinstance(again, Grant)
        assert again.granted == 1  # two of three stayed charged
        assert keys_of(usual.port) == {b"minute", b"both long"}
        assert keys_of(short.port) == {b"second", b"both short"}


async def test_one_that_is_away_takes_only_its_own_windows_with_it(tmp_path, valkey_server):
    """A request that has windows on both is untaken, and charges nothing where it could."""
    short = valkey(tmp_path)
    places = PerSecond(RedisStore(valkey_server.url, timeout_s=5), RedisStore(short.url, timeout_s=5))
    async with SpreadStore(places) as store:
        assert store.up
        assert len(store.away()) == 1
        assert "for windows shorter than a minute" in store.away()[0]
        key = "only minutes"
        both = Line((charge(key, 5), charge("s", 5, window=SECOND)), 1)
        untaken, kept = await store.take([both, Line((charge(key, 5),), 1)])
        assert isinstance(untaken, Untaken)
        assert isinstance(kept, Grant)
        (kept,) = await store.take([Line((charge(key, 5),), 1)])
        assert isinstance(kept, Grant)
        assert kept.outcomes[0].remaining == 3
        async with short:
            await until(lambda: store.away() == [])
            (granted,) = await store.take([both])
            assert isinstance(granted, Grant)


async def test_either_may_be_a_cluster(cluster_servers: ClusterServers, empty):
    """Places of a Cluster and of a server stand side by side."""
    cluster_servers.flush()
    usual, _ = empty
    places = PerSecond(RedisStore(usual.url, timeout_s=5), Cluster(cluster_servers.where, timeout_s=5))
    async with SpreadStore(places) as store:
        lines = [
            Line((charge(f"{n}", 5), charge(f"s{n}", 3, window=SECOND * 30), charge(f"t{n}", 2, window=SECOND * 30)), 4)
            for n in range(20)
        ]
        answers = await store.take(lines)
        assert [answer.granted for answer in answers if isinstance(answer, Grant)] == [2] * 20
        await until(lambda: not store._open)
        checks = await store.take([Line((charge(f"s{n}", 3, hits=0, window=SECOND * 30),), 1) for n in range(20)])
        assert {answer.outcomes[0].remaining for answer in checks if isinstance(answer, Grant)} == {1}
    assert len(keys_of(usual.port)) == 20


async def test_what_is_told_is_told_of_both(tmp_path, valkey_server):
    """While one of the two answers, the store is up, and says what is away; it is down when none does."""
    short, usual = valkey(tmp_path / "short"), valkey(tmp_path / "usual")
    up: list[list[str]] = []
    down: list[str] = []
    store = store_at(
        Where.of_url(usual.url),
        Where.of_url(short.url),
        timeout_s=5,
        latency_s=5,
        key_prefix="",
        on_up=up.append,
        on_down=down.append,
        on_change=lambda *_: None,
    )
    async with short, usual, store:
        assert store.up
        assert up == [[]]
        assert down == []
        await short.kill()
        await until(lambda: len(up[-1]) == 1)
        assert "for windows shorter than a minute" in up[-1][0]
        assert down == []
        await usual.kill()
        await until(lambda: down != [])
        assert not store.up


async def test_what_is_away_of_a_cluster_is_told_once(cluster_servers: ClusterServers, valkey_server):
    """A Cluster says itself what is away of it; that is not said a second time for both."""
    up: list[list[str]] = []
    with cluster_servers.unserved(7):
        for where in permutations((cluster_servers.where, Where.of_url(valkey_server.url))):
            async with store_at(
                *where,
                timeout_s=5,
                latency_s=5,
                key_prefix="",
                on_up=up.append,
                on_down=lambda _: None,
                on_change=lambda *_: None,
            ) as store:
                assert [told.removeprefix("for windows shorter than a minute: ") for told in up[-1]] == [
                    "1 slots have no node"
                ]
                assert store.away() == up[-1]
    await until_it_is(cluster_servers.healthy, "the Cluster is whole")


@pytest.mark.parametrize(
    ("kind", "short", "made"),
    [
        ("single", None, RedisStore),
        ("cluster", None, SpreadStore),
        ("single", "single", SpreadStore),
        ("cluster", "single", SpreadStore),
    ],
)
async def test_the_settings_name_the_store(kind, short, made):
    """One server needs nothing that spans."""
    where, other = (each and Where((Address("127.0.0.1", 1),), Kind(each)) for each in (kind, short))
    assert where
    store = store_at(
        where,
        other,
        timeout_s=1,
        latency_s=1,
        key_prefix="",
        on_up=lambda _: None,
        on_down=lambda _: None,
        on_change=lambda *_: None,
    )
    assert type(store) is made
