"""docs/roles.md is so: every row of its tables is a request that is sent, on every store."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from ratelimit_svc.limiter.plans import Planner
from ratelimit_svc.model import (
    UNLIMITED_REMAINING,
    Algorithm,
    Charge,
    Code,
    Descriptor,
    Entry,
    Kind,
    Limit,
    Line,
    Overdraft,
    Request,
    Role,
    Rule,
    Status,
    Unit,
)
from ratelimit_svc.store import Store
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis.spread import SpreadStore
from tests.limiting import make, rules_of, sends, tell
from tests.taking import granted

PAGE = (Path(__file__).parents[1] / "docs" / "roles.md").read_text("utf-8")
HEAD = "| before | asked | answer | told | after |\n|---|---|---|---|---|\n"
LIMIT = 5


class Row(NamedTuple):
    """One row of the page, its cells as written; pytest shows it as its own id."""

    before: str
    asked: str
    answer: str
    told: str
    after: str


def rows() -> list[Row]:
    """All rows of the page's tables."""
    found = []
    for table in PAGE.split(HEAD)[1:]:
        for line in table.splitlines():
            if not line.startswith("|"):
                break
            found.append(Row(*(cell.strip() for cell in line.strip("|").split("|"))))
    return found


# ── the page's words ──────────────────────────────────────────────────────────────────────────────────────────────────

ALGORITHMS = {"fixed": Algorithm.FIXED_WINDOW, "bucket": Algorithm.TOKEN_BUCKET}
ROLES = {role.name.lower(): role for role in Role}
OVERDRAFTS = {overdraft.name.lower(): overdraft for overdraft in Overdraft}


@dataclass(frozen=True)
class Known:
    """A limit that the page speaks of."""

    rule: Rule
    counted: int
    budget: bool


def known(text: str, place: str) -> Known | None:
    """Read `budget fixed gate 4`; None for `no rule`."""
    if text == "no rule":
        return None
    if text == "unlimited":
        return Known(Rule(place, None), 0, budget=False)
    *words, counted = text.split()
    algorithm = next((ALGORITHMS[word] for word in words if word in ALGORITHMS), Algorithm.SLIDING_WINDOW)
    replaced = frozenset(word.removeprefix("replaces-") for word in words if word.startswith("replaces-"))
    name = next((word for word in words if len(word) == 1), "")
    unknown = {
        word
        for word in words
        if word not in {*ALGORITHMS, *ROLES, *OVERDRAFTS, "budget", "no-refunds", name}
        and not word.startswith("replaces-")
    }
    assert not unknown, text
    rule = Rule(
        place,
        Limit(LIMIT, Unit.MINUTE, name, algorithm=algorithm),
        role=next(ROLES[word] for word in words if word in ROLES),
        overdraft=next((OVERDRAFTS[word] for word in words if word in OVERDRAFTS), Overdraft.AUTO),
        refunds="no-refunds" not in words,
        replaces=replaced,
    )
    return Known(rule, int(counted), budget="budget" in words)


def limits_of(text: str) -> list[list[Known]]:
    """Read the cell `before`: a list of limits for each descriptor. Limits of one descriptor differ in their periods."""
    found = []
    for place, descriptor in enumerate(text.split(";")):
        read = [known(one.strip(), f"shop/d{place}#{number}") for number, one in enumerate(descriptor.split("+"))]
        several = [one for one in read if one is not None]
        found.append([_of_period(one, number + 1) for number, one in enumerate(several)])
    return found


def _of_period(one: Known, minutes: int) -> Known:
    """The limit with a period of its own, so that it has a window of its own."""
    limit = one.rule.limit
    return one if limit is None else replace(one, rule=replace(one.rule, limit=replace(limit, multiplier=minutes)))


def in_words(status: Status) -> str:
    """A status as the page writes it."""
    if status.limit is None:
        return "OK, no end" if status.remaining == UNLIMITED_REMAINING else status.code.name
    return f"{status.code.name}, {status.remaining} left"


# ── what is before, and after ─────────────────────────────────────────────────────────────────────────────────────────


def charges_of(planner: Planner, place: int) -> tuple[Charge, ...]:
    """What a plain request of one descriptor is charged."""
    return planner.plan(Request("shop", (Descriptor((Entry(f"d{place}", "x"),)),))).charges


async def fill(store: Store, planner: Planner, limits: list[list[Known]]) -> None:
    """Make the windows as the row wants them."""
    for place, several in enumerate(limits):
        counted = {one.rule.id: one for one in several}
        for charge in charges_of(planner, place):
            one = counted[charge.rule.id]
            plain = charge._replace(role=Role.GATE)
            check = plain._replace(kind=Kind.CHECK, hits=0, overdraft=Overdraft.AUTO)
            hits = plain._replace(hits=one.counted, overdraft=Overdraft.ALWAYS)
            made = [*([check] if one.budget else []), *([hits] if one.counted else [])]
            await store.take([Line((each,), 1) for each in made])


async def counted(store: Store, planner: Planner, limits: list[list[Known]]) -> str:
    """What the windows hold, as the page writes it."""
    return "; ".join([await _counted(store, planner, place, several) for place, several in enumerate(limits)])


async def _counted(store: Store, planner: Planner, place: int, several: list[Known]) -> str:
    most, held = 2**31, {}
    for charge in charges_of(planner, place):
        check = charge._replace(role=Role.GATE, kind=Kind.CHECK, hits=0, limit=most, overdraft=Overdraft.NEVER)
        (grant,) = await granted(store.take([Line((check,), 1)]))
        held[charge.rule.id] = most - grant.outcomes[0].remaining
    return " + ".join(str(held[one.rule.id]) for one in several if one.rule.id in held) or "-"


async def run(store: Store, row: Row, prefix: str = "") -> Row:
    """Send the row's request, and return the row as it should be written."""
    limits = limits_of(row.before)
    rules = rules_of(*(tuple(one.rule for one in several) for several in limits))
    planner = Planner(rules, prefix)
    await fill(store, planner, limits)
    limiter = make(store, rules=rules, key_prefix=prefix)
    verdict = await tell(limiter, sends(*(f"d{place} {one.strip()}" for place, one in enumerate(row.asked.split(";")))))
    told = "; ".join(map(in_words, verdict.statuses))
    return Row(row.before, row.asked, verdict.code.name, told, await counted(store, planner, limits))


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.before} asked {row.asked}")
async def test_the_page_is_so(clock, row):
    """What the row says is answered, told and counted."""
    assert await run(MemoryStore(clock), row) == row


async def test_the_page_is_so_on_every_store(store):
    """All rows, each with windows of its own."""
    expected = [on_several(row) for row in rows()] if isinstance(store, SpreadStore) else rows()
    assert [await run(store, row, f"{number}:") for number, row in enumerate(rows())] == expected


def on_several(row: Row) -> Row:
    """What differs where a request's windows are in several places: what is left where it had overdrawn and was undone."""
    if (row.before, row.asked) == ("budget gate 4; gate 4", "3; 3"):
        return row._replace(told="OVER_LIMIT, 0 left; OVER_LIMIT, 1 left")
    return row


def test_every_role_kind_and_overdraft_stands_on_the_page():
    """With room and without; and whoever is denied has charged nothing."""
    seen = {(word, kind_of(row.asked), row.answer) for row in rows() for word in ROLES if word in row.before}
    wanted = {(role, kind, "OK") for role in ROLES for kind in ("hits", "check", "refund")}
    wanted |= {(role, kind, Code.OVER_LIMIT.name) for role in ("gate", "quota") for kind in ("hits", "check")}
    assert wanted <= seen
    for word in (*ALGORITHMS, *ROLES, "never", "always", "budget", "no-refunds"):
        assert any(word in row.before.split() for row in rows()), word
    assert len(rows()) == len(set(rows())) > 80


def kind_of(asked: str) -> str:
    """The kind of a row that asks for one thing only."""
    return next((kind for kind in ("check", "refund") if set(re.findall(r"[a-z]+", asked)) == {kind}), "hits")


def words_of(page: str) -> Iterator[Mapping[str, str]]:
    """The rows of the page's list of words."""
    for line in re.findall(r"^\| ([a-z]+) \| ([^|]+) \|$", page, re.MULTILINE):
        yield dict(zip(("word", "meaning"), line, strict=True))


def test_every_word_is_explained_and_used():
    """The list of words at the page's head has those that the tables use."""
    explained = {row["word"] for row in words_of(PAGE)}
    assert {"role", "gate", "quota", "shadow", "kind", "hits", "check", "refund", "overdraft", "budget"} <= explained
