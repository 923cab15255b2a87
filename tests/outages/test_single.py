"""One Valkey or Redis that dies, hangs, is slow or far away, under load: answers in time, and windows within their bounds."""

import asyncio

import pytest

from ratelimit_svc.demo.parts import redis
from tests.outages.stage import empty, stage, stopped

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

AWAY_S = 10.0
"""A kill that a pod's restart takes."""
BEFORE_S, AFTER_S = 1.0, 2.2
"""Of load in good times: until windows are full; and for more than a window, once it is over."""


async def test_in_good_times_no_window_holds_more_than_its_limit(staged):
    """And the limit is reached: the load is one that could break it."""
    async with staged.under_load("good") as run:
        await run.load.for_s(2 * staged.window_s)
    assert run.findings() == []
    assert max(until_s - from_s for from_s, until_s in run.by_store) > staged.window_s
    assert sum(call.admitted and call.tenant == run.load.tenant(0) for call in run.load.calls) >= staged.limit


async def test_the_only_store_is_killed_and_comes_back_with_what_it_had(staged):
    """For ten seconds."""
    async with staged.under_load("kill") as run:
        await run.load.for_s(BEFORE_S)
        await staged.store.kill()
        await run.load.for_s(AWAY_S)
        await staged.store.start()
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings() == []


async def test_the_only_store_is_killed_and_comes_back_empty(staged):
    """Then a window may hold a limit more."""
    async with staged.under_load("empty") as run:
        await run.load.for_s(BEFORE_S)
        await staged.store.kill()
        empty(staged.store)
        await run.load.for_s(1)
        await staged.store.start()
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings(emptied=True) == []


async def test_the_store_hangs(staged):
    """It refuses nothing and answers nothing; what it was asked meanwhile it reads when it goes on."""
    async with staged.under_load("hang") as run:
        await run.load.for_s(BEFORE_S)
        with stopped(staged.store):
            await run.load.for_s(2)
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings() == []


async def test_the_store_is_far_away(staged):
    """200 ms each way: later than any caller waits."""
    async with staged.under_load("far") as run:
        await run.load.for_s(BEFORE_S)
        for proxy in staged.proxies.values():
            proxy.delay_s = 0.2
        await run.load.for_s(2)
        await staged.heal()
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings() == []


async def test_one_in_ten_connections_is_reset(staged):
    """Of those that stand, ten times a second; and of the new ones."""
    for proxy in staged.proxies.values():
        proxy.resets = 0
    async with staged.under_load("reset") as run:
        for proxy in staged.proxies.values():
            proxy.reset_one_in = 10
        await run.load.for_s(4)
        await staged.heal()
        run.back()
        await run.load.for_s(AFTER_S)
    assert sum(proxy.resets for proxy in staged.proxies.values()) >= 2
    assert run.findings() == []


async def test_the_store_comes_and_goes(staged):
    """A share is not given anew with each outage: local windows outlive them."""
    async with staged.under_load("flap") as run:
        await run.load.for_s(1)
        for _ in range(6):
            for proxy in staged.proxies.values():
                proxy.cut()
            await run.load.for_s(0.2)
            await staged.heal()
            await run.load.for_s(0.3)
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings() == []


async def test_one_of_two_replicas_is_cut_off(staged):
    """The other goes on with the store."""
    cut, other = (replica.name for replica in staged.replicas)
    async with staged.under_load("cut") as run:
        await run.load.for_s(1)
        staged.proxies[cut].cut()
        await run.load.for_s(2)
        decided = run.looks.of(other)[-1]
        await staged.proxies[cut].heal()
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings() == []
    assert decided.policy - run.looks.of(other)[0].policy < (decided.requests - run.looks.of(other)[0].requests) / 10


async def test_replicas_start_while_the_store_is_down(tmp_path):
    """They listen, are healthy and answer by policy; when it comes, they go to it by themselves."""
    async with (
        stage(tmp_path, store_runs=False, make_store=redis) as staged,
        staged.under_load("start", weigh=False) as run,
    ):
        await run.load.for_s(1.5)
        assert all(call.admitted or call.limited for call in run.load.calls if call.answered_s)
        assert all(await asyncio.gather(*(replica.ready() for replica in staged.replicas)))
        await staged.store.start()
        run.back()
        await run.load.for_s(AFTER_S)
    assert run.findings() == []
