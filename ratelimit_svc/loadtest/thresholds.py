"""The judge: what a load test must hold, and whether it did.

    {"all": {"p99_ms": 10}, "surge": {"p99_ms": 20, "windows": {"shop/tenant=gold": {"most": 50, "seconds": 1}}}}

What stands under a profile's name replaces what stands under `all`. What could not be known is not held against the service: with
no counters, whatever needs them stays unjudged, and the report says so.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from ratelimit_svc.loadtest.calls import Calls
from ratelimit_svc.loadtest.counters import Counts


class Window(NamedTuple):
    """The limit of a rule with one window."""

    most: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What must hold; None: nothing is asked."""

    p50_ms: float | None = None
    p99_ms: float | None = None
    """At most, of all calls."""
    error_share: float | None = None
    """At most: calls without an answer, of all calls."""
    policy_share: float | None = None
    """At most: requests decided without the store, of all requests."""
    sent_share: float | None = None
    """At least: calls that ghz sent, of those it meant to send. Less, and the load was not what its profile says."""
    windows: Mapping[str, Window] | None = None
    """For each rule with one window, the most that may be admitted in it."""


NUMBERS = tuple(field.name for field in fields(Thresholds) if field.name != "windows")


class Verdict(NamedTuple):
    """One threshold, and what was seen."""

    name: str
    bound: float
    seen: float | None
    """None: it could not be known."""
    least: bool = False
    """The bound is from below."""

    @property
    def held(self) -> bool | None:
        """Whether it held; None if that could not be known."""
        if self.seen is None:
            return None
        return self.seen >= self.bound if self.least else self.seen <= self.bound


def read(path: Path, profile: str, changes: Iterable[str] = ()) -> Thresholds:
    """Read what a profile must hold, with `name=number` for each that shall be another; ValueError for what is none."""
    try:
        tables: dict[str, dict[str, Any]] = json.loads(path.read_text())
    except ValueError as why:
        raise ValueError(f"{path}: {why}") from why
    given = tables.get("all", {}) | tables.get(profile, {})
    windows = {rule: Window(**window) for rule, window in given.pop("windows", {}).items()}
    if unknown := given.keys() - set(NUMBERS):
        raise ValueError(f"{path}: {', '.join(sorted(unknown))}: not one of {', '.join(NUMBERS)}, windows")
    return Thresholds(**given | dict(map(_change, changes)), windows=windows)


def _change(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    if name not in NUMBERS:
        raise ValueError(f"{text}: not one of {', '.join(NUMBERS)}")
    return name, float(number)


def judge(
    thresholds: Thresholds,
    calls: Calls,
    *,
    planned: int | None,
    counts: Counts | None,
    fullest: Mapping[str, int | None],
) -> list[Verdict]:
    """Judge each threshold that is asked for.

    Args:
        thresholds: what must hold.
        calls: what ghz saw.
        planned: how many calls it meant to send, if it was told.
        counts: what the service counted, if that is known.
        fullest: the most that was admitted in a window of each rule, if that is known.
    """
    seen = {
        "p50_ms": calls.percentile_us(50) / 1000,
        "p99_ms": calls.percentile_us(99) / 1000,
        "error_share": calls.errors / calls.count,
        "policy_share": counts.by_policy / max(counts.requests, 1) if counts else None,
        "sent_share": calls.count / planned if planned else None,
    }
    numbers = [
        Verdict(name, bound, seen[name], least=name == "sent_share")
        for name in NUMBERS
        if (bound := getattr(thresholds, name)) is not None
    ]
    windows = [Verdict(rule, window.most, fullest.get(rule)) for rule, window in (thresholds.windows or {}).items()]
    return numbers + windows
