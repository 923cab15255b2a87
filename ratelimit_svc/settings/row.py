"""One row of the table of settings: variable, flag, kind, default and meaning of a field."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.settings.kinds import Kind

T = TypeVar("T")


class Setting(NamedTuple):
    """One row of the table."""

    field: str
    """Its name in `Settings`."""
    variable: str
    flag: str | None
    """None for a secret, for flags are visible to every user of the machine, and for what has no effect."""
    kind: Kind[Any]
    default: str
    """As one would write it in the environment."""
    doc: str
    beginning: bool = False
    """True: every variable whose name begins so belongs to it; its text has a line `rest=text` for each."""

    def read(self, environ: Mapping[str, str], flags: Mapping[str, str | None]) -> object:
        """Return this setting's value.

        Raises:
            SettingsError: its text breaks the rule of its kind.
        """
        source, text = self.flag, flags.get(self.field)
        if text is None:
            source, text = self.variable, self._text(environ)
        if text is None or (self.kind.is_text and not text):
            text = self.default
        try:
            return self.kind.read(text)
        except ValueError:
            raise SettingsError(f"{source}={text!r}: must be {self.kind.rule}") from None

    def _text(self, environ: Mapping[str, str]) -> str | None:
        if not self.beginning:
            return environ.get(self.variable)
        rests = (name.removeprefix(self.variable) for name in sorted(environ) if name.startswith(self.variable))
        return "\n".join(f"{rest}={environ[self.variable + rest]}" for rest in rests if rest)


def row(
    variable: str,
    kind: Kind[T],
    default: str,
    doc: str,
    *,
    secret: bool = False,
    flag: bool = True,
    beginning: bool = False,
) -> T:
    """Make one field; typed as its value, which is what `dataclass` makes of it."""
    metadata = {
        "variable": variable,
        "kind": kind,
        "default": default,
        "doc": doc,
        "flag": flag,
        "beginning": beginning,
    }
    made: T = dataclasses.field(default=kind.read(default), metadata=metadata, repr=not secret)
    return made


def setting(field: "dataclasses.Field[Any]") -> Setting:
    """Return the row that `row` made a field of."""
    variable = field.metadata["variable"]
    return Setting(
        field=field.name,
        variable=variable,
        flag="--" + variable.lower().replace("_", "-") if field.metadata["flag"] else None,
        kind=field.metadata["kind"],
        default=field.metadata["default"],
        doc=field.metadata["doc"],
        beginning=field.metadata["beginning"],
    )
