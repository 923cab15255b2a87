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

    def read(self, environ: Mapping[str, str], flags: Mapping[str, str | None]) -> object:
        """Return this setting's value.

        Raises:
            SettingsError: its text breaks the rule of its kind.
        """
        source, text = self.flag, flags.get(self.field)
        if text is None:
            source, text = self.variable, environ.get(self.variable)
        if text is None or (self.kind.is_text and not text):
            text = self.default
        try:
            return self.kind.read(text)
        except ValueError:
            raise SettingsError(f"{source}={text!r}: must be {self.kind.rule}") from None


def row(variable: str, kind: Kind[T], default: str, doc: str, *, secret: bool = False, flag: bool = True) -> T:
    """Make one field; typed as its value, which is what `dataclass` makes of it."""
    metadata = {"variable": variable, "kind": kind, "default": default, "doc": doc, "flag": flag}
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
    )
