"""Flags as programs in Go have them: `-name value`, `-name=value`, with one dash or two, and switches that stand alone.

Python's argparse is not that: it takes a name's beginning for the name, and what follows a switch for the switch's value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratelimit_svc.settings.kinds import read_switch


class FlagError(Exception):
    """Who called the program must act; the text says which flag and why."""


class HelpAsked(Exception):  # noqa: N818 — nothing is wrong
    """`-h` or `-help`, and no flag of that name."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of a program."""

    doc: str
    default: str = ""
    is_switch: bool = False
    """It stands alone, and takes a value only by `=`."""


def parse(flags: Mapping[str, Flag], arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return each flag's values, in the order in which they were given; its default where it was not given.

    Raises:
        FlagError: an unknown flag, one without its value, a switch that is neither true nor false, or words that belong to
            no flag. Go's own library leaves those words to the program, and the programs here have no use for them.
        HelpAsked: somebody wants to know the flags.
    """
    given: dict[str, list[str]] = {}
    waiting = list(reversed(arguments))
    while waiting:
        word = waiting.pop()
        name, equals, value = _name(word).partition("=")
        flag = flags.get(name)
        if flag is None:
            if name in ("h", "help"):
                raise HelpAsked
            raise FlagError(f"flag provided but not defined: -{name}")
        if flag.is_switch:
            value = _switch(name, value if equals else "true")
        elif not equals:
            if not waiting:
                raise FlagError(f"flag needs an argument: -{name}")
            value = waiting.pop()
        given.setdefault(name, []).append(value)
    return {name: given.get(name) or _default(flag) for name, flag in flags.items()}


def usage(program: str, flags: Mapping[str, Flag]) -> str:
    """Return what `-help` says."""
    lines = [f"Usage of {program}:"]
    for name, flag in flags.items():
        default = f' (default "{flag.default}")' if flag.default else ""
        lines += [f"  -{name}{'' if flag.is_switch else ' string'}", f"    \t{flag.doc}{default}"]
    return "\n".join(lines)


def _default(flag: Flag) -> list[str]:
    default = "false" if flag.is_switch else flag.default
    return [default] if default else []


def _name(word: str) -> str:
    """Return a flag without its dashes."""
    name = word[2:] if word.startswith("--") else word[1:]
    if not word.startswith("-") or not name:
        raise FlagError(f"unexpected argument: {word!r}")
    if name[0] in "-=":
        raise FlagError(f"bad flag syntax: {word}")
    return name


def _switch(name: str, text: str) -> str:
    try:
        return "true" if read_switch(text) else "false"
    except ValueError:
        raise FlagError(f'invalid boolean value "{text}" for -{name}: must be true or false') from None
