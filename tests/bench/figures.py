"""What comes of a measurement: rates, costs per decision, percentiles, and what was the limit. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

BUSY = 0.95
"""A core of which so much is used is full: the rest goes to the kernel's own work and to whoever else is there."""

SHARED = 0.1
"""Of a core in others' hands, beyond which a line says so: rates and latencies are theirs, too, and caches."""


@dataclass(frozen=True)
class Books:
    """What was read before and after: always the difference of two is meant."""

    wall_s: float
    server_cpu_s: float
    redis_cpu_s: float
    generator_cpu_s: float
    server_core_s: float
    """How long the server's core was not idle, whoever used it."""
    generator_core_s: float
    """The same of the core that generator and Redis share."""
    commands: Counter[str]
    """Of Redis, by name."""

    def __sub__(self, before: "Books") -> "Books":
        """Return what was used between."""
        return Books(
            self.wall_s - before.wall_s,
            self.server_cpu_s - before.server_cpu_s,
            self.redis_cpu_s - before.redis_cpu_s,
            self.generator_cpu_s - before.generator_cpu_s,
            self.server_core_s - before.server_core_s,
            self.generator_core_s - before.generator_core_s,
            self.commands - before.commands,
        )


@dataclass(frozen=True)
class Figures:
    """One server under one workload. A decision is a request that was answered OK or OVER_LIMIT."""

    requests_per_s: float
    server_us: float
    """CPU of the server's processes, user and system, per decision."""
    redis_us: float
    """CPU of Redis per decision."""
    redis_operations: float
    """Commands run in Redis per decision, those within scripts too."""
    generator_us: float
    """CPU of the load generator per decision."""
    p50_ms: float
    p99_ms: float
    p999_ms: float
    longest_ms: float
    """The slowest reply."""
    silence_ms: float
    """The longest time without a reply on any connection."""
    peak_mb: float
    """The most memory the server has had since its start."""
    ok: float
    over_limit: float
    errors: float
    by_policy: float
    """Of our own: requests that were decided without Redis, while it was warmed up or measured. They cost less than they should."""
    server_busy: float
    """The part of its core that the server used."""
    server_core: float
    """The part of that core that anybody used."""
    generator_busy: float
    """The part of the other core that generator and Redis used."""
    generator_core: float
    """The part of that core that anybody used."""

    @property
    def generator_limited(self) -> bool:
        """The server could have answered more: its core had time left, the generator's had none, and nobody else took it."""
        return self.generator_core >= BUSY > self.server_core and self.others_at_generator <= SHARED

    @property
    def others_at_server(self) -> float:
        """The part of the server's core that was neither idle nor the server's."""
        return max(self.server_core - self.server_busy, 0)

    @property
    def others_at_generator(self) -> float:
        """The same of the other core."""
        return max(self.generator_core - self.generator_busy, 0)


def figures(
    used: Books, *, answers: Sequence[int], latencies_s: list[float], silence_s: float, peak_mb: float, by_policy: float
) -> Figures:
    """Return the figures of one run.

    Raises:
        ValueError: nothing was decided.
    """
    errors, ok, over_limit = answers
    decisions = ok + over_limit
    if not decisions:
        raise ValueError(f"no decision in {used.wall_s:.1f} s, {errors} errors")
    ordered = sorted(latencies_s)
    return Figures(
        requests_per_s=decisions / used.wall_s,
        server_us=used.server_cpu_s / decisions * 1e6,
        redis_us=used.redis_cpu_s / decisions * 1e6,
        redis_operations=used.commands.total() / decisions,
        generator_us=used.generator_cpu_s / decisions * 1e6,
        p50_ms=percentile(ordered, 0.5) * 1e3,
        p99_ms=percentile(ordered, 0.99) * 1e3,
        p999_ms=percentile(ordered, 0.999) * 1e3,
        longest_ms=ordered[-1] * 1e3,
        silence_ms=silence_s * 1e3,
        peak_mb=peak_mb,
        ok=ok,
        over_limit=over_limit,
        errors=errors,
        by_policy=by_policy,
        server_busy=used.server_cpu_s / used.wall_s,
        server_core=used.server_core_s / used.wall_s,
        generator_busy=(used.generator_cpu_s + used.redis_cpu_s) / used.wall_s,
        generator_core=used.generator_core_s / used.wall_s,
    )


def percentile(ordered: Sequence[float], part: float) -> float:
    """Return the least of these that at least this part of them does not exceed."""
    return ordered[max(ceil(part * len(ordered)) - 1, 0)]


def middle(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure, except that what must not happen is summed: none of it is an outlier."""
    values = {name: median(getattr(one, name) for one in rounds) for name in Figures.__dataclass_fields__}
    return Figures(**values | {name: sum(getattr(one, name) for one in rounds) for name in ("errors", "by_policy")})
