"""No task and no file of the process is left of an outage: the limiter and its store, in this process, where both can be counted."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ratelimit_svc.demo.child import until
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.store.redis import RedisStore
from tests.limiting import asks, make, tell
from tests.outages.proxy import FaultProxy, Way

ROUNDS = 3


def hang(proxy: FaultProxy) -> None:
    proxy.answers = Way.HOLD


def lose(proxy: FaultProxy) -> None:
    proxy.questions = Way.LOSE


def far(proxy: FaultProxy) -> None:
    proxy.delay_s = 0.06


def held() -> tuple[list[str], int]:
    """The tasks of this loop by name, but for this one; and how many files this process has open."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return sorted(str(task.get_coro()).split(" at ")[0] for task in tasks), len([*Path("/proc/self/fd").iterdir()])


@pytest.mark.parametrize("fault", [FaultProxy.cut, FaultProxy.reset, hang, lose, far])
async def test_tasks_and_files_are_as_before(server, fault: Callable[[FaultProxy], None]):
    """However often; callers are answered each time."""
    async with FaultProxy(server.port) as proxy, RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout_s=0.05) as store:
        limiter = make(store, store_timeout_s=0.05)
        await tell(limiter, asks("big=1"))
        before = held()
        for _ in range(ROUNDS):
            fault(proxy)
            await asyncio.gather(*(tell(limiter, asks(f"big={number}")) for number in range(50)))
            await proxy.heal()
            await until(lambda: by_store(limiter), "the store decides again")
        with suppress(TimeoutError):  # what is left is shown below
            await until(lambda: as_before(before), "it is as it was")
        assert held() == before
        limiter.close()


async def by_store(limiter: Limiter) -> bool:
    """Whether a request is decided by the store."""
    before = limiter._metrics.policy_decisions.local
    await tell(limiter, asks("big=1"))
    return limiter._metrics.policy_decisions.local == before


async def as_before(before: tuple[list[str], int]) -> bool:
    return held() == before
