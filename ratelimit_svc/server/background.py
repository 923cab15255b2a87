"""What runs beside the requests: each part is a task for as long as a context lasts, and one that fails stops the process."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from time import monotonic_ns, time_ns
from typing import Any

import structlog

from ratelimit_svc.health import Health
from ratelimit_svc.limiter.owed import Owed
from ratelimit_svc.limiter.refusals import Refusals
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.wire.health import Health as WireHealth

EXPIRE_EVERY_S = 0.1
"""How often windows in memory that hold nothing are forgotten, if no request does it, hits owed that count no more, and denials that are over."""

_STARTED_NS = time_ns() - monotonic_ns()
"""What makes a monotonic time a time of day."""

log = structlog.get_logger()


def steady_us() -> int:
    """Return the time for windows that only this process sees: of day, as fixed windows need it, but no one can step it."""
    return (_STARTED_NS + monotonic_ns()) // 1000


@asynccontextmanager
async def running(part: str, work: Coroutine[Any, Any, None], stop: asyncio.Event) -> AsyncIterator[None]:
    """Run something in the background for as long as the context lasts. If it fails, the process stops, and says why."""
    task = asyncio.create_task(work, name=part)

    def on_end(_: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("stopping: a part has failed", part=part, exc_info=task.exception())
            stop.set()

    task.add_done_callback(on_end)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def either(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until one of these is over, and let the others go. What failed raises."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


async def expire(windows: MemoryStore, owed: Owed, refusals: Refusals) -> None:
    """Forget what is over, again and again."""
    while True:
        await asyncio.sleep(EXPIRE_EVERY_S)
        windows.expire(steady_us())
        owed.expire()
        refusals.expire()


async def publish_health(health: Health, watched: WireHealth) -> None:
    """Tell each change of readiness to those who ask by gRPC."""
    while True:
        watched.set_ready(ready=health.ready)
        await health.change()


def on_signals(stop: asyncio.Event, look: asyncio.Event) -> None:
    """SIGTERM and SIGINT stop the process, SIGHUP looks at the rules."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, look.set)


def allow_many_files() -> None:
    """Let the process open as many files, and so connections, as it may at most: many systems begin with a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # it does without
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
