"""Each difference from the reference implementation that docs/migration.md names has a test, and that test exists."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs/migration.md").read_text()
HEADING = ["the reference", "here", "why", "test"]


class Difference(NamedTuple):
    """One row of the page's tables."""

    reference: str
    here: str
    why: str
    tests: list[str]
    """Each `tests/….py::test_name`."""


def differences() -> list[Difference]:
    """Every row of every table of differences."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in PAGE.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    return [
        Difference(reference, here, why, re.findall(r"`(tests/[^`]+)`", tests))
        for reference, here, why, tests in (row for row in rows if len(row) == len(HEADING) and row != HEADING)
    ]


def names_in(path: str) -> set[str]:
    """The names of a file's tests."""
    tree = ast.parse((PROJECT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("difference", differences(), ids=lambda difference: difference.reference[:50])
def test_a_difference_says_all_and_names_a_test_that_exists(difference):
    """What the reference does, what happens here, why; and which test shows it."""
    assert all((difference.reference, difference.here, difference.why, difference.tests)), difference
    for test in difference.tests:
        path, _, name = test.partition("::")
        assert name in names_in(path), test


def test_every_table_is_one_of_differences():
    """A row with a bar too many, or too few, is no row of ours."""
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith("|---")]
    assert len(rows) == len(differences()) + rows.count("| " + " | ".join(HEADING) + " |")
