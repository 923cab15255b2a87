"""A short chaos run, and its report."""

import re
from xml.etree import ElementTree as ET

import pytest

from tests.outages import report
from tests.outages.chaos import Outcome, Verdict, chaos
from tests.outages.schedule import Kind, lanes

SEED, SECONDS = 11, 22


@pytest.mark.slow
async def test_every_invariant_holds_in_a_short_run(tmp_path):
    """The one of `make chaos`, with fewer faults."""
    outcome = await chaos(tmp_path, seed=SEED, seconds=SECONDS)
    assert {one.name: one.findings for one in outcome.verdicts() if one.findings} == {}
    planned = [fault for lane in lanes(SEED, SECONDS, 5) for fault in lane]
    assert {one.fault for one in outcome.happened} == set(planned)
    assert len(outcome.calls) > 1000
    of_the_page(outcome)


def of_the_page(outcome: Outcome) -> None:
    """The table has a row of each verdict, the picture a mark of each fault, and the numbers are the run's."""
    page = report.page(outcome)
    for verdict in outcome.verdicts():
        assert f"| {verdict.name} | {verdict.judged} | yes |" in page
    picture = ET.fromstring(report.picture(outcome))
    titles = [title.text or "" for title in picture.iter("{http://www.w3.org/2000/svg}title")]
    for one in outcome.happened:
        assert report.words(one) in titles
    words = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {*report.NAMES, *(kind.name.lower() for kind in Kind)} <= words
    (asked,) = re.findall(r"([\d,]+) asked", page)
    assert abs(int(asked.replace(",", "")) - len(outcome.calls)) < len(outcome.calls) / 100
    counts = report.per_second(outcome)
    assert sum(counts["passed"]) + sum(counts["limited"]) <= sum(counts["asked"])
    assert sum(counts["by policy"]) > 0


def test_what_is_found_wrong_is_on_the_page():
    """Below the table, which says that it does not hold."""
    table = report.table([Verdict("no error", "3 calls", ["errors: one"]), Verdict("late", "3 calls", [])])
    assert "| no error | 3 calls | no |" in table
    assert table.endswith("- errors: one")
