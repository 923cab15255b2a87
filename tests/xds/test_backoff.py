"""Back-off, with the dice in the test's hand."""

import pytest

from ratelimit_svc.xds.backoff import LEAST_S, Backoff
from ratelimit_svc.xds.source import Waits

DEFAULTS = Waits(retry_s=3, initial_s=10, most_s=60, spread=0.5)
MIDDLE = 0.5
"""What dice say that spread nothing."""


def waits(waits: Waits, *, dice: float, times: int) -> list[float]:
    backoff = Backoff(waits, lambda: dice)
    return [backoff.next_s() for _ in range(times)]


def test_waits_double_up_to_the_most() -> None:
    """First soon, for a server that restarts; then 10 s, 20 s, 40 s, and a minute for as long as it takes."""
    assert waits(DEFAULTS, dice=MIDDLE, times=7) == [3, 10, 20, 40, 60, 60, 60]


def test_waits_are_spread() -> None:
    """By half of each, down and up, so that replicas that lost a server together do not come back together."""
    assert waits(DEFAULTS, dice=0, times=5) == [1.5, 5, 10, 20, 30]
    assert waits(DEFAULTS, dice=1, times=5) == [4.5, 15, 30, 60, 90]
    assert waits(DEFAULTS._replace(spread=0), dice=1, times=5) == [3, 10, 20, 40, 60]


def test_a_good_stream_begins_anew() -> None:
    """After rules came, the next wait is the first one again."""
    backoff = Backoff(DEFAULTS, lambda: MIDDLE)
    assert [backoff.next_s() for _ in range(3)] == [3, 10, 20]
    backoff.reset()
    assert [backoff.next_s() for _ in range(3)] == [3, 10, 20]


def test_no_wait_is_nothing() -> None:
    """Set to 0s, or spread over all of it, a server that fails at once is not asked in a circle."""
    assert waits(Waits(0, 0, 0, 0), dice=MIDDLE, times=3) == [LEAST_S] * 3
    assert waits(DEFAULTS._replace(spread=1), dice=0, times=3) == [LEAST_S] * 3


def test_it_may_fail_for_years() -> None:
    """The number of failures has no bound, although a float has one."""
    backoff = Backoff(DEFAULTS._replace(initial_s=10.0, most_s=86_400.0), lambda: MIDDLE)
    assert [backoff.next_s() for _ in range(5_000)][-1] == pytest.approx(86_400)
