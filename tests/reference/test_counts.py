"""What is counted under the reference implementation's names: of which key, how many hits, by its arithmetic, and bounded."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.metrics.reference import LONGEST_KEY, KeyCounts, ReferenceCounts, near_limit
from ratelimit_svc.metrics.stats import Counter, stats
from ratelimit_svc.model import Algorithm, Charge, Grant, Limit, Line, Outcome, Plan, Role, Rule, Unit
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.wire import rls
from tests.histories import START
from tests.limiting import make, settled, tell
from tests.reference.asking import asked
from tests.waiting import until

RULES = """
domain: shop
descriptors:
  - {key: day, rate_limit: {unit: day, requests_per_unit: 10}}
  - {key: tight, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: quota, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: ours, rate_limits: [{unit: minute, requests_per_unit: 5}, {unit: day, requests_per_unit: 50, name: daily}]}
  - {key: detailed, detailed_metric: true, rate_limits: [{unit: minute, requests_per_unit: 5}, {unit: day, requests_per_unit: 50}]}
  - {key: "wk*", rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: error, rate_limit: {unit: day, requests_per_unit: 5, on_store_failure: error}}
  - {key: allow, rate_limit: {unit: day, requests_per_unit: 5, on_store_failure: allow}}
  - {key: deny, rate_limit: {unit: day, requests_per_unit: 5, on_store_failure: deny}}
"""

LETTERS = {
    "total": "total_hits",
    "over": "over_limit",
    "near": "near_limit",
    "cached": "over_limit_with_local_cache",
    "within": "within_limit",
    "shadow": "shadow_mode",
    "back": "total_negative_hits",
    "unknown": "domain_not_found",
}


def limiter_of(store=None, *, counts: ReferenceCounts | None = None, **options) -> Limiter:
    """A limiter that counts what the reference implementation counts."""
    metrics = Metrics()
    metrics.reference = counts or ReferenceCounts()
    return make(store or MemoryStore(lambda: START), rules=RULES, metrics=metrics, **options)


def data(text: str) -> bytes:
    return rls.request_from_json(json.dumps(asked(text)).encode())


async def counted(limiter: Limiter, *requests: str) -> dict[str, str]:
    """Ask, and return what is counted of each key: `total 3 within 2 over 1`."""
    for text in requests:
        with suppress(RateLimitError):
            await tell(limiter, data(text))
    await settled(limiter)
    await until(lambda: not limiter._uncounted)
    assert limiter._metrics.reference is not None
    return {
        key: words(counts) for key, counts in limiter._metrics.reference.keys.items() if any(asdict(counts).values())
    }


def words(counts: KeyCounts) -> str:
    return " ".join(f"{word} {number}" for word, name in LETTERS.items() if (number := getattr(counts, name)))


# ── arithmetic ────────────────────────────────────────────────────────────────────────────────────────────────────────


def plan_of(limit: int, hits: int, role: Role = Role.GATE) -> tuple[Plan, KeyCounts]:
    """The plan of one charge, and where it is counted."""
    rule = Rule("shop/a", Limit(limit, Unit.DAY), role=role, levels=("a",))
    charge = Charge(b"a", Algorithm.SLIDING_WINDOW, limit, 86_400_000_000, 60, hits, role, rule)
    counts = KeyCounts()
    return Plan(((0,),), (charge,), coalesces=True, on_store_failure=rule.on_store_failure, counted=(counts,)), counts


@pytest.mark.parametrize(
    ("hits", "after", "limit", "expected"),
    [
        (3, 5, 20, "total 3 within 3"),
        (2, 7, 8, "total 2 near 1 within 2"),
        (3, 19, 20, "total 3 near 3 within 3"),
        (3, 22, 20, "total 3 over 2 near 1"),
        (7, 22, 20, "total 7 over 2 near 4"),
        (3, 30, 10, "total 3 over 3"),
    ],
)
def test_near_the_limit(hits: int, after: int, limit: int, expected: str) -> None:
    """The reference's own vectors: so many hits bring the window to so much."""
    plan, counts = plan_of(limit, hits)
    if after <= limit:
        ReferenceCounts().granted(plan, Grant(1, (Outcome(limit - after, 1, 0),)), 1)
    else:
        ReferenceCounts().denied(plan, Grant(0, (Outcome(max(0, limit - after + hits), 1, 1),)), 1)
    assert words(counts) == expected


def test_a_quota_that_denies_nobody_is_no_shadow() -> None:
    """Under QUOTA_MODE, beside a descriptor that no rule has, it is looked at as a shadow is, and counted as a quota."""
    plan, counts = plan_of(2, 3, Role.QUOTA)
    plan.charges = (plan.charges[0]._replace(role=Role.SHADOW),)
    ReferenceCounts().granted(plan, Grant(1, (Outcome(1, 1, 1),)), 1)
    assert words(counts) == "total 3 over 2 near 1"


@pytest.mark.parametrize(
    ("limit", "ratio", "near"),
    [
        (10, 0.8, 8),
        (14, 0.8, 11),
        (0, 0.8, 0),
        (1, 0.8, 0),
        (100, 0.7, 70),
        (10, 0.3, 3),
        (2**32 - 1, 0.8, 3435973888),
        (16777217, 1.0, 16777216),
    ],
)
def test_near_the_limit_begins_where_numbers_of_32_bits_say(limit: int, ratio: float, near: int) -> None:
    """The limit, the ratio and their product are rounded to 32 bits each."""
    assert near_limit(limit, ratio) == near


BATCHES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 7)), min_size=1, max_size=12)


@given(
    batches=BATCHES,
    limit=st.integers(0, 60),
    role=st.sampled_from([Role.GATE, Role.SHADOW]),
    ratio=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
)
def test_a_line_counts_as_its_requests_one_by_one(
    batches: Sequence[tuple[int, int]], limit: int, role: Role, ratio: float
) -> None:
    """However requests are put together, the sums are those of the reference's formula for each of them."""
    store, counts = MemoryStore(lambda: START), ReferenceCounts(near_limit_ratio=ratio)
    expected, held, seen = KeyCounts(), 0, KeyCounts()
    for n, hits in batches:
        together = n if role is Role.GATE and hits else 1
        plan, _ = plan_of(limit, hits, role)
        plan.counted = (seen,)
        for _ in range(n // together):
            (grant,) = store.take_now([Line(plan.charges, together)])
            counts.settled(plan, grant, grant.granted, [0.0] * together, 0.0)
        for _ in range(n):
            held += one_by_one(expected, held, hits, limit, near_limit(limit, ratio), shadow=role is Role.SHADOW)
    assert words(seen) == words(expected)


def one_by_one(counts: KeyCounts, before: int, hits: int, limit: int, near: int, *, shadow: bool) -> int:
    """The reference's formula for one request that meets a window of so much; return what it is charged."""
    after = before + hits
    counts.total_hits += hits
    if after <= limit:
        counts.within_limit += hits
        counts.near_limit += hits if before >= near else max(0, after - near)
        return hits
    over = hits if before >= limit else after - limit
    if before < limit:
        counts.near_limit += limit - max(near, before)
    counts.over_limit += over
    counts.shadow_mode += over if shadow else 0
    return 0


# ── which key ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_several_limits_of_one_descriptor_have_a_key_each() -> None:
    """The reference has one limit there; of ours each is counted by its name, or number, and none twice."""
    assert await counted(limiter_of(), "ours=x", "detailed=v") == {
        "shop.ours_1": "total 1 within 1",
        "shop.ours_daily": "total 1 within 1",
        "shop.detailed_v_1": "total 1 within 1",
        "shop.detailed_v_2": "total 1 within 1",
    }


async def test_a_star_in_a_key_is_a_star_in_the_metric() -> None:
    """The reference puts the request's own key there (`wkfoo_wk*`): callers would choose names."""
    assert await counted(limiter_of(), "wkfoo=bar") == {"shop.wk*": "total 1 within 1"}


async def test_an_empty_value_is_none() -> None:
    """The reference ends a key in `_` there, with `detailed_metric` only."""
    assert set(await counted(limiter_of(), "detailed=")) == {"shop.detailed_1", "shop.detailed_2"}


async def test_no_line_can_be_smuggled_in() -> None:
    """What ends a name or a line in statsd's protocol stands in no key."""
    limiter = limiter_of()
    await tell(limiter, data("detailed=VALUE").replace(b"VALUE", b"1|c\n:"))
    assert set(await counted(limiter)) == {"shop.detailed_1_c___1", "shop.detailed_1_c___2"}


async def test_keys_are_bounded_whatever_callers_send() -> None:
    """Values, limits brought along and unknown domains: beyond their number the rule's own key counts, or one for all others."""
    limiter = limiter_of(counts=ReferenceCounts(most_callers_keys=50))
    asked = [f"own=x{n} own 5 day" for n in range(200)]
    found = await counted(
        limiter, *asked, *(f"day=x{n} own 5 day" for n in range(100)), *(f"@no{n} a=b" for n in range(100))
    )
    assert len(found) == 50 + 3
    assert found["shop.other"] == "total 150 within 150"
    assert found["shop.day"] == "total 100 within 100"
    assert found["other"] == "unknown 100"
    found = await counted(limiter, "tight=1")  # rules have room of their own
    assert (found["shop.tight"], len(found)) == ("total 1 within 1", 50 + 4)


async def test_a_key_that_callers_make_very_long_is_none() -> None:
    """Also while there is room: the rule's own key counts."""
    found = await counted(limiter_of(), f"detailed={'x' * LONGEST_KEY}")
    assert found == dict.fromkeys(("shop.detailed_1", "shop.detailed_2"), "total 1 within 1")


async def test_keys_of_rules_are_bounded() -> None:
    """Rules beyond the number that is counted by their keys are counted together."""
    limiter = limiter_of(counts=ReferenceCounts(most_keys=2))
    found = await counted(limiter, "day=x", "tight=x", "trial=x", "quota=x")
    assert found == {
        "shop.day": "total 1 within 1",
        "shop.tight": "total 1 within 1",
        "other.other": "total 2 within 2",
    }


# ── what else happens ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_in_a_denied_request_each_descriptor_is_counted_by_itself() -> None:
    """What fits is within its limit although nothing is charged, as in the reference, which charges it."""
    found = await counted(limiter_of(), "hits 2: tight=x", "hits 3: tight=x; day=x", "hits 3: tight=x; day=x")
    assert found == {"shop.tight": "total 8 over 6 near 1 within 2", "shop.day": "total 6 within 6"}


async def test_checks_count_nothing() -> None:
    """They have no hits, whether they pass or not."""
    found = await counted(limiter_of(), "tight=x hits 0", "hits 2: tight=x", "tight=x hits 0")
    assert found == {"shop.tight": "total 2 near 1 within 2"}


async def test_refunds_are_counted_apart() -> None:
    """By the name that the reference has given them since."""
    limiter = limiter_of()
    message = rls.request_from_json(
        json.dumps(
            {**asked("day=x"), "descriptors": [{**asked("day=x hits 3")["descriptors"][0], "isNegativeHits": True}]}
        ).encode()
    )
    await tell(limiter, message)
    assert await counted(limiter, "hits 4: day=x") == {"shop.day": "total 4 within 4 back 3"}


async def test_a_budgets_overspending_cost_is_over_its_limit() -> None:
    """A cost that was known only afterwards is charged and told OVER_LIMIT: what is beyond the limit is over it, as there."""
    found = await counted(limiter_of(), "day=x hits 0", "hits 6: day=x", "hits 6: day=x", "day=x")
    assert found == {"shop.day": "total 13 over 3 near 2 within 6"}


@pytest.mark.parametrize(
    ("local_cache", "expected"),
    [(False, "total 5 over 3 near 1 within 2"), (True, "total 5 over 3 near 1 cached 2 within 2")],
)
async def test_what_is_denied_from_memory_is_counted_as_if_the_store_had(local_cache: bool, expected: str) -> None:  # noqa: FBT001
    """Of what is over its limit, but for the number that tells of a local cache; what was not asked counts as within."""
    counts = ReferenceCounts(local_cache=local_cache)
    limiter = limiter_of(counts=counts, denial_memory_keys=100)
    found = await counted(limiter, *["tight=x"] * 3, *["tight=x; day=x"] * 2)
    assert limiter._metrics.denied_from_memory == 2
    assert found == {"shop.tight": expected, "shop.day": "total 2 within 2"}


async def test_without_the_store_hits_are_counted_and_what_the_local_share_says(held) -> None:
    """The reference answers an error, and counts hits only: so it is here, but what this replica decides itself is told."""
    held.away = True
    limiter = limiter_of(held, replicas=2)
    found = await counted(limiter, *["tight=x"] * 3, "error=x", "allow=x", "deny=x", "day=x; allow=x")
    assert found == {
        "shop.tight": "total 3 over 2 near 1 within 1",
        "shop.error": "total 1",
        "shop.allow": "total 2",
        "shop.deny": "total 1",
        "shop.day": "total 1 within 1",
    }


async def test_without_the_store_a_budgets_share_is_overdrawn_likewise(held) -> None:
    """Only what is beyond the share is over it."""
    held.away = True
    found = await counted(limiter_of(held), "day=x hits 0", "hits 6: day=x", "hits 6: day=x")
    assert found == {"shop.day": "total 12 over 2 near 2 within 6"}


async def test_bytes_that_are_no_request_are_counted() -> None:
    """As a request, and as one that is refused (differs: the reference does not count them)."""
    limiter = limiter_of()
    with pytest.raises(RateLimitError):
        await tell(limiter, b"\xff\xff")
    assert [stat for stat in stats(limiter._metrics) if isinstance(stat, Counter)] == [
        Counter("ratelimit.service.call.should_rate_limit.service_error", 1),
        Counter("ratelimit_server.ShouldRateLimit.total_requests", 1),
    ]


async def test_nothing_is_counted_that_nobody_reads() -> None:
    """Plans know of no counts, and there are none."""
    limiter = make(MemoryStore(lambda: START), rules=RULES)
    await tell(limiter, data("day=x"))
    assert limiter._metrics.reference is None
    assert [plan.counted for _, plan in limiter.plans.newest_first()] == [()]
