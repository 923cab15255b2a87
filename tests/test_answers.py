"""ghz's log read: who was admitted and who denied, from the bodies, and nothing counted that is not whole."""

import json

import pytest

from ratelimit_svc.demo.answers import COLUMNS, read, report

OK, OVER = "OK", "OVER_LIMIT"


def sent(at_ms, worker="g0c0"):
    """The line that ghz writes when it sends a request."""
    return json.dumps({"time": time(at_ms), "message": "Making request", "workerID": worker, "input": []})


def time(at_ms):
    """A time as ghz writes it, with nanoseconds."""
    return f"2026-01-01T00:00:{at_ms // 1000:02}.{at_ms % 1000:03}000999Z"


def answered(at_ms, code=OK, *, tenant="a", worker="g0c0", limit=2, unit="SECOND", error=None):
    """The line that it writes when it has the answer."""
    status = {"code": code, "currentLimit": {"requestsPerUnit": limit, "unit": unit}}
    line = {
        "time": time(at_ms),
        "message": "Received response",
        "workerID": worker,
        "input": json.dumps({"domain": "shop", "descriptors": [{"entries": [{"key": "tenant", "value": tenant}]}]}),
        "response": json.dumps({"overallCode": code, "statuses": [status]}),
        "error": error,
    }
    return json.dumps(line)


def asked(*answers, prefix="", count=None):
    """A whole log: each answer 10 ms after its request, and the report at the end."""
    lines = []
    for at_ms, code in answers:
        lines += [sent(at_ms), answered(at_ms + 10, code)]
    lines += ["Summary:", f"  Count:\t{len(answers) if count is None else count}", "  Total:\t12.00 s"]
    return [f"{prefix}{line}\n" for line in lines]


def test_bodies_are_counted_and_judged():
    """Admitted and denied by their bodies; the fullest window is of those that lie wholly in it."""
    one = read(asked((0, OK), (100, OK), (200, OVER), (1050, OK)))["a"]
    assert (one.asked, len(one.admitted), one.denied, one.errors) == (4, 3, 1, 0)
    assert (one.fullest(), one.limit(), one.held(), one.slowest_us) == (2, 2, True, 10_000)


def test_a_window_that_is_too_full_is_seen():
    """Three within a second are one more than the limit, and the report names who got it."""
    answers = read(asked((0, OK), (100, OK), (980, OK)))
    assert not answers["a"].held()
    assert report(answers).endswith("over the limit: a")


def test_errors_are_neither_admitted_nor_denied():
    """An answer that never came counts as an error, and is shown as one."""
    lines = [sent(0), answered(10, error={"code": 4}), "  Count:\t1"]
    one = read(lines)["a"]
    assert (one.asked, one.errors, one.limit()) == (1, 1, None)
    assert report({"a": one}).splitlines()[1].split()[:5] == ["a", "1", "0", "0", "1"]


def test_runs_that_follow_each_other_are_added():
    """A container that is started again goes on in its log."""
    assert read([*asked((0, OK)), *asked((2000, OK), (2100, OVER))])["a"].asked == 3


def test_several_ghz_are_told_apart():
    """Workers of the same name in several containers have nothing to do with each other."""
    first, second = asked((0, OK), prefix="load-1  | "), asked((5, OVER), prefix="load-2  | ")
    mixed = [line for pair in zip(first, second, strict=True) for line in pair]
    one = read(["not of ghz {\n", *mixed])["a"]
    assert (len(one.admitted), one.denied) == (1, 1)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (asked((0, OK), count=2), "ghz logged 1 answers and reports 2"),
        (asked((0, OK))[:2], "ghz logged 1 answers and reports 0"),
        (asked((0, OK), prefix="load-3 | ", count=9), "load-3 logged 1 answers and reports 9"),
        ([answered(10)], "ghz did not log every request: it asks too fast for its log"),
        ([sent(0), answered(10, "UNKNOWN")], "neither admitted nor denied"),
    ],
)
def test_what_is_not_whole_is_refused(lines, why):
    """A count that may be too small is no count: ghz drops lines when it asks too fast."""
    with pytest.raises(ValueError, match=why):
        read(lines)


def test_limits_that_differ_are_judged_by_the_highest():
    """Rules that were edited meanwhile: the window is known, and the highest limit is the bound."""
    lines = [sent(0), answered(1, limit=2), sent(2), answered(3, limit=9), "Count: 2"]
    one = read(lines)["a"]
    assert (one.limit(), one.fullest()) == (9, 2)


def test_windows_of_unknown_length_are_not_judged():
    """Two units, or one that has no length here, are shown with a question mark, and accuse nobody."""
    lines = [sent(0), answered(1, unit="MONTH", limit=0), "Count: 1"]
    answers = read(lines)
    assert (answers["a"].fullest(), answers["a"].held()) == (None, True)
    assert report(answers).splitlines()[1].split()[-2:] == ["?", "0"]


def test_what_protobuf_leaves_out_is_zero():
    """A limit of nothing is written without its number."""
    line = json.loads(answered(1, OVER))
    line["response"] = json.dumps({"overallCode": OVER, "statuses": [{"code": OVER, "currentLimit": {"unit": "DAY"}}]})
    assert read([sent(0), json.dumps(line), "Count: 1"])["a"].limits == {(0, "DAY")}


def test_the_report_is_a_table():
    """One row a tenant, below the names of the columns; without answers it says what is missing."""
    lines = report(read(asked((0, OK), (1, OVER)))).splitlines()
    assert lines[0].split("  ") == [name for name in lines[0].split("  ") if name.strip() in COLUMNS]
    assert lines[-1] == "every limit was held"
    assert report({}).endswith("no answers here: is this the output of ghz --debug stdout?")
