"""Callers who send more than they may, and the application that must not see it.

Callers keep their connections, several per tenant, and send at a bounded rate: what an answer's delay made them miss they
do not make up for. Every answer is kept, with the times that the proof needs, on the clock that the store reads, too.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
from aiohttp import web

from ratelimit_svc.demo.child import free_port
from ratelimit_svc.demo.parts import LOOPBACK
from ratelimit_svc.demo.proof import Hit

PASSED = 200
LIMITED = 429
NO_ANSWER = 0
"""The status of a request whose connection broke, or that was not answered in two seconds."""

CALLERS_PER_TENANT = 4


def now_us() -> int:
    """The wall clock, as Redis reads it."""
    return time.time_ns() // 1000


class Answer(NamedTuple):
    """One request, as its caller saw it."""

    sent_us: int
    answered_us: int
    status: int
    headers: Mapping[str, str]


@dataclass(slots=True)
class Seen:
    """What one tenant's callers have seen so far."""

    passed: list[Hit] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    slowest_us: int = 0
    """The longest wait for any answer."""

    @property
    def sent(self) -> int:
        """How many requests were answered, or given up."""
        return self.statuses.total()

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        self.statuses[answer.status] += 1
        self.slowest_us = max(self.slowest_us, answer.answered_us - answer.sent_us)
        if answer.status == PASSED:
            self.passed.append(Hit(answer.sent_us, answer.answered_us))


async def call(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], *, method: str = "GET") -> Answer:
    """Send one request and read its answer to the end."""
    sent = now_us()
    try:
        async with session.request(method, url, headers=headers) as answer:
            await answer.read()
            headers_by_name = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(sent, now_us(), answer.status, headers_by_name)
    except (aiohttp.ClientError, TimeoutError):
        return Answer(sent, now_us(), NO_ANSWER, {})


class Callers:
    """Tenants who send `rates` requests a second to one URL, from `async with` until its end."""

    def __init__(self, url: str, rates: Mapping[str, float]) -> None:
        self.url = url
        self.rates = dict(rates)
        self.seen = {tenant: Seen() for tenant in rates}
        self._end = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._call_often(tenant, number / CALLERS_PER_TENANT))
            for tenant in self.rates
            for number in range(CALLERS_PER_TENANT)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        await asyncio.gather(*self._tasks)

    async def _call_often(self, tenant: str, phase: float) -> None:
        interval = CALLERS_PER_TENANT / self.rates[tenant]
        due = time.monotonic() + phase * interval
        seen = self.seen[tenant]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while not await self._ended_before(due):
                seen.add(await call(session, self.url, {"x-tenant": tenant}))
                due = max(due + interval, time.monotonic())

    async def _ended_before(self, due: float) -> bool:
        """Wait until then, or until the end."""
        try:
            await asyncio.wait_for(self._end.wait(), timeout=due - time.monotonic())
        except TimeoutError:
            return False
        return True


class Upstream:
    """The application: answers everything, and counts what arrived, by tenant."""

    def __init__(self) -> None:
        self.port = free_port()
        self.arrived: Counter[str] = Counter()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)

    async def _answer(self, request: web.Request) -> web.Response:
        self.arrived[request.headers.get("x-tenant", "")] += 1
        return web.Response(text="hello from the application\n")

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
