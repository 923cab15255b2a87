"""The kinds of setting there are: what the text of each may be, and how it becomes a value.

Numbers, switches and durations are written as Go writes them (`0x1f`, `T`, `1h30m`), and lists and maps as envconfig does
(`a,b`, `k:v,k2:v2`), because the reference implementation's are. Nothing here knows a setting by name; see `settings`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

from ratelimit_svc.durations import read_duration

T = TypeVar("T")

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""A map as a value that cannot change: `dict` makes a map of it. No key is in it twice."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of setting."""

    rule: str
    """What its text must be; completes "must be …"."""
    read: Callable[[str], T]
    """Raises ValueError for text that breaks the rule."""
    is_text: bool = False
    """Empty text stands for the default."""
    short: str = ""
    """The rule in a few words, for a table. Empty: the rule itself."""


def integer(least: int, most: int) -> Kind[int]:
    return Kind(f"a whole number, {least} … {most}", _within(read_integer, least, most))


def duration(least: str, most: str) -> Kind[int]:
    """Read a duration as microseconds."""
    rule = f'a duration with its unit, like "100ms", "1.5s" or "1h30m", {least} … {most}'
    read = _within(read_duration, read_duration(least), read_duration(most))
    return Kind(rule, read, short=f"a duration, {least} … {most}")


def decimal(least: float, most: float) -> Kind[float]:
    """Read a decimal number: `0.8`, `.5`, `1e-3`; neither hexadecimal nor infinite ones, which Go takes too."""

    def read(text: str) -> float:
        if not _DECIMAL.fullmatch(text) or not least <= (number := float(text)) <= most:
            raise ValueError
        return number

    return Kind(f"a decimal number, {least:g} … {most:g}", read)


def choice(*words: str) -> Kind[str]:
    """Read one of these words, in any case; an empty word is not told to anyone, it is there for a default."""
    spelt = {word.lower(): word for word in words}

    def read(text: str) -> str:
        if text.lower() not in spelt:
            raise ValueError
        return spelt[text.lower()]

    return Kind("one of " + ", ".join(filter(None, words)), read, is_text=True)


def header_name() -> Kind[str]:
    """Read the name of a header, as HTTP has it."""

    def read(text: str) -> str:
        if not _HEADER.fullmatch(text):
            raise ValueError
        return text

    return Kind("a header's name", read, is_text=True)


_HEADER = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+")


def _within(read: Callable[[str], int], least: int, most: int) -> Callable[[str], int]:
    def read_within(text: str) -> int:
        if not least <= (number := read(text)) <= most:
            raise ValueError
        return number

    return read_within


# Go's integers: prefixes, a leading zero for octal, underscores between digits.
_INTEGER = re.compile(r"0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO](_?[0-7])+|[1-9](_?[0-9])*|0(?P<octal>(_?[0-7])*)")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
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


def read_list(text: str) -> tuple[str, ...]:
    """Read a list with commas; blanks around an item are none of it. Blank text is the empty list."""
    return tuple(item.strip() for item in text.split(",")) if text.strip() else ()


def read_map(text: str) -> Pairs:
    """Read `k:v,k2:v2` as envconfig does: each item has exactly one colon, and of equal keys the last counts.

    Raises:
        ValueError: an item has no colon, or several.
    """
    return _pairs([item.split(":") for item in read_list(text)])


def read_metadata(text: str) -> Pairs:
    """Read `k=v,k2=v2`; the reference implementation takes no notice of an item without `=`, and a value may have more of them."""
    return _pairs([item.split("=", 1) for item in read_list(text) if "=" in item])


def read_address(text: str) -> tuple[str, int]:
    """Read `host:port`, `[::1]:port` or `:port` as host and port.

    Raises:
        ValueError: it is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError
    return host.removeprefix("[").removesuffix("]"), PORT.read(port)


def _pairs(items: Sequence[Sequence[str]]) -> Pairs:
    return tuple({key.strip(): value.strip() for key, value in items}.items())


def _sign(text: str) -> tuple[int, str]:
    return (-1 if text[:1] == "-" else 1), text[text[:1] in ("+", "-") :]


TEXT = Kind("text", str, is_text=True)
BOOLEAN = Kind("true or false (or 1, t, T, TRUE, True, 0, f, F, FALSE, False)", read_switch, short="true or false")
BOOLEAN_IF_SET = Kind(BOOLEAN.rule, lambda text: read_switch(text) if text else None, is_text=True, short=BOOLEAN.short)
"""None where it is not set, or set but empty: then something else tells."""
PORT = integer(0, 65_535)
PORT_IF_SET = Kind(PORT.rule, lambda text: PORT.read(text) if text else None, is_text=True, short=PORT.short)
"""None where it is not set, or set but empty."""
ADDRESS = Kind('an address like "host:port", or ":port" for all of this machine', read_address, is_text=True)
"""Host and port; an empty host is every address."""
LIST = Kind("a list with commas, like a,b", read_list, is_text=True)
MAP = Kind("pairs with commas, each with one colon, like key:value,key2:value2", read_map, is_text=True)
METADATA = Kind("pairs with commas, like key=value,key2=value2", read_metadata, is_text=True)
ANY_INTEGER = replace(integer(-(2**63), 2**63 - 1), short="a whole number")
ANY_DURATION = replace(duration("-87600h", "87600h"), short="a duration")
