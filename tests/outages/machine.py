"""What the machine took of the time: ours, a replica's, everybody's. It is not held against the service.

Rule 1: only what is certain is excused: the loop of the tests was late; the kernel let a replica's threads wait for a core
        (its schedstat: the time spent waiting on a run queue), each of which may have had Python's lock meanwhile; the
        hypervisor took the cores away (proc(5), stat: steal).
Rule 2: a replica that computes for too long, collects garbage, or waits for its store is not excused.
"""

import asyncio
import os
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Self

PERIOD_S = 0.004
"""How often it is looked: a fifth of the shortest deadline."""
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Machine:
    """Looks for as long as its context lasts.

    Args:
        pids: of each process, by its name. Who starts later, or again, is told by `watch`.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self.at_s: list[float] = []
        """When it was looked."""
        self._ours: list[float] = []
        """So late we were until then, in all; of the others the same."""
        self._everybody: list[float] = []
        self._theirs: dict[str, list[float]] = {name: [] for name in pids}
        self._waited: dict[str, dict[str, float]] = {}
        """What the kernel has said last of each process, by thread."""
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._look()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._timer is not None
        self._timer.cancel()
        self._look()
        self._timer.cancel()

    def watch(self, name: str, pid: int) -> None:
        """Look at this process under this name from now on."""
        if self._pids.get(name) != pid:
            self._pids[name] = pid
            self._waited[name] = {}
            self._theirs.setdefault(name, [0.0] * len(self.at_s))

    def took(self, name: str, from_s: float, until_s: float) -> float:
        """Return how many seconds between these times, at most, a call of this replica may have lost to the machine."""
        first = max(bisect_right(self.at_s, from_s) - 1, 0)
        last = min(bisect_left(self.at_s, until_s), len(self.at_s) - 1)
        kept = (self._ours, self._everybody, self._theirs.get(name, self._ours))
        return sum(each[last] - each[first] for each in kept)

    def longest(self) -> float:
        """Return the longest that we ourselves were late."""
        return max((late - early for early, late in zip(self._ours, self._ours[1:], strict=False)), default=0.0)

    def _look(self) -> None:
        now = perf_counter()
        late = max(now - self.at_s[-1] - PERIOD_S, 0.0) if self.at_s else 0.0
        self.at_s.append(now)
        self._ours.append((self._ours[-1] if self._ours else 0.0) + late)
        self._everybody.append(_stolen_s())
        for name, kept in self._theirs.items():
            waited = _waited_s(self._pids[name])
            before = self._waited.get(name, waited)
            since = sum(seconds - before.get(thread, 0.0) for thread, seconds in waited.items())
            self._waited[name] = waited
            kept.append((kept[-1] if kept else 0.0) + since)
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._look)


def _stolen_s() -> float:
    """Return the seconds that a hypervisor has taken from any core."""
    with Path("/proc/stat").open("rb") as file:
        return int(file.readline().split()[8]) / TICKS_A_SECOND


def _waited_s(pid: int) -> dict[str, float]:
    """Return the seconds that each thread of a process has waited for a core; of none if it is gone."""
    found = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names are enough
            with suppress(FileNotFoundError, ProcessLookupError, IndexError):
                found[thread] = int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_bytes().split()[1]) / 1e9
    return found
