"""Exposition: the reference implementation's numbers, as Prometheus reads them.

Written as text here, not by the Prometheus library: there may be a hundred thousand lines, and it takes ten times as long.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate

from ratelimit_svc.metrics.mapping import COUNTER, GAUGE, OBSERVER, Mapped, Mapper
from ratelimit_svc.metrics.stats import Counter, Gauge, Stat, Timer
from ratelimit_svc.metrics.times import TimesRead

_KINDS = {Counter: COUNTER, Gauge: GAUGE, Timer: OBSERVER}
_TYPES = {COUNTER: "counter", GAUGE: "gauge", OBSERVER: "histogram"}

_HELP = "Of envoyproxy/ratelimit, by statsd's names; see docs/metrics.md."

Labels = tuple[tuple[str, str], ...]


class Family:
    """All series of one name."""

    def __init__(self, kind: str, first: Mapped) -> None:
        self.kind, self.first = kind, first
        self.values: dict[Labels, float] = {}
        self.times: dict[Labels, tuple[list[int], float]] = {}
        """Of each: how many are in which bucket, the rest in one more, and the sum."""

    def add(self, mapped: Mapped, stat: Stat) -> None:
        """Add a number to its series: several names may have become one."""
        if isinstance(stat, Timer):
            counts, total = _bucketed(self.first, stat.times)
            before, sum_before = self.times.get(mapped.labels, ([0] * len(counts), 0.0))
            self.times[mapped.labels] = [a + b for a, b in zip(before, counts, strict=True)], sum_before + total
        elif isinstance(stat, Gauge):
            self.values[mapped.labels] = stat.value
        else:
            self.values[mapped.labels] = self.values.get(mapped.labels, 0) + stat.value


def expose(stats: Iterable[Stat], mapper: Mapper) -> str:
    """Return the text of all series. A name that has been one kind of number is not told of another."""
    families: dict[str, Family] = {}
    for stat in stats:
        kind = _KINDS[type(stat)]
        mapped = mapper.of(stat.name, kind)
        if mapped is None:
            continue
        family = families.get(mapped.name)
        if family is None:
            family = families[mapped.name] = Family(kind, mapped)
        if family.kind == kind:
            family.add(mapped, stat)
    return "".join(line for name, family in sorted(families.items()) for line in _lines(name, family))


def _bucketed(mapped: Mapped, times: TimesRead) -> tuple[list[int], float]:
    counts = [0] * (len(mapped.buckets) + 1)
    for ms, n in times.by_ms.items():
        counts[bisect_left(mapped.buckets, ms * mapped.scale)] += n
    return counts, times.sum_ms * mapped.scale


def _lines(name: str, family: Family) -> Iterator[str]:
    yield f"# HELP {name} {_written(family.first.help or _HELP)}\n# TYPE {name} {_TYPES[family.kind]}\n"
    for labels, value in family.values.items():
        yield f"{name}{_in_braces(labels)} {value}\n"
    bounds = [*(repr(bound).removesuffix(".0") for bound in family.first.buckets), "+Inf"]
    for labels, (counts, total) in family.times.items():
        for bound, count in zip(bounds, accumulate(counts), strict=True):
            yield f"{name}_bucket{_in_braces((*labels, ('le', bound)))} {count}\n"
        yield f"{name}_sum{_in_braces(labels)} {total}\n"
        yield f"{name}_count{_in_braces(labels)} {sum(counts)}\n"


def _in_braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{label}="{_written(value, quoted=True)}"' for label, value in labels) + "}"


def _written(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text
