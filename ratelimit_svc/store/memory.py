"""The memory store: windows of this process alone, counted by the Python twins.

It is what runs when no Redis is configured, each replica's own share while Redis is away, and the model that the redis
store is tested against. Its memory is bounded: windows that hold nothing leave by one heap, and beyond `most_keys` the
one nearest to its end is forgotten early.
"""

import asyncio
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from ratelimit_svc.model import Grant, Line
from ratelimit_svc.store import Untaken
from ratelimit_svc.windows import batch

DEFAULT_MOST_KEYS = 100_000
"""A window in steady use takes 6 kB at 60 slices and 48 kB at 500."""

MOST_FORGOTTEN = 1_000
"""Windows forgotten at one time: all that end with one slice may end in one microsecond, and a request is waiting."""


MOST_LOOKED_AT = 64
"""Windows looked at for one that has not moved on, before any is forgotten: all may have moved, and a request is waiting."""


class MemoryStore:
    """Windows in a dict.

    Args:
        clock: the time in µs; a monotonic one, so that a stepped clock touches no window.
        most_keys: how many windows are kept at most.
    """

    def __init__(self, clock: Callable[[], int], *, most_keys: int = DEFAULT_MOST_KEYS) -> None:
        self._clock = clock
        self._most_keys = most_keys
        self._windows: dict[bytes, batch.Window] = {}
        self._expiries: list[tuple[int, bytes]] = []
        self.forgotten = 0
        """Windows forgotten early because there were too many."""

    def __len__(self) -> int:
        return len(self._windows)

    def __repr__(self) -> str:
        return f"<MemoryStore: {len(self)} windows>"

    def take(self, lines: Sequence[Line], due: float | None = None) -> asyncio.Future[list[Grant | Untaken]]:  # noqa: ARG002 — never late
        """Charge a batch; see `Store.take`. Done at once, and all of it."""
        taken: asyncio.Future[list[Grant | Untaken]] = asyncio.get_running_loop().create_future()
        taken.set_result([*self.take_now(lines)])
        return taken

    def take_now(self, lines: Sequence[Line]) -> list[Grant]:
        """Charge a batch without awaiting."""
        now = self._clock()
        self.expire(now)
        return batch.take(lines, now, self._windows.get, self._save)

    def expire(self, now: int) -> None:
        """Forget windows that hold nothing any more, MOST_FORGOTTEN at the most; which decides nothing."""
        for _ in range(MOST_FORGOTTEN):
            if not self._expiries or self._expiries[0][0] > now:
                return
            self._pop()

    def _save(self, key: bytes, window: batch.Window) -> None:
        if key not in self._windows:
            heappush(self._expiries, (window.expires(), key))
        self._windows[key] = window
        for _ in range(MOST_LOOKED_AT):
            if len(self._windows) <= self._most_keys:
                return
            self.forgotten += self._pop()
        while len(self._windows) > self._most_keys:
            del self._windows[heappop(self._expiries)[1]]
            self.forgotten += 1

    def _pop(self) -> int:
        """Forget the window at the heap's top, unless it has moved on since: then put it back. Return how many left.

        One entry a window: it is corrected when it comes up, not at each move.
        """
        expiry, key = heappop(self._expiries)
        real = self._windows[key].expires()
        if real > expiry:
            heappush(self._expiries, (real, key))
            return 0
        del self._windows[key]
        return 1
