"""Schema: the tables of keys → a JSON Schema (draft 2020-12), for editors.

Rule 1: what it refuses, the loader refuses too, where rules are read strictly. The loader knows better: what stands beside
        what, twins, what only means something elsewhere.
Rule 2: null is taken everywhere, as by the loader.
"""

import json
from typing import Any

from ratelimit_svc.rules.tables import ITEM, RATE_LIMIT, ROOT, TABLES, Row, Table

_COMPLETE = {
    RATE_LIMIT.name: (["unlimited"], ["requests_per_unit", "unit"], ["requests_per_unit", "per"]),
    ITEM.name: (["requests_per_unit", "unit"], ["requests_per_unit", "per"]),
}
"""Keys of which one group at least must be written."""


def schema() -> dict[str, Any]:
    """Return the schema of a rule file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rules of ratelimit-svc",
        **_mapping(ROOT),
        "$defs": {table.name: _mapping(table) for table in TABLES.values() if table is not ROOT},
    }


def text() -> str:
    """Return it as it is written to a file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _mapping(table: Table) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _value(row) for name, row in table.rows.items()},
    }
    if required := [name for name, row in table.rows.items() if row.required]:
        found["required"] = required
    if table.name in _COMPLETE:
        found["anyOf"] = [{"required": group} for group in _COMPLETE[table.name]]
    return found


def _value(row: Row) -> dict[str, Any]:
    whose = "Not in the reference implementation." if row.own else ""
    found: dict[str, Any] = {"description": f"{row.doc} {whose}".strip(), **row.kind.schema}
    if row.default is not None:
        found["default"] = row.default
    if row.of and "array" in found["type"]:
        found["items"] = {"$ref": f"#/$defs/{row.of}"}
    elif row.of:
        del found["type"]
        found["anyOf"] = [{"$ref": f"#/$defs/{row.of}"}, {"type": "null"}]
    return found
