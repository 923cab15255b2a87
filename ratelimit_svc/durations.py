"""Durations as Go writes them, `100ms`, `1.5s`, `1h30m`, in whole microseconds.

Settings are written so because the reference implementation's are, and rules so that there is one way to write them.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

_DURATION = re.compile(r"(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)(?P<unit>ns|us|µs|μs|ms|s|m|h|d)")
_UNIT_US: Mapping[str, Fraction] = MappingProxyType(
    {
        "ns": Fraction(1, 1_000),
        "us": Fraction(1),
        "µs": Fraction(1),  # U+00B5, the micro sign
        "μs": Fraction(1),  # U+03BC, the Greek letter
        "ms": Fraction(1_000),
        "s": Fraction(1_000_000),
        "m": Fraction(60_000_000),
        "h": Fraction(3_600_000_000),
        "d": Fraction(86_400_000_000),
    }
)


def read_duration(text: str, *, days: bool = False) -> int:
    """Read a duration as Go's `time.ParseDuration` does, in whole microseconds; what is below one is cut off.

    Args:
        text: what is written.
        days: True: `d` is a unit too; Go has none above the hour.

    Raises:
        ValueError: it is none; a plain number, but for 0, is none either.
    """
    sign, lengths = (-1 if text[:1] == "-" else 1), text[text[:1] in ("+", "-") :]
    if lengths == "0":
        return 0
    parts = list(_DURATION.finditer(lengths))
    if not parts or "".join(part[0] for part in parts) != lengths:
        raise ValueError
    if not days and any(part["unit"] == "d" for part in parts):
        raise ValueError
    return sign * int(sum(Fraction(part["number"]) * _UNIT_US[part["unit"]] for part in parts))
