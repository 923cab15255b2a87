"""A sandbox around the edges: hits at −5 … +15 ms of slice and window edges, on both twins, judged by brute force.

A failure prints its window and its seed.
"""

import random

import pytest
import redis as redis_client

from ratelimit_svc.model import Grant, Line
from tests.histories import START, Log, admit, charge
from tests.test_twins import Lua, Python

MILLISECOND, SECOND = 1_000, 1_000_000
WINDOWS = [
    (SECOND, 1),
    (SECOND, 60),
    (SECOND, 500),
    (60 * SECOND, 7),
    (60 * SECOND, 60),
    (3600 * SECOND, 60),
    (86_400 * SECOND, 60),
    (365 * 86_400 * SECOND, 60),
]


def edges(seeds: random.Random, window: int, slices: int) -> list[int]:
    """Times (µs) around edges: of slices, of the window counted from the epoch, and of the window after each such time."""
    width = -(-window // slices)
    first = START - START % window
    near = [first + width * seeds.randrange(slices + 1) for _ in range(4)]
    near += [first, first + window, first + window + width, first + 2 * window]
    offsets = [seeds.randint(-5 * MILLISECOND, 15 * MILLISECOND) for _ in range(8)]
    times = [edge + offset for edge in near for offset in (*offsets, -1, 0, 1)]
    return sorted(times + [time + window for time in times])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("window", "slices"), WINDOWS)
def test_hits_around_edges_never_exceed_the_limit(valkey_server, window, slices, seed):
    """On Lua and on Python no interval of one window holds more than the limit, and both say the same."""
    seeds = random.Random(f"{window} {slices} {seed}")
    limit = seeds.choice([1, 3, 10])
    with redis_client.Redis(host="127.0.0.1", port=valkey_server.port) as client:
        client.flushall()
        lua, python, log = Lua(client), Python(), Log(window)
        admitted = 0
        for now in edges(seeds, window, slices):
            lines = (Line((charge("k", limit, window=window, slices=slices),), seeds.randint(1, limit)),)
            grants = lua.take(lines, now)
            client.persist("k")  # the test's clock stands while real time, in which keys expire, goes on
            told: list[Grant] = python.take(lines, now)
            place = f"window {window} µs in {slices} slices, seed {seed}, at {now}"
            assert grants == told, place
            try:
                admit(log, now, lines, grants)
            except AssertionError as error:
                raise AssertionError(f"{place}: {error}") from error
            admitted += grants[0].granted
        assert admitted >= 2 * limit, "a sandbox that admits nothing proves nothing"
