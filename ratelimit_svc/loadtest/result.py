"""One load test as one value, and as JSON. No host name is in it: a result is to be shown."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratelimit_svc.loadtest.calls import PERCENTILES, Calls
from ratelimit_svc.loadtest.counters import Counts, Look
from ratelimit_svc.loadtest.profile import Settings
from ratelimit_svc.loadtest.thresholds import Verdict


@dataclass(frozen=True, slots=True)
class Result:
    """What was sent, what came of it, and whether that is enough."""

    profile: str
    service: str
    """What was asked, in words."""
    started: str
    """When, in UTC."""
    load_average: float
    """What else this machine was busy with, in cores, over the minute before."""
    settings: Settings
    """ghz's."""
    planned: int | None
    """How many calls ghz meant to send, if it was told."""
    calls: Calls
    looks: Sequence[Look]
    """The service's counters all the while; none, if they are not known."""
    counts: Counts | None
    """What the service counted in that time."""
    fullest: Mapping[str, int | None]
    """The most hits of a rule that were certainly admitted in one window, for each rule with a limit among the thresholds."""
    verdicts: Sequence[Verdict]

    @property
    def held(self) -> bool:
        """No threshold is known not to have held."""
        return all(verdict.held is not False for verdict in self.verdicts)


def machine() -> str:
    """Return what this machine is: its processor, how many cores of it we may use, system and Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{_processor()}, {cores} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown processor"


def as_json(result: Result) -> dict[str, Any]:
    """Return all of it but the single calls."""
    return {
        "profile": result.profile,
        "held": result.held,
        "service": result.service,
        "started": result.started,
        "machine": machine(),
        "load_average": result.load_average,
        "ghz": {name: value for name, value in result.settings.items() if name != "data"},
        "planned": result.planned,
        "codes": dict(result.calls.codes),
        "calls_per_second": [sum(second.values()) for second in result.calls.per_second],
        "latency_ms": {str(percent): result.calls.percentile_us(percent) / 1000 for percent in PERCENTILES},
        "counters": _counts(result.counts) if result.counts else None,
        "fullest_window": dict(result.fullest),
        "thresholds": [verdict._asdict() | {"held": verdict.held} for verdict in result.verdicts],
    }


def _counts(counts: Counts) -> dict[str, Any]:
    return {
        "requests": counts.requests,
        "admitted": counts.admitted,
        "denied": counts.denied,
        "refused": counts.refused,
        "by_policy": dict(counts.policies),
        "store_failures": dict(counts.failures),
        "rules": {f"{rule} {decision}": number for (rule, decision), number in sorted(counts.decisions.items())},
    }
