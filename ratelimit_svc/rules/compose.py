"""YAML: the bytes of one file → nodes that know their line.

Whatever the bytes are, the answer is nodes or a finding. Depth and size are bounded, and nothing recurses on the document, so
no document can exhaust the stack.

The nodes are made here from PyYAML's events. Its own composer recurses, keeps two marks and a dict for every node, and
refuses an anchor that is defined again, which YAML allows.
"""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import yaml
from yaml.reader import ReaderError

from ratelimit_svc.rules.files import MAX_BYTES, RuleFile
from ratelimit_svc.rules.nodes import Document, Mapping, Scalar, Sequence, YamlNode

try:
    from yaml import CSafeLoader as Events
except ImportError:  # PyYAML without libyaml: the same events, ten times slower
    from yaml import SafeLoader as Events  # type: ignore[assignment]

TAG = "tag:yaml.org,2002:"

MAX_DEPTH = 200
"""Of mappings and lists inside each other: 64 levels of descriptors take 130."""
MAX_NODES = 2_000_000
"""Of one file, aliases not expanded; about 250 bytes each. 100 000 descriptors take about 1.1 million."""


def compose(document: Document, file: RuleFile) -> YamlNode | None:
    """Return the root of the file's first document; None if it holds nothing.

    Raises:
        GaveUp: It is not YAML; `document` has the finding.
    """
    text = _decoded(document, file.data)
    composer = _Composer(document, Events(text))
    try:
        root = composer.first()
    except ReaderError as error:
        character = chr(error.character)
        line = text[: text.find(character)].count("\n") + 1
        document.give_up(line, "", f"not YAML: the character U+{error.character:04X} is not allowed; remove it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        last = len(text.splitlines()) or 1  # libyaml counts a line more at the end of the file
        document.give_up(min(mark.line + 1, last) if mark else 0, "", _syntax(error))
    composer.note_the_rest()
    return None if root is None or _is_nothing(root) else root


def _is_nothing(root: YamlNode) -> bool:
    return isinstance(root, Scalar) and root.tag == "null"


def _decoded(document: Document, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        document.give_up(0, "", f"larger than {MAX_BYTES // 2**20} MiB; split it by domain")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        document.give_up(line, "", f"not UTF-8: the byte 0x{data[error.start]:02x}; save the file as UTF-8")


_HINTS = {
    "found character that cannot start any token": "indent with spaces, not tabs, and quote a value that starts with @, ` or %",
    "mapping values are not allowed in this context": "quote a value that holds `: `, and check the indentation",
    "found undefined alias": "an alias must stand below its anchor, in the same file",
    "found unexpected end of stream": "a quote is not closed",
}
"""What libyaml says → what is most often behind it."""


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "unreadable"
    context = f" ({error.context})" if error.context else ""
    return f"not YAML: {problem}{context}; {_HINTS.get(problem, 'check indentation, quotes and brackets before this')}"


_SHORT_BOOLEANS = frozenset({"y", "Y", "n", "N"})
"""Booleans in YAML 1.1 and to the reference implementation's parser; PyYAML has left them out."""
_OCTAL = re.compile("[-+]?0o[0-7_]+")
"""Whole numbers in YAML 1.2 and to the reference implementation's parser."""


def _is_empty(event: yaml.NodeEvent) -> bool:
    return isinstance(event, yaml.ScalarEvent) and event.value in ("", "~", "null") and not event.style


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


_SECOND = ", and is ignored; write each domain in a file of its own"


class _Composer:
    """Events → the first document's root node, with a stack of its own."""

    def __init__(self, document: Document, events: Events) -> None:
        self._document = document
        self._events = events
        self._open: list[Sequence | Mapping] = []
        self._anchors: dict[str, YamlNode] = {}
        self._root: YamlNode | None = None
        self._done = False
        self._count = 0

    def first(self) -> YamlNode | None:
        """Return the first document's root."""
        while not self._done and self._events.check_event():
            event: Any = self._events.get_event()
            take = self._TAKE.get(type(event))
            if take is not None:
                take(self, event)
        return self._root

    def note_the_rest(self) -> None:
        """Note where a next document begins that holds anything, or cannot be read.

        It is not looked at any further: nor does the reference implementation, so whatever it is, it does no harm.
        """
        line = 0
        try:
            while self._events.check_event():
                event: Any = self._events.get_event()
                if isinstance(event, yaml.DocumentStartEvent):
                    line = _line(event)
                elif isinstance(event, yaml.NodeEvent) and not _is_empty(event):
                    self._document.odd_line(line, f"a second YAML document begins here{_SECOND}")
                    return
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else line
            self._document.odd_line(line, f"what follows the rules is not YAML{_SECOND}")
        except ReaderError:
            self._document.odd_line(line, f"what follows the rules is not YAML{_SECOND}")

    def _document_end(self, _event: Any) -> None:
        self._done = True

    def _scalar(self, event: Any) -> None:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._events.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
            if not event.style and event.value in _SHORT_BOOLEANS:
                tag = "bool"
            elif not event.style and _OCTAL.fullmatch(event.value):
                tag = "int"
        self._add(Scalar(event.value, tag.removeprefix(TAG), bool(event.style), _line(event)), event.anchor)

    def _sequence(self, event: Any) -> None:
        self._enter(Sequence(_line(event)), event.anchor)

    def _mapping(self, event: Any) -> None:
        self._enter(Mapping(_line(event)), event.anchor)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            raise yaml.MarkedYAMLError(problem="found undefined alias", problem_mark=event.start_mark)
        self._add(self._anchors[event.anchor], None)

    def _end(self, _event: Any) -> None:
        self._open.pop()

    def _enter(self, node: Sequence | Mapping, anchor: str | None) -> None:
        self._add(node, anchor)
        self._open.append(node)
        if len(self._open) > MAX_DEPTH:
            self._document.give_up(node.line, "", f"nested more than {MAX_DEPTH} deep; no rule needs that")

    def _add(self, node: YamlNode, anchor: str | None) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            self._document.give_up(node.line, "", f"more than {MAX_NODES} values; split the file by domain")
        if anchor is not None:
            self._anchors[anchor] = node
        if self._open:
            self._open[-1].items.append(node)
        else:
            self._root = node

    _TAKE: ClassVar[dict[type, Callable[["_Composer", Any], None]]] = {
        yaml.DocumentEndEvent: _document_end,
        yaml.ScalarEvent: _scalar,
        yaml.SequenceStartEvent: _sequence,
        yaml.MappingStartEvent: _mapping,
        yaml.AliasEvent: _alias,
        yaml.SequenceEndEvent: _end,
        yaml.MappingEndEvent: _end,
    }
