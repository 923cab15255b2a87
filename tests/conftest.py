"""Real stores for all tests: one Valkey and one Redis 6.2 a session, from their wheels."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop
from hypothesis import settings
from redis import Redis

from ratelimit_svc.demo.parts import RedisServer, redis, valkey
from ratelimit_svc.store import Store
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.store.redis.cluster import Cluster
from ratelimit_svc.store.redis.spread import SpreadStore
from tests.clusters import ClusterServers
from tests.histories import START
from tests.limiting import Recording
from tests.waiting import for_the_session

# CI tries the same examples every time, so that it fails for what was changed; elsewhere each run tries others
settings.register_profile("ci", derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

BOTH_LOOPS = {
    "test_pressure",
    "test_store",
    "test_connection",
    "test_node",
    "test_limiter",
    "test_coalescing",
    "test_in_time",
    "test_policy",
    "test_handshake",
}
"""Tests that run on both loops, which differ in what a broken connection raises and in their timers."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests on the loop that the service runs on, some on asyncio's as well."""
    path = item.nodeid.split("::")[0]
    both = (
        path.startswith(
            (
                "tests/conformance/",
                "tests/http2/test_call",
                "tests/http2/test_handshake",
                "tests/attacks/test_slow",
                "tests/attacks/test_gone",
            )
        )
        or path.removesuffix(".py").rpartition("/")[2] in BOTH_LOOPS
    )
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    return loops | {"asyncio": asyncio.new_event_loop} if both else loops


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory) -> Iterator[RedisServer]:
    """A Valkey that the whole session shares."""
    with for_the_session(valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory) -> Iterator[RedisServer]:
    """A Redis 6.2, the oldest that is supported, that the whole session shares."""
    with for_the_session(redis(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture(params=["redis", "valkey"])
def server(request) -> RedisServer:
    """Each of the two servers in turn."""
    found: RedisServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    """A plain client of each server in turn."""
    with Redis(port=server.port, host="127.0.0.1") as opened:
        yield opened


class Clock:
    """A time in µs that tests move by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock for one test."""
    return Clock()


@pytest.fixture(scope="session")
def cluster_servers(tmp_path_factory) -> Iterator[ClusterServers]:
    """A Cluster that the whole session shares: three masters, three replicas."""
    with for_the_session(ClusterServers(tmp_path_factory.mktemp("cluster"))) as servers:
        yield servers


@pytest.fixture(params=["memory", "redis", "valkey", "cluster"])
def shared_server(request) -> RedisServer | ClusterServers | None:
    """The server of each store in turn; None for memory."""
    if request.param == "memory":
        return None
    found: RedisServer | ClusterServers = request.getfixturevalue(
        "cluster_servers" if request.param == "cluster" else f"{request.param}_server"
    )
    return found


@pytest.fixture
async def store(shared_server: RedisServer | ClusterServers | None, clock: Clock) -> AsyncIterator[Store]:
    """Each store in turn, empty, on the test's clock."""
    if shared_server is None:
        yield MemoryStore(clock)
        return
    if isinstance(shared_server, ClusterServers):
        shared_server.flush()
        async with SpreadStore(Cluster(shared_server.where, clock=clock, timeout_s=5)) as spread:
            yield spread
        return
    with Redis(host="127.0.0.1", port=shared_server.port) as client:
        client.flushall()
    # the test's machine may stall for longer than a mesh would wait
    async with RedisStore(shared_server.url, clock=clock, timeout_s=5) as opened:
        yield opened


@pytest.fixture
def held(clock: Clock) -> Recording:
    """A memory store that can be held."""
    return Recording(MemoryStore(clock))
