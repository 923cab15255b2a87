"""Match: a domain and a descriptor's entries → the rule, by the reference implementation's order.

At each level of the tree one entry is looked up: exact (key and value); else the wildcards in file order, the first that
fits; else the key alone. The walk goes down from what was found and never back. A rule counts only if the last entry
reached it.

Rule 1: nothing here parses, logs or awaits. All work that can be done at load is done at load.
Rule 2: entries are matched as pairs. The reference joins key and value by `_` and so takes (a, b_c) for (a_b, c);
        here these stay apart.
Rule 3: the caller chooses the values, so a lookup takes time linear in them, whatever the patterns.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ratelimit_svc.errors import Finding
from ratelimit_svc.model import Algorithm, Entry, Rule

ANY = "*"
"""In a configured key or value: any run of characters, none included."""


class Glob(NamedTuple):
    """A text with `*`, cut at its stars."""

    head: str
    middle: tuple[str, ...]
    tail: str
    at_least: int
    """The length of all parts together: nothing shorter fits."""

    @classmethod
    def of(cls, pattern: str) -> "Glob":
        """Cut a pattern that holds at least one star."""
        head, *middle, tail = pattern.split(ANY)
        parts = tuple(part for part in middle if part)
        return cls(head, parts, tail, len(head) + len(tail) + sum(map(len, parts)))

    def fits(self, text: str) -> bool:
        """True if the pattern covers the whole text.

        Each middle part is taken at its leftmost place: if any arrangement fits, that one does, so there is nothing to
        go back to and each character is looked at about once.
        """
        if len(text) < self.at_least or not text.startswith(self.head) or not text.endswith(self.tail):
            return False
        start, end = len(self.head), len(text) - len(self.tail)
        for part in self.middle:
            found = text.find(part, start, end)
            if found < 0:
                return False
            start = found + len(part)
        return True


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A configured descriptor with `*` in its key, its value or both."""

    key: str
    """As configured."""
    value: str | None
    """As configured; None where only the key is: then any value fits."""
    key_glob: Glob | None = field(repr=False)
    """None: the key must be equal."""
    value_glob: Glob | None = field(repr=False)
    """None: the value must be equal, if there is one."""

    @classmethod
    def of(cls, key: str, value: str | None) -> "Wildcard":
        """Prepare a key and value of which at least one holds a star."""
        value_glob = Glob.of(value) if value is not None and ANY in value else None
        return cls(key, value, Glob.of(key) if ANY in key else None, value_glob)

    def fits(self, entry: Entry) -> bool:
        """True if both the entry's key and its value are covered."""
        if not (self.key == entry.key if self.key_glob is None else self.key_glob.fits(entry.key)):
            return False
        if self.value_glob is not None:
            return self.value_glob.fits(entry.value)
        return self.value is None or self.value == entry.value


@dataclass(frozen=True, slots=True)
class Node:
    """One configured descriptor, compiled: its rule, and what may come below it."""

    exact: dict[Entry, "Node"] = field(default_factory=dict, repr=False)
    wildcards: tuple[tuple[Wildcard, "Node"], ...] = field(default=(), repr=False)
    """In file order. Those with a star also stand in `exact` or `keys`, so that a literal `*` meets itself first."""
    keys: dict[str, "Node"] = field(default_factory=dict, repr=False)
    rules: tuple[Rule, ...] = ()
    """Its rule, or several where it has several limits at once. None: matching it limits nothing. With nothing below it
    either, the descriptor only lets pass (a whitelist)."""

    @classmethod
    def of(cls, children: Iterable[tuple[str, str | None, "Node"]], rules: tuple[Rule, ...] = ()) -> "Node":
        """Compile children, each with its configured key and value, in file order."""
        exact: dict[Entry, Node] = {}
        keys: dict[str, Node] = {}
        wildcards: list[tuple[Wildcard, Node]] = []
        for key, value, child in children:
            if value is None:
                keys[key] = child
            else:
                exact[Entry(key, value)] = child
            if ANY in key or ANY in (value or ""):
                wildcards.append((Wildcard.of(key, value), child))
        return cls(exact, tuple(wildcards), keys, rules)

    @property
    def leaf(self) -> bool:
        """True if nothing is configured below."""
        return not (self.exact or self.keys)


@dataclass(frozen=True, slots=True)
class Domain:
    """All rules of one `domain`."""

    name: str
    tenant: str | None
    """The descriptor key whose value says whose quota it is; None: the domain as a whole is the tenant."""
    root: Node = field(repr=False)

    def tenant_of(self, entries: Iterable[Entry]) -> str:
        """Whose quota a descriptor uses: the value of its tenant entry, the first if there are several; else the domain."""
        if self.tenant is not None:
            for key, value in entries:
                if key == self.tenant:
                    return value
        return self.name


@dataclass(frozen=True, slots=True, repr=False)
class RuleSet:
    """All rules, compiled. Never changed: a reload makes a new one."""

    domains: Mapping[str, Domain]
    rules: tuple[Rule, ...]
    """Every rule, in the order it is written."""
    warnings: tuple[Finding, ...] = ()
    """What in the files does not do what it seems to, and is an error where rules are read strictly."""
    algorithm: Algorithm = Algorithm.SLIDING_WINDOW
    """What counts where no rule says how: the limits that requests bring along (DEFAULT_ALGORITHM)."""
    quota_mode: bool = False
    """Every gate is a quota, and what no rule limits is one that has room (QUOTA_MODE)."""

    def __repr__(self) -> str:
        return f"<RuleSet [{len(self.domains)} domains, {len(self.rules)} rules]>"


def step(node: Node, entry: Entry) -> Node | None:
    """One level down, or None where nothing configured there fits the entry."""
    found = node.exact.get(entry)
    if found is not None:
        return found
    for wildcard, child in node.wildcards:
        if wildcard.fits(entry):
            return child
    return node.keys.get(entry.key)


def find(domain: Domain, entries: Iterable[Entry]) -> tuple[Rule, ...]:
    """Return the rules of a descriptor: one, several where it has several limits at once, none where nothing limits it.

    None says one of: no match, a descriptor that goes on below the last entry without a limit of its own, or a whitelist.
    A rule with `limit` None is a match that is told as unlimited; it stands alone.
    """
    node = domain.root
    for entry in entries:
        below = step(node, entry)
        if below is None:
            return ()
        node = below
    return node.rules


def replaced(rules: Iterable[Rule]) -> frozenset[str]:
    """Return the names of the limits that do not count in a request that meets these rules, unlimited ones included."""
    return frozenset().union(*(rule.replaces for rule in rules if rule.replaces))


def label(rule: Rule, domain: str, entries: Sequence[Entry]) -> str:
    """Return what metrics call a rule when these entries met it: its id, with their own values where the rule says so."""
    if not rule.label:
        return rule.id
    steps = (_as_asked(entry) if step is None else step for step, entry in zip(rule.label, entries, strict=False))
    suffix = "".join(step or "" for step in rule.label[len(entries) :])
    return "/".join([domain, *steps]) + suffix


def _as_asked(entry: Entry) -> str:
    """Return a level's label from the request's own key and value, which cannot pass for several levels or another limit."""
    written = f"{entry.key}={entry.value}" if entry.value else entry.key
    return written.replace("%", "%25").replace("/", "%2F").replace("#", "%23")
