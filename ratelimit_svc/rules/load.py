"""Load: rule files → one compiled RuleSet, or every finding in them at once.

Rule 1: the rule language is the three tables below. A new key is a row, and a line where its value is used.
Rule 2: all files are read to their end, and nothing half right is ever returned: `RulesError` has all findings.
Rule 3: nothing here touches the disk: the same bytes give the same rules.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from ratelimit_svc.errors import Finding, RulesError
from ratelimit_svc.model import DEFAULT_SLICES, MAX_SLICES, Limit, OnStoreFailure, Role, Rule, Unit
from ratelimit_svc.rules import kinds, nodes
from ratelimit_svc.rules.compose import compose
from ratelimit_svc.rules.files import RuleFile, read
from ratelimit_svc.rules.match import Domain, Node, RuleSet
from ratelimit_svc.rules.nodes import At, Document, Scalar, short, shown

__all__ = ["RuleFile", "load", "read"]

MAX_LEVELS = 64
"""Of descriptors inside each other. Nobody writes ten; an alias that contains itself has no end."""


class Row(NamedTuple):
    """What one key takes, and what it is for."""

    kind: kinds.Reader[Any]
    doc: str


class Table(NamedTuple):
    """The keys that one kind of mapping takes."""

    place: str
    """What people call such a mapping."""
    rows: dict[str, Row]


_UNITS = {unit.name.lower(): unit for unit in sorted(Unit, key=lambda unit: unit.seconds)}
_POLICIES = {policy.name.lower(): policy for policy in OnStoreFailure}

ROOT = Table(
    "the root of the file",
    {
        "domain": Row(kinds.text, "Whose rules these are: the `domain` of Envoy's rate limit filter."),
        "tenant": Row(kinds.text, "The descriptor key whose value names the tenant, that is, whose quota it is."),
        "descriptors": Row(kinds.sequence, "What a descriptor's first entry may be."),
    },
)
DESCRIPTOR = Table(
    "a descriptor",
    {
        "key": Row(kinds.text, "The entry's key; `*` stands for any characters."),
        "value": Row(kinds.text, "The entry's value; `*` stands for any characters; without it, any value."),
        "rate_limit": Row(kinds.mapping, "The limit of requests whose last entry this is."),
        "shadow_mode": Row(kinds.boolean, "True: the limit is counted and reported, and denies nothing."),
        "descriptors": Row(kinds.sequence, "What the next entry may be."),
    },
)
RATE_LIMIT = Table(
    "rate_limit",
    {
        "unit": Row(kinds.choice(_UNITS, "a unit"), "The window's length."),
        "requests_per_unit": Row(kinds.integer(0, 2**32 - 1), "How many in any such window; 0 denies everything."),
        "unlimited": Row(kinds.boolean, "True: no limit, whatever a more general descriptor says."),
        "name": Row(kinds.text, "The limit's name in answers, logs and metrics."),
        "slices": Row(
            kinds.integer(1, MAX_SLICES), "The parts of the window: capacity comes back at most one part late."
        ),
        "on_store_failure": Row(
            kinds.choice(_POLICIES, "a failure policy"), "What is answered when the store does not answer in time."
        ),
    },
)
TABLES = (ROOT, DESCRIPTOR, RATE_LIMIT)

_OF_A_LIMIT = ("unit", "requests_per_unit", "slices")
"""Keys that mean nothing where there is no limit."""
_REQUIRED = {
    "unit": f"write one of {', '.join(_UNITS)}",
    "requests_per_unit": "write a whole number, 0 to deny everything, or `unlimited: true`",
}
"""Keys that every limit has → what to write."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """One mapping, read by its table."""

    at: At
    values: dict[str, Any]
    """Those keys that are written and right."""
    places: dict[str, At]
    """Those keys that are written, right or wrong."""

    def right(self, *names: str) -> bool:
        """True if each of these keys is right or not written."""
        return all(name in self.values for name in names if name in self.places)


def load(files: Iterable[RuleFile]) -> RuleSet:
    """Compile all files into one rule set.

    Raises:
        RulesError: With everything that is wrong in all of them.
    """
    domains: dict[str, Domain] = {}
    places: dict[str, str] = {}
    rules: list[Rule] = []
    findings: list[Finding] = []
    for file in files:
        document = Document(file.name)
        with suppress(nodes.GaveUp):
            domain = _domain(document, file, places, rules)
            domains[domain.name] = domain
        findings.extend(document.in_order())
    if findings:
        raise RulesError(findings)
    return RuleSet(domains, tuple(rules))


def _domain(document: Document, file: RuleFile, places: dict[str, str], rules: list[Rule]) -> Domain:
    root = compose(document, file)
    if root is None:
        document.give_up(0, "", "holds no rules; write at least `domain: name`")
    if not isinstance(root, nodes.Mapping):
        document.give_up(
            root.line, "", f"{shown(root)} stands where the rules are expected; write `domain: name` first"
        )
    fields = _fields(document, At(root, ""), ROOT)
    name = fields.values.get("domain", "")
    if "domain" not in fields.places:
        document.wrong(fields.at, "`domain` is missing; write the domain that Envoy asks with")
    elif name in places:
        message = (
            f"{short(name)} is the domain of {places[name]} already; put the descriptors of a domain into one file"
        )
        document.wrong(fields.places["domain"], message)
    elif name:
        places[name] = f"{file.name}:{fields.places['domain'].node.line}"
    return Domain(name, fields.values.get("tenant"), Node.of(_descriptors(document, fields, name, rules)))


def _descriptors(
    document: Document, above: _Fields, path: str, rules: list[Rule], level: int = 1
) -> Iterator[tuple[str, str | None, Node]]:
    """Yield each descriptor's key, value and node; `path` is the rule id so far."""
    first: dict[tuple[str, str | None], At] = {}
    for at in _items(document, above):
        document.spend(at, 1 + len(path) // 1024)
        if level > MAX_LEVELS:
            document.give_up(at.node.line, at.path, f"nested more than {MAX_LEVELS} deep, or an alias inside itself")
        fields = _fields(document, at, DESCRIPTOR)
        key, value = fields.values.get("key", ""), fields.values.get("value")
        step = key if value is None else f"{key}={value}"
        if "key" not in fields.places:
            document.wrong(at, "`key` is missing; every descriptor has one")
        elif fields.right("key", "value"):
            twin = first.setdefault((key, value), at)
            if twin is not at:
                message = f"{short(step)} is described on line {twin.node.line} already; put the two together"
                document.wrong(at, message)
        rule = _rule(document, fields, f"{path}/{step}")
        if rule is not None:
            rules.append(rule)
        yield (
            key,
            value,
            Node.of(_descriptors(document, fields, f"{path}/{step}", rules, level + 1), (rule,) if rule else ()),
        )


def _items(document: Document, above: _Fields) -> Iterator[At]:
    if "descriptors" not in above.values:
        return
    for at in At(above.values["descriptors"], above.places["descriptors"].path).items():
        if isinstance(at.node, nodes.Mapping):
            yield at
        else:
            document.wrong(at, f"{shown(at.node)} stands where a descriptor is expected; write `- key: name`")


def _rule(document: Document, descriptor: _Fields, id_: str) -> Rule | None:
    if "rate_limit" not in descriptor.values:
        return None
    fields = _fields(document, descriptor.places["rate_limit"], RATE_LIMIT)
    return Rule(
        id=id_,
        limit=_limit(document, fields),
        role=Role.SHADOW
        if descriptor.values.get("shadow_mode", False)
        else Role.QUOTA
        if descriptor.values.get("quota_mode")
        else Role.GATE,
        on_store_failure=fields.values.get("on_store_failure", OnStoreFailure.LOCAL),
    )


def _limit(document: Document, fields: _Fields) -> Limit | None:
    values = fields.values
    if values.get("unlimited"):
        for name in _OF_A_LIMIT:
            if values.get(name):  # generated files write `requests_per_unit: 0` beside `unlimited: true`
                document.wrong(
                    fields.places[name], f"`{name}` means nothing with `unlimited: true`; remove one of them"
                )
        return None
    for name, advice in _REQUIRED.items():
        if name not in fields.places and fields.right("unlimited"):
            document.wrong(fields.at, f"`{name}` is missing; {advice}")
    if not _REQUIRED.keys() <= values.keys():
        return None
    return Limit(
        values["requests_per_unit"], values["unit"], values.get("name", ""), values.get("slices", DEFAULT_SLICES)
    )


def _fields(document: Document, at: At, table: Table) -> _Fields:
    """Read one mapping by its table. What is wrong is noted and left out."""
    fields = _Fields(at, {}, {})
    for name, (key, node) in document.entries(at).items():
        if name not in table.rows:
            document.wrong(At(key, at.path), _unknown(key, table))
            continue
        place = at.key(name, node)
        try:
            value = table.rows[name].kind(node)
        except kinds.Wrong as wrong:
            document.wrong(place, str(wrong))
            fields.places[name] = place
            continue
        if value is not None:
            fields.values[name] = value
            fields.places[name] = place
    return fields


def _unknown(key: Scalar, table: Table) -> str:
    allowed = ", ".join(table.rows)
    homes = [other.place for other in TABLES if key.text in other.rows]
    if homes:
        return f"{shown(key)} belongs to {' or '.join(homes)}, not to {table.place}; allowed here: {allowed}"
    return f"unknown key {shown(key)}{kinds.similar(key.text, table.rows)}; allowed here: {allowed}"
