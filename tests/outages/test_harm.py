"""A store that answers and yet is in trouble: it was emptied, holds something that is not ours, or takes no writes."""

import shutil
from functools import partial

import pytest
from redis.asyncio import Redis

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import LOOPBACK
from tests.outages.stage import stage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

AFTER_S = 2.2


async def test_the_store_is_emptied(staged):
    """FLUSHALL, of keys and scripts: nothing is decided without it, and a window may hold a limit more."""
    async with staged.under_load("flushed") as run, Redis(host=LOOPBACK, port=staged.store.port) as client:
        await run.load.for_s(1.5)
        await client.flushall()
        await client.script_flush()
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings(emptied=True) == []


async def test_a_window_holds_what_is_not_ours(staged):
    """Its tenant is answered by policy until it has gone, and nobody else."""
    async with staged.under_load("poisoned") as run, Redis(host=LOOPBACK, port=staged.store.port) as client:
        await run.load.for_s(1.5)
        (key,) = await client.keys(f"*{{{run.load.tenant(0)}}}*")
        assert isinstance(key, bytes)
        async with client.pipeline(transaction=True) as together:
            together.delete(key)
            together.lpush(key, b"not ours")
            await together.execute()
        asked = len(run.load.calls)
        await run.load.for_s(1)
        concerned = sum(call.tenant == run.load.tenant(0) for call in run.load.calls[asked:])
        bad = [
            await replica.metric("ratelimit_svc_store_failures_total", kind="bad_key") for replica in staged.replicas
        ]
        await client.delete(key)
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings(emptied=True) == []
    assert all(bad)
    assert sum(bad) <= concerned * 1.5  # some were asked before and after it was counted


async def test_the_memory_of_the_store_is_full(staged):
    """It refuses to count, and says why; a second after there is room it counts again."""
    async with staged.under_load("full") as run, Redis(host=LOOPBACK, port=staged.store.port) as client:
        await run.load.for_s(1.5)
        await client.config_set("maxmemory", 1)
        await run.load.for_s(2)
        await client.config_set("maxmemory", 0)
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings() == []
    assert all("OOM" in replica.log.read_text() for replica in staged.replicas)


async def test_the_disk_of_the_store_is_full(tmp_path):
    """It cannot save, and so takes no writes (MISCONF): here, since its folder has gone."""
    async with stage(tmp_path) as staged, Redis(host=LOOPBACK, port=staged.store.port) as client:
        async with staged.under_load("disk") as run:
            await run.load.for_s(1)
            await client.config_set("save", "3600 1")
            shutil.rmtree(staged.store.folder)
            await client.bgsave()
            await until(partial(cannot_save, client), "it has failed to save")
            await run.load.for_s(1.5)
            await client.config_set("stop-writes-on-bgsave-error", "no")
            run.back()
            await run.load.for_s(AFTER_S)
        await staged.store.kill()  # asked to end, it would not, for it cannot save
    assert run.findings() == []
    assert all("MISCONF" in replica.log.read_text() for replica in staged.replicas)


async def cannot_save(client: Redis) -> bool:
    told = await client.info("persistence")
    return bool(told["rdb_bgsave_in_progress"] == 0 and told["rdb_last_bgsave_status"] == "err")
