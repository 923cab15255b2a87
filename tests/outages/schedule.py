"""What goes wrong when, in a chaos run. Pure: the same seed and length give the same schedule.

Two lanes run side by side, so that whatever happens to the store meets whatever happens to replicas. In a lane one fault follows
the other, after a pause; each deck is played to its end before it is shuffled again, so every kind has its turn.
"""

from collections.abc import Iterator
from enum import Enum
from random import Random
from typing import NamedTuple

CALM_S = 2.0
"""Nothing begins before."""
END_S = 3.5
"""Nothing begins or goes on after: everything has to come back."""
PAUSE_S = (2.0, 4.0)


class Kind(Enum):
    """What may go wrong; its words for people."""

    KILL = "the store is killed, and starts again"
    HANG = "the store hangs (SIGSTOP)"
    FAR = "200 ms more to the store, each way"
    RESETS = "1 in 10 connections reset, each tenth of a second"
    CUT = "a replica is cut off from the store"
    ANSWERS = "the answers to a replica are lost"
    QUESTIONS = "what a replica asks is lost"
    FLUSH = "SCRIPT FLUSH"
    CRASH = "a replica is killed, and starts again"
    RULES = "a replica has other rules (twice the limit, a sixth of the slices)"


LONG_S = {
    Kind.KILL: (1.5, 5.0),
    Kind.HANG: (1.0, 3.0),
    Kind.FAR: (1.5, 3.0),
    Kind.RESETS: (2.0, 4.0),
    Kind.CUT: (1.5, 4.0),
    Kind.ANSWERS: (0.5, 2.0),
    Kind.QUESTIONS: (0.5, 2.0),
    Kind.FLUSH: (0.0, 0.0),
    Kind.CRASH: (0.5, 2.0),
    Kind.RULES: (2.0, 5.0),
}
"""For how long, in s: at least and at most."""
STORE = (Kind.KILL, Kind.HANG, Kind.FAR, Kind.RESETS)
REPLICAS = (Kind.CUT, Kind.ANSWERS, Kind.QUESTIONS, Kind.FLUSH, Kind.CRASH, Kind.RULES)


class Fault(NamedTuple):
    """One thing that goes wrong."""

    at_s: float
    """Since the start of the run."""
    for_s: float
    kind: Kind
    replica: int | None
    """Which; None: all of them, for it is the store's."""


def lanes(seed: int, seconds: float, replicas: int) -> tuple[list[Fault], list[Fault]]:
    """Return what happens to the store and, beside it, to replicas."""
    random = Random(seed)
    return [*_lane(random, STORE, seconds, None)], [*_lane(random, REPLICAS, seconds, replicas)]


def _lane(random: Random, kinds: tuple[Kind, ...], seconds: float, replicas: int | None) -> Iterator[Fault]:
    at_s, deck = CALM_S + random.uniform(0, 1), list[Kind]()
    while True:
        deck = deck or random.sample(kinds, k=len(kinds))
        kind = deck.pop()
        for_s = random.uniform(*LONG_S[kind])
        replica = None if replicas is None or kind is Kind.FLUSH else random.randrange(replicas)
        if at_s + for_s > seconds - END_S:
            return
        yield Fault(round(at_s, 3), round(for_s, 3), kind, replica)
        at_s += for_s + random.uniform(*PAUSE_S)
