"""The JSON Schema and the reference page: current, and true of what the loader takes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ratelimit_svc.errors import RulesError
from ratelimit_svc.rules import page, schema
from ratelimit_svc.rules.load import RuleFile, load
from ratelimit_svc.rules.tables import TABLES

PROJECT = Path(__file__).parents[1]
GOOD = [*sorted((PROJECT / "config").glob("*.yaml"))]
BAD = [*sorted((PROJECT / "tests/data").glob("*.yaml"))]

Draft202012Validator.check_schema(schema.schema())
VALIDATOR = Draft202012Validator(schema.schema())


class Plain(yaml.SafeLoader):
    """YAML as editors see it: JSON's types, so that dates are text."""


Plain.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def refusals(document: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(document)]


def loads(data: bytes) -> bool:
    try:
        load([RuleFile("d.yaml", data)], strict=True)
    except RulesError:
        return False
    return True


def test_the_files_are_current():
    """`make docs` has been run since the tables were changed."""
    assert (PROJECT / "docs/rules.schema.json").read_text() == schema.text()
    assert (PROJECT / "docs/rules.md").read_text() == page.text()


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_the_examples_fit(file):
    """What is shown is right in an editor, too."""
    assert refusals(yaml.load(file.read_text(), Plain)) == []


CAUGHT = {
    "bad_domain_missing", "bad_key_missing", "bad_unit_unknown", "bad_requests_negative", "bad_requests_quoted", "bad_algorithm",
    "bad_per", "bad_burst_range", "bad_slices_range", "bad_replaces_text", "bad_unknown_key_rate_limit", "bad_value_float",
    "bad_refunds", "odd_shadow_mode_in_rate_limit", "odd_requests_missing", "bad_rate_limits_mapping", "bad_metadata_list",
}  # fmt: skip
"""Mistakes that an editor should underline."""


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_what_the_schema_refuses_the_loader_refuses(file):
    """And single wrong values are refused by both."""
    assert not loads(file.read_bytes())
    if file.stem in CAUGHT:
        assert refusals(yaml.load(file.read_text(), Plain))


SCALARS = st.sampled_from(
    ["a", "", None, True, False, 0, 1, 500, 501, -1, 2**32 - 1, 2**32, 1.5, "second", "MiNute", "day", "token_bucket",
     "fixed_window", "90s", "1h30m", "3650d", "0s", "1.5", "local", "Deny", "auto", "epoch", "calendar", "*", "a*", "yes", "y"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda below: st.one_of(
        st.lists(below, max_size=2),
        st.dictionaries(
            st.sampled_from(sorted({name for table in TABLES.values() for name in table.rows})), below, max_size=3
        ),
    ),
    max_leaves=6,
)


def mapping(table: str) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with keys of a table, right or wrong."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(TABLES[table].rows, VALUES))


LIMITS = st.fixed_dictionaries(
    {"requests_per_unit": st.sampled_from([0, 1, 5]), "unit": st.sampled_from(["second", "day", "Hour"])},
    optional={name: SCALARS for name in TABLES["rate_limit"].rows if name not in ("requests_per_unit", "unit", "per")},
)
DESCRIPTORS = st.fixed_dictionaries(
    {"key": st.sampled_from(["a", "b*", 7])},
    optional={
        "value": SCALARS,
        "rate_limit": st.one_of(LIMITS, mapping("rate_limit")),
        "rate_limits": st.lists(LIMITS, max_size=2),
        **dict.fromkeys(
            ("shadow_mode", "quota_mode", "share_threshold", "value_to_metric", "detailed_metric"), SCALARS
        ),
        "metadata": st.one_of(VALUES, mapping("descriptor")),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"domain": st.just("d")}, optional={"tenant": SCALARS, "descriptors": st.lists(DESCRIPTORS, max_size=2)}
)


@settings(max_examples=400, deadline=None)
@given(DOCUMENTS)
def test_what_loads_fits_the_schema(document):
    """On anything near the rule language: if the strict loader takes it, an editor does not complain."""
    if loads(json.dumps(document).encode()):
        assert refusals(document) == []


def test_the_page_has_every_key():
    """Each with its place, type, default and whose it is."""
    for table in TABLES.values():
        for name, row in table.rows.items():
            assert f"| `{name}` | {row.kind.words} |" in page.text()
