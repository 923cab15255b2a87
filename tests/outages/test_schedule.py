"""A schedule is its seed's, leaves room at both ends, and has everything in it."""

from itertools import pairwise

import pytest

from tests.outages.schedule import CALM_S, END_S, LONG_S, PAUSE_S, REPLICAS, STORE, Kind, lanes


def test_the_same_seed_gives_the_same():
    """Another another."""
    assert lanes(1, 120, 5) == lanes(1, 120, 5)
    assert lanes(1, 120, 5) != lanes(2, 120, 5)


@pytest.mark.parametrize("seed", range(20))
def test_two_minutes_have_every_kind_and_room_at_the_ends(seed):
    """In a lane one follows the other."""
    store, replicas = lanes(seed, 120, 5)
    assert {one.kind for one in store} == set(STORE)
    assert {one.kind for one in replicas} == set(REPLICAS)
    assert set(STORE) | set(REPLICAS) == set(Kind) == LONG_S.keys()
    for lane in (store, replicas):
        assert lane[0].at_s >= CALM_S
        assert lane[-1].at_s + lane[-1].for_s <= 120 - END_S
        for one, following in pairwise(lane):
            assert following.at_s - one.at_s - one.for_s >= PAUSE_S[0] - 0.01
    assert {one.replica for one in store} == {None}
    assert {one.replica for one in replicas} <= {None, 0, 1, 2, 3, 4}
