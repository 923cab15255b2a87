"""Each judge sees what it is to see, and nothing else."""

import pytest

from tests.outages import judges
from tests.outages.calls import LOST, Call
from tests.outages.judges import Kept
from tests.outages.looks import Look

OK, OVER_LIMIT = b"\x08\x01", b"\x08\x02"


def call(sent_s=0.0, answered_s=None, *, reply=OK, tenant="t", timeout_s=0.02, status="") -> Call:
    """A call of one replica."""
    return Call(tenant, "a", timeout_s, sent_s, answered_s, b"" if status else reply, status)


def look(at_s, requests=0, policy=0, *, replica="a", files=10, memory_mb=50.0, calls=0) -> Look:
    """A look that takes a hundredth of a second."""
    return Look(replica, at_s, at_s + 0.01, requests, policy, files, memory_mb, calls, up=True)


def nothing(*_) -> float:
    """What a machine takes that is ours alone."""
    return 0.0


@pytest.mark.parametrize(("emptied", "most"), [(False, 24), (True, 34)])
def test_the_bounds_are_those_of_the_design(emptied, most):
    """2L + N - 1, and L more."""
    assert judges.bound(10, replicas=5, emptied=emptied) == most


def test_a_late_answer_is_found():
    """By a millisecond; one on time is not; one that never came is."""
    assert judges.late([call(1.0, 1.019)], nothing) == []
    assert "1.0 ms late" in judges.late([call(1.0, 1.021)], nothing)[0]
    assert "never" in judges.late([call(1.0)], nothing)[0]


def test_what_the_machine_took_excuses_as_much_and_no_more():
    """It is asked of the call's own replica and time."""
    asked = []

    def took(*of) -> float:
        asked.append(of)
        return 0.011

    assert judges.late([call(1.0, 1.03)], took) == []
    assert asked == [("a", 1.0, 1.03)]
    assert judges.late([call(1.0, 1.03)], lambda *_: 0.009) != []


def test_errors_are_found():
    """Whatever they say; a lost connection, unless its replica was killed; a time that is up, unless there was none."""
    assert judges.errors([call(0, 0.01), call(0, 0.01, reply=OVER_LIMIT)], nothing) == []
    assert judges.errors([call(0, 0.01, status="grpc-status 14: away")], lambda *_: 9.0) != []
    assert judges.errors([call(0, 0.01, status=LOST)], nothing) != []
    assert judges.errors([call(0, 0.01, status=LOST)], nothing, killed={"a"}) == []
    assert judges.errors([call(0, 0.02, status="grpc-status 4: late")], nothing) != []
    assert judges.errors([call(0, 0.02, status="grpc-status 4: late")], lambda *_: 0.003) == []


def test_many_findings_are_few_lines():
    """And a number."""
    found = judges.late([call(1.0, 1.5)] * 10, nothing)
    assert len(found) == judges.SHOWN + 1
    assert found[-1] == "late: and 7 more"


def test_a_window_with_one_hit_too_many_is_found():
    """Wherever it begins; denials are none."""
    hits = [call(at, at + 0.001) for at in (0.0, 0.9, 1.0, 1.1, 1.8, 1.89)]
    denied = [call(1.5, 1.501, reply=OVER_LIMIT)] * 10
    assert judges.overfull([*hits, *denied], window_s=1, bound=5) == []
    assert judges.overfull([*hits, *denied], window_s=1, bound=4) == ["overfull: 5 hits of t, 4 may be"]


def test_only_what_is_certain_is_a_hit_too_many():
    """From the first's sending to the last's answer it is less than a window; each tenant has its own."""
    hits = [call(0.0, 0.001), call(0.99, 1.0)]
    assert judges.overfull(hits, window_s=1, bound=1) == []
    assert judges.overfull([hits[0], call(0.99, 0.999)], window_s=1, bound=1) != []
    assert judges.overfull([hits[0], call(0.99, 0.999, tenant="u")], window_s=1, bound=1) == []


def test_an_answer_that_overtakes_counts():
    """The windows are searched by when hits were sent, and all that were answered in time are in them."""
    hits = [call(0.0, 0.9), call(0.1, 1.2), call(0.2, 0.3)]
    assert judges.fullest(hits, 1.0) == {"t": 2}


def test_calls_within_a_stretch_began_and_ended_in_it():
    """Nothing in between is."""
    calls = [call(0.9, 1.1), call(1.0, 1.1), call(1.9, 2.0), call(1.9, 2.1), call(1.5)]
    assert judges.within(calls, (1.0, 2.0)) == calls[1:3]


def test_a_stretch_without_others_is_what_is_before_between_and_after():
    """Overlapping ones too; nothing may be left."""
    assert judges.without((0, 10), [(2, 3), (8, 12), (9, 11), (20, 30)]) == [(0, 2), (3, 8)]
    assert judges.without((0, 10), []) == [(0, 10)]
    assert judges.without((4, 5), [(2, 8)]) == []


def test_stretches_by_the_store_are_those_of_all_replicas():
    """From when the first look was over to when the last began."""
    a = [look(0), look(1), look(2), look(3, policy=1), look(4, policy=1), look(5, policy=1)]
    assert judges.by_store(a) == [(0.01, 2), (3.01, 5)]
    b = [look(at, policy=at > 1, replica="b") for at in (0.5, 1.5, 4.5)]
    assert judges.by_store([*a, *b]) == [(1.51, 2), (3.01, 4.5)]
    assert judges.by_store([look(0), look(1, policy=1), look(2, policy=2)]) == []


def test_recovery_is_when_the_store_decides_again():
    """What was before it was back is none; nor is a replica that nobody asks; what the machine took is excused, and no more."""
    away = [look(0, 0, 0), look(1, 100, 0), look(2, 200, 100)]
    back = [look(3, 300, 200), look(4, 400, 205)]
    assert judges.slow([*away, *back], nothing, back_s=2.5) == []
    assert judges.slow([*away, *back], nothing, back_s=1.5) == ["slow: a came after 1.51 s back to its store"]
    assert judges.slow([*away, *back], lambda *_: 0.6, back_s=1.5) == []
    assert judges.slow(away, nothing, back_s=0.5) == ["slow: a has not come back to its store"]
    assert judges.slow(away, lambda *_: 0.4, back_s=0.5) == ["slow: a has not come back to its store"]
    assert judges.slow([look(1, 5, 5), look(2, 5, 5)], nothing, back_s=0.5) != []


def test_who_was_not_looked_at_for_long_enough_is_not_judged():
    """It has its second still."""
    assert judges.slow([look(1, 0, 0), look(1.3, 100, 100)], nothing, back_s=0.5) == []


def test_what_is_left_behind_is_found():
    """A file, memory, a call."""
    before = look(0)
    assert judges.left_behind([Kept(before, look(9, memory_mb=51))]) == []
    for after in (look(9, files=11), look(9, memory_mb=90), look(9, calls=1)):
        assert len(judges.left_behind([Kept(before, after)])) == 1
