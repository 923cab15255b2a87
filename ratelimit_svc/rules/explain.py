"""Explain: which rule a descriptor meets, each lookup on the way, and why none if there is none.

Rule 1: the way down is `match.step`, the same that requests take; this file only says in words what it did.
Rule 2: an explanation is a value. `str()` of it is what a terminal shows, its fields are what a page shows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ratelimit_svc.model import MICROSECONDS, Entry, Limit, Rule
from ratelimit_svc.rules.kinds import similar
from ratelimit_svc.rules.match import Node, RuleSet, step

SHOWN = 8
"""Names in a list before it ends in "and n more"."""


class Lookup(Enum):
    """The three ways in which an entry is looked up, in their order."""

    EXACT = "exact"
    WILDCARD = "wildcard"
    KEY = "key only"


class Try(NamedTuple):
    """One lookup of one entry."""

    lookup: Lookup
    descriptor: str
    """What was looked for, as configured: `tenant=acme`, `path=/a/*`, `tenant`."""
    outcome: str
    """`matches`, or why not."""


class Step(NamedTuple):
    """One entry of the descriptor, looked up at one level of the rules."""

    entry: Entry
    matched: str | None
    """The configured descriptor that was gone down to; None: nothing fits, and the walk ends."""
    tries: tuple[Try, ...]
    """All lookups of this level, also those that come after the match and so were not asked."""
    other_values: tuple[str, ...]
    """Descriptors of this level that want another value for the entry's key."""
    other_keys: tuple[str, ...]
    """Descriptors of this level that want another key."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The way of one descriptor through the rules."""

    domain: str
    entries: tuple[Entry, ...]
    steps: tuple[Step, ...]
    rule: Rule | None
    tenant: str
    """Whose quota it is; empty for an unknown domain."""
    reason: str
    """Why there is no rule, and what would be needed; empty where there is one."""

    def __str__(self) -> str:
        """Write it for a terminal."""
        return "\n".join(_lines(self))


def explain(ruleset: RuleSet, domain: str, entries: Iterable[Entry]) -> Explanation:
    """Walk the rules as a request would, and say what happens."""
    entries = tuple(Entry(*entry) for entry in entries)
    rules = ruleset.domains.get(domain)
    if rules is None:
        return Explanation(domain, entries, (), None, "", _unknown_domain(ruleset, domain))
    steps: list[Step] = []
    node: Node = rules.root
    reason = ""
    for index, entry in enumerate(entries):
        below = step(node, entry)
        steps.append(_step(node, entry, below))
        if below is None:
            reason = _no_match(node, entry, index, steps)
            break
        node = below
    else:
        reason = "" if (node.rules and node.rules[0]) else _no_limit(node, steps)
    rule = None if reason else (node.rules and node.rules[0])
    return Explanation(domain, entries, tuple(steps), rule, rules.tenant_of(entries), reason)


def in_words(limit: Limit | None) -> str:
    """A limit as people say it: `100 per minute, sliding in 60 slices of 1 s`."""
    if limit is None:
        return "unlimited"
    width_us = -(-limit.window_us // limit.slices)
    slices = f"{limit.slices} slices of {_span(width_us)}" if limit.slices > 1 else f"1 slice of {_span(width_us)}"
    nothing = ", which denies everything" if limit.requests_per_unit == 0 else ""
    return f"{limit.requests_per_unit} per {limit.unit.name.lower()}{nothing}, sliding in {slices}"


_SPANS = (
    (86_400 * MICROSECONDS, "d"),
    (3_600 * MICROSECONDS, "h"),
    (60 * MICROSECONDS, "min"),
    (MICROSECONDS, "s"),
    (1_000, "ms"),
    (1, "µs"),
)


def _span(time_us: int) -> str:
    unit_us, name = next(row for row in _SPANS if time_us >= row[0])
    return f"{time_us / unit_us:.6g} {name}"


def _step(node: Node, entry: Entry, below: Node | None) -> Step:
    tries: list[Try] = []
    matched: str | None = None
    for lookup, name, child, obstacle in _lookups(node, entry):
        if child is None:
            tries.append(Try(lookup, name, obstacle))
        elif child is below and matched is None:
            matched = name
            tries.append(Try(lookup, name, "matches"))
        else:
            tries.append(Try(lookup, name, f"would match too, but {matched} comes first"))
    tried = {each.descriptor for each in tries}
    other_values = tuple(name for name in _names(node, entry.key) if name not in tried)
    tried.update(other_values)
    return Step(entry, matched, tuple(tries), other_values, tuple(name for name in _names(node) if name not in tried))


def _lookups(node: Node, entry: Entry) -> Iterator[tuple[Lookup, str, Node | None, str]]:
    """Yield each lookup in order: its kind, what it looks for, what it finds, and what stands in the way if nothing."""
    same = node.exact.get(entry)
    yield Lookup.EXACT, _name(*entry), same, "no such descriptor"
    for wildcard, child in node.wildcards:
        if child is same:
            continue
        name = _name(wildcard.key, wildcard.value)
        yield Lookup.WILDCARD, name, child if wildcard.fits(entry) else None, "does not fit"
    yield Lookup.KEY, _name(entry.key, None), node.keys.get(entry.key), "no such descriptor"


def _name(key: str, value: str | None) -> str:
    """A descriptor as rule ids have it; what a terminal would act on is escaped."""
    name = key if value is None else f"{key}={value}"
    return name if name.isprintable() else repr(name)[1:-1]


def _names(node: Node, key: str | None = None) -> list[str]:
    """All descriptors of a level, those without a value first; or only those with a key."""
    pairs: list[tuple[str, str | None]] = [*((name, None) for name in node.keys), *node.exact]
    return [_name(*pair) for pair in pairs if key is None or pair[0] == key]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _unknown_domain(ruleset: RuleSet, domain: str) -> str:
    known = f"the rules have {_listed(list(ruleset.domains))}" if ruleset.domains else "there are no rules"
    return f"no domain {domain!r}{similar(domain, ruleset.domains)}: {known}"


def _no_match(node: Node, entry: Entry, index: int, steps: Sequence[Step]) -> str:
    asked = _name(*entry)
    if node.leaf and index == 0:
        return "the domain has no descriptors"
    if node.leaf:
        above = steps[index - 1].matched
        return f"the request goes deeper than the rules: nothing is below {above}, and its rule counts only as the last entry"
    return f"no descriptor fits {asked}{similar(asked, _names(node))}: this level has {_listed(_names(node, entry.key) or _names(node))}"


def _no_limit(node: Node, steps: Sequence[Step]) -> str:
    if not steps:
        return f"the request has no entries: it would go on with {_listed(_names(node)) or 'nothing'}"
    if node.leaf:
        return f"{steps[-1].matched} has no rate_limit: it lets pass (a whitelist)"
    return f"{steps[-1].matched} has no rate_limit of its own: the rules go on with {_listed(_names(node))}"


def _lines(explanation: Explanation) -> Iterator[str]:
    asked = ", ".join(_name(*entry) for entry in explanation.entries)
    yield f"domain {explanation.domain}: {asked or 'no entries'}"
    for number, each in enumerate(explanation.steps, 1):
        yield f"{number}. {_name(*each.entry)}"
        for lookup, descriptor, outcome in each.tries:
            yield f"   {lookup.value:<8}  {descriptor}: {outcome}"
        if each.other_values:
            yield f"   (other values: {_listed(each.other_values)})"
        if each.other_keys:
            yield f"   (other keys: {_listed(each.other_keys)})"
    if explanation.rule is None:
        yield f"no rule: {explanation.reason}"
    else:
        yield from _rule_lines(explanation.rule, explanation.tenant)


def _rule_lines(rule: Rule, tenant: str) -> Iterator[str]:
    name = f" ({rule.limit.name})" if rule.limit and rule.limit.name else ""
    yield f"rule {rule.id}{name}: {in_words(rule.limit)}"
    if rule.limit is None:
        return
    yield f"   tenant {_name(tenant, None)}"
    yield f"   if the store does not answer: {rule.on_store_failure.name.lower()}"
    if rule.role.value == 1:
        yield "   in shadow mode: counted and reported, never denied"
