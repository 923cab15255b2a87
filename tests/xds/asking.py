"""A client of ours that a test watches."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.xds.channel import KEEPALIVE_S
from ratelimit_svc.xds.client import Client
from ratelimit_svc.xds.source import Node, Source, Waits
from tests import waiting

if TYPE_CHECKING:
    from ratelimit_svc.errors import RulesError

SOON = Waits(retry_s=0.1, initial_s=0.1, most_s=0.2, spread=0)


def source(url: str, **changed: Any) -> Source:
    """A server to ask, without TLS and with short waits."""
    made = Source(url=url, tls=None, node=Node("ours", {}), headers={}, waits=SOON, max_message_bytes=4 * 1024**2)
    return made._replace(**changed)


class Asking:
    """A client, and what it told."""

    def __init__(self, source: Source, *, merge_domains: bool = False, keepalive_s: float = KEEPALIVE_S) -> None:
        self.rules: list[RuleSet] = []
        self.errors: list[RulesError] = []
        self.ups = 0
        self.downs: list[str] = []
        """Why there was no stream, each time it was told."""
        self.waits_s: list[float] = []
        """How long it was to the next one, as it was told."""
        self.waits = 0
        """How often it has waited, told or not."""
        self.loads = 0
        self.wake = asyncio.Event()
        self._load = partial(load, merge_domains=merge_domains)
        self.client = Client(
            source,
            loader=self._counted,
            on_rules=lambda rules, _files: self.rules.append(rules),
            on_error=self.errors.append,
            on_up=self._up,
            on_down=self._down,
            wake=self.wake,
            dice=self._dice,
            keepalive_s=keepalive_s,
        )

    def _counted(self, files: Iterable[RuleFile]) -> RuleSet:
        assert threading.current_thread() is not threading.main_thread(), "it is compiled in a thread"
        self.loads += 1
        return self._load(files)

    def _up(self) -> None:
        self.ups += 1

    def _down(self, reason: str, wait_s: float) -> None:
        self.downs.append(reason)
        self.waits_s.append(wait_s)

    def _dice(self) -> float:
        """Thrown once for each wait; this face spreads nothing."""
        self.waits += 1
        return 0.5

    def limits(self) -> dict[str, int | None]:
        """The limits in force, by their rules."""
        return {rule.id: rule.limit.requests_per_unit if rule.limit else None for rule in self.rules[-1].rules}

    @property
    def findings(self) -> list[str]:
        return [str(finding) for finding in self.errors[-1].findings]

    async def until_down(self, text: str) -> None:
        """Wait until it is told that there is no stream, with this text in the reason."""
        with suppress(TimeoutError):
            await waiting.until(lambda: any(text in reason for reason in self.downs), within_s=60)
        assert any(text in reason for reason in self.downs), self.downs


@asynccontextmanager
async def asking(source: Source, **how: Any) -> AsyncIterator[Asking]:
    """A client that runs for as long as the context lasts. What it raises, the context raises."""
    made = Asking(source, **how)
    task = asyncio.create_task(made.client.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
