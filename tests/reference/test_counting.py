"""What is counted, and when it comes back: units, resets, windows that limits share, budgets of tokens.

The tables are histories on empty windows (`asking`). The budgets' rules are written as the reference implementation's users write
them, without a key of this project's own.
"""

import pytest

from ratelimit_svc.model import Algorithm
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.wire import rls
from tests.histories import SECOND, START
from tests.limiting import make
from tests.reference.asking import as_written, ask, asked, limiter_of, tell

SLIDING = Algorithm.SLIDING_WINDOW

SAME = {
    "limits of one path and unit share a window": """
        day=x own 9 day             → OK: OK 8/9 day
        day=x own 7 day             → OK: OK 5/7 day
        day=x                       → OK: OK 2/5 day
    """,
    "another unit is another window": """
        day=x                       → OK: OK 4/5 day
        day=x own 9 hour            → OK: OK 8/9 hour
        day=x own 9 week            → OK: OK 8/9 week
        day=x own 9 month           → OK: OK 8/9 month
        day=x own 9 year            → OK: OK 8/9 year
        day=x                       → OK: OK 3/5 day
    """,
    "values that a pattern shares count together, others alone": """
        share=f/1                   → OK: OK 3/4 day
        share=f/2                   → OK: OK 2/4 day
        share-up=f/1 > below=x      → OK: OK 3/4 day
        share-up=f/2 > below=x      → OK: OK 2/4 day
        share-up=f/2 > below=y      → OK: OK 3/4 day
        wild=xa                     → OK: OK 2/3 day
        wild=xb                     → OK: OK 2/3 day
    """,
    "a check counts nothing": """
        day=x hits 0; day=x hits 0  → OK: OK 5/5 day; OK 5/5 day
        day=x hits 0; day=x         → OK: OK 5/5 day; OK 4/5 day
        day=x; day=x hits 0         → OK: OK 3/5 day; OK 3/5 day
    """,
}


@pytest.mark.parametrize("table", SAME.values(), ids=SAME)
async def test_counts_are_the_references(table):
    """Line by line."""
    await as_written(limiter_of(), table)


async def test_keys_that_a_pattern_shares_count_together():
    """As values do. The reference shares what fits the value only, each key for itself."""
    rules = """
domain: shop
descriptors:
  - {key: "s*", share_threshold: true, rate_limit: {unit: day, requests_per_unit: 4}}
  - {key: "t*", value: "v*", share_threshold: true, rate_limit: {unit: day, requests_per_unit: 4}}
"""
    table = """
        s1=x                        → OK: OK 3/4 day
        s2=y                        → OK: OK 2/4 day
        t1=v1                       → OK: OK 3/4 day
        t1=v2                       → OK: OK 2/4 day
        t2=v1                       → OK: OK 1/4 day
    """
    await as_written(limiter_of(rules=rules), table)


SECONDS = {"minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800, "month": 30 * 86_400, "year": 365 * 86_400}


@pytest.mark.parametrize("hits", [0, 1, 5, 6])
@pytest.mark.parametrize("key", SECONDS)
async def test_a_reset_is_what_is_left_of_the_unit(key, hits):
    """In whole seconds of a clock that has no fractions: the unit less the time modulo the unit, whether it passed or not."""
    unit_s = SECONDS[key]
    for after_us in (0, 1, SECOND - 1, SECOND, 12_345_678, 59 * SECOND + 999_999):
        now = START + after_us
        answer = await ask(limiter_of(lambda now=now: now), asked(f"{key}=x hits {hits}"))
        expected = unit_s - now // SECOND % unit_s
        assert answer["statuses"][0]["durationUntilReset"] == f"{expected}s"


async def test_a_window_ends_with_its_unit(clock):
    """And the next one is empty."""
    limiter = limiter_of(clock)
    assert await tell(limiter, "minute=x hits 5") == "OK: OK 0/5 minute"
    clock.now += 60 * SECOND - 1
    assert await tell(limiter, "minute=x") == "OVER_LIMIT: OVER_LIMIT 0/5 minute"
    clock.now += 1
    assert await tell(limiter, "minute=x") == "OK: OK 4/5 minute"


# ── what differs under sliding windows ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("algorithm", "told"), [(Algorithm.FIXED_WINDOW, "OK: OK"), (SLIDING, "OVER_LIMIT: OVER_LIMIT")]
)
async def test_a_check_at_the_limit_passes_under_fixed_windows_only(algorithm, told):
    """When exactly nothing is left; while something is, it passes under both."""
    table = f"""
        day=x hits 4                → OK: OK 1/5 day
        day=x hits 0                → OK: OK 1/5 day
        day=x                       → OK: OK 0/5 day
        day=x hits 0                → {told} 0/5 day
    """
    await as_written(limiter_of(algorithm=algorithm), table)


async def test_a_sliding_windows_reset(clock):
    """Denied: until these hits would fit. Passed: until the window is empty, here a slice (1 s) more than its minute."""
    limiter = limiter_of(clock, algorithm=SLIDING)

    async def reset(text: str) -> str:
        return str((await ask(limiter, asked(text)))["statuses"][0]["durationUntilReset"])

    assert await reset("minute=x hits 3") == "61s"
    clock.now += 20 * SECOND
    assert await reset("minute=x hits 2") == "61s"
    clock.now += 1
    assert await reset("minute=x hits 3") == "41s"
    assert await reset("minute=x hits 4") == "61s"
    assert await reset("minute=x hits 6") == "60s"


# ── budgets of tokens ─────────────────────────────────────────────────────────────────────────────────────────────────

TOKENS = "domain: shop\ndescriptors: [{key: tokens, rate_limit: {unit: hour, requests_per_unit: 100}}]"
"""The check before a request has 0 hits, and the cost at its end (`apply_on_stream_done`) as many as it has used."""

SPENT = """
    tokens=x hits 0                 → OK: OK 100/100 hour
    tokens=x hits 60                → OK: OK 40/100 hour
    tokens=x hits 0                 → OK: OK 40/100 hour
    tokens=x hits 60                → OVER_LIMIT: OVER_LIMIT 0/100 hour
    tokens=x hits 0                 → OVER_LIMIT: OVER_LIMIT 0/100 hour
"""


async def test_the_cost_that_overspends_a_budget_counts(store, clock):
    """60 + 60 of 100: both are counted and the next check is denied, with fixed windows and sliding ones, on every store."""
    for number, algorithm in enumerate((Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW)):
        rules = load([RuleFile("r.yaml", TOKENS.encode())], algorithm=algorithm)
        limiter = make(store, clock=clock, rules=rules, encode=rls.encode, key_prefix=f"{number}:")
        await as_written(limiter, SPENT)
        counted = await tell(limiter, "tokens=x hits 0 own 1000 hour")
        assert counted == "OK: OK 880/1000 hour", algorithm
