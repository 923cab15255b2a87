"""Page: the table of settings → docs/settings.md."""

import dataclasses
from collections.abc import Iterator

from ratelimit_svc.settings import TABLE, Setting, Settings
from ratelimit_svc.settings.reference import ELSEWHERE, REFERENCE, WHY

_BEGIN = """\
<!-- made by `make docs` from ratelimit_svc/settings: edit the tables there -->

# Settings

Each is an environment variable, and nearly each a flag of `ratelimit-svc serve`, which goes before its variable. They are read once,
at the start; a wrong one ends the start with its name, its text and what it must be.

- Durations are written as in Go, with a unit: 100ms, 1.5s, 1h30m. A switch is true or false, 1 or 0, t or f. Whole numbers may be 0x1f.
- A text that is set but empty is its default. A number, a duration or a switch that is set but empty is an error.
- A password is a variable or in a file, never a flag, and is never shown.
- What Kubernetes tells of Services by variables (`STATSD_PORT=tcp://10.0.0.7:8125`) is no setting.
- A variable that seems to be misspelt is told at the start: `REDIS_ULR is no setting: is REDIS_URL meant?`

The column *reference* has the default of [envoyproxy/ratelimit](https://github.com/envoyproxy/ratelimit): *same*, its own, or **ours**
for what it does not have. What only its libraries read is under [read elsewhere](#read-elsewhere).
"""

_REST = """\
## Read elsewhere

The reference implementation's libraries read variables that are none of its settings. Here they are read where they belong:

- `OTEL_*`: where spans are sent and how, with TRACING_ENABLED.
- `DOG_STATSD_MOGRIFIER_*`: the mogrifiers that USE_DOG_STATSD_MOGRIFIERS names.
- `STATSD_PROTOCOL`: tcp or udp, for statsd.
"""


def text() -> str:
    """Return the page."""
    return "\n".join([_BEGIN, *_groups(), *_why(), _REST])


def _groups() -> Iterator[str]:
    rows = {each.field: each for each in TABLE}
    for group in reversed(Settings.__mro__):
        if dataclasses.is_dataclass(group) and group is not Settings:
            yield _table(group.__doc__ or "", [rows[field.name] for field in dataclasses.fields(group)])


def _table(doc: str, rows: list[Setting]) -> str:
    lines = [
        f"## {doc.rstrip('.')}",
        "",
        "| variable | flag | must be | default | reference | meaning |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{each.variable}` | {_code(each.flag or '')} | {each.kind.short or each.kind.rule} | {_code(each.default)} "
        f"| {_reference(each)} | {each.doc} |"
        for each in rows
    ]
    return "\n".join([*lines, ""])


def _reference(each: Setting) -> str:
    if {each.variable, f"{each.variable}*"} & set(ELSEWHERE):
        return "read elsewhere"
    if each.variable not in REFERENCE:
        return "**ours**"
    return _code(REFERENCE[each.variable]) or "none" if differs(each) else "same"


def differs(each: Setting) -> bool:
    """Tell whether the reference implementation has this setting with another default."""
    there = REFERENCE.get(each.variable, each.default)
    try:
        return bool(each.kind.read(there) != each.kind.read(each.default))
    except ValueError:
        return True


def _why() -> Iterator[str]:
    yield "## Why a default is another\n"
    yield "| variable | reason |\n|---|---|"
    yield from (f"| `{each.variable}` | {WHY[each.variable]} |" for each in TABLE if differs(each))
    yield ""


def _code(shown: str) -> str:
    return f"`{shown}`" if shown else ""
