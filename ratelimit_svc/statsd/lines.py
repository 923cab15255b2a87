"""Lines: numbers → statsd's lines, in chunks, and which of them were told already. Pure.

    name:3|c               a counter, by how much it has grown since it was told; not told while it has not
    name:7|g               a gauge
    name:4|ms|@0.05        twenty requests that took 4 ms: whoever reads it divides by the rate

EXTRA_TAGS end each name (`.__key=value`), or are DogStatsD's tags (`|#key:value`).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ratelimit_svc.metrics.stats import Counter, Gauge, Stat
from ratelimit_svc.statsd.mogrifiers import Mogrifier, mogrify

Key = str | tuple[str, int]
"""What was told of: a counter's name, or a timer's and its milliseconds."""

_UNFIT = re.compile(r"[.:|,#@=\s]")
"""What would end a tag in statsd's protocol, or make another level of the name."""
_UNFIT_DOG = re.compile(r"[,|\r\n]")
"""What would end one of DogStatsD's."""

NAMES_KEPT = 131_072
"""Names that are remembered as written."""


class Written(NamedTuple):
    """A name, as it begins a line, and what ends that."""

    name: str
    end: str = ""


class Chunk(NamedTuple):
    """Whole lines that are sent together."""

    data: bytes
    told: Sequence[tuple[Key, int]]
    """What it tells the server of: how much that is by now."""


def plain(tags: Mapping[str, str]) -> Callable[[str], Written]:
    """Return how names are written for statsd: with the tags behind them."""
    end = "".join(f".__{_UNFIT.sub('_', key)}={_UNFIT.sub('_', value)}" for key, value in sorted(tags.items()))
    return lambda name: Written(name + end)


def dog(tags: Mapping[str, str], mogrifiers: Sequence[Mogrifier] = ()) -> Callable[[str], Written]:
    """Return how names are written for DogStatsD: as the mogrifiers say, with real tags."""

    def written(name: str) -> Written:
        called, more = mogrify(name, mogrifiers)
        all_tags = [_UNFIT_DOG.sub("_", f"{key}:{value}") for key, value in (*sorted(tags.items()), *more)]
        return Written(called, "|#" + ",".join(all_tags) if all_tags else "")

    return written


class Lines:
    """Writes lines, and knows what was told.

    Args:
        written: how a name is written.
        most_bytes: of one chunk.
    """

    def __init__(self, written: Callable[[str], Written], *, most_bytes: int) -> None:
        self._written = lru_cache(NAMES_KEPT)(written)
        self._most_bytes = most_bytes
        self._told: dict[Key, int] = {}

    def chunks(self, stats: Iterable[Stat]) -> Iterator[Chunk]:
        """Return what is to be told now. In any thread, but not while `note` is called."""
        lines: list[bytes] = []
        told: list[tuple[Key, int]] = []
        size = 0
        for line, key, value in self._lines(stats):
            if lines and size + len(line) > self._most_bytes:
                yield Chunk(b"".join(lines), told)
                lines, told, size = [], [], 0
            lines.append(line)
            size += len(line)
            if key is not None:
                told.append((key, value))
        if lines:
            yield Chunk(b"".join(lines), told)

    def note(self, chunk: Chunk) -> None:
        """Note that a chunk was told."""
        self._told.update(chunk.told)

    def _lines(self, stats: Iterable[Stat]) -> Iterator[tuple[bytes, Key | None, int]]:
        told = self._told
        for stat in stats:
            name, end = self._written(stat.name)
            if isinstance(stat, Gauge):
                yield f"{name}:{stat.value:g}|g{end}\n".encode(), None, 0
            elif isinstance(stat, Counter):
                if grown := stat.value - told.get(stat.name, 0):
                    yield f"{name}:{grown}|c{end}\n".encode(), stat.name, stat.value
            else:
                for ms, n in stat.times.by_ms.items():
                    if more := n - told.get((stat.name, ms), 0):
                        yield f"{name}:{ms}|ms{_rate(more)}{end}\n".encode(), (stat.name, ms), n


def _rate(n: int) -> str:
    """Return the rate of which one is told for n: a little less, so that who divides by it and cuts the rest off has n again."""
    return "" if n == 1 else f"|@{(1 - 1e-9) / n:.12g}"
