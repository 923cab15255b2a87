"""Descriptors: a list of descriptors → compiled nodes, and the rules in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ratelimit_svc.model import Algorithm, Entry, Limit, OnStoreFailure, Overdraft, Role, Rule
from ratelimit_svc.rules import nodes
from ratelimit_svc.rules.fields import Fields
from ratelimit_svc.rules.limits import compared_of, limit_of
from ratelimit_svc.rules.match import ANY, Node
from ratelimit_svc.rules.metadata import Metadata
from ratelimit_svc.rules.nodes import SMALL, At, Document, short, shown
from ratelimit_svc.rules.tables import DESCRIPTOR, ITEM, RATE_LIMIT, REPLACED

MAX_LEVELS = 64
"""Of descriptors inside each other. Nobody writes ten; an alias that contains itself has no end."""
MAX_LIMITS = 16
"""Of one descriptor at once. Each is a window more to count in."""

Child = tuple[str, str | None, Node]
"""A descriptor's configured key and value, and what it compiles to."""


class Level(NamedTuple):
    """One descriptor on the way down to a rule."""

    key: str
    value: str | None
    shared: bool
    """`share_threshold`"""
    to_metric: bool
    """`value_to_metric`"""

    @property
    def text(self) -> str:
        """As rule ids and findings have it."""
        return self.key if self.value is None else f"{self.key}={self.value}"

    @property
    def is_pattern(self) -> bool:
        return ANY in self.text


class Path(NamedTuple):
    """The way down to a descriptor."""

    id: str
    """The domain and each level, as rule ids have it."""
    levels: tuple[Level, ...] = ()

    def down(self, level: Level) -> "Path":
        return Path(f"{self.id}/{level.text}", (*self.levels, level))

    def shared(self) -> tuple[Entry | None, ...]:
        """`Rule.shared`."""
        if not any(level.shared for level in self.levels):
            return ()
        return tuple(Entry(level.key, level.value or "") if level.shared else None for level in self.levels)

    def called(self, suffix: str) -> tuple[str, ...]:
        """Return what the reference implementation's metrics call each level: `Rule.levels`."""
        *above, last = (level.key if level.value is None else f"{level.key}_{level.value}" for level in self.levels)
        return (*above, last + suffix.replace("#", "_", 1))

    def label(self, suffix: str, *, detailed: bool) -> tuple[str | None, ...]:
        """`Rule.label`; the suffix is what the rule's id ends in where the path has several limits."""

        def as_asked(level: Level) -> bool:
            open_ = level.value is None or level.is_pattern
            return not level.shared and (detailed or (level.to_metric and open_))

        if not any(as_asked(level) for level in self.levels):
            return ()
        return (*(None if as_asked(level) else level.text for level in self.levels), *([suffix] if suffix else []))


@dataclass(frozen=True, slots=True)
class Reading:
    """One domain while it is read, from one file or several."""

    document: Document
    algorithm: Algorithm
    """What counts where a limit does not say."""
    compare: Algorithm | None
    """What a limit is compared with that does not say; None: with nothing."""
    rules: list[Rule]
    """All rules so far."""
    quota_mode: bool = False
    """Every limit is a quota that is no shadow."""
    top: dict[tuple[str, str | None], tuple[str, int]] = field(default_factory=dict)
    """Where each descriptor of the first level stands: file and line."""
    keys: set[str] = field(default_factory=set)
    """Every descriptor's key."""
    replaced: list[tuple[Fields, str]] = field(default_factory=list)
    """Every name in a `replaces`, and where it stands."""


def descriptors(reading: Reading, above: Fields, path: Path) -> Iterator[Child]:
    """Compile the `descriptors` of a mapping."""
    document = reading.document
    places = {} if path.levels else reading.top
    for at in _items(document, above):
        document.spend(at, len(path.id) // 1024)
        if len(path.levels) >= MAX_LEVELS:
            document.give_up(at.node.line, at.path, f"nested more than {MAX_LEVELS} deep, or an alias inside itself")
        fields = Fields.read(document, at, DESCRIPTOR)
        fields.note_mistakes()
        level = _level(fields)
        reading.keys.add(level.key)
        _note_twin(fields, level, places)
        before = len(reading.rules)
        rules = _rules(reading, fields, path.down(level))
        reading.rules.extend(rules)
        yield level.key, level.value, Node.of(descriptors(reading, fields, path.down(level)), rules)
        _note_idle(fields, rules, reading.rules[before:])


def _items(document: Document, above: Fields, name: str = "descriptors", what: str = "a descriptor") -> Iterator[At]:
    if name not in above.values:
        return
    for at in At(above.values[name], above.places[name].path).items():
        document.spend(at, SMALL if name == "replaces" else 1)
        if isinstance(at.node, nodes.Mapping):
            yield at
        else:
            document.wrong(at, f"{shown(at.node)} stands where {what} is expected; write {_EXAMPLES[name]}")


_EXAMPLES = {
    "descriptors": "`- key: name`",
    "rate_limits": "`- { unit: second, requests_per_unit: 10 }`",
    "replaces": "`- name: limit`",
}


def _level(fields: Fields) -> Level:
    key, value = fields.values.get("key", ""), fields.values.get("value")
    level = Level(key, value, fields.on("share_threshold"), fields.on("value_to_metric"))
    if "key" not in fields.places:
        fields.wrong("key", "`key` is missing; every descriptor has one")
    elif level.shared and not level.is_pattern and not fields.mistakes.keys() & {"key", "value"}:
        message = f"`share_threshold` needs a `*` in key or value, for what it stands for is shared; {short(level.text)} has none"
        fields.wrong("share_threshold", message)
    return level


def _note_twin(fields: Fields, level: Level, places: dict[tuple[str, str | None], tuple[str, int]]) -> None:
    if "key" not in fields.places or fields.mistakes.keys() & {"key", "value"}:
        return
    here = fields.document.file, fields.at.node.line
    first = places.setdefault((level.key, level.value), here)
    if first is not here:
        file, line = first
        where = f"on line {line}" if file == here[0] else f"in {file}:{line}"
        fields.document.wrong(fields.at, f"{short(level.text)} is described {where} already; put the two together")


def _rules(reading: Reading, descriptor: Fields, path: Path) -> tuple[Rule, ...]:
    """Return the rules of one descriptor."""
    document = descriptor.document
    limits = [Fields.read(document, at, ITEM) for at in _items(document, descriptor, "rate_limits", "a limit")]
    several = bool(limits)
    if len(limits) > MAX_LIMITS:
        descriptor.wrong("rate_limits", f"'{len(limits)}' limits on one descriptor; write at most {MAX_LIMITS}")
    if limits and "rate_limit" in descriptor.places:
        descriptor.wrong("rate_limit", "`rate_limit` stands beside `rate_limits`; make it one of them")
    elif "rate_limit" in descriptor.values:
        limits = [Fields.read(document, descriptor.places["rate_limit"], RATE_LIMIT)]
    names = {str(each.values["name"]) for each in limits if "name" in each.values}
    metadata = None
    if "metadata" in descriptor.values:
        metadata = Metadata(document).plain(descriptor.places["metadata"]) or None
    suffixes = [f"#{each.values.get('name', number)}" for number, each in enumerate(limits, 1)]
    if len(limits) == 1:
        suffixes = [""]
    rules = tuple(
        Rule(
            id=path.id + suffix,
            limit=(limit := _limit(each, reading, several=several)),
            role=_role(descriptor, each, Role.QUOTA if reading.quota_mode else Role.GATE),
            on_store_failure=each.values.get("on_store_failure", OnStoreFailure.LOCAL),
            compared=compared_of(each, limit, reading.compare),
            overdraft=each.values.get("overdraft", Overdraft.AUTO),
            refunds=each.values.get("refunds", True),
            replaces=_replaces(reading, each, names),
            metadata=metadata,
            shared=path.shared(),
            levels=path.called(suffix),
            label=path.label(suffix, detailed=descriptor.on("detailed_metric")),
        )
        for suffix, each in zip(suffixes, limits, strict=True)
    )
    _note_same(limits, rules)
    return rules


def _limit(fields: Fields, reading: Reading, *, several: bool) -> Limit | None:
    if several and fields.on("unlimited"):
        message = "`unlimited: true` stands among limits; remove it, or write `rate_limit: { unlimited: true }` alone"
        fields.wrong("unlimited", message)
    return limit_of(fields, reading.algorithm, reading.compare)


def _role(descriptor: Fields, limit: Fields, usual: Role) -> Role:
    """What the descriptor says, unless the limit itself says other; what is usual where neither says anything."""
    said: dict[str, Any] = descriptor.values | limit.values
    shadow, quota = said.get("shadow_mode", False), said.get("quota_mode", False)
    if shadow and quota:
        home = limit if "quota_mode" in limit.values else descriptor
        home.odd("quota_mode", "`quota_mode` does nothing in shadow mode; remove one of them")
    for name in ("shadow_mode", "quota_mode"):
        if said.get(name) and limit.on("unlimited"):
            descriptor.odd(name, f"`{name}` does nothing with `unlimited: true`; remove one of them")
    if shadow:
        return Role.SHADOW
    return Role.QUOTA if quota else usual


def _replaces(reading: Reading, limit: Fields, own: set[str]) -> frozenset[str]:
    """Return the names in `replaces`; `own` are those of the descriptor's own limits."""
    found = set()
    for at in _items(limit.document, limit, "replaces", "the name of a limit"):
        item = Fields.read(limit.document, at, REPLACED)
        item.note_mistakes()
        name = item.values.get("name", "")
        if "name" not in item.places:
            item.wrong("name", "`name` is missing; write the name of the limit that does not count")
        elif name in own:
            item.wrong("name", f"{short(name)} is the name of the same descriptor's limit, which cannot replace itself")
        else:
            reading.replaced.append((item, name))
        found.add(name)
    return frozenset(found)


def _note_same(limits: list[Fields], rules: tuple[Rule, ...]) -> None:
    """Two limits of a descriptor must differ in what tells their windows apart, and in what tells them apart to people."""
    ids: dict[str, int] = {}
    windows: dict[tuple[Algorithm, int], int] = {}
    for number, (fields, rule) in enumerate(zip(limits, rules, strict=True), 1):
        first = ids.setdefault(rule.id, number)
        if first != number:
            _, _, name = rule.id.rpartition("#")
            fields.wrong(
                "name", f"{short(name)} is what limit {first} of this descriptor is called; write another name"
            )
        if rule.limit is None or fields.mistakes or not fields.values.keys() & {"unit", "per"}:
            continue  # its period is not known
        first = windows.setdefault((rule.limit.algorithm, rule.limit.window_us), number)
        if first != number:
            message = (
                f"has the algorithm and the period of limit {first}, so they would count in one window; keep the lower"
            )
            fields.document.wrong(fields.at, message)


_NEEDS_A_LIMIT = {"shadow_mode": Role.SHADOW, "quota_mode": Role.QUOTA, "detailed_metric": None, "metadata": None}
"""Keys that do something for the descriptor's own limit only → the role that they give it."""
_NEEDS_A_LIMIT_BELOW = ("share_threshold", "value_to_metric")


def _note_idle(descriptor: Fields, rules: tuple[Rule, ...], below: Sequence[Rule]) -> None:
    """Note what does nothing for want of a limit; `below` are the rules of this descriptor and under it.

    Generators repeat a mode at every level (Envoy Gateway does): where a limit below has it, nothing is missed.
    """
    if not rules:
        roles = {rule.role for rule in below}
        for name, role in _NEEDS_A_LIMIT.items():
            if descriptor.values.get(name) and role not in roles:
                descriptor.odd(
                    name, f"`{name}` does nothing on a descriptor without `rate_limit`; remove it, or add one"
                )
    if not below:
        for name in _NEEDS_A_LIMIT_BELOW:
            if descriptor.on(name):
                descriptor.odd(
                    name, f"`{name}` does nothing without a `rate_limit` here or below; remove it, or add one"
                )
