"""What `/debug/compare` shows, ready for JSON. Any thread may make it: it looks, and changes nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from ratelimit_svc.limiter.comparison import Comparison, RuleComparison
from ratelimit_svc.limiter.comparison.differences import MINUTES, ONLY_COMPARED, ONLY_ENFORCED, Differences, Example
from ratelimit_svc.metrics.counts import Compared
from ratelimit_svc.model import MICROSECONDS
from ratelimit_svc.rules.words import in_words

Told = dict[str, Any]


def describe(comparison: Comparison, *, rule: str = "", most: int = 50) -> Told:
    """Return what is known.

    Args:
        comparison: all of it.
        rule: of the rule with this id only; empty: of all, those first that differ most often.
        most: of so many rules.
    """
    now_us = comparison.clock()
    known = list(comparison.rules.items())  # a copy: the loop may add a rule meanwhile
    wanted = [each for each in known if not rule or each[0] == rule]
    wanted.sort(key=lambda each: _differing(each[1].counts), reverse=True)
    return {
        "since": _time(comparison.since_us),
        "rules_compared": len(known),
        "rules": [{"rule": name} | _rule(each, now_us) for name, each in wanted[:most]],
    }


def _rule(known: RuleComparison, now_us: int) -> Told:
    requests = sum(asdict(known.counts).values())
    told: Told = {
        "algorithm": known.limit.algorithm.name.lower(),
        "compared": known.compared.algorithm.name.lower(),
        "limit": in_words(known.limit),
        "compared_limit": in_words(known.compared),
        "since": _time(known.since_us),
        "requests": requests,
        **asdict(known.counts),
        "differ": round(_differing(known.counts) / requests, 6) if requests else 0.0,
        "without_store": known.without_store,
    }
    return told if known.differences is None else told | _differences(known.differences, now_us)


def _differing(counts: Compared) -> int:
    return counts.only_enforced_denies + counts.only_compared_denies


def _differences(found: Differences, now_us: int) -> Told:
    return {
        "first_difference": _time(found.first_us),
        "last_difference": _time(found.last_us),
        "by_part_of_window": [_columns(part) for part in found.parts],
        "by_minute": list(_minutes(found.minutes.slots(now_us / MICROSECONDS), now_us)),
        "examples": [_example(each) for each in reversed(list(found.examples))],
    }


def _minutes(slots: Iterable[list[int]], now_us: int) -> Iterator[Told]:
    """Yield the minutes in which they differed, the oldest first."""
    present = datetime.fromtimestamp(now_us // (60 * MICROSECONDS) * 60, UTC)
    for place, slot in enumerate(slots):
        if any(slot):
            minute = present - timedelta(minutes=MINUTES - 1 - place)
            yield {"minute": minute.isoformat(timespec="minutes")} | _columns(slot)


def _columns(counts: list[int]) -> Told:
    return {"only_enforced_denies": counts[ONLY_ENFORCED], "only_compared_denies": counts[ONLY_COMPARED]}


def _example(example: Example) -> Told:
    return {
        "at": _time(example.at_us),
        "decision": "only_compared_denies" if example.only_compared else "only_enforced_denies",
        "tenant": example.tenant,
        "entries": list(example.entries),
    }


def _time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / MICROSECONDS, UTC).isoformat(timespec="milliseconds")
