"""Back-off: how long to wait before an xDS server is asked again. Pure but for the dice that are handed in.

The first wait after a stream that gave rules, and the first of all, is `retry_s`: a server that was restarted is soon back. The
waits after it grow: `initial_s`, twice that, and so on up to `most_s`. Each is spread, so that replicas which lost their server at
one time do not come back at one time.
"""

from collections.abc import Callable

from ratelimit_svc.xds.source import Waits

LEAST_S = 0.1
"""Whatever was set: a server that fails at once is not asked more often than this."""

MOST_DOUBLINGS = 64
"""More than any bound needs, few enough for a float."""


class Backoff:
    """The waits of one client.

    Args:
        waits: how long.
        dice: returns a number in [0, 1), as `random.random` does.
    """

    def __init__(self, waits: Waits, dice: Callable[[], float]) -> None:
        self._waits, self._dice = waits, dice
        self._failed = 0
        """Streams in a row that gave no rules and were waited after."""

    def reset(self) -> None:
        """Note a stream that gave rules."""
        self._failed = 0

    def next_s(self) -> float:
        """Return how long to wait now, in seconds; longer the next time."""
        waits = self._waits
        wait_s = waits.retry_s
        if self._failed:
            doublings = min(self._failed - 1, MOST_DOUBLINGS)
            wait_s = min(waits.initial_s * 2**doublings, waits.most_s)
        self._failed += 1
        spread = 1 + waits.spread * (2 * self._dice() - 1)
        return max(wait_s * spread, LEAST_S)
