"""How long requests took: whole milliseconds, bounded, and an exact sum."""

from ratelimit_svc.metrics.times import LONGEST_MS, Times, TimesRead


def test_whole_milliseconds_are_counted():
    """Those that came together, and those that did not; what was answered at once took none."""
    times = Times()
    times.note([10.0, 10.0], 10.0035)
    times.note([10.0, 10.002, 10.003], 10.0045)
    times.at_once = 2
    read = times.read(at_once=1)
    assert read.by_ms == {0: 3, 1: 1, 2: 1, 3: 2, 4: 1}
    assert round(read.sum_ms, 6) == 3.5 + 3.5 + 4.5 + 2.5 + 1.5


def test_what_is_kept_is_bounded():
    """A request that took longer than any does, or less than nothing, has no number of its own."""
    times = Times()
    for came_s in (0.0, 10.0, 80.0, 100.001):
        times.note([came_s], 100.0)
    assert times.read().by_ms == {LONGEST_MS: 3, 0: 1}


def test_nothing_is_nothing():
    """Before the first request."""
    assert Times().read() == TimesRead({})
