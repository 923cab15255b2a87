"""What is sent: a configuration file of ghz, and one key more.

`zipf` stands in a profile for ghz's `data-file`: that file is made when it is needed (`tenants`). All else is ghz's own,
so that `ghz --config steady.json host:port` does the same, in the profile's folder.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratelimit_svc.loadtest.tenants import Zipf

Settings = dict[str, Any]
"""ghz's settings by their names."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([\d.]+)(ms|s|m|h)")


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of load."""

    name: str
    folder: Path
    """Where files that its settings name are."""
    settings: Settings
    zipf: Zipf | None = None

    def planned(self) -> int | None:
        """Return how many requests ghz means to send; None where that is as many as it can."""
        if (duration := self.settings.get("duration")) is None:
            return int(self.settings["total"])
        if not {"rps", "load-start"} & self.settings.keys():
            return None
        return sent_until(self.settings, seconds(duration))


def read(path: Path, changes: Iterable[str] = ()) -> Profile:
    """Read a profile, with `key=value` for each setting that shall be another; ValueError if it is not JSON."""
    try:
        settings: Settings = json.loads(path.read_text())
    except ValueError as why:
        raise ValueError(f"{path}: {why}") from why
    zipf = settings.pop("zipf", None)
    settings |= dict(change(text) for text in changes)
    return Profile(path.stem, path.parent.resolve(), settings, Zipf(**zipf) if zipf else None)


def change(text: str) -> tuple[str, Any]:
    """Read `key=value`, as JSON where it is that and as text where it is not; ValueError without a `=`."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text}: key=value is needed")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def seconds(duration: str) -> float:
    """Read a duration as Go writes it, `1m30s`; ValueError if it is none."""
    if not re.fullmatch(rf"({_PART.pattern})+", duration):
        raise ValueError(f"{duration}: a duration is written as in 20ms, 10s or 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(duration))


def sent_until(settings: Mapping[str, Any], end_s: float) -> int:
    """Return how many requests are sent in the first `end_s` seconds by ghz's schedules: const, step, and line, which is
    a step each second.
    """
    schedule = settings.get("load-schedule", "const")
    if schedule == "const":
        return round(float(settings["rps"]) * end_s)
    step_s = 1.0 if schedule == "line" else seconds(settings["load-step-duration"])
    rate, last, sent, left_s = settings["load-start"], settings.get("load-end"), 0.0, end_s
    while left_s > 0:
        sent += rate * min(step_s, left_s)
        left_s -= step_s
        rate += settings["load-step"]
        if last is not None:  # up to it or, with a negative step, down to it
            rate = min(rate, last) if settings["load-step"] > 0 else max(rate, last)
    return round(sent)
