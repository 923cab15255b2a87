"""Mogrifiers: a name as statsd has it → what DogStatsD is to call it, and its tags (USE_DOG_STATSD_MOGRIFIERS). Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_GROUP = re.compile(r"\$(\d+)", re.ASCII)


class Mogrifier(NamedTuple):
    """One rule. `$1` in its name and tags is what the pattern's first group stands for, `$0` all that it fits."""

    pattern: re.Pattern[str]
    """Anywhere in the name."""
    name: str
    tags: Mapping[str, str]


def mogrify(name: str, mogrifiers: Sequence[Mogrifier]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return name and tags by the first that fits; none: the name itself."""
    for mogrifier in mogrifiers:
        if found := mogrifier.pattern.search(name):
            tags = ((tag, _filled(value, found)) for tag, value in mogrifier.tags.items())
            return _filled(mogrifier.name, found), tuple(tags)
    return name, ()


def _filled(template: str, found: re.Match[str]) -> str:
    """Fill a template; a group that the pattern does not have stands as it is written."""

    def group(reference: re.Match[str]) -> str:
        number = int(reference[1])
        return reference[0] if number > found.re.groups else found[number] or ""

    return _GROUP.sub(group, template)
