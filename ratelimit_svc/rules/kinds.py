"""Kinds: a node → a value of one kind, or `Wrong` with what was found, the rule, and what would be right.

Rule 1: a reader knows no key's name; `load` has a table that says which key is of which kind.
Rule 2: None says "as if not written". Null is that for every kind, an empty text for texts and choices: generated files
        write every field out.
Rule 3: a value means what YAML 1.1 and the reference implementation make of it, or it is refused. It is never guessed.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from ratelimit_svc.rules import nodes
from ratelimit_svc.rules.nodes import Scalar, YamlNode, short, shown

T = TypeVar("T")
Reader = Callable[[YamlNode], T | None]

_TEXT_TAGS = frozenset({"str", "int", "bool", "merge", "value"})
"""Plain scalars that are taken as written: `value: 123` meets "123", `true` meets "true", and `<<` and `=` themselves."""

_TRUE = frozenset({"yes", "true", "on"})
_BASES = {"0b": 2, "0x": 16}


class Wrong(Exception):  # noqa: N818 — not an error of the program: what its text says becomes a finding
    """This node is not of the kind wanted."""


def similar(word: str, words: Iterable[str]) -> str:
    """Return ` (did you mean …?)` if one of the words is close, else nothing."""
    if len(word) > 60:  # comparing takes time with the square of the length, and nobody mistypes so much
        return ""
    close = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def text(node: YamlNode) -> str | None:
    """Any scalar that has one meaning as text."""
    scalar = _scalar(node, "text")
    if scalar is None:
        return None
    if scalar.tag == "float":
        raise Wrong(f"{shown(scalar)} is a fraction to YAML; write it in quotes to match it as text")
    if scalar.tag == "timestamp":
        raise Wrong(f"{shown(scalar)} is a date to YAML; write it in quotes to match it as text")
    if scalar.tag not in _TEXT_TAGS:
        raise Wrong(f"{shown(scalar)} has the tag {short(scalar.tag)}; write plain text")
    return scalar.text or None


def boolean(node: YamlNode) -> bool | None:
    """`true` or `false`, also in YAML 1.1's other words."""
    scalar = _scalar(node, "true or false")
    if scalar is None:
        return None
    if scalar.tag != "bool":
        raise Wrong(f"{shown(scalar)} is {_what(scalar)}; write true or false{_without_quotes(scalar)}")
    return scalar.text.lower() in _TRUE


def integer(low: int, high: int) -> Reader[int]:
    """A whole number from low to high."""
    wanted = f"a whole number from {low} to {high}"

    def read(node: YamlNode) -> int | None:
        scalar = _scalar(node, wanted)
        if scalar is None:
            return None
        number = _number(scalar)
        if number is None:
            raise Wrong(f"{shown(scalar)} is {_what(scalar)}; write {wanted}{_without_quotes(scalar)}")
        if not low <= number <= high:
            raise Wrong(f"{shown(scalar)} is out of range; write {wanted}")
        return number

    return read


def choice(options: Mapping[str, T], noun: str) -> Reader[T]:
    """One of some words, in any case."""
    wanted = f"one of {', '.join(options)}"

    def read(node: YamlNode) -> T | None:
        scalar = _scalar(node, wanted)
        if scalar is None or not scalar.text:
            return None
        word = scalar.text.lower()
        if word not in options:
            raise Wrong(f"{shown(scalar)} is not {noun}{similar(word, options)}; write {wanted}")
        return options[word]

    return read


def mapping(node: YamlNode) -> nodes.Mapping | None:
    """Keys with values."""
    if _is_null(node):
        return None
    if not isinstance(node, nodes.Mapping):
        raise Wrong(f"{shown(node)} stands where a mapping is expected; write `key: value` lines, indented")
    return node


def sequence(node: YamlNode) -> nodes.Sequence | None:
    """A list; its items are not looked at."""
    if _is_null(node):
        return None
    if not isinstance(node, nodes.Sequence):
        raise Wrong(f"{shown(node)} stands where a list is expected; start each item with `- `")
    return node


def _scalar(node: YamlNode, wanted: str) -> Scalar | None:
    if not isinstance(node, Scalar):
        raise Wrong(f"{shown(node)} stands where {wanted} is expected; write a single value")
    return None if _is_null(node) else node


def _is_null(node: YamlNode) -> bool:
    return isinstance(node, Scalar) and node.tag == "null"


def _number(scalar: Scalar) -> int | None:
    """YAML 1.1's integers but the sexagesimal ones (`1:30`), which nobody means."""
    sign, digits = 1, scalar.text.replace("_", "").lower()
    if digits.startswith(("+", "-")):
        sign, digits = (-1 if digits[0] == "-" else 1), digits[1:]
    if scalar.tag != "int" or not (digits.isascii() and digits.isalnum()):
        return None
    if len(digits) > 80:  # beyond any range, and int() of very many digits takes long
        return sign * 10**80
    try:
        return sign * int(digits, _BASES.get(digits[:2], 8 if digits.startswith("0") else 10))
    except ValueError:
        return None


def _what(scalar: Scalar) -> str:
    if scalar.quoted:
        return "text, because it is quoted"
    if scalar.tag == "int" and ":" in scalar.text:
        return "a time of day to YAML"
    return {"float": "a fraction", "bool": "true or false", "int": "a number", "timestamp": "a date"}.get(
        scalar.tag, "text"
    )


def _without_quotes(scalar: Scalar) -> str:
    return ", without quotes" if scalar.quoted else ""
