"""Kinds: a node → a value of one kind, or `Wrong` with what was found, the rule, and what would be right.

Rule 1: a kind knows no key's name; `tables` says which key is of which kind.
Rule 2: None says "as if not written". Null is that for every kind, an empty text for texts and choices: generated files
        write every field out.
Rule 3: a value means what YAML 1.1 and the reference implementation make of it, or it is refused. It is never guessed.
Rule 4: a kind says itself in words and in JSON Schema, so that the pages made from the tables cannot differ from it. The
        schema takes whatever the reader takes; the reader may know better.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from ratelimit_svc.durations import read_duration
from ratelimit_svc.rules import nodes
from ratelimit_svc.rules.nodes import Scalar, YamlNode, short, shown

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of value."""

    words: str
    """What it is, for people."""
    schema: Mapping[str, Any]
    """What it is, in JSON Schema."""
    read: Callable[[YamlNode], T | None]
    """Raises `Wrong`."""


_TEXT_TAGS = frozenset({"str", "int", "bool", "merge", "value", "timestamp"})
"""Plain scalars that are taken as written: `value: 123` meets "123", `true` meets "true", and `<<` and `=` themselves."""

_TRUE = frozenset({"y", "yes", "true", "on"})
_BOOLEAN_WORDS = [
    written for word in ("y", "yes", "on", "n", "no", "off") for written in (word, word.capitalize(), word.upper())
]
"""What YAML 1.1 takes for booleans beside true and false, and YAML 1.2, which editors speak, for text."""
_BASES = {"0b": 2, "0o": 8, "0x": 16}


class Wrong(Exception):  # noqa: N818 — not an error of the program: what its text says becomes a finding
    """This node is not of the kind wanted."""


MOST_COMPARED = 300
"""Words that one is compared with: it takes 0.1 ms each."""


def similar(word: str, words: Iterable[str]) -> str:
    """Return ` (did you mean …?)` if one of the words is close, else nothing."""
    words = list(islice(words, MOST_COMPARED))
    if len(word) > 60:  # comparing takes time with the square of the length, and nobody mistypes so much
        return ""
    close = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class NoChoice(Wrong):
    """A text, but none of the words that may stand here."""


def _text(node: YamlNode) -> str | None:
    """Any scalar that has one meaning as text."""
    scalar = _scalar(node, "text")
    if scalar is None:
        return None
    if is_time_of_day(scalar):
        return scalar.text
    if scalar.tag == "float":
        raise Wrong(f"{shown(scalar)} is a fraction to YAML; write it in quotes to match it as text")
    if scalar.tag not in _TEXT_TAGS:
        raise Wrong(f"{shown(scalar)} has the tag {short(scalar.tag)}; write plain text")
    return scalar.text or None


TEXT = Kind("text", {"type": ["string", "integer", "boolean", "null"]}, _text)


def _boolean(node: YamlNode) -> bool | None:
    """`true` or `false`, also in YAML 1.1's other words."""
    scalar = _scalar(node, "true or false")
    if scalar is None:
        return None
    if scalar.tag != "bool":
        raise Wrong(f"{shown(scalar)} is {_what(scalar)}; write true or false{_without_quotes(scalar)}")
    return truth(scalar)


BOOLEAN = Kind("true or false", {"anyOf": [{"type": ["boolean", "null"]}, {"enum": _BOOLEAN_WORDS}]}, _boolean)


def integer(low: int, high: int) -> Kind[int]:
    """A whole number from low to high."""
    wanted = f"a whole number from {low} to {high}"

    def read(node: YamlNode) -> int | None:
        scalar = _scalar(node, wanted)
        if scalar is None:
            return None
        found = number(scalar)
        if found is None:
            raise Wrong(f"{shown(scalar)} is {_what(scalar)}; write {wanted}{_without_quotes(scalar)}")
        if not low <= found <= high:
            raise Wrong(f"{shown(scalar)} is out of range; write {wanted}")
        return found

    return Kind(f"{low} … {high}", {"type": ["integer", "null"], "minimum": low, "maximum": high}, read)


def choice(options: Mapping[str, T], noun: str) -> Kind[T]:
    """One of some words, in any case."""
    wanted = f"one of {', '.join(options)}"

    def read(node: YamlNode) -> T | None:
        scalar = _scalar(node, wanted)
        if scalar is None or not scalar.text:
            return None
        word = scalar.text.lower()
        if word not in options:
            raise NoChoice(f"{shown(scalar)} is not {noun}{similar(word, options)}; write {wanted}")
        return options[word]

    any_case = "|".join("".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in word) for word in options)
    schema = {"anyOf": [{"enum": [*options, "", None]}, {"type": "string", "pattern": f"^({any_case})$"}]}
    return Kind(", ".join(f"`{word}`" for word in options), schema, read)


def duration(low: str, high: str) -> Kind[int]:
    """A duration from low to high, as microseconds."""
    low_us, high_us = read_duration(low, days=True), read_duration(high, days=True)
    wanted = f'a duration with its unit, like "90s", "1h30m" or "7d", {low} … {high}'

    def read(node: YamlNode) -> int | None:
        scalar = _scalar(node, wanted)
        if scalar is None or not scalar.text:
            return None
        try:
            # nobody writes longer ones, and the arithmetic of very many digits takes long
            time_us = read_duration(scalar.text if len(scalar.text) <= 100 else "", days=True)
        except ValueError:
            raise Wrong(f"{shown(scalar)} is not a duration; write {wanted}") from None
        if not low_us <= time_us <= high_us:
            raise Wrong(f"{shown(scalar)} is out of range; write {wanted}")
        return time_us

    pattern = r"^$|^\+?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h|d))+$"
    return Kind(f"a duration, {low} … {high}", {"type": ["string", "null"], "pattern": pattern}, read)


def _mapping(node: YamlNode) -> nodes.Mapping | None:
    """Keys with values."""
    if _is_null(node):
        return None
    if not isinstance(node, nodes.Mapping):
        raise Wrong(f"{shown(node)} stands where a mapping is expected; write `key: value` lines, indented")
    return node


MAPPING = Kind("a mapping", {"type": ["object", "null"]}, _mapping)


def _sequence(node: YamlNode) -> nodes.Sequence | None:
    """A list; its items are not looked at."""
    if _is_null(node):
        return None
    if not isinstance(node, nodes.Sequence):
        raise Wrong(f"{shown(node)} stands where a list is expected; start each item with `- `")
    return node


SEQUENCE = Kind("a list", {"type": ["array", "null"]}, _sequence)


def is_time_of_day(scalar: Scalar) -> bool:
    """Whether it is one of YAML 1.1's sexagesimal numbers (`1:30`), which are text to the reference implementation."""
    return scalar.tag in ("int", "float") and ":" in scalar.text


def truth(scalar: Scalar) -> bool:
    """What a boolean says."""
    return scalar.text.lower() in _TRUE


def number(scalar: Scalar) -> int | None:
    """Read YAML 1.1's integers but the sexagesimal ones (`1:30`), which nobody means; None: it is none."""
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


def _scalar(node: YamlNode, wanted: str) -> Scalar | None:
    if not isinstance(node, Scalar):
        raise Wrong(f"{shown(node)} stands where {wanted} is expected; write a single value")
    return None if _is_null(node) else node


def _is_null(node: YamlNode) -> bool:
    return isinstance(node, Scalar) and node.tag == "null"


def _what(scalar: Scalar) -> str:
    if scalar.quoted:
        return "text, because it is quoted"
    if is_time_of_day(scalar):
        return "a time of day to YAML"
    return {"float": "a fraction", "bool": "true or false", "int": "a number", "timestamp": "a date"}.get(
        scalar.tag, "text"
    )


def _without_quotes(scalar: Scalar) -> str:
    return ", without quotes" if scalar.quoted else ""
