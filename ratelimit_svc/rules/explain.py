"""Explain: which rules a descriptor meets, each lookup on the way, and why none if there are none; and a whole request.

Rule 1: the way down is `match.step`, the same that requests take; this file only says in words what it did.
Rule 2: an explanation is a value. `str()` of it is what a terminal shows, its fields are what a page shows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ratelimit_svc.model import Entry, Role, Rule
from ratelimit_svc.rules import words
from ratelimit_svc.rules.kinds import similar
from ratelimit_svc.rules.match import Node, RuleSet, replaced, step
from ratelimit_svc.rules.words import in_words, listed, name

__all__ = ["Explanation", "RequestExplanation", "explain", "explain_request", "in_words"]


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
    rules: tuple[Rule, ...]
    """The rule it meets, several where one descriptor has several limits, none where nothing limits it."""
    tenant: str
    """Whose quota it is; empty for an unknown domain."""
    reason: str
    """Why there is no rule, and what would be needed; empty where there is one."""

    def __str__(self) -> str:
        """Write it for a terminal."""
        return "\n".join(_lines(self))


class Replacement(NamedTuple):
    """A limit of a request that does not count in it."""

    rule: Rule
    by: tuple[str, ...]
    """The ids of the rules of the same request that replace it."""


@dataclass(frozen=True, slots=True)
class RequestExplanation:
    """The way of one request through the rules."""

    domain: str
    parts: tuple[Explanation, ...]
    """One per descriptor, in their order."""
    replaced: tuple[Replacement, ...]
    """Limits that are met and do not count, because others of the request replace them."""
    counted: tuple[Rule, ...]
    """Limits that the request is counted on."""

    def __str__(self) -> str:
        """Write it for a terminal."""
        return "\n".join(_request_lines(self))


def explain(ruleset: RuleSet, domain: str, entries: Iterable[Entry]) -> Explanation:
    """Walk the rules as a request would, and say what happens."""
    entries = tuple(Entry(*entry) for entry in entries)
    rules = ruleset.domains.get(domain)
    if rules is None:
        return Explanation(domain, entries, (), (), "", _unknown_domain(ruleset, domain))
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
        reason = "" if node.rules else _no_limit(node, steps)
    return Explanation(domain, entries, tuple(steps), () if reason else node.rules, rules.tenant_of(entries), reason)


def explain_request(ruleset: RuleSet, domain: str, descriptors: Iterable[Iterable[Entry]]) -> RequestExplanation:
    """Walk the rules with each descriptor of a request, and say what its limits do to each other."""
    parts = tuple(explain(ruleset, domain, entries) for entries in descriptors)
    met = [rule for part in parts for rule in part.rules]
    dropped = replaced(met)
    gone: list[Replacement] = []
    for rule in met:
        if rule.limit is not None and rule.limit.name in dropped:
            by = [other.id for other in met if rule.limit.name in other.replaces]
            gone.append(Replacement(rule, tuple(dict.fromkeys(by))))
    left = tuple(rule for rule in met if rule.limit is not None and rule.limit.name not in dropped)
    return RequestExplanation(domain, parts, tuple(gone), left)


def _step(node: Node, entry: Entry, below: Node | None) -> Step:
    tries: list[Try] = []
    matched: str | None = None
    for lookup, wanted, child, obstacle in _lookups(node, entry):
        if child is None:
            tries.append(Try(lookup, wanted, obstacle))
        elif child is below and matched is None:
            matched = wanted
            tries.append(Try(lookup, wanted, "matches"))
        else:
            tries.append(Try(lookup, wanted, f"would match too, but {matched} comes first"))
    tried = {each.descriptor for each in tries}
    other_values = tuple(each for each in _names(node, entry.key) if each not in tried)
    tried.update(other_values)
    return Step(entry, matched, tuple(tries), other_values, tuple(each for each in _names(node) if each not in tried))


def _lookups(node: Node, entry: Entry) -> Iterator[tuple[Lookup, str, Node | None, str]]:
    """Yield each lookup in order: its kind, what it looks for, what it finds, and what stands in the way if nothing."""
    same = node.exact.get(entry)
    yield Lookup.EXACT, name(*entry), same, "no such descriptor"
    for wildcard, child in node.wildcards:
        if child is same:
            continue
        wanted = name(wildcard.key, wildcard.value)
        yield Lookup.WILDCARD, wanted, child if wildcard.fits(entry) else None, "does not fit"
    yield Lookup.KEY, name(entry.key, None), node.keys.get(entry.key), "no such descriptor"


def _names(node: Node, key: str | None = None) -> list[str]:
    """All descriptors of a level, those without a value first; or only those with a key."""
    pairs: list[tuple[str, str | None]] = [*((each, None) for each in node.keys), *node.exact]
    return [name(*pair) for pair in pairs if key is None or pair[0] == key]


def _unknown_domain(ruleset: RuleSet, domain: str) -> str:
    known = f"the rules have {listed(list(ruleset.domains))}" if ruleset.domains else "there are no rules"
    return f"no domain {domain!r}{similar(domain, ruleset.domains)}: {known}"


def _no_match(node: Node, entry: Entry, index: int, steps: Sequence[Step]) -> str:
    asked = name(*entry)
    if node.leaf and index == 0:
        return "the domain has no descriptors"
    if node.leaf:
        above = steps[index - 1].matched
        return f"the request goes deeper than the rules: nothing is below {above}, and its rule counts only as the last entry"
    return f"no descriptor fits {asked}{similar(asked, _names(node))}: this level has {listed(_names(node, entry.key) or _names(node))}"


def _no_limit(node: Node, steps: Sequence[Step]) -> str:
    if not steps:
        return f"the request has no entries: it would go on with {listed(_names(node)) or 'nothing'}"
    if node.leaf:
        return f"{steps[-1].matched} has no rate_limit: it lets pass (a whitelist)"
    return f"{steps[-1].matched} has no rate_limit of its own: the rules go on with {listed(_names(node))}"


def _lines(explanation: Explanation) -> Iterator[str]:
    asked = ", ".join(name(*entry) for entry in explanation.entries)
    yield f"domain {explanation.domain}: {asked or 'no entries'}"
    for number, each in enumerate(explanation.steps, 1):
        yield f"{number}. {name(*each.entry)}"
        for lookup, descriptor, outcome in each.tries:
            yield f"   {lookup.value:<8}  {descriptor}: {outcome}"
        if each.other_values:
            yield f"   (other values: {listed(each.other_values)})"
        if each.other_keys:
            yield f"   (other keys: {listed(each.other_keys)})"
    if not explanation.rules:
        yield f"no rule: {explanation.reason}"
    for rule in explanation.rules:
        yield from _rule_lines(rule, explanation)
    if len(explanation.rules) > 1:
        yield f"{len(explanation.rules)} limits at once:"
        yield from _together(explanation.rules)


def _rule_lines(rule: Rule, explanation: Explanation) -> Iterator[str]:
    called = f" ({rule.limit.name})" if rule.limit and rule.limit.name else ""
    yield f"rule {rule.id}{called}: {in_words(rule.limit)}"
    if rule.limit is not None:
        yield f"   tenant {name(explanation.tenant, None)}"
    for line in words.details(rule, explanation.domain, explanation.entries):
        yield f"   {line}"


def _request_lines(explanation: RequestExplanation) -> Iterator[str]:
    for part in explanation.parts:
        yield from _lines(part)
        yield ""
    yield f"the request, {len(explanation.parts)} descriptors:"
    for rule, by in explanation.replaced:
        yield f"   {rule.id} does not count: replaced by {listed(by)}"
    yield from _together(explanation.counted)
    if not explanation.counted:
        yield "   nothing is counted: it passes"


def _together(rules: Sequence[Rule]) -> Iterator[str]:
    for text, role in _TOGETHER:
        ids = list(dict.fromkeys(rule.id for rule in rules if rule.role is role))
        if ids:
            yield f"   {text}: {listed(ids)}"


_TOGETHER = (
    ("counted on all of these or on none, and all must fit", Role.GATE),
    ("quotas, of which one must fit; those that fit are counted", Role.QUOTA),
    ("in shadow, denying nothing; counted if they fit", Role.SHADOW),
)
"""How the limits of a request act together, by their role."""
