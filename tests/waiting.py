"""Waiting for a state by looking at it, for servers that many tests share, and how long a replica waits on a busy machine."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

from ratelimit_svc.demo.child import Child

T = TypeVar("T")

PATIENCE = {"STORE_TIMEOUT": "5s", "BREAKER_LATENCY": "5s", "LOOP_LAG": "0s", "QUEUE_AGE": "10s"}
"""The environment of a replica whose answers are to be its store's: a test's machine may stall for longer than a mesh would wait."""


@contextmanager
def for_the_session(servers: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Open servers on a loop of their own: a fixture on a test's loop would end with that test, and start again for the next."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        opened = runner.run(_entered(servers))
        try:
            yield opened
        finally:
            runner.run(_left(servers))


async def _entered(servers: AbstractAsyncContextManager[T]) -> T:
    return await servers.__aenter__()


async def _left(servers: AbstractAsyncContextManager[T]) -> None:
    await servers.__aexit__(None, None, None)


async def until(condition: Callable[[], bool], *, within_s: float = 10) -> None:
    """Return as soon as the condition holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


async def ended(child: Child) -> int:
    """Wait for the end of a process and return its exit status."""
    await until(lambda: not child.running, within_s=15)
    assert child._process is not None
    return child._process.returncode
