"""A server watched over a long time: samples of what it holds, and what is wrong with them. Pure, but for `sample`.

Flat means: what it holds in the last quarter of the requests is what it held in the second, give or take. The first quarter
is for memories that fill once: of plans, of code, of the allocator.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench import cost
from tests.bench.report import aligned

GROWTH = 0.05
"""What the allocator may still spread out by. A leak of 10 bytes a request is twice that, over 10 million of them."""
FILES_LEFT = 16
"""File descriptors that may be more at the end than before: a pool of connections to Redis that has grown. Of 20 000 connections,
one in a thousand left open is more."""


@dataclass(frozen=True)
class Sample:
    """What a server holds at one moment."""

    at_s: float
    """Since the start of the load."""
    requests: int
    """Ended until then."""
    connections: int
    """Opened until then."""
    errors: int
    memory_mb: float
    files: int
    """Open file descriptors."""
    calls: int = 0
    """Under way, each with its stream or its task, as the server says; looked at when all connections are closed."""


def sample(pid: int, *, at_s: float, requests: int, connections: int, errors: int) -> Sample:
    """Look at a server."""
    return Sample(at_s, requests, connections, errors, cost.memory_mb(pid), cost.open_files(pid))


def table(samples: Sequence[Sample]) -> str:
    """Return the samples for people, with the rate since the one before."""
    head = ["seconds", "requests", "req/s", "connections", "memory MB", "files", "errors"]
    before = [samples[0], *samples]
    return aligned(
        [
            head,
            *(
                [
                    f"{one.at_s:.0f}",
                    f"{one.requests:,}",
                    f"{(one.requests - last.requests) / max(one.at_s - last.at_s, 1e-9):,.0f}",
                    f"{one.connections:,}",
                    f"{one.memory_mb:.1f}",
                    f"{one.files}",
                    f"{one.errors}",
                ]
                for last, one in zip(before, samples, strict=False)
            ),
        ]
    )


def findings(samples: Sequence[Sample], *, most_mb: float | None = None) -> list[str]:
    """Return what is wrong, in sentences. The first sample is of before the load, the last of after all connections are closed."""
    before, *during, after = samples
    found = []
    if after.errors:
        found.append(f"{after.errors} requests met an error")
    if after.files > before.files + FILES_LEFT:
        found.append(f"{after.files} files are open after the load, {before.files} were before it")
    if after.calls:
        found.append(f"{after.calls} calls are under way after the load")
    second, last = (_most_mb(during, quarter, after.requests) for quarter in (1, 3))
    if not second or not last:
        found.append("too few samples to say whether memory is flat: more requests, or more often")
    elif last > second * (1 + GROWTH):
        found.append(f"memory grows: {second:.1f} MB in the second quarter, {last:.1f} MB in the last")
    if most_mb is not None and (peak := max(one.memory_mb for one in samples)) > most_mb:
        found.append(f"memory: {peak:.1f} MB, more than {most_mb:g} MB")
    return found


def judge(samples: Sequence[Sample], *, most_mb: float | None = None) -> None:
    """Print the samples and what is wrong with them.

    Raises:
        SystemExit: something is.
    """
    print(table(samples))
    if found := findings(samples, most_mb=most_mb):
        raise SystemExit("\n".join(found))
    print("flat, and no errors")


def _most_mb(samples: Sequence[Sample], quarter: int, requests: int) -> float:
    """The most memory in a quarter of the requests, counted from 0; 0 where there is no sample."""
    low, high = requests * quarter / 4, requests * (quarter + 1) / 4
    return max((one.memory_mb for one in samples if low <= one.requests <= high), default=0.0)
