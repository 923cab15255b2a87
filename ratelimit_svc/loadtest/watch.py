"""The service's counters, read again and again while ghz runs.

A host name may stand for many replicas (a headless Service): each of its addresses is asked.
"""

import asyncio
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from ratelimit_svc.demo.parts import get
from ratelimit_svc.loadtest.counters import Look, read

EVERY_S = 0.05
"""Time between two looks. How full a window was is known to about that: a shorter one would cost the service more."""

LAST_WITHIN_S = 15
"""So long the last look is tried: a service that was asked too much needs a while for its counters, too."""


class WatchError(Exception):
    """A page of counters could not be read."""


async def pages_of(url: str) -> list[str]:
    """Return the same page of every address that the host of a URL has; WatchError if it has none."""
    parts = urlsplit(url)
    port = parts.port or 80
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as why:
        raise WatchError(f"{url}: {why}") from why
    hosts = sorted({str(address[0]) for *_, address in found})
    return [parts._replace(netloc=f"[{host}]:{port}" if ":" in host else f"{host}:{port}").geturl() for host in hosts]


class Watch:
    """Looks at the counters from `async with` until its end; the first and the last look are outside of all that happens within."""

    def __init__(self, pages: Sequence[str]) -> None:
        self.looks: list[Look] = []
        self._pages = pages
        self._end = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Read the counters of all replicas; WatchError says which could not be."""
        begun = time.monotonic_ns() // 1000
        answers = await asyncio.gather(*map(get, self._pages))
        ended = time.monotonic_ns() // 1000
        for page, (status, _) in zip(self._pages, answers, strict=True):
            if status != 200:
                raise WatchError(f"{page}: {status or 'no answer'}")
        try:
            self.looks.append(Look(begun, ended, read(text for _, text in answers)))
        except ValueError as why:
            raise WatchError(f"{', '.join(self._pages)}: {why}") from why

    async def _look_often(self) -> None:
        while not self._end.is_set():
            with suppress(
                WatchError
            ):  # too busy to show its counters: it is looked at again, and the last look must succeed
                await self.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), EVERY_S)

    async def __aenter__(self) -> Self:
        await self.look()
        self._task = asyncio.create_task(self._look_often())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._end.set()
        await self._task
        if kind is None:
            await self._look_at_last()

    async def _look_at_last(self) -> None:
        deadline = time.monotonic() + LAST_WITHIN_S
        while True:
            try:
                return await self.look()
            except WatchError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(EVERY_S)
