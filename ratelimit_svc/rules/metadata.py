"""Metadata: a rule's `metadata` → plain dicts, lists, texts, numbers, booleans and None, as JSON has them.

Whatever its author wants to be told is taken, but for what JSON and protobuf's `Struct` cannot say. A key that is no text, and a
time of day, are the text that is written, as for the reference implementation. It is sent with answers, so it is bounded: in depth by what readers of protobuf take, in size by what an answer should weigh.
"""

import math
from typing import Any

from ratelimit_svc.rules import kinds
from ratelimit_svc.rules.nodes import SMALL, At, Document, Mapping, Scalar, Sequence, shown

MAX_DEPTH = 24
"""Protobuf's readers go down 100 messages, and a level of a `Struct` takes up to four."""
MAX_CHARACTERS = 65_536
"""Of all keys and texts of one rule's metadata, aliases expanded."""

_EXACT = 2**53
"""A `Struct` has doubles only: whole numbers up to here are exact in them."""


class Metadata:
    """One rule's metadata while it is read."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._left = MAX_CHARACTERS

    def plain(self, at: At, depth: int = 1) -> Any:
        """Return a node as a plain value."""
        if depth > MAX_DEPTH:
            message = f"metadata is nested more than {MAX_DEPTH} deep, or an alias inside itself"
            self._document.give_up(at.node.line, at.path, message)
        self._document.spend(at, SMALL)
        if isinstance(at.node, Sequence):
            return [self.plain(item, depth + 1) for item in at.items()]
        if isinstance(at.node, Mapping):
            return self._mapping(at, depth)
        return self._scalar(at, at.node)

    def _mapping(self, at: At, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, (key, node) in self._document.entries(at).items():
            if key.tag not in ("str", "value", "timestamp"):
                message = f"{shown(key)} is no text to YAML, and is taken as written; write the key in quotes"
                self._document.odd(At(key, at.path), message)
            self._count(at, name)
            found[name] = self.plain(at.key(name, node), depth + 1)
        return found

    def _scalar(self, at: At, scalar: Scalar) -> Any:
        self._count(at, scalar.text)
        if scalar.tag == "null":
            return None
        if scalar.tag in ("str", "value", "timestamp", "merge") or kinds.is_time_of_day(scalar):
            return scalar.text
        value = kinds.truth(scalar) if scalar.tag == "bool" else _number(scalar)
        if value is None:
            self._document.wrong(at, f"{shown(scalar)} has no form in JSON; write it in quotes to send it as text")
        return value

    def _count(self, at: At, text: str) -> None:
        self._left -= len(text)
        if self._left < 0:
            self._document.give_up(at.node.line, at.path, f"metadata is longer than {MAX_CHARACTERS} characters in all")


def _number(scalar: Scalar) -> float | None:
    whole = kinds.number(scalar)
    if whole is not None:
        return whole if abs(whole) <= _EXACT else float(whole)
    try:
        fraction = float(scalar.text.replace("_", "")) if scalar.tag == "float" else math.nan
    except ValueError:
        return None
    return fraction if math.isfinite(fraction) else None
