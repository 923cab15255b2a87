"""What one sees while the demo runs: a live table on a terminal, a plain line each second elsewhere."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ratelimit_svc.demo.traffic import LIMITED, PASSED, Seen

EVERY_S = 0.25
LOOK_BACK = 4
"""Samples between which a rate is taken: one second."""


class Counts(NamedTuple):
    """One tenant's requests, at one time or between two."""

    sent: int
    passed: int
    limited: int


class Sample(NamedTuple):
    """All tenants' counts at one time."""

    at_s: float
    counts: Mapping[str, Counts]


class Board:
    """Shows what callers see, from `async with` until its end. `phase` and `limits` may change meanwhile."""

    def __init__(self, seen: Mapping[str, Seen], limits: Mapping[str, int], *, console: Console) -> None:
        self.phase = "starting"
        self.limits = dict(limits)
        self._seen = seen
        self._console = console
        self._started_s = time.monotonic()
        self._samples: deque[Sample] = deque([self._sample()], maxlen=LOOK_BACK + 1)
        self._task: asyncio.Task[None] | None = None

    def _sample(self) -> Sample:
        counts = {
            tenant: Counts(seen.sent, seen.statuses[PASSED], seen.statuses[LIMITED])
            for tenant, seen in self._seen.items()
        }
        return Sample(time.monotonic(), counts)

    def _rates(self) -> dict[str, Counts]:
        """Each tenant's requests a second, over the last one."""
        before, after = self._samples[0], self._samples[-1]
        seconds = max(after.at_s - before.at_s, EVERY_S)
        return {
            tenant: Counts(
                *(round((new - old) / seconds) for old, new in zip(before.counts[tenant], counts, strict=True))
            )
            for tenant, counts in after.counts.items()
        }

    def table(self) -> Table:
        """The table of this moment."""
        table = Table(title=self.phase, title_justify="left", title_style="bold")
        table.add_column("tenant")
        for name in ("limit/s", "sent/s", "passed/s", "limited/s", "sent", "passed", "limited"):
            table.add_column(name, justify="right")
        rates = self._rates()
        for tenant, total in self._samples[-1].counts.items():
            rate = rates[tenant]
            numbers = (self.limits[tenant], rate.sent, rate.passed, rate.limited, *total)
            table.add_row(tenant, *(str(number) for number in numbers))
        return table

    def line(self) -> str:
        """The same in one line, without the phase."""
        tenants = (
            f"{tenant} (limit {self.limits[tenant]}): {rate.sent} sent, {rate.passed} passed, {rate.limited} limited"
            for tenant, rate in self._rates().items()
        )
        return f"{self._samples[-1].at_s - self._started_s:6.1f} s   " + "   ".join(tenants)

    async def _draw(self) -> None:
        with Live(self.table(), console=self._console, auto_refresh=False) as live:
            while True:
                await self._next_sample()
                live.update(self.table(), refresh=True)

    async def _write(self) -> None:
        shown = ""
        while True:
            for _ in range(LOOK_BACK):
                await self._next_sample()
            if self.phase != shown:
                shown = self.phase
                self._print(shown)
            self._print(self.line())

    def _print(self, line: str) -> None:
        """Flushed each time: whoever reads a pipe wants to follow."""
        print(line, file=self._console.file, flush=True)

    async def _next_sample(self) -> None:
        await asyncio.sleep(EVERY_S)
        self._samples.append(self._sample())

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._draw() if self._console.is_terminal else self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
