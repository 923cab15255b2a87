"""Fields: one mapping, read by its table.

What is wrong is noted and left out, so that reading goes on and all of a file's findings come together.
"""

from dataclasses import dataclass, field
from typing import Any

from ratelimit_svc.rules import kinds
from ratelimit_svc.rules.nodes import At, Document, Scalar, shown
from ratelimit_svc.rules.tables import ITEM, RATE_LIMIT, REFERENCE, TABLES, Table


@dataclass(frozen=True, slots=True)
class Fields:
    """What one mapping holds."""

    document: Document
    at: At
    values: dict[str, Any] = field(default_factory=dict)
    """Those keys that are written and right."""
    places: dict[str, At] = field(default_factory=dict)
    """Those keys that are written, right or wrong."""
    mistakes: dict[str, kinds.Wrong] = field(default_factory=dict)
    """What is wrong with the others."""

    @classmethod
    def read(cls, document: Document, at: At, table: Table) -> "Fields":
        """Read a mapping. Its mistakes are not noted yet: `note_mistakes`."""
        fields = cls(document, at)
        for name, (key, node) in document.entries(at).items():
            row = table.rows.get(name)
            if row is None:
                _note_stranger(document, At(key, at.path), key, table)
                continue
            if row.own and not document.strict:
                document.strict, document.own_key = True, name
            place = at.key(name, node)
            try:
                value = row.kind.read(node)
            except kinds.Wrong as wrong:
                fields.mistakes[name] = wrong
                fields.places[name] = place
                continue
            if value is not None:
                fields.values[name] = value
                fields.places[name] = place
        return fields

    def note_mistakes(self) -> None:
        """Note what is wrong with single values."""
        for name, mistake in self.mistakes.items():
            self.document.wrong(self.places[name], str(mistake))

    def wrong(self, name: str, message: str) -> None:
        """Note an error about a key's value, or about the mapping where it is not written."""
        self.document.wrong(self.places.get(name, self.at), message)

    def odd(self, name: str, message: str) -> None:
        """Note a warning about the same."""
        self.document.odd(self.places.get(name, self.at), message)

    def on(self, name: str) -> bool:
        """True if the key is written and says true."""
        return self.values.get(name) is True


def _note_stranger(document: Document, at: At, key: Scalar, table: Table) -> None:
    name, word = shown(key), key.text
    tables = [
        other for other in TABLES.values() if word in other.rows and not (other is ITEM and word in RATE_LIMIT.rows)
    ]
    homes = " or ".join(other.place for other in tables)
    if word in REFERENCE:
        document.odd(at, f"{name} is ignored here; it belongs to {homes}, not to {table.place}")
    elif homes:
        document.wrong(at, f"{name} belongs to {homes}, not to {table.place}")
    else:
        advice = kinds.similar(word, table.rows) or f"; allowed here: {', '.join(table.rows)}"
        document.wrong(at, f"unknown key {name}{advice}")
