"""What ghz was answered, read out of the bodies: ghz itself counts a denial as OK.

    docker compose logs load | docker compose exec -T ratelimit python -m ratelimit_svc.demo.answers

`ghz --debug stdout` writes a line in JSON when it sends a request and one when it has the answer, with the time and the
whole message. Each answer names the limit it was judged by, so the bodies alone say whether every tenant was held to it.

Rule 1: a line that is none of ghz's is passed over; one of its own that cannot be read is an error.
Rule 2: a count is whole, or an error. ghz keeps the first hundred lines of a kind in a second and drops most of the rest,
        so each ghz must ask slower than that; its report at the end says how many there should be.
Rule 3: which request an answer is for is known by ghz's worker: each has one request on its way at a time.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ratelimit_svc.demo.proof import Hit, fullest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_US = 1_000_000
WINDOWS_US = {"SECOND": SECOND_US, "MINUTE": 60 * SECOND_US, "HOUR": 3600 * SECOND_US, "DAY": 86_400 * SECOND_US}
"""The windows whose fullness can be judged, by the name of their unit."""
_COUNT = re.compile(r"(.*?)[ |]*Count:\s+(\d+)\s*")


@dataclass(slots=True)
class Answers:
    """What one tenant's requests were answered."""

    admitted: list[Hit] = field(default_factory=list)
    denied: int = 0
    errors: int = 0
    limits: set[tuple[int, str]] = field(default_factory=set)
    """Every limit that an answer named: requests in a unit. More than one, if the rules were edited meanwhile."""
    slowest_us: int = 0

    @property
    def asked(self) -> int:
        """How many requests were answered, or failed."""
        return len(self.admitted) + self.denied + self.errors

    def fullest(self) -> int | None:
        """Return the most that were certainly admitted in one window; None where the answers do not say which window."""
        lengths = {WINDOWS_US.get(unit) for _, unit in self.limits}
        length = lengths.pop() if len(lengths) == 1 else None
        return fullest(self.admitted, length) if length else None

    def limit(self) -> int | None:
        """Return the highest limit that an answer named."""
        return max((most for most, _ in self.limits), default=None)

    def held(self) -> bool:
        """Say whether no window certainly held more than the limit."""
        seen, limit = self.fullest(), self.limit()
        return seen is None or limit is None or seen <= limit


@dataclass(slots=True)
class _Ghz:
    """One ghz, as far as its log was read."""

    sent_us: dict[str, int] = field(default_factory=dict)
    """When each worker sent what it has on its way."""
    answered: int = 0
    reported: int = 0
    """How many answers its report says it had; of several runs in one log, those of all."""


def read(lines: Iterable[str]) -> dict[str, Answers]:
    """Return the answers of every tenant: of every value in the last entry of a request; ValueError if any are missing.

    Lines may be of several ghz, with the prefix by which Compose tells containers apart.
    """
    sources: dict[str, _Ghz] = {}
    answers: dict[str, Answers] = {}
    for line in lines:
        source, event = _event(line)
        ghz = sources.setdefault(source, _Ghz())
        if event.get("message") == "Making request":
            ghz.sent_us[event["workerID"]] = _microseconds(event["time"])
        elif event.get("message") == "Received response":
            if (sent_us := ghz.sent_us.pop(event["workerID"], None)) is None:
                raise ValueError(f"{source or 'ghz'} did not log every request: it asks too fast for its log")
            ghz.answered += 1
            tenant = json.loads(event["input"])["descriptors"][0]["entries"][-1]["value"]
            _add(answers.setdefault(tenant, Answers()), Hit(sent_us, _microseconds(event["time"])), event)
        elif "Count" in event:
            ghz.reported += event["Count"]
    for source, ghz in sources.items():
        if ghz.answered != ghz.reported:
            raise ValueError(
                f"{source or 'ghz'} logged {ghz.answered} answers and reports {ghz.reported}: is it at its end?"
            )
    return answers


def _event(line: str) -> tuple[str, Mapping[str, Any]]:
    """Whose line it is, and what it says: one in JSON, or the count in the report's summary. Nothing for any other."""
    if count := _COUNT.fullmatch(line):
        return count[1], {"Count": int(count[2])}
    before, brace, after = line.partition("{")
    try:
        return before.rstrip(" |"), json.loads(brace + after)
    except ValueError:
        return "", {}


def _microseconds(time: str) -> int:
    """RFC 3339 as µs since 1970."""
    return (datetime.fromisoformat(time) - EPOCH) // timedelta(microseconds=1)


def _add(answers: Answers, flight: Hit, event: Mapping[str, Any]) -> None:
    answers.slowest_us = max(answers.slowest_us, flight.answered_us - flight.sent_us)
    if event["error"] is not None:
        answers.errors += 1
        return
    body = json.loads(event["response"])
    code = body.get("overallCode")  # protobuf's JSON leaves out what is zero
    for status in body.get("statuses", ()):
        if (limit := status.get("currentLimit")) is not None:
            answers.limits.add((limit.get("requestsPerUnit", 0), limit.get("unit", "UNKNOWN")))
    if code == "OK":
        answers.admitted.append(flight)
    elif code == "OVER_LIMIT":
        answers.denied += 1
    else:
        raise ValueError(f"neither admitted nor denied: {body}")


COLUMNS = ("tenant", "asked", "admitted", "denied", "errors", "slowest", "fullest window", "limit")


def report(answers: Mapping[str, Answers]) -> str:
    """Return a table for people, and below it whether every limit was held."""
    rows = [COLUMNS, *(_row(tenant, one) for tenant, one in sorted(answers.items()))]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    over = [tenant for tenant, one in sorted(answers.items()) if not one.held()]
    verdict = f"over the limit: {', '.join(over)}" if over else "every limit was held"
    return "\n".join([*table, "", verdict if answers else "no answers here: is this the output of ghz --debug stdout?"])


def _row(tenant: str, one: Answers) -> tuple[str, ...]:
    numbers = (one.asked, len(one.admitted), one.denied, one.errors)
    judged = ("?" if number is None else str(number) for number in (one.fullest(), one.limit()))
    return (tenant, *(str(number) for number in numbers), f"{one.slowest_us / 1000:.0f} ms", *judged)


if __name__ == "__main__":
    try:
        print(report(read(sys.stdin)))
    except ValueError as why:
        sys.exit(str(why))
