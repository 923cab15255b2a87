"""The breaker: a walk through one outage, and what holds whatever happens."""

from math import ceil, inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.breaker import (
    BAD_IN_A_ROW,
    FIRST_WAIT_S,
    FORGET_AFTER_S,
    GOOD_PROBES,
    LEAST_ANSWERS,
    LEAST_CALLS,
    LONGEST_WAIT_S,
    PROBE_SPACING_S,
    Breaker,
    BreakerState,
)

LIMIT_S = 0.05
AWAY = "no answer within 100 ms"


class Node:
    """A breaker, its clock, and what it has told."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 100.0
        self.told: list[tuple[BreakerState, str]] = []
        self.breaker = Breaker(
            clock=lambda: self.now,
            random=Random(seed),
            latency_s=LIMIT_S,
            on_change=lambda state, why: self.told.append((state, why)),
        )

    def answers(self, count: int, latency_s: float = 0.001, *, every_s: float = 0.0) -> None:
        for _ in range(count):
            self.now += every_s
            self.breaker.note(latency_s)

    def fails(self, count: int, *, every_s: float = 0.0) -> None:
        for _ in range(count):
            self.now += every_s
            self.breaker.note_failure(AWAY)

    def probe(self, latency_s: float | None) -> None:
        """Make the next probe when it is due, answered after so long; None: not at all."""
        self.now = self.breaker.probe_at
        self.breaker.probe()
        assert self.breaker.probing
        self.now += LIMIT_S if latency_s is None else latency_s
        if latency_s is None:
            self.breaker.note_probe_failure(AWAY)
        else:
            self.breaker.note_probe(latency_s)


@pytest.fixture
def node() -> Node:
    """One node's breaker."""
    return Node()


# ---------------------------------------------------------------------------------------------------------------------
# Opening


def test_half_of_the_calls_of_a_second_failed(node):
    """Five of nine are too few to judge by; seven of twelve are not."""
    node.answers(4)
    node.fails(5)
    assert node.breaker.closed
    node.answers(1)
    assert node.breaker.closed  # half of ten, but a good answer opens nothing
    node.fails(1)
    assert not node.breaker.closed
    assert node.breaker.why == "6 of 11 calls failed in 1 s (no answer within 100 ms)"
    assert node.told == [(BreakerState.OPEN, node.breaker.why)]
    assert (node.breaker.state, node.breaker.opened, node.breaker.since) == (BreakerState.OPEN, 1, node.now)


def test_less_than_half_is_borne(node):
    """Now and then a connection is reset: those calls have failed, and the others are better served than by no call."""
    for _ in range(1000):
        node.answers(6, every_s=0.001)
        node.fails(4, every_s=0.001)
    assert node.breaker.closed


def test_a_second_ago_is_forgotten(node):
    """Failures that come far between add up to nothing, as long as some calls succeed."""
    for _ in range(100):
        node.fails(4)
        node.answers(1)
        node.now += 1
    assert node.breaker.closed


def test_the_slow_ones_are_more_than_five_in_a_hundred(node):
    """One slow answer of a few is a hiccup, five of a hundred are the p95 itself, six are beyond it."""
    node.answers(LEAST_ANSWERS - 2)
    node.answers(1, 2 * LIMIT_S)
    assert node.breaker.closed
    node.answers(100 - LEAST_ANSWERS + 1)
    node.answers(4, 2 * LIMIT_S)  # 5 of 104
    assert node.breaker.closed
    node.answers(1, 0.0833)
    assert node.breaker.why == "6 of 105 answers in 1 s took longer than 50 ms (an answer took 83.3 ms)"


@pytest.mark.parametrize("good", range(120))
def test_the_first_slow_one_that_moves_the_p95(node, good):
    """After so many good answers, slow ones come at once: it opens with the one that a sorted list says."""
    node.answers(good)
    slow = 0
    while node.breaker.closed:
        slow += 1
        node.answers(1, 2 * LIMIT_S)
        assert slow < 100
    answers = [0.001] * good + [2 * LIMIT_S] * slow
    beyond = [
        size
        for size in range(LEAST_ANSWERS, len(answers) + 1)
        if size > good and answers[:size][ceil(0.95 * size) - 1] > LIMIT_S
    ]
    assert beyond == [len(answers)]


def test_as_slow_as_allowed_is_not_slow(node):
    """The limit itself is in time."""
    node.answers(1000, LIMIT_S)
    assert node.breaker.closed


def test_a_store_that_makes_each_batch_wait_gets_few_calls(node):
    """One batch at a time, each answered after 80 ms or not at all: there are never enough in a second, but enough in a row."""
    node.answers(BAD_IN_A_ROW - 1, 0.08, every_s=0.08)
    assert node.breaker.closed
    node.fails(1, every_s=0.1)
    assert node.breaker.why == "5 calls in a row failed or took longer than 50 ms (no answer within 100 ms)"


def test_what_one_stall_has_held_up_is_one_bad_thing(node):
    """All that was under way then comes at once, late: it says as little as a single late answer."""
    node.answers(LEAST_CALLS)
    node.answers(BAD_IN_A_ROW + 1, 0.2)
    assert node.breaker.closed


def test_it_is_tripped(node):
    """A connection that is lost needs no statistics; a second reason replaces the first, and is no second opening."""
    node.breaker.trip("Connection refused")
    assert not node.breaker.closed
    node.breaker.trip("No route to host")
    assert (node.breaker.why, node.breaker.opened) == ("No route to host", 1)
    assert node.told == [(BreakerState.OPEN, "Connection refused")]


# ---------------------------------------------------------------------------------------------------------------------
# Probes, and closing


def test_an_outage(node):
    """The waits double up to half a second, each cut by up to half; then three good probes in a row, and it is closed."""
    node.breaker.trip(AWAY)
    wait_s = FIRST_WAIT_S
    for _ in range(8):
        assert wait_s / 2 <= node.breaker.probe_at - node.now <= wait_s
        node.probe(None)
        assert (node.breaker.state, node.breaker.probing) == (BreakerState.OPEN, False)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
    node.probe(0.001)
    assert (node.breaker.state, node.breaker.closed) == (BreakerState.HALF_OPEN, False)
    assert node.breaker.probe_at == node.now + PROBE_SPACING_S
    node.probe(0.001)
    node.probe(LIMIT_S)
    assert node.breaker.closed
    assert (node.breaker.why, node.breaker.probe_at) == ("", inf)
    assert [state for state, _ in node.told] == [BreakerState.OPEN, BreakerState.CLOSED]
    assert node.told[-1][1].startswith("3 probes in a row were answered in time, after ")


def test_a_bad_probe_makes_the_good_ones_count_for_nothing(node):
    """Two good, one slow: from the beginning, after a longer wait."""
    node.breaker.trip(AWAY)
    node.probe(0.001)
    node.probe(0.001)
    node.probe(0.0601)
    assert node.breaker.why == "a probe's answer took 60.1 ms"
    assert node.breaker.probe_at - node.now >= FIRST_WAIT_S
    for _ in range(GOOD_PROBES):
        assert not node.breaker.closed
        node.probe(0.001)
    assert node.breaker.closed


def test_tripped_while_a_probe_is_under_way(node):
    """The probe is lost with the connection; what it says afterwards counts for nothing."""
    node.breaker.trip(AWAY)
    node.now = node.breaker.probe_at
    node.breaker.probe()
    assert node.breaker.probe_at == inf
    node.breaker.trip("the connection was closed")
    due = node.breaker.probe_at
    node.breaker.note_probe(0.001)
    node.breaker.note_probe_failure("lost")
    assert (node.breaker.state, node.breaker.why) == (BreakerState.OPEN, "the connection was closed")
    assert node.breaker.probe_at == due < inf


def test_tripped_between_two_probes(node):
    """What was good before counts for nothing, and the wait doubles."""
    node.breaker.trip(AWAY)
    node.probe(0.001)
    node.breaker.trip("the connection was closed")
    assert (node.breaker.state, node.breaker.why) == (BreakerState.OPEN, "the connection was closed")
    assert node.breaker.probe_at - node.now >= FIRST_WAIT_S


def test_late_answers_are_no_probes(node):
    """What was asked before it opened may still come, good or bad, and neither closes it nor delays it."""
    node.breaker.trip(AWAY)
    due = node.breaker.probe_at
    node.answers(100)
    node.fails(100)
    assert (node.breaker.closed, node.breaker.probe_at) == (False, due)


def test_closed_it_begins_anew(node):
    """The failures that opened it do not open it again."""
    node.answers(10)
    node.fails(10)
    for _ in range(GOOD_PROBES):
        node.probe(0.001)
    node.fails(4)
    assert node.breaker.closed


def test_one_that_flaps_is_left_alone_for_longer(node):
    """Opened again soon after, it goes on where its waits were; after ten good seconds they are forgotten."""
    for wait_s in (0.05, 0.1, 0.2, 0.4, 0.5, 0.5):
        node.breaker.trip(AWAY)
        assert wait_s / 2 <= node.breaker.probe_at - node.now <= wait_s
        for _ in range(GOOD_PROBES):
            node.probe(0.001)
        node.now += FORGET_AFTER_S - 1
    node.now += 1
    node.breaker.trip(AWAY)
    assert node.breaker.probe_at - node.now <= FIRST_WAIT_S


def test_jitter_is_the_dices():
    """The same seed waits the same, another one does not."""

    def due(seed: int) -> float:
        node = Node(seed)
        node.breaker.trip(AWAY)
        return node.breaker.probe_at

    assert due(1) == due(1) != due(2)


# ---------------------------------------------------------------------------------------------------------------------
# For people


def test_it_describes_itself(node):
    """Health detail has the calls of the last second; a latency as the bound below which 95 % of them were."""
    assert node.breaker.describe()["p95_ms_at_most"] is None
    node.answers(18, 0.0012)
    node.answers(2, 0.015)
    node.fails(2)
    node.now += 0.5
    assert node.breaker.describe() == {
        "state": "closed",
        "why": "",
        "since_s": 0.5,
        "opened": 0,
        "calls": 22,
        "failed": 2,
        "slow": 0,
        "p95_ms_at_most": 20,
    }
    assert repr(node.breaker) == "<Breaker: closed>"
    node.breaker.trip("the connection was closed")
    node.breaker.probe()
    assert repr(node.breaker) == "<Breaker: half-open, the connection was closed>"


# ---------------------------------------------------------------------------------------------------------------------
# Whatever happens

TICK_S = 1 / 64
latencies = st.sampled_from([0.001, 0.049, 0.05, 0.0501, 0.08, 0.3, 2.0])
calls = st.tuples(st.integers(0, 4), st.one_of(latencies, st.none()))
"""How many ticks since the one before, and how long its answer took; None: it failed."""


@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from([0.0, 0.001, 0.049, LIMIT_S])), max_size=300))
def test_answers_in_time_never_open_it(history):
    """However many, and however they come."""
    node = Node()
    for ticks, latency_s in history:
        node.answers(1, latency_s, every_s=ticks * TICK_S)
    assert node.breaker.closed
    assert node.told == []


def judged(seen: list[tuple[float, float | None]]) -> bool:
    """Return whether the last of these calls opens: by a sorted list of the last second's, slot by slot."""
    now, last = seen[-1]
    if last is not None and last <= LIMIT_S:
        return False
    head = now // 0.1
    window = [latency for at, latency in seen if at // 0.1 > head - 10]
    answers = sorted(latency for latency in window if latency is not None)
    if len(window) >= LEAST_CALLS and window.count(None) / len(window) >= 0.5:
        return True
    if len(answers) >= LEAST_ANSWERS and answers[ceil(0.95 * len(answers)) - 1] > LIMIT_S:
        return True
    row = [at for at, latency in seen[-BAD_IN_A_ROW:] if latency is None or latency > LIMIT_S]
    if len(row) < BAD_IN_A_ROW:
        return False
    first = now
    for at, latency in reversed(seen):
        if latency is not None and latency <= LIMIT_S:
            break
        first = at
    return now - first > LIMIT_S


mixed = st.lists(st.tuples(st.integers(0, 4), st.one_of(*[st.just(0.001)] * 6, latencies, st.none())), max_size=150)


@given(st.one_of(st.lists(calls, max_size=150), mixed))
def test_it_opens_as_a_sorted_list_says(history):
    """Neither sooner nor later: the buckets are for people, the decision is exact."""
    node, seen = Node(), []
    for ticks, latency_s in history:
        node.now += ticks * TICK_S
        seen.append((node.now, latency_s))
        if latency_s is None:
            node.fails(1)
        else:
            node.answers(1, latency_s)
        assert node.breaker.closed is not judged(seen)
        if not node.breaker.closed:
            break


@given(
    st.integers(0, 2**32),
    st.lists(st.one_of(latencies, st.none(), st.just("trip"), st.just("quiet")), max_size=60),
)
def test_it_recovers_within_a_second_whatever_happened(seed, history):
    """From any state, a probe under way included, good answers close it in time; meanwhile only probes are made, one at a time."""
    node = Node(seed)
    for what in history:
        happen(node, what)
    well_again = node.now
    if node.breaker.probing:
        node.now += LIMIT_S
        node.breaker.note_probe_failure(AWAY)
    while not node.breaker.closed:
        node.now = max(node.now, node.breaker.probe_at)
        node.breaker.probe()
        node.now += LIMIT_S
        node.breaker.note_probe(LIMIT_S)
    assert node.now - well_again <= LONGEST_WAIT_S + 4 * LIMIT_S + 2 * PROBE_SPACING_S + 1e-6 < 1


def happen(node: Node, what: float | str | None) -> None:
    """Let one thing happen: time, a trip, or the end of a call or of a probe."""
    if what == "quiet":
        node.now += 3
    elif what == "trip":
        node.breaker.trip(AWAY)
    elif node.breaker.closed:
        node.now += 0.02
        node.breaker.note_failure(AWAY) if what is None else node.breaker.note(float(what))
    elif node.breaker.probing:
        node.now += LIMIT_S
        node.breaker.note_probe_failure(AWAY) if what is None else node.breaker.note_probe(float(what))
    else:
        node.now = max(node.now, node.breaker.probe_at)
        node.breaker.probe()
