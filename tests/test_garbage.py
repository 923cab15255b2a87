"""Garbage: collected in quiet times, and not while requests come."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ratelimit_svc import garbage


@contextmanager
def full_passes() -> Iterator[list[int]]:
    """Keep a list of the full passes made within."""
    passes: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            passes.append(1)

    gc.callbacks.append(note)
    try:
        yield passes
    finally:
        gc.callbacks.remove(note)


@pytest.fixture
def collector() -> Iterator[None]:
    """Leave the collector as it was found."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_no_full_pass_of_its_own_accord(collector):
    """However many plans come: young ones only."""
    garbage.spare_the_loop()
    with full_passes() as passes:
        kept = [[number] for number in range(300_000)]
    assert len(kept) == 300_000
    assert passes == []
    assert gc.isenabled()


def test_quiet_is_a_time_without_requests_after_some():
    """Not as long as requests come, nor too often, nor for nothing."""
    quiet = garbage.Quiet(7, 0)
    looks = [(7, 100), (8, 101), (9, 102), (9, 103), (9, 104), (9, 999), (10, 1000), (10, 1001), (11, 1002), (11, 1003)]
    assert [at for asked, at in looks if quiet.look(asked, at)] == [103, 1001]
    assert [at for asked, at in [(12, 1004), (12, 1005), (12, 1060), (12, 1061)] if quiet.look(asked, at)] == [1061]
