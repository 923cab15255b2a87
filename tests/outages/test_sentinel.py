"""Three sentinels over a primary and its replica: the primary is killed under load, and the other takes its place."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import LOOPBACK, RedisServer, Sentinel, replica_of, valkey
from tests.outages.stage import Stage, replica_at, rules, start_all, write_rules

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

NAME = "windows"
REPLICAS = 2


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[Stage, RedisServer, list[Sentinel]]]:
    """Replicas of the service at a primary; the server that copies it; and sentinels that know all of each other."""
    async with AsyncExitStack() as life:
        primary = await life.enter_async_context(valkey(folder / "primary"))
        other = await life.enter_async_context(replica_of(primary, folder / "other"))
        sentinels = [Sentinel(folder / f"sentinel-{number}", primary, name=NAME) for number in range(3)]
        for one in sentinels:
            await life.enter_async_context(one)
            life.push_async_callback(one.kill)  # it would take leave of the others first
        for one in sentinels:
            await until(partial(knows_all, one), "a sentinel knows all", within=30)
        write_rules(folder, rules())
        url = ",".join([NAME, *(one.address for one in sentinels)])
        env = {"REDIS_TYPE": "sentinel"}
        replicas = [replica_at(folder, f"replica-{number}", url, REPLICAS, env) for number in range(REPLICAS)]
        await start_all(life, replicas)
        yield Stage(folder, replicas, primary), other, sentinels


async def knows_all(sentinel: Sentinel) -> bool:
    async with Redis(host=LOOPBACK, port=sentinel.port) as client:
        state = await client.sentinel_master(NAME)
    assert isinstance(state, dict)
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


async def names(sentinel: Sentinel, server: RedisServer) -> bool:
    """Whether a sentinel says that this is the primary, and it is."""
    async with Redis(host=LOOPBACK, port=sentinel.port) as client:
        named = await client.sentinel_get_master_addr_by_name(NAME)
    async with Redis(host=LOOPBACK, port=server.port) as client:
        role = (await client.info("replication"))["role"]
    return isinstance(named, tuple) and named[1] == server.port and role == "master"


async def test_a_failover_under_load(tmp_path):
    """Answers in time, no errors, windows within an outage's bound; a second after the sentinels agree it is over.

    What the primary had answered and not yet passed on is lost with it: a window may hold so much more, at most a limit.
    """
    async with watched(tmp_path) as (staged, other, sentinels):
        await staged.at_store()
        async with staged.under_load("failover") as run:
            await run.load.for_s(2)
            await staged.store.kill()
            for one in sentinels:
                await until(partial(names, one, other), "the other is the primary", within=30)
            run.back()
            await run.load.for_s(3)
    assert run.findings(emptied=True) == []
