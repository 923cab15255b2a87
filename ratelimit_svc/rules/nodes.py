"""Nodes: what one rule file holds, each part with its line, and what was found wrong or odd in it.

Rule 1: this file knows YAML's shapes and nothing about rules: tags are resolved, values are not.
Rule 2: aliases share nodes and may even make a node contain itself, so who walks the nodes must count: `Document.spend`.
Rule 3: the number of findings is bounded like everything else that a document can multiply.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn

from ratelimit_svc.errors import Finding

MAX_EXPANDED = 100_000
"""Descriptors, limits, merged keys and kilobytes of rule ids of one file, aliases expanded: what stops an alias bomb."""
SMALL = 0.1
"""What a value of metadata or a name in `replaces` counts among them."""
MAX_MERGES = 64
"""Mappings merged into each other by `<<`, one behind the other."""
MAX_FINDINGS = 1_000
"""Of one file. After so many the file is not what its author thinks it is."""
_LAST = 2**63


class Scalar(NamedTuple):
    """One plain or quoted text."""

    text: str
    tag: str
    """Resolved, without the common prefix: `str`, `int`, `bool`, `null`, `float`, `timestamp`, `merge`, …"""
    quoted: bool
    line: int


@dataclass(slots=True, eq=False)
class Sequence:
    """A list of nodes."""

    line: int
    items: "list[YamlNode]" = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Mapping:
    """Keys and values in turn, as they stand, twins and `<<` included; `Document.entries` reads them."""

    line: int
    items: "list[YamlNode]" = field(default_factory=list)


YamlNode = Scalar | Sequence | Mapping
Entries = dict[str, tuple[Scalar, YamlNode]]
"""A mapping's key and value nodes, by the key's text."""


class At(NamedTuple):
    """A node and where it stands, as findings name it."""

    node: YamlNode
    path: str

    def key(self, name: str, node: YamlNode) -> "At":
        """Go down to the value of a key."""
        return At(node, f"{self.path}.{name}" if self.path else name)

    def items(self) -> Iterator["At"]:
        """Go down to each item of a list."""
        assert isinstance(self.node, Sequence)
        for index, node in enumerate(self.node.items):
            yield At(node, f"{self.path}[{index}]")


class GaveUp(Exception):  # noqa: N818 — not an error: the findings say what is wrong, this only ends the reading of one file
    """Reading on would be useless or endless. The findings say why."""


class Document:
    """One file while it is read: what was found wrong or odd, and how much of it was seen.

    What is wrong is an error. What is odd does not do what it seems to, but the reference implementation loads it: a
    warning, unless the file is read strictly.
    """

    def __init__(self, file: str, *, strict: bool = False) -> None:
        self.file = file
        self.strict = strict
        self.own_key = ""
        """The first key of ours in the file: for its sake it is read strictly, whatever is asked for."""
        """True: what is odd is wrong. Set it at any time; a file that uses a key of ours is read strictly."""
        self._errors: list[Finding] = []
        self._oddities: list[Finding] = []
        self._spent = 0.0
        self._entries: dict[int, Entries] = {}

    def wrong(self, at: At, message: str) -> None:
        """Note an error about a node."""
        self._note(at.node.line, at.path, message)

    def odd(self, at: At, message: str) -> None:
        """Note a warning about a node."""
        self.odd_line(at.node.line, message, at.path)

    def odd_line(self, line: int, message: str, path: str = "") -> None:
        """Note a warning about a line; 0: about the file as a whole."""
        if len(self._oddities) < MAX_FINDINGS:  # the file loads for all that, so very many are no reason to stop
            self._oddities.append(self._finding(line, path, message))

    def give_up(self, line: int, path: str, message: str) -> NoReturn:
        """Note an error that ends the reading of this file."""
        self._note(line, path, message)
        raise GaveUp

    def errors(self) -> list[Finding]:
        """What keeps the file from being used, by line; what is about the file as a whole at the end."""
        if not self.strict:
            return _by_line(self._errors)
        why = f" (an error, not a warning, because this file uses `{self.own_key}`)" if self.own_key else ""
        return _by_line([*self._errors, *(replace(one, message=one.message + why) for one in self._oddities)])

    def warnings(self) -> list[Finding]:
        """What does not, in the same order."""
        return [] if self.strict else _by_line(self._oddities)

    def spend(self, at: At, amount: float = 1) -> None:
        """Count what aliases multiply."""
        self._spent += amount
        if self._spent > MAX_EXPANDED:
            message = (
                f"too large with its aliases expanded: more than {MAX_EXPANDED} descriptors, limits, merged keys and"
            )
            self.give_up(at.node.line, at.path, f"{message} kilobytes of paths; split the file by domain")

    def entries(self, at: At) -> Entries:
        """Read a mapping, `<<` included: its own keys win over merged ones, and those merged first over later ones."""
        return self._flat(at, at.node, 0)

    def _note(self, line: int, path: str, message: str) -> None:
        self._errors.append(self._finding(line, path, message))
        if len(self._errors) >= MAX_FINDINGS:
            self._errors.append(self._finding(0, "", f"more than {MAX_FINDINGS} findings; the rest is not shown"))
            raise GaveUp

    def _finding(self, line: int, path: str, message: str) -> Finding:
        return Finding(self.file, line, path if len(path) <= 240 else f"{path[:119]}…{path[-120:]}", message)

    def _flat(self, at: At, node: YamlNode, depth: int) -> Entries:
        assert isinstance(node, Mapping)
        if id(node) in self._entries:  # the document keeps its nodes, so an id stays one node's
            return self._entries[id(node)]
        if depth > MAX_MERGES:
            self.give_up(node.line, at.path, "this mapping is merged (`<<`) into itself, or through too many others")
        merged: list[Mapping] = []
        own = self._own(At(node, at.path), merged)
        for mapping in merged:
            flat = self._flat(at, mapping, depth + 1)
            self.spend(at, len(flat))
            for name, pair in flat.items():
                own.setdefault(name, pair)
        self._entries[id(node)] = own
        return own

    def _own(self, at: At, merged: list[Mapping]) -> Entries:
        own: Entries = {}
        assert isinstance(at.node, Mapping)
        for key, value in zip(at.node.items[::2], at.node.items[1::2], strict=True):
            if not isinstance(key, Scalar):
                self.wrong(At(key, at.path), "a key must be plain text; this one is a list or a mapping")
            elif key.tag == "merge":
                merged.extend(self._merged(value, at.path))
            else:
                if key.text in own:
                    first = own[key.text][0].line
                    message = (
                        f"{shown(key)} is written twice here, first on line {first}, and the last one counts; keep one"
                    )
                    self.odd(At(key, at.path), message)
                own[key.text] = key, value
        return own

    def _merged(self, value: YamlNode, path: str) -> list[Mapping]:
        nodes = value.items if isinstance(value, Sequence) else [value]
        mappings = [node for node in nodes if isinstance(node, Mapping)]
        if len(mappings) < len(nodes):
            self.wrong(At(value, path), "`<<` merges a mapping or a list of mappings; write `<<: *anchor`")
        return mappings


def _by_line(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.line or _LAST)


def shown(node: YamlNode) -> str:
    """A node as written, short enough for a message."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    if not node.text and not node.quoted:
        return "nothing"
    return f'"{short(node.text)[1:-1]}"' if node.quoted else short(node.text)


def short(text: str) -> str:
    """A text in quotes, on one line, and not more of it than a message can hold."""
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
