"""The judge of promise 1: exact where everything is known, and never a false alarm where it is not."""

from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.demo.claims import Facts, claims
from ratelimit_svc.demo.proof import ENOUGH, Fullness, Hit, Period, fullest, fullness, got, least
from ratelimit_svc.demo.traffic import LIMITED, PASSED, Seen

W = 1_000_000


def at(*times_us: int) -> list[Hit]:
    """Hits whose answer came at the very time they were sent."""
    return [Hit(time, time) for time in times_us]


def brute_force(hits: list[Hit], window_us: int) -> int:
    """The definition, tried on every pair of an earliest send and a latest answer."""
    return max(
        (
            sum(earliest.sent_us <= hit.sent_us and hit.answered_us <= latest.answered_us for hit in hits)
            for earliest in hits
            for latest in hits
            if latest.answered_us - earliest.sent_us < window_us
        ),
        default=0,
    )


@pytest.mark.parametrize(
    ("hits", "most"),
    [
        ([], 0),
        (at(5), 1),
        (at(0, W - 1), 2),
        (at(0, W), 1),  # a window of length W that holds both is longer than W
        (at(0, 0, 0), 3),
        ([Hit(0, W)], 0),  # a hit in flight for W or longer may have been counted anywhere
        ([Hit(0, W - 1), Hit(1, W - 1)], 2),
        ([Hit(0, W + 5), Hit(10, 20)], 1),  # the first one's answer came too late for any window
        ([Hit(0, 10), Hit(W - 20, W + 10), Hit(W - 10, W - 1)], 2),
        (at(0, 400_000, 900_000, 1_100_000, 1_300_000), 4),
    ],
)
def test_fullest_window(hits, most):
    """The fullest window holds the hits whose latest answer is less than W after their earliest send."""
    assert fullest(hits, W) == most


hits_in_flight = st.lists(
    st.builds(lambda sent, flight: Hit(sent, sent + flight), st.integers(0, 60), st.integers(0, 25)), max_size=25
)


@given(hits_in_flight, st.integers(1, 40))
def test_fullest_is_its_definition(hits, window_us):
    """The fast way finds what trying every pair finds."""
    assert fullest(hits, window_us) == brute_force(hits, window_us)


wanted = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=80)
"""Requests: when the store gets them, how long they travel there, and how long the answer travels back."""


def admitted(requests: list[tuple[int, int, int]], limits: list[tuple[int, int]], window_us: int) -> list[Hit]:
    """What an exact limiter admits: at any time, no more in the window that ends there than the limit of that time."""
    log: deque[int] = deque()
    hits = []
    for arrival, there, back in sorted(requests):
        while log and log[0] <= arrival - window_us:
            log.popleft()
        limit = [limit for since, limit in limits if since <= arrival][-1]
        if len(log) < limit:
            log.append(arrival)
            hits.append(Hit(arrival - there, arrival + back))
    return hits


@given(wanted, st.integers(0, 8), st.integers(1, 120))
def test_no_false_alarm(requests, limit, window_us):
    """Whatever travel times do to what one sees, an exact limiter is never accused."""
    hits = admitted(requests, [(0, limit)], window_us)
    assert fullest(hits, window_us) <= limit
    assert all(one.held for one in fullness(hits, [Period(-1_000, limit)], window_us))


@given(wanted, st.lists(st.tuples(st.integers(1, 400), st.integers(0, 8)), max_size=4), st.integers(1, 120))
def test_no_false_alarm_while_limits_change(requests, changes, window_us):
    """Nor is one whose limit is raised and lowered at known times."""
    limits = [(0, 5), *sorted(changes)]
    # after a limit was lowered, a window may still hold what the old one admitted
    most = [max(limit for when, limit in limits if when > since - window_us or when == 0) for since, _ in limits]
    periods = [Period(since or -1_000, bound) for (since, _), bound in zip(limits, most, strict=True)]
    hits = admitted(requests, limits, window_us)
    assert all(one.held for one in fullness(hits, periods, window_us))


@given(st.integers(1, 6), st.integers(2, 100), st.integers(0, 1_000), st.data())
def test_one_too_many_is_found(limit, window_us, start, data):
    """L + 1 hits that certainly lie within less than W are found, among any others."""
    inside = st.integers(start, start + window_us - 1)
    pairs = data.draw(st.lists(st.tuples(inside, inside), min_size=limit + 1, max_size=limit + 1))
    others = data.draw(hits_in_flight)
    guilty = [Hit(min(pair), max(pair)) for pair in pairs]
    assert fullest([*others, *guilty], window_us) > limit


RAISED = [Period(0, 2), Period(10 * W, 4)]
OUTAGE = [Period(0, 2), Period(10 * W, 5), Period(20 * W, 2)]


@pytest.mark.parametrize(
    ("periods", "hits", "seen"),
    [
        (RAISED, at(1, 2, 3), {2: 3, 4: 3}),  # one too many before the raise
        (
            RAISED,
            at(10 * W - 2, 10 * W - 1, 10 * W + 1, 10 * W + 2),
            {2: 2, 4: 4},
        ),  # a window across the raise: the new limit
        (RAISED, [Hit(10 * W - 5, 10 * W + 5), *at(10 * W - 4, 10 * W - 3)], {2: 2, 4: 3}),  # in flight at the raise
        (RAISED, at(10 * W, *range(10 * W + 1, 10 * W + 5)), {2: 0, 4: 5}),  # one too many after it
        (OUTAGE, at(*range(10 * W, 10 * W + 5)), {2: 0, 5: 5}),
        (OUTAGE, at(*range(10 * W, 10 * W + 6)), {2: 0, 5: 6}),  # one too many in the outage
        (OUTAGE, at(20 * W - 1, 20 * W + 1, 20 * W + 2), {2: 2, 5: 3}),
        (OUTAGE, at(20 * W + 1, 20 * W + 2, 20 * W + 3), {2: 3, 5: 3}),  # one too many after it
        (OUTAGE, at(10 * W - 1, 20 * W + 1), {2: 1, 5: 1}),  # before and after an outage are never one window
    ],
)
def test_each_bound_is_judged_by_its_own_windows(periods, hits, seen):
    """A bound is judged by the windows that no more generous period touches, each hit by its whole flight."""
    assert fullness(hits, periods, W) == [Fullness(most, count) for most, count in seen.items()]
    assert [one.held for one in fullness(hits, periods, W)] == [count <= most for most, count in seen.items()]


def test_equal_periods_in_a_row_are_one():
    """A boundary between periods with the same bound separates nothing."""
    together = [Period(0, 2), Period(5, 2), Period(9, 2)]
    assert fullness(at(4, 6, 10), together, W) == [Fullness(2, 3)]


@pytest.mark.parametrize(
    ("span_us", "slices", "times"),
    [
        (0, 60, 0),
        (W, 60, 0),  # capacity comes back a slice late: one W is not enough
        (W + 16_667, 60, 1),
        (10 * W, 60, 9),
        (10 * W, 1, 5),
    ],
)
def test_least_is_whole_times_the_limit(span_us, slices, times):
    """A saturating caller gets 95 % of L for each whole W and slice of a span."""
    assert least(span_us, limit=100, window_us=W, slices=slices) == int(ENOUGH * 100 * times)


def test_got_counts_whole_flights():
    """Only hits that were sent and answered within the span are counted for it."""
    assert got([Hit(0, 5), Hit(5, 9), Hit(9, 11)], 1, 10) == 1


# ── what the demo claims ──────────────────────────────────────────────────────────────────────────────────────────────

SECOND = 1_000_000


def seen(passed: list[Hit], *, limited: int = 5, **statuses: int) -> Seen:
    """What a tenant's callers saw, all answered at once."""
    counts = Counter(
        {PASSED: len(passed), LIMITED: limited, **{int(key[1:]): count for key, count in statuses.items()}}
    )
    return Seen(passed=passed, statuses=counts, slowest_us=3_000)


def saturated(limit: int, start_s: float, end_s: float) -> list[Hit]:
    """All that a limit gives to who always wants more: a burst each W and a slice."""
    period = SECOND + 16_667
    starts = range(int(start_s * SECOND), int(end_s * SECOND) - period, period)
    return [Hit(start + n, start + n) for start in starts for n in range(limit)]


A = saturated(10, 0, 40)
B = [*saturated(20, 0, 10), *saturated(40, 10, 40)]


def facts(**changes: Any) -> Facts:
    """The facts of a demo in which all held, but for these changes."""
    tenants = {"a": seen(A), "b": seen(B)}
    right: dict[str, Any] = {
        "replicas": 2,
        "limits": {"a": 10, "b": 20},
        "raised": "b",
        "raised_to": 40,
        "started_us": 0,
        "edited_us": 10 * SECOND,
        "in_force_us": 10 * SECOND,
        "killed_us": 20 * SECOND,
        "back_us": 30 * SECOND,
        "ended_us": 40 * SECOND,
        "seen": tenants,
        "arrived": {"a": len(A), "b": len(B)},
        "unanswered": 0,
        "by_share": 0,
        "fallen": (),
    }
    return Facts(**right | changes)


def broken(told: Facts) -> list[str]:
    """The claims that do not hold."""
    return [claim.text for claim in claims(told) if not claim.held]


def test_all_claims_hold_where_all_is_well():
    """Two tenants who get all they may, and nothing more, in all four phases."""
    assert broken(facts()) == []
    assert len(claims(facts())) == 2 + 3 + 8 + 5  # bounds of a, bounds of b, spans, answers


def with_hits(tenant: str, *extra: Hit) -> dict[str, Any]:
    """The changes that more admitted hits of one tenant make."""
    hits = {"a": A, "b": B}
    hits[tenant] = [*hits[tenant], *extra]
    return {
        "seen": {name: seen(passed) for name, passed in hits.items()},
        "arrived": {name: len(passed) for name, passed in hits.items()},
    }


def without_hits(tenant: str, start_s: float, end_s: float) -> dict[str, Any]:
    """The changes that a gap in one tenant's hits makes."""
    hits = {"a": A, "b": B}
    hits[tenant] = [hit for hit in hits[tenant] if not start_s * SECOND <= hit.sent_us < end_s * SECOND]
    return {
        "seen": {name: seen(passed) for name, passed in hits.items()},
        "arrived": {name: len(passed) for name, passed in hits.items()},
    }


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        (with_hits("a", *at(5)), ["a: no second held more than 10; the fullest held 11"]),
        (with_hits("b", *at(5 * SECOND)), ["b: no second held more than 20; the fullest held 21"]),
        (with_hits("b", *at(15 * SECOND)), ["b: no second held more than 40; the fullest held 41"]),
        (with_hits("b", *at(35 * SECOND)), ["b: no second held more than 40; the fullest held 41"]),
        (with_hits("a", *at(*[25 * SECOND] * 11)), []),  # 2 × 10 + 2 − 1 in the outage
        (
            with_hits("a", *at(*[25 * SECOND] * 12)),
            ["a: windows that the outage touched held at most 21; the fullest held 22"],
        ),
        (without_hits("a", 2, 5), ["a: at first, 70 passed in 10.0 s; 85 are due at least"]),
        (without_hits("b", 12, 15), ["b: after the edit, 280 passed in 10.0 s; 342 are due at least"]),
        (without_hits("a", 20, 29), ["a: without Valkey, 10 passed in 10.0 s; 67 are due at least"]),
        (without_hits("a", 30, 40), ["a: with it again, 0 passed in 10.0 s; 85 are due at least"]),
        ({"unanswered": 2}, ["Envoy waited in vain for 2 answers of the service"]),
        ({"by_share": 1}, ["1 answers came from a local share while Valkey was there"]),
        (
            {"arrived": {"a": len(A) + 1, "b": len(B)}},
            [f"the application got the {len(A) + len(B)} requests that passed, and no other"],
        ),
        ({"fallen": ("replica-1",)}, ["no process fell over; but: replica-1"]),
        (
            {"seen": {"a": seen(A, s503=1), "b": seen(B, s0=1)}},
            [f"all {len(A) + len(B) + 12} answers were 200 or 429, the slowest after 3 ms; but also: none, 503"],
        ),
    ],
)
def test_each_claim_can_break(changes, texts):
    """Each fact that is not as promised breaks its claim, and no other."""
    assert broken(facts(**changes)) == texts
