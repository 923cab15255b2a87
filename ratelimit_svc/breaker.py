"""A breaker: whether to call a store node at all. Pure; the clock and the dice are handed in.

    closed ──▶ open         too many of the last second's calls failed or were slow (`_why_open`), or the node tripped it
    open ──▶ half-open      a probe is under way, at `probe_at`: the one call that is made
    half-open ──▶ closed    GOOD_PROBES in a row were answered in time
    half-open ──▶ open      one was not; the wait until the next doubles

Rules:
1. It is asked by looking at an attribute, `closed`, and told once per call. It does nothing by itself: whoever calls the node also
   makes the probes, and has the timer for them.
2. Only bad calls open it: each is judged with the second before it. A good call is counted, and that is all.
3. A node that answers well again is called again within LONGEST_WAIT_S + 4 latencies + 2 PROBE_SPACING_S, whatever happened
   before: 0.74 s by default.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from enum import IntEnum
from math import ceil, inf
from random import Random

from ratelimit_svc.ring import Ring

LEAST_CALLS = 10
"""In the last second: of fewer, half is no share to judge by."""
LEAST_ANSWERS = 20
"""Likewise for their latency: the p95 of fewer is the slowest of them, and a single slow answer opens nothing."""
BAD_IN_A_ROW = 5
"""So many calls that failed or were slow, one after the other, open it as well. A store that makes each batch wait gets so few of
them that no second has enough to judge by. They must have come over more than a latency: what one stall, of the network or of
our own loop, has held up arrives all at once, and is one bad thing."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 0.5
"""Until a probe; doubling, with jitter so that replicas do not come back in step."""
GOOD_PROBES, PROBE_SPACING_S = 3, 0.02
"""In a row, and not all at one lucky moment."""
FORGET_AFTER_S = 10.0
"""Closed for so long, it begins with the shortest wait again. Before that it goes on where it was: a store that flaps is left
alone for longer and longer."""

BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of the latencies that people are told; the decision has a column of its own, and is exact."""
_FAILED, _SLOW, _ANSWERED = 0, 1, 2
"""Columns of the ring: the last is the first of len(BOUNDS_S) + 1."""


class BreakerState(IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2

    @property
    def word(self) -> str:
        """As people are told."""
        return self.name.lower().replace("_", "-")


def _ignore(*_: object) -> None:
    """Tell nobody."""


class Breaker:
    """Says whether to call one node.

    Args:
        latency_s: the longest that an answer in time takes (BREAKER_LATENCY).
        clock: gives the time in seconds; never goes back.
        random: for the jitter.
        on_change: called with the state and a sentence when it has opened and when it has closed. Half-open is told to nobody: as
            long as a node is away, it comes and goes with each probe.
    """

    __slots__ = (
        "_bad_in_a_row",
        "_bad_since",
        "_clock",
        "_good_probes",
        "_on_change",
        "_random",
        "_ring",
        "_wait_s",
        "closed",
        "latency_s",
        "opened",
        "probe_at",
        "probing",
        "since",
        "state",
        "why",
    )

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        random: Random,
        latency_s: float = 0.05,
        on_change: Callable[[BreakerState, str], None] = _ignore,
    ) -> None:
        self._clock, self._random, self._on_change = clock, random, on_change
        self.latency_s = latency_s
        self.closed = True
        """Whether to call."""
        self.state = BreakerState.CLOSED
        self.why = ""
        """Why it is not closed: what opened it, or what the last probe met. Empty: it is closed."""
        self.since = clock()
        """When it was last closed or opened."""
        self.opened = 0
        """How often it has been."""
        self.probe_at = inf
        """When the next probe is due, on the clock. Never, while it is closed or a probe is under way."""
        self.probing = False
        """Whether a probe is under way."""
        self._good_probes = 0
        self._wait_s = 0.0
        """The last wait until a probe, without jitter."""
        self._forget_calls()

    def __repr__(self) -> str:
        return f"<Breaker: {self.state.word}{self.why and f', {self.why}'}>"

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, latency_s: float) -> None:
        """Note an answer, so long after its call. What comes late while it is not closed says nothing of the node as it is now."""
        if not self.closed:
            return
        now = self._clock()
        self._ring.add(now, _ANSWERED + bisect_left(BOUNDS_S, latency_s))
        if latency_s <= self.latency_s:
            self._bad_in_a_row = 0
            return
        self._ring.add(now, _SLOW)
        self._note_bad(now, f"an answer took {_ms(latency_s)}")

    def note_failure(self, why: str) -> None:
        """Note a call that was refused, was lost or had no answer in time. It has no latency, and counts in no p95."""
        if not self.closed:
            return
        now = self._clock()
        self._ring.add(now, _FAILED)
        self._note_bad(now, why)

    def trip(self, why: str) -> None:
        """Open at once: the node is known to be away. If it is open, this is a newer reason, and a probe under way is lost."""
        if self.closed:
            self._open(self._clock(), why)
        elif self.state is BreakerState.HALF_OPEN:
            self._probe_was_bad(why)
        else:
            self.why = why

    def _note_bad(self, now: float, last: str) -> None:
        if not self._bad_in_a_row:
            self._bad_since = now
        self._bad_in_a_row += 1
        if why := self._why_open(now, last):
            self._open(now, why)

    def _why_open(self, now: float, last: str) -> str:
        """Return what the last second has against the node; nothing: it may go on."""
        counts, window = self._ring.totals(now), f"in {self._ring.window_s:g} s"
        failed, slow, answers = counts[_FAILED], counts[_SLOW], sum(counts[_ANSWERED:])
        calls = failed + answers
        if calls >= LEAST_CALLS and 2 * failed >= calls:
            return f"{failed} of {calls} calls failed {window} ({last})"
        if answers >= LEAST_ANSWERS and 20 * slow > answers:  # as exact as it gets: p95 > limit
            return f"{slow} of {answers} answers {window} took longer than {_ms(self.latency_s)} ({last})"
        if self._bad_in_a_row >= BAD_IN_A_ROW and now - self._bad_since > self.latency_s:
            return f"{self._bad_in_a_row} calls in a row failed or took longer than {_ms(self.latency_s)} ({last})"
        return ""

    # ── probes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def probe(self) -> None:
        """Note that a probe is sent now. It must be noted how it ended, whatever that was, by one of the next two.

        Without an answer after `latency_s` it has failed: nobody need wait for it any longer.
        """
        self.state, self.probing, self.probe_at = BreakerState.HALF_OPEN, True, inf

    def note_probe(self, latency_s: float) -> None:
        """Note the answer to the probe. Nothing if none is under way: the node has been tripped meanwhile."""
        if not self.probing:
            return
        if latency_s > self.latency_s:
            self._probe_was_bad(f"a probe's answer took {_ms(latency_s)}")
            return
        self.probing = False
        self._good_probes += 1
        now = self._clock()
        if self._good_probes < GOOD_PROBES:
            self.probe_at = now + PROBE_SPACING_S
        else:
            self._close(now)

    def note_probe_failure(self, why: str) -> None:
        """Note that the probe was refused, was lost or has no answer in time."""
        if self.probing:
            self._probe_was_bad(why)

    def _probe_was_bad(self, why: str) -> None:
        self.state, self.why = BreakerState.OPEN, why
        self._wait(self._clock())

    # ── changes ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self, now: float, why: str) -> None:
        if now - self.since >= FORGET_AFTER_S:
            self._wait_s = 0.0
        self.closed, self.state, self.why, self.since = False, BreakerState.OPEN, why, now
        self.opened += 1
        self._wait(now)
        self._forget_calls()
        self._on_change(self.state, why)

    def _wait(self, now: float) -> None:
        self._good_probes, self.probing = 0, False
        self._wait_s = min(max(2 * self._wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)
        self.probe_at = now + self._wait_s * self._random.uniform(0.5, 1)

    def _close(self, now: float) -> None:
        was_open_s = now - self.since
        self.closed, self.state, self.why, self.since = True, BreakerState.CLOSED, "", now
        self.probe_at = inf
        self._on_change(self.state, f"{GOOD_PROBES} probes in a row were answered in time, after {was_open_s:.1f} s")

    def _forget_calls(self) -> None:
        """Begin with nothing counted: what opened it must not open it again."""
        self._ring = Ring(_ANSWERED + len(BOUNDS_S) + 1)
        self._bad_in_a_row, self._bad_since = 0, 0.0

    # ── for people ────────────────────────────────────────────────────────────────────────────────────────────────────

    def describe(self) -> Mapping[str, object]:
        """Return what health detail shows: how it stands, and the calls of the last second."""
        now = self._clock()
        counts = self._ring.totals(now)
        answers = counts[_ANSWERED:]
        return {
            "state": self.state.word,
            "why": self.why,
            "since_s": round(now - self.since, 3),
            "opened": self.opened,
            "calls": counts[_FAILED] + sum(answers),
            "failed": counts[_FAILED],
            "slow": counts[_SLOW],
            "p95_ms_at_most": _p95_ms(answers),
        }


def _p95_ms(answers: list[int]) -> float | None:
    """Return the bound of the bucket that holds the p95; None: there is no answer, or it is beyond all bounds."""
    left = ceil(sum(answers) * 19 / 20)
    if not left:
        return None
    for bound, count in zip(BOUNDS_S, answers, strict=False):
        left -= count
        if left <= 0:
            return bound * 1000
    return None


def _ms(length_s: float) -> str:
    return f"{round(length_s * 1000, 1):g} ms"
