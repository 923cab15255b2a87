"""What is wrong with what was seen, in sentences; nothing is, where there is none. Pure.

Rule 1: a judge is never lenient to be safe: what may be excused is handed in (`Took`), and is what `Machine` is certain of.
Rule 2: windows are judged from outside. More than `bound` hits in one window are proven by hits of which all were answered
        less than W after the first was sent. (By answers alone there would be false alarms, and a false alarm hides a true one.)
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tests.outages.calls import LOST, Call
from tests.outages.looks import Look

Took = Callable[[str, float, float], float]
"""So many seconds the machine took from a call of this replica between two times."""
Span = tuple[float, float]
"""From and until, by `perf_counter`."""

MARGIN_S = 0.002
"""What the service keeps of a caller's time for the way back (DEADLINE_MARGIN). Who takes that from it makes it late."""
DEADLINE_EXCEEDED = "grpc-status 4:"
"""What a caller is told whose time is up: nothing else was said in time."""
SHOWN = 3
"""Findings of one kind that are told."""
BY_POLICY = 0.1
"""Where fewer than one in ten is decided without the store, the store decides."""
FILES_LEFT, MEMORY_LEFT_MB = 0, 12.0
"""What may be more after an outage: no file; of memory, what the allocator keeps of a burst."""


def bound(limit: int, *, replicas: int, emptied: bool = False) -> int:
    """Return how many hits any window may hold in which some were admitted without the store (DESIGN §8)."""
    return 2 * limit + replicas - 1 + emptied * limit


def late(calls: Iterable[Call], took: Took) -> list[str]:
    """Find calls that were not answered before their deadlines, for whatever reason but a lost connection."""
    found = []
    for call in calls:
        if call.answered_s is None:
            found.append(f"{call.tenant} was never answered by {call.replica}")
        elif call.status != LOST and (over_s := call.answered_s - call.sent_s - call.timeout_s) > 0:
            excused_s = took(call.replica, call.sent_s, call.answered_s)
            if over_s > excused_s:
                ms = f"{over_s * 1000:.1f} ms late of {call.timeout_s * 1000:.0f}, {excused_s * 1000:.1f} of them excused"
                found.append(f"{call.tenant} was answered {ms}, by {call.replica}")
    return _few("late", found)


def errors(calls: Iterable[Call], took: Took, *, killed: Collection[str] = ()) -> list[str]:
    """Find calls that ended without an answer.

    Args:
        calls: all.
        took: a service that had no time may say that the time is up.
        killed: replicas that were, and so lost connections.
    """
    found = []
    for call in calls:
        if not call.status or call.answered_s is None or (call.status == LOST and call.replica in killed):
            continue
        no_time = call.status.startswith(DEADLINE_EXCEEDED)
        if not no_time or took(call.replica, call.sent_s, call.answered_s) < MARGIN_S:
            found.append(f"{call.tenant} was answered by {call.replica}: {call.status}")
    return _few("errors", found)


def fullest(calls: Iterable[Call], window_s: float) -> Mapping[str, int]:
    """Return, of each tenant, the most hits that were certainly admitted in one window."""
    admitted: dict[str, list[Span]] = defaultdict(list)
    for call in calls:
        if call.admitted and call.answered_s is not None:
            admitted[call.tenant].append((call.sent_s, call.answered_s))
    return {tenant: max(_in_windows(sorted(spans), window_s)) for tenant, spans in admitted.items()}


def _in_windows(spans: Sequence[Span], window_s: float) -> Iterator[int]:
    """Count, from each hit on, those that were answered less than a window after it was sent."""
    for place, (sent_s, _) in enumerate(spans):
        until_s, count = sent_s + window_s, 0
        for later in range(place, len(spans)):
            if spans[later][0] >= until_s:
                break
            count += spans[later][1] < until_s
        yield count


def overfull(calls: Iterable[Call], *, window_s: float, bound: int) -> list[str]:
    """Find tenants of whom more was admitted in a window."""
    most = fullest(calls, window_s)
    return _few("overfull", [f"{hits} hits of {one}, {bound} may be" for one, hits in most.items() if hits > bound])


def within(calls: Iterable[Call], span: Span) -> list[Call]:
    """Return the calls that began and ended in a stretch of time."""
    return [one for one in calls if span[0] <= one.sent_s and one.answered_s is not None and one.answered_s <= span[1]]


def without(span: Span, others: Iterable[Span]) -> list[Span]:
    """Return what is left of a stretch of time without others."""
    left = [span]
    for from_s, until_s in others:
        left = [part for a, b in left for part in ((a, min(b, from_s)), (max(a, until_s), b)) if part[0] < part[1]]
    return left


def by_store(looks: Iterable[Look]) -> list[Span]:
    """Return the stretches of time in which no replica decided anything without the store."""
    flat = [_flat(each) for each in _by_replica(looks).values()]
    common = flat[0] if flat else []
    for other in flat[1:]:
        both = [(max(a[0], b[0]), min(a[1], b[1])) for a in common for b in other]
        common = [(start, end) for start, end in both if start < end]
    return common


def _flat(looks: Sequence[Look]) -> list[Span]:
    """Return the stretches in which one replica's counter stood still; from when it had told until it was asked again."""
    spans: list[Span] = []
    begun: Look | None = None
    for early, late in pairwise(looks):
        if late.policy == early.policy:
            begun = begun or early
            spans[len(spans) - (bool(spans) and spans[-1][0] == begun.ended_s) :] = [(begun.ended_s, late.at_s)]
        else:
            begun = None
    return spans


def slow(looks: Iterable[Look], took: Took, *, back_s: float, within_s: float = 1.0) -> list[str]:
    """Find replicas that did not let the store decide soon after it was back.

    Args:
        looks: those from `back_s` on are judged, by replica.
        took: here also what the machine took from the store: a store that is not let run is not back.
        back_s: when it was.
        within_s: how soon is soon enough.
    """
    found = []
    for replica, seen in _by_replica(look for look in looks if look.at_s >= back_s).items():
        again_s = _again_s(seen)
        until_s = seen[-1].ended_s if again_s is None else again_s
        if until_s - back_s > within_s + took(replica, back_s, until_s):
            how = "has not come" if again_s is None else f"came after {again_s - back_s:.2f} s"
            found.append(f"{replica} {how} back to its store")
    return _few("slow", found)


def _again_s(looks: Sequence[Look]) -> float | None:
    """Return when a replica let the store decide; None: it never did."""
    for early, late in pairwise(looks):
        asked, alone = late.requests - early.requests, late.policy - early.policy
        if asked > 0 and 0 <= alone <= BY_POLICY * asked:
            return early.ended_s
    return None


class Kept(NamedTuple):
    """What a replica holds, before and after."""

    before: Look
    after: Look


def left_behind(kept: Iterable[Kept]) -> list[str]:
    """Find what replicas still hold when an outage is over and their callers have gone."""
    found = []
    for before, after in kept:
        if after.files > before.files + FILES_LEFT:
            found.append(f"{after.replica} has {after.files} files open, it had {before.files}")
        if after.memory_mb > before.memory_mb + MEMORY_LEFT_MB:
            found.append(f"{after.replica} holds {after.memory_mb:.1f} MB, it held {before.memory_mb:.1f}")
        if after.calls:
            found.append(f"{after.calls} calls are under way at {after.replica}")
    return found


def _by_replica(looks: Iterable[Look]) -> dict[str, list[Look]]:
    found: dict[str, list[Look]] = defaultdict(list)
    for look in looks:
        found[look.replica].append(look)
    return found


def _few(kind: str, found: Sequence[str]) -> list[str]:
    """Return some findings, and how many there are beside them."""
    more = len(found) - SHOWN
    return [f"{kind}: {one}" for one in found[:SHOWN]] + ([f"{kind}: and {more} more"] if more > 0 else [])
