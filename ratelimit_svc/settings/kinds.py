"""The kinds of setting there are: what the text of each may be, and how it becomes a value.

Numbers, switches and durations are written as Go writes them (`0x1f`, `T`, `1h30m`), because the reference implementation's
are. Nothing here knows a setting by name; see `settings`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from ratelimit_svc.durations import read_duration

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of setting."""

    rule: str
    """What its text must be; completes "must be …"."""
    read: Callable[[str], T]
    """Raises ValueError for text that breaks the rule."""
    is_text: bool = False
    """Empty text stands for the default."""


def integer(least: int, most: int) -> Kind[int]:
    return Kind(f"a whole number, {least} … {most}", _within(read_integer, least, most))


def duration(least: str, most: str) -> Kind[int]:
    """Read a duration as microseconds."""
    rule = f'a duration with its unit, like "100ms", "1.5s" or "1h30m", {least} … {most}'
    return Kind(rule, _within(read_duration, read_duration(least), read_duration(most)))


def number(least: float, most: float) -> Kind[float]:
    """Read a number that need not be whole."""

    def read(text: str) -> float:
        if not least <= (value := float(text)) <= most:  # what is no number at all is not between them either
            raise ValueError
        return value

    return Kind(f"a number, {least:g} … {most:g}", read)


def choice(*words: str) -> Kind[str]:
    """Read one of these words, in any case; an empty word is not told to anyone, it is there for a default."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return Kind("one of " + ", ".join(filter(None, words)), read, is_text=True)


def _within(read: Callable[[str], int], least: int, most: int) -> Callable[[str], int]:
    def read_within(text: str) -> int:
        if not least <= (number := read(text)) <= most:
            raise ValueError
        return number

    return read_within


# Go's integers: prefixes, a leading zero for octal, underscores between digits.
_INTEGER = re.compile(r"0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO](_?[0-7])+|[1-9](_?[0-9])*|0(?P<octal>(_?[0-7])*)")
_SWITCH: Mapping[str, bool] = MappingProxyType(
    dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True)
    | dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False)
)


def read_integer(text: str) -> int:
    """Read an integer as Go's `strconv.ParseInt` in base 0 does.

    Raises:
        ValueError: it is none.
    """
    sign, digits = _sign(text)
    if not (match := _INTEGER.fullmatch(digits)):
        raise ValueError
    return sign * int(f"0o{match['octal']}" if match["octal"] else digits, 0)


def read_switch(text: str) -> bool:
    """Read a boolean as Go's `strconv.ParseBool` does.

    Raises:
        ValueError: it is none.
    """
    if text not in _SWITCH:
        raise ValueError
    return _SWITCH[text]


def _read_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Read a map as the reference implementation writes one; of equal keys the last counts.

    Raises:
        ValueError: a part has no colon, or nothing before it.
    """
    pairs = {}
    for part in text.split(",") if text else ():
        key, colon, value = part.partition(":")
        if not colon or not key:
            raise ValueError
        pairs[key] = value
    return tuple(pairs.items())


def _read_address(text: str) -> tuple[str, int]:
    """Read `host:port`, `[::1]:port` or `:port` as host and port.

    Raises:
        ValueError: it is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= _MOST_PORT:
        raise ValueError
    return host.removeprefix("[").removesuffix("]"), int(port)


def _sign(text: str) -> tuple[int, str]:
    return (-1 if text[:1] == "-" else 1), text[text[:1] in ("+", "-") :]


TEXT = Kind("text", str, is_text=True)
BOOLEAN = Kind("true or false (or 1, t, T, TRUE, True, 0, f, F, FALSE, False)", read_switch)
BOOLEAN_IF_SET = Kind(BOOLEAN.rule, lambda text: read_switch(text) if text else None, is_text=True)
"""None where it is not set, or set but empty: then something else tells."""
_MOST_PORT = 65_535
PORT = integer(0, _MOST_PORT)
PORT_IF_SET = Kind(PORT.rule, lambda text: PORT.read(text) if text else None, is_text=True)
"""None where it is not set, or set but empty."""
WORDS = Kind("words with commas between them", lambda text: tuple(text.split(",")) if text else (), is_text=True)
PAIRS = Kind('pairs like "key:value,other:value"', _read_pairs, is_text=True)
ADDRESS = Kind('an address like "host:port", or ":port" for all of this machine\'s', _read_address, is_text=True)
"""Host and port; an empty host is every address."""
