"""What replicas say of themselves on /metrics, again and again."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import NamedTuple, Self

import aiohttp

from ratelimit_svc.demo.parts import Replica

_SAMPLE = re.compile(r"^([a-z_]+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
REQUESTS, POLICY, FILES, MEMORY, CALLS, UP = (
    "ratelimit_svc_requests_total",
    "ratelimit_svc_policy_decisions_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "ratelimit_svc_grpc_calls",
    "ratelimit_svc_store_up",
)


class Look(NamedTuple):
    """A replica at one moment."""

    replica: str
    at_s: float
    """When it was asked, by `perf_counter`: what it tells is of then or later."""
    ended_s: float
    """When it had answered: what it tells is of then or before."""
    requests: int
    policy: int
    """Of these, decided without the store."""
    files: int
    memory_mb: float
    calls: int
    """Under way."""
    up: bool
    """It says that its store answers."""


def read(replica: str, page: str, at_s: float, ended_s: float) -> Look:
    """Return what a page of metrics says; samples of one name are summed."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(page):
        sums[name] = sums.get(name, 0.0) + float(value)
    counted = (int(sums[REQUESTS]), int(sums[POLICY]), int(sums[FILES]), sums[MEMORY] / 2**20, int(sums[CALLS]))
    return Look(replica, at_s, ended_s, *counted, sums[UP] == 1)


class Looks:
    """Looks at replicas for as long as its context lasts. Who does not answer is looked at again the next time."""

    def __init__(self, replicas: Sequence[Replica], *, every_s: float = 0.1) -> None:
        self._replicas = replicas
        self._every_s = every_s
        self.seen: list[Look] = []
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit_per_host=1)  # so that a replica's open files are not ours, now and then
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=5))
        self._tasks = [asyncio.create_task(self._watch(replica)) for replica in self._replicas]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._session is not None
        await self._session.close()

    def of(self, replica: str) -> list[Look]:
        """Return what was seen of one."""
        return [look for look in self.seen if look.replica == replica]

    async def now(self, replica: Replica) -> Look:
        """Look at one; OSError or TimeoutError if it does not answer."""
        assert self._session is not None
        at_s = perf_counter()
        async with self._session.get(f"{replica.http}/metrics") as answer:
            page = await answer.text()
        return read(replica.name, page, at_s, perf_counter())

    async def _watch(self, replica: Replica) -> None:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):  # it is down, as is wanted
                self.seen.append(await self.now(replica))
            await asyncio.sleep(self._every_s)
