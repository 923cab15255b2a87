"""What ghz saw: every call's end, latency and code, from `ghz --format json`.

Latencies are of all calls, also of those that were given up: Envoy would have waited for them as long. The rate says what
was sent, not what was meant to be sent: where ghz falls behind, fewer calls in flight look like a quick service.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import Any, NamedTuple

OK = "OK"
"""The code of an answer: of a denial, too."""
PERCENTILES = (50, 90, 95, 99, 99.9, 100)
MOST_KEPT = 1_000_000
"""ghz keeps so many calls and drops those beyond from its list, though not from its counts."""


@dataclass(frozen=True, slots=True)
class Calls:
    """All calls of a run."""

    codes: Mapping[str, int]
    """How many ended with each code."""
    latencies_us: Sequence[int]
    """From the shortest to the longest."""
    per_second: Sequence[Mapping[str, int]]
    """The same as `codes`, for each second since the first call was sent."""

    @property
    def count(self) -> int:
        """How many calls there were."""
        return sum(self.codes.values())

    @property
    def errors(self) -> int:
        """How many had no answer."""
        return self.count - self.codes.get(OK, 0)

    def percentile_us(self, percent: float) -> int:
        """Return the least latency that so many of a hundred calls do not exceed."""
        return self.latencies_us[max(0, ceil(len(self.latencies_us) * percent / 100) - 1)]


def read(report: Mapping[str, Any]) -> Calls:
    """Read ghz's report; ValueError if there are none, or more than ghz lists."""
    codes = {code: count for code, count in report["statusCodeDistribution"].items() if count}
    if not (details := report["details"]):
        raise ValueError("ghz sent nothing")
    if sum(codes.values()) != len(details):
        raise ValueError(f"ghz lists {len(details)} of {sum(codes.values())} calls: it keeps {MOST_KEPT}, send fewer")
    sent = [(_sent_s(call), call["status"]) for call in details]
    return Calls(codes, sorted(call["latency"] // 1000 for call in details), _by_second(sent))


def _sent_s(call: Mapping[str, Any]) -> float:
    """When a call was sent, since 1970: ghz tells when it ended."""
    ended = datetime.fromisoformat(call["timestamp"])
    return (ended - timedelta(microseconds=call["latency"] / 1000)).timestamp()


def _by_second(sent: Sequence[tuple[float, str]]) -> list[Mapping[str, int]]:
    first = min(at for at, _ in sent)
    seconds: dict[int, Counter[str]] = {}
    for at, code in sent:
        seconds.setdefault(int(at - first), Counter())[code] += 1
    return [seconds.get(second, Counter()) for second in range(max(seconds) + 1)]


class Bin(NamedTuple):
    """The calls whose latency is from one bound up to another."""

    from_us: float
    until_us: float
    calls: int


def histogram(latencies_us: Sequence[int], bins: int = 40) -> list[Bin]:
    """Sort latencies, which ascend, into bins that grow by one factor from the shortest to the longest."""
    low, high = max(1, latencies_us[0]), max(2, latencies_us[-1] + 1)
    bounds = [low * (high / low) ** (number / bins) for number in range(bins + 1)]
    places = [0, *(bisect_left(latencies_us, bound) for bound in bounds[1:-1]), len(latencies_us)]
    return [
        Bin(*ends, after - before) for ends, (before, after) in zip(pairwise(bounds), pairwise(places), strict=True)
    ]
