"""A Cluster of three masters and three replicas, under load: a master is killed, and a thousand slots move."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.crc import key_slot

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import LOOPBACK, RedisServer
from tests.clusters import ClusterServers
from tests.outages.load import tenants
from tests.outages.stage import Stage, replica_at, rules, start_all, write_rules

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

REPLICAS, MOVED, LANES = 2, 1000, 10
NODE_TIMEOUT_MS = 1500
"""So long a master is silent before its replica stands up."""

Clustered = tuple[ClusterServers, Stage]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clustered(tmp_path_factory) -> AsyncIterator[Clustered]:
    """A Cluster, and replicas of the service that were told of some of its nodes."""
    folder = tmp_path_factory.mktemp("cluster")
    async with AsyncExitStack() as life:
        cluster = await life.enter_async_context(ClusterServers(folder, node_timeout_ms=NODE_TIMEOUT_MS))
        write_rules(folder, rules())
        url = ",".join(server.address for server in cluster.servers[1:4])
        env = {"REDIS_TYPE": "cluster"}
        replicas = [replica_at(folder, f"replica-{number}", url, REPLICAS, env) for number in range(REPLICAS)]
        await start_all(life, replicas)
        staged = Stage(folder, replicas, cluster.servers[0])
        await staged.at_store()
        async with staged.under_load("warm", weigh=False) as run:
            await run.load.for_s(1)
        yield cluster, staged


async def test_a_thousand_slots_move_under_load(clustered):
    """Those of tenants first, keys and all: answers stay in time, and windows within their bounds."""
    cluster, staged = clustered
    source, target = cluster.servers[:2]
    busy = [slot for slot in slots_of("move") if cluster.owner(slot) is source]
    slots = list(dict.fromkeys([*busy, *range(MOVED)]))[:MOVED]
    async with staged.under_load("move") as run:
        await run.load.for_s(1)
        await move(cluster, slots, source, target)
        run.back()
        await run.load.for_s(2)
    assert run.findings() == []
    assert len(busy) > 10
    assert {cluster.owner(slot) for slot in busy} == {target}


async def test_a_master_is_killed_under_load(clustered):
    """Its replica takes its place. What it had answered and not yet passed on is lost with it: at most a limit."""
    cluster, staged = clustered
    async with staged.under_load("failover") as run:
        await run.load.for_s(2)
        await cluster.servers[1].kill()
        await until(lambda: stands_up(cluster), "a replica is master", within=30)
        run.back()
        await run.load.for_s(3)
    assert run.findings(emptied=True) == []


def slots_of(name: str) -> list[int]:
    """Where the windows of a load's tenants are."""
    return [key_slot(tenant.encode()) for tenant in tenants(name)]


async def move(cluster: ClusterServers, slots: list[int], source: RedisServer, target: RedisServer) -> None:
    """As `ClusterServers.move`, but beside a load in the same loop, and many at a time: each state waits for replicas and disks."""
    old, new = cluster.id_of(source), cluster.id_of(target)

    async def lane(some: list[int]) -> None:
        async with Redis(host=LOOPBACK, port=source.port) as of, Redis(host=LOOPBACK, port=target.port) as to:
            for slot in some:
                await to.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old)
                await of.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new)
                while keys := await of.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
                    await of.execute_command("MIGRATE", LOOPBACK, target.port, "", 0, 10_000, "KEYS", *keys)
                await to.execute_command("CLUSTER SETSLOT", slot, "NODE", new)
                await of.execute_command("CLUSTER SETSLOT", slot, "NODE", new)

    await asyncio.gather(*(lane(slots[first::LANES]) for first in range(LANES)))


async def stands_up(cluster: ClusterServers) -> bool:
    return cluster.servers[4] in cluster.masters and await cluster.healthy()
