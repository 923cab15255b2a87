"""Sentinels: who they say is the primary, with real ones, some of which are dead, mute or ignorant."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import redis

from ratelimit_svc.demo.parts import LOOPBACK, RedisServer, Replica, Sentinel, get, replica_of, valkey
from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Line
from ratelimit_svc.store.redis import RedisStore, sentinel
from ratelimit_svc.store.redis.where import NOBODY, Address, Kind, Login, Where
from tests.histories import charge
from tests.taking import granted
from tests.waiting import until

NAME = "windows"
ONE = [Line((charge("k", 100),), 1)]


@asynccontextmanager
async def watched(folder: Path, *lines: str) -> AsyncIterator[tuple[RedisServer, RedisServer, list[Sentinel]]]:
    """A primary, its replica, and three sentinels over them that know of each other."""
    async with AsyncExitStack() as life:
        primary = await life.enter_async_context(valkey(folder / "primary"))
        replica = await life.enter_async_context(replica_of(primary, folder / "replica"))
        sentinels = [Sentinel(folder / f"{number}", primary, name=NAME, lines=lines) for number in range(3)]
        for one in sentinels:
            await life.enter_async_context(one)
        yield primary, replica, sentinels


def where(*ports: int, master: str = NAME, login: Login = NOBODY, within_s: float = 20) -> Where:
    return Where(
        tuple(Address(LOOPBACK, port) for port in ports),
        kind=Kind.SENTINEL,
        master=master,
        sentinel_login=login,
        connect_timeout_s=within_s,
    )


async def refused(asked: Where) -> str:
    """Return why there is no primary."""
    with pytest.raises(StoreUnavailableError) as error:
        await sentinel.primary(asked)
    return str(error.value)


async def test_the_primary_is_found_with_some_of_them_dead_and_not_with_all(tmp_path):
    """Three, two and one of three name it; where none does, what each said is told; so it is for a name they do not know."""
    async with watched(tmp_path) as (primary, replica, sentinels):
        ports = [one.port for one in sentinels]
        asked = where(*ports)
        found = Address(LOOPBACK, primary.port)
        assert await sentinel.primary(asked) == found
        unknown = await refused(where(*ports, master="other"))
        assert unknown.startswith("no sentinel names a primary for 'other': ")
        assert all(f"127.0.0.1:{port}: it knows no such primary" in unknown for port in ports)
        assert f"127.0.0.1:{replica.port}: " in await refused(where(replica.port))
        for one in sentinels:
            assert await sentinel.primary(asked) == found
            await one.kill()
        dead = await refused(asked)
        assert all(f"Error 111 connecting to 127.0.0.1:{port}" in dead for port in ports)


async def test_a_store_follows_the_sentinels(tmp_path):
    """The primary dies; the store comes back on the replica that took its place, without being told."""
    async with watched(tmp_path) as (primary, replica, sentinels):
        with redis.Redis(port=sentinels[0].port, host=LOOPBACK) as client:

            def known() -> bool:
                state = client.sentinel_master(NAME)
                return state["num-other-sentinels"] == 2 and state["num-slaves"] == 1

            await until(known, within_s=30)
        async with RedisStore(where(*(one.port for one in sentinels)), timeout_s=5) as store:
            assert (await granted(store.take(ONE)))[0].granted == 1
            await primary.kill()
            await until(lambda: not store.up)
            await until(lambda: store.up, within_s=60)
            assert (await granted(store.take(ONE)))[0].granted == 1
        with redis.Redis(port=replica.port, host=LOOPBACK) as client:
            assert client.info("replication")["role"] == "master"


async def test_one_that_hangs_keeps_nobody_waiting_who_has_a_majority(tmp_path):
    """Two of three agree: the third is not waited for. One of two is no majority: the other is, as long as it may take."""
    loop = asyncio.get_running_loop()
    async with (
        valkey(tmp_path / "primary") as primary,
        Sentinel(tmp_path / "a", primary, name=NAME) as one,
        Sentinel(tmp_path / "b", primary, name=NAME) as other,
    ):
        with socket.create_server((LOOPBACK, 0)) as hanging:  # connections are made, and nobody takes them up
            mute = hanging.getsockname()[1]
            started = loop.time()
            found = await sentinel.primary(where(mute, one.port, other.port, within_s=60))
            assert found.port == primary.port
            assert loop.time() - started < 30
            started = loop.time()
            found = await sentinel.primary(where(mute, one.port, within_s=3))
            assert found.port == primary.port
            assert loop.time() - started > 2.9
            assert f"127.0.0.1:{mute}: no answer within 3000 ms" in await refused(where(mute, within_s=3))


async def test_one_of_another_mind_is_outvoted(tmp_path):
    """One of three names a server that is none of theirs, as one that was cut off during a failover does."""
    async with (
        valkey(tmp_path / "primary") as primary,
        valkey(tmp_path / "former") as former,
        Sentinel(tmp_path / "a", former, name=NAME) as late,
        Sentinel(tmp_path / "b", primary, name=NAME) as one,
        Sentinel(tmp_path / "c", primary, name=NAME) as other,
    ):
        for _ in range(20):
            assert (await sentinel.primary(where(late.port, one.port, other.port))).port == primary.port


async def test_the_service_is_told_by_its_variables(tmp_path):
    """REDIS_TYPE and REDIS_URL, as for the reference implementation; health shows them, and not the password."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("domain: d\ndescriptors: [{key: k, rate_limit: {unit: hour, requests_per_unit: 1}}]\n")
    async with (
        valkey(tmp_path / "primary", args=["--requirepass", "secret"]) as primary,
        Sentinel(tmp_path / "sentinel", primary, name=NAME) as watching,
    ):
        env = {"REDIS_TYPE": "SENTINEL", "REDIS_AUTH": "secret", "REDIS_TIMEOUT": "20s", "STORE_TIMEOUT": "5s"}
        url = f"{NAME},{watching.address}"
        async with Replica(tmp_path / "replica", rules=rules, redis_url=url, env=env) as replica:
            _, text = await get(f"{replica.http}/healthcheck?verbose")
            store = json.loads(text)["store"]
            assert (store["up"], store["url"]) == (True, f"redis://***@{watching.address} (sentinels of {NAME})")
            assert "secret" not in replica.log.read_text()
        with redis.Redis(host=LOOPBACK, port=primary.port, password="secret") as client:
            assert client.info("commandstats")["cmdstat_script|load"]["calls"] >= 1
