"""What a gRPC engine is: a server that hands the bytes of ShouldRateLimit to the limiter, and other calls to their methods."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ratelimit_svc.limiter import Limiter
from ratelimit_svc.metrics.counts import Wire
from ratelimit_svc.tracing.traces import Traces
from ratelimit_svc.wire.calls import Method
from ratelimit_svc.wire.tls import ServerTls


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """What an operator may tell an engine."""

    max_message_bytes: int
    """A larger message, after decompression, ends its call with RESOURCE_EXHAUSTED."""
    max_connection_age_s: float | None = None
    """So old, ± 10 % so that not all go at once, a connection is told to end (GOAWAY); None: never."""
    max_connection_age_grace_s: float | None = None
    """So much later it is ended, whatever is under way on it; None: never."""
    tls: ServerTls | None = None
    """None: plaintext."""
    traces: Traces | None = None
    """Which requests are sampled, and who is told of them; None: none is."""


class Engine(Protocol):
    """One gRPC server. Two there are: `wire.grpcio` and `wire.http2.engine`, under the same tests.

    Resource handling: `start` or `start_unix` listens, `stop` ends; all belong to one event loop.
    """

    def __init__(self, limiter: Limiter, methods: Mapping[str, Method], options: EngineOptions) -> None:
        """Make a server that answers ShouldRateLimit from `limiter`, and every path in `methods` by its method."""

    async def start(self, host: str, port: int) -> int:
        """Listen. Return the port: the one asked for, or for 0 a free one.

        Raises:
            OSError: the address cannot be had.
        """

    async def start_unix(self, path: Path) -> None:
        """Listen on a unix socket; `unix.place` makes room for it first.

        Raises:
            OSError: the address cannot be had.
        """

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, and wait at most `grace_s` for what was accepted; what is left then is cancelled.

        Watches of health are calls like others: `Health.end_watches` is for the caller to call first. May be called again
        with less grace while it waits, and by one who no longer waits for the first call.
        """

    def wire(self) -> Wire | None:
        """Return what it knows of its callers; None: nothing. May be called in another thread."""
