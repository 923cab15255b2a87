"""Comparison: how often the algorithms that rules are compared with (`compare`) say something else than those that decide.

    differences   when the two of a rule differed, where in the window, and on which requests
    page          what `/debug/compare` shows of it

A request on compared rules goes to the store as two lines, one behind the other in one script: first what it would mean if its
compared rules counted by their other algorithms (`Plan.compared`), on windows of their own, then what it means. So:

1. The line that decides is the one that it would be without comparing, on the same windows: nobody's answer changes.
2. The other line charges what fits there, all or nothing, whatever the first decides: its windows hold what they would hold if
   those algorithms decided. They are asked and charged in the same moment as the windows that decide.
3. Where a request meets rules that are not compared, both lines ask the same windows of these, before either has charged them;
   only the line that decides charges them.

A rule denies a request, here, if it has no room for it and the request is told OVER_LIMIT for that (`verdicts.denying`), or,
in shadow mode, would be. What is told here is kept in memory, for MOST_RULES rules; the counters of `metrics` are beside it.

Pure but for the clock it is handed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ratelimit_svc.limiter.comparison.differences import Differences
from ratelimit_svc.limiter.verdicts import denying
from ratelimit_svc.limiter.waiting import WaitingLine
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.metrics.counts import Compared
from ratelimit_svc.model import BAD_KEY, Grant, Limit, Line, Plan, Role, Rule
from ratelimit_svc.store import Untaken

MOST_RULES = 1_000
"""Rules of which more is known than the counters of metrics say: 16 kB each at most."""


@dataclass(slots=True)
class RuleComparison:
    """What is known of one rule."""

    limit: Limit
    """What decides."""
    compared: Limit
    """The same limit, counted by the other algorithm."""
    since_us: int
    """From when on it counts."""
    counts: Compared = field(default_factory=Compared)
    without_store: int = 0
    """Requests that the policy answered in the store's place. If the store has decided all the same, it counts above, too."""
    differences: Differences | None = None
    """None: there are none."""


class Pair(NamedTuple):
    """What the store has said of a line that is compared."""

    plan: Plan
    requests: int
    """How many the line had."""
    decided: Grant | Untaken
    """Of what decides."""
    other: Grant | Untaken
    """Of what it would be otherwise."""


class ComparedBatch:
    """A batch of which some lines are compared: what the store is asked for it, and what its reply means."""

    __slots__ = ("_lines", "_requests")

    def __init__(self, lines: Sequence[WaitingLine]) -> None:
        self._lines = lines
        self._requests = [len(line.requests) for line in lines]
        """When they are answered, the lines forget them."""

    def lines(self) -> list[Line]:
        """Return what the store is asked: before each line that is compared what that would be otherwise."""
        asked = []
        for line, requests in zip(self._lines, self._requests, strict=True):
            if line.plan.compared is not None:
                asked.append(Line(line.plan.compared.charges, requests))
            asked.append(Line(line.plan.charges, requests))
        return asked

    def deciding(self, said: Iterable[Grant | Untaken]) -> list[Grant | Untaken]:
        """Return what the store has said of the lines that decide."""
        told = iter(said)
        found = []
        for line in self._lines:
            if line.plan.compared is not None:
                next(told)
            found.append(next(told))
        return found

    def pairs(self, said: Iterable[Grant | Untaken]) -> Iterator[Pair]:
        """Yield what the store has said of each line that is compared."""
        told = iter(said)
        for line, requests in zip(self._lines, self._requests, strict=True):
            if line.plan.compared is not None:
                other = next(told)
                yield Pair(line.plan, requests, decided=next(told), other=other)
            else:
                next(told)


class Comparison:
    """All that is known of compared rules.

    Args:
        clock: the time in µs since the epoch, as near to the store's as it may be: it says when the algorithms differ.
        metrics: has the counters.
    """

    def __init__(self, clock: Callable[[], int], metrics: Metrics) -> None:
        self.clock = clock
        self._metrics = metrics
        self.rules: dict[str, RuleComparison] = {}
        """By the rule's id."""
        self.since_us = clock()
        """From when on anything counts here."""

    def __repr__(self) -> str:
        return f"<Comparison: {len(self.rules)} rules>"

    def reset(self) -> None:
        """Forget what was counted, and begin anew. The counters of metrics go on."""
        self.since_us = now = self.clock()
        self.rules = {rule: RuleComparison(known.limit, known.compared, now) for rule, known in self.rules.items()}

    def use(self, rules: Iterable[Rule]) -> None:
        """Note the rules that are in force now. What is known of others is forgotten, and of those whose limits have changed."""
        before, self.rules = self.rules, {}
        for rule in rules:
            if rule.compared is None:
                continue
            known = before.get(rule.id)
            if known is not None and (known.limit, known.compared) == (rule.limit, rule.compared):
                self.rules[rule.id] = known
            else:
                self._known(rule)

    def note(self, pairs: Iterable[Pair]) -> None:
        """Note what the store has said of some lines; what it does not tell of both, nobody can compare."""
        for plan, requests, decided, other in pairs:
            if isinstance(decided, Untaken) or isinstance(other, Untaken):
                continue
            if BAD_KEY not in (decided.granted, other.granted):
                self._note(plan, requests, decided, other)

    def note_without_store(self, plan: Plan) -> None:
        """Note a request that the policy answered, for the store did not."""
        for charge in plan.charges:
            if (known := self._known(charge.rule)) is not None:
                known.without_store += 1

    def _note(self, plan: Plan, requests: int, decided: Grant, other: Grant) -> None:
        assert plan.compared is not None
        if requests == decided.granted == other.granted and not (_refuses(decided) or _refuses(other)):
            refused = refused_otherwise = {}
        else:
            refused = _refused(plan, decided, requests)
            refused_otherwise = _refused(plan.compared, other, requests)
        for place, charge in enumerate(plan.charges):
            if charge.rule.compared is not None:
                self._count(plan, place, requests, refused.get(place, 0), refused_otherwise.get(place, 0))

    def _count(self, plan: Plan, place: int, requests: int, denied: int, denied_otherwise: int) -> None:
        """Count a line's requests on one rule. Each way the first of them pass, as many as do, and the others do not."""
        charge = plan.charges[place]
        both, either = min(denied, denied_otherwise), max(denied, denied_otherwise)
        counted = self._metrics.rule(charge.label, charge.rule.id)
        if counted.compared is None:
            counted.compared = Compared()
        known = self._known(charge.rule)
        for counts in (counted.compared,) if known is None else (counted.compared, known.counts):
            counts.both_allow += requests - either
            counts.both_deny += both
            counts.only_enforced_denies += denied - both
            counts.only_compared_denies += denied_otherwise - both
        if both != either and known is not None:
            if known.differences is None:
                known.differences = Differences(known.limit, known.compared)
            known.differences.note(self.clock(), plan, place, denied - both, denied_otherwise - both)

    def _known(self, rule: Rule) -> RuleComparison | None:
        """Return what is known of a rule; None: it is not compared, or there are too many."""
        known = self.rules.get(rule.id)
        if known is None and rule.limit is not None and rule.compared is not None and len(self.rules) < MOST_RULES:
            known = self.rules[rule.id] = RuleComparison(rule.limit, rule.compared, self.clock())
        return known


def _refuses(grant: Grant) -> bool:
    """Return whether any of a granted line's charges did not fit."""
    return any(outcome.fits_in_us for outcome in grant.outcomes)


def _refused(plan: Plan, grant: Grant, requests: int) -> dict[int, int]:
    """Return how many of a line's requests each of its charges denies, or would in shadow mode; the others none."""
    over = 1 if grant.overdrawn else requests - grant.granted
    refused = dict.fromkeys(denying(plan, grant), over)
    for place, (charge, outcome) in enumerate(zip(plan.charges, grant.outcomes, strict=True)):
        if charge.role is Role.SHADOW and outcome.fits_in_us > 0:
            refused[place] = requests
    return refused
