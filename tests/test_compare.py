"""Comparing algorithms: the other one counts what it would if it decided, and what decides is what it is without."""

from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.comparison import MOST_RULES
from ratelimit_svc.limiter.comparison.page import describe
from ratelimit_svc.limiter.plans import Planner
from ratelimit_svc.metrics.counts import Compared
from ratelimit_svc.model import MICROSECONDS, Algorithm, Code, Kind, Limit, Overdraft, Plan, Role, Rule, Unit
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.store import MAX_CHARGES
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.store.redis.spread import SpreadStore
from ratelimit_svc.windows.batch import Window
from ratelimit_svc.wire import rls
from tests.histories import MINUTE, SECOND, START
from tests.limiting import EVERY_KIND, asks, make, rules_of, send_all, sends, tell
from tests.test_twins import fields_of
from tests.waiting import until

SLIDING, FIXED, BUCKET = Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW, Algorithm.TOKEN_BUCKET
EXAMPLES = count()

AnyStore = MemoryStore | RedisStore | SpreadStore


def minutely(requests: int, algorithm: Algorithm = SLIDING, **others: Any) -> Limit:
    return Limit(requests, Unit.MINUTE, algorithm=algorithm, **others)


PAIRS: tuple[tuple[tuple[Limit, Algorithm, dict[str, Any]], ...], ...] = (
    ((minutely(5), FIXED, {}),),
    ((minutely(9, FIXED), SLIDING, {}),),
    ((minutely(3), BUCKET, {"role": Role.QUOTA}),),
    ((minutely(5, BUCKET), SLIDING, {"role": Role.QUOTA}),),
    ((minutely(3, FIXED), BUCKET, {"role": Role.SHADOW}),),
    (
        (Limit(8, Unit.HOUR), FIXED, {"overdraft": Overdraft.NEVER}),
        (minutely(6, FIXED), SLIDING, {"overdraft": Overdraft.NEVER}),
        (Limit(4, Unit.SECOND, algorithm=BUCKET, burst=7), FIXED, {"overdraft": Overdraft.NEVER}),
    ),
    ((minutely(5), FIXED, {"overdraft": Overdraft.ALWAYS}),),
    ((minutely(10, BUCKET), FIXED, {}),),
)
"""By place of the descriptor: the limit, what it is compared with, and what else its rule says."""


def compared(*, enforce: bool = False, compare: bool = True, tenant: str | None = "tenant") -> RuleSet:
    """The rules; with `enforce` the other algorithms decide, and nothing is compared."""

    def rule(place: int, number: int) -> Rule:
        limit, other, others = PAIRS[place][number]
        otherwise = limit.counted_by(other)
        assert otherwise is not None
        limits = {"limit": otherwise} if enforce else {"limit": limit, "compared": otherwise if compare else None}
        return Rule(f"shop/d{place}#{number}", **limits, **others)

    return rules_of(
        *(tuple(rule(place, number) for number in range(len(several))) for place, several in enumerate(PAIRS)),
        tenant=tenant,
    )


GATES = (sends("d0 1"), sends("d0 2"), sends("d1 1"), sends("d1 3", "d0 1"), sends("d7 4"), sends("d7 1", "d1 1"))
"""Of these a Cluster tells what one script tells, although they may be in several slots."""

WAVES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(EVERY_KIND), min_size=1, max_size=12),
        st.sampled_from([0, SECOND, 7 * SECOND, 29 * SECOND, 31 * SECOND, MINUTE, 2 * MINUTE + 1]),
    ),
    min_size=1,
    max_size=6,
)
"""Requests that come together, and the time until the next come."""


async def held(store: AnyStore, key: bytes, like: Window) -> list[object] | None:
    """What is stored of a window."""
    if isinstance(store, MemoryStore):
        window = store._windows.get(key)
        return None if window is None else fields_of(window)
    stored = await store.command(key, b"GET", key)
    assert stored is None or isinstance(stored, bytes)
    return None if stored is None else fields_of(stored, type(like))


async def same_windows(store: AnyStore, prefix: str, model: MemoryStore, names: Mapping[bytes, bytes]) -> None:
    """Require that all that a model holds is held under these names in the store, hit for hit."""
    for key, window in model._windows.items():
        name = prefix.encode() + names.get(key, key)
        assert await held(store, name, window) == fields_of(window), name


def planned(rules: RuleSet, data: bytes) -> Plan:
    """What a request means."""
    return Planner(rules).plan(rls.decode(data))


def names_beside() -> dict[bytes, bytes]:
    """By the key of each window that an algorithm has where it decides: where it counts if it is compared."""
    found: dict[bytes, bytes] = {}
    for data in EVERY_KIND:
        beside = planned(compared(), data).compared
        assert beside is not None
        alone = planned(compared(enforce=True), data)
        found |= {one.key: other.key for one, other in zip(alone.charges, beside.charges, strict=True)}
    return found


def denials(limiter: Limiter, rule: str) -> int:
    """How many requests one rule denied, or overdrew."""
    counts = limiter._metrics.rule(rule).requests
    return counts.denied + counts.overdrawn


@given(waves=WAVES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_both_worlds_are_what_they_would_be_alone(store, clock, waves):
    """Whatever comes: the answers and windows of what decides are those without comparing, those of the other algorithms are
    those of a limiter that enforces them, and so is what is counted.
    """
    clock.now += 2 * 60 * MINUTE  # what the examples before have counted is gone
    prefix = f"{next(EXAMPLES)}:"
    both = make(store, rules=compared(), clock=clock, key_prefix=prefix)
    alone_store, other_store = MemoryStore(clock), MemoryStore(clock)
    alone = make(alone_store, rules=compared(compare=False), clock=clock)
    other = make(other_store, rules=compared(enforce=True), clock=clock)
    names = names_beside()
    for wave, passes in waves:
        assert await send_all(both, wave) == await send_all(alone, wave)
        await send_all(other, wave)
        await same_windows(store, prefix, alone_store, {})
        await same_windows(store, prefix, other_store, names)
        clock.now += passes
    for rule, counts in both._metrics.rules.items():
        if rule.startswith(("shop/d4", "shop/d2", "shop/d3")):  # shadows and quotas have other words there
            continue
        found = counts.compared
        assert found is not None
        assert found.both_deny + found.only_enforced_denies == denials(alone, rule), rule
        assert found.both_deny + found.only_compared_denies == denials(other, rule), rule


@pytest.mark.parametrize("shared_server", ["cluster"], indirect=True)
@given(
    requests=st.lists(
        st.tuples(st.sampled_from(GATES), st.sampled_from([0, SECOND, 29 * SECOND, MINUTE])), min_size=1, max_size=20
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_windows_in_several_slots_are_compared_as_well(store, clock, requests):
    """Without a tenant each descriptor's windows are where they are: what one place denies is undone in the other, on either side."""
    clock.now += 2 * 60 * MINUTE
    prefix = f"{next(EXAMPLES)}:"
    both = make(store, rules=compared(tenant=None), clock=clock, key_prefix=prefix)
    alone = make(MemoryStore(clock), rules=compared(compare=False, tenant=None), clock=clock)
    other = make(MemoryStore(clock), rules=compared(enforce=True, tenant=None), clock=clock)
    for data, passes in requests:
        mine, _ = await send_all(both, [data]), await send_all(other, [data])
        (_, expected), (_, verdict) = (await send_all(alone, [data]))[0], mine[0]
        assert verdict.code is expected.code
        clock.now += passes
    for rule, counts in both._metrics.rules.items():
        found = counts.compared
        assert found is not None
        assert found.both_deny + found.only_enforced_denies == denials(alone, rule), rule
        assert found.both_deny + found.only_compared_denies == denials(other, rule), rule
    assert not store.undos_lost


# ── what is counted ───────────────────────────────────────────────────────────────────────────────────────────────────

MINUTE_BEGINS = START - START % MINUTE + MINUTE

ONE_RULE = """
domain: shop
tenant: tenant
descriptors:
  - key: tenant
    rate_limit: {unit: minute, requests_per_unit: 5, compare: fixed_window}
"""


def counts_of(limiter: Limiter, rule: str = "shop/tenant") -> Compared:
    counts = limiter._metrics.rules[rule].compared
    assert counts is not None
    known = limiter.comparison.rules[rule]
    assert known.counts == counts
    return counts


@pytest.mark.parametrize("shared_server", ["memory", "redis", "valkey", "cluster"], indirect=True)
async def test_a_burst_over_a_minutes_boundary(store, clock):
    """Fixed windows admit behind a boundary what sliding ones deny, and deny before the next what those admit again."""
    limiter = make(store, rules=ONE_RULE, clock=clock)
    five = [asks("tenant=acme")] * 5

    async def at(second: float) -> list[Code]:
        clock.now = MINUTE_BEGINS + int(second * MICROSECONDS)
        return [verdict.code for _, verdict in await send_all(limiter, five)]

    assert await at(58) == [Code.OK] * 5
    assert counts_of(limiter) == Compared(both_allow=5)
    assert await at(60) == [Code.OVER_LIMIT] * 5
    assert counts_of(limiter) == Compared(both_allow=5, only_enforced_denies=5)
    assert await at(90) == [Code.OVER_LIMIT] * 5
    assert counts_of(limiter) == Compared(both_allow=5, only_enforced_denies=5, both_deny=5)
    assert await at(119.5) == [Code.OK] * 5
    assert counts_of(limiter) == Compared(both_allow=5, only_enforced_denies=5, both_deny=5, only_compared_denies=5)
    (told,) = describe(limiter.comparison)["rules"]
    assert (told["rule"], told["algorithm"], told["compared"]) == ("shop/tenant", "sliding_window", "fixed_window")
    assert (told["requests"], told["differ"], told["without_store"]) == (20, 0.5, 0)
    parts = [(part["only_enforced_denies"], part["only_compared_denies"]) for part in told["by_part_of_window"]]
    assert parts == [(5, 0), *[(0, 0)] * 18, (0, 5)]
    assert [minute["minute"] for minute in told["by_minute"]] == ["2027-01-15T08:02+00:00"]
    assert told["first_difference"] == "2027-01-15T08:02:00.000+00:00"
    assert told["last_difference"] == "2027-01-15T08:02:59.500+00:00"
    assert [(each["decision"], each["tenant"], each["entries"]) for each in told["examples"]] == [
        ("only_compared_denies", "acme", ["tenant=acme"]),
        ("only_enforced_denies", "acme", ["tenant=acme"]),
    ]


async def test_requests_that_go_together_are_compared_one_by_one(held_store, clock):
    """Of equal requests in one line each way the first pass: two here, four there."""
    limiter = make(held_store, rules=ONE_RULE, clock=clock)
    clock.now = MINUTE_BEGINS - SECOND
    await send_all(limiter, [asks("tenant=acme")] * 3)
    clock.now = MINUTE_BEGINS
    await send_all(limiter, [asks("tenant=acme")])  # 4 in the sliding window, 1 in the fixed one
    held_store.batches.clear()
    await send_all(limiter, [asks("tenant=acme")] * 7)
    assert [[line.n for line in batch] for batch in held_store.batches] == [[7, 7]]
    assert counts_of(limiter) == Compared(both_allow=4 + 1, only_enforced_denies=3, both_deny=3)


@pytest.fixture
def held_store(held):
    """A memory store that keeps what it was asked."""
    return held


BESIDE = """
domain: shop
tenant: tenant
descriptors:
  - {key: tenant, rate_limit: {unlimited: true}}
  - {key: compared, rate_limit: {unit: minute, requests_per_unit: 3, compare: fixed_window}}
  - {key: other, rate_limit: {unit: hour, requests_per_unit: 5}}
  - {key: quota, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 2, compare: fixed_window}}
  - {key: other_quota, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 3}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 2, compare: fixed_window}}
  - {key: tokens, rate_limit: {unit: minute, requests_per_unit: 10, compare: fixed_window}}
"""


async def test_rules_that_are_not_compared_are_the_same_for_both(store, clock):
    """They are only looked at for the other algorithm; what they deny, it denies as well, and does not count."""
    limiter = make(store, rules=BESIDE, clock=clock)
    clock.now = MINUTE_BEGINS + 58 * SECOND
    together = asks("compared=a", "other=b")
    await send_all(limiter, [together] * 3)
    assert counts_of(limiter, "shop/compared") == Compared(both_allow=3)
    clock.now = MINUTE_BEGINS + 60 * SECOND
    await send_all(limiter, [together] * 2)
    assert counts_of(limiter, "shop/compared") == Compared(both_allow=3, only_enforced_denies=2)
    assert limiter._metrics.rules["shop/other"].hits.allowed == 3  # the other world has not counted there
    await send_all(limiter, [asks("other=b")] * 2)  # now it is full
    clock.now = MINUTE_BEGINS + 180 * SECOND
    await send_all(limiter, [together] * 4)
    assert counts_of(limiter, "shop/compared") == Compared(both_allow=7, only_enforced_denies=2)
    await send_all(limiter, [asks("compared=a")] * 4)
    assert counts_of(limiter, "shop/compared") == Compared(both_allow=10, only_enforced_denies=2, both_deny=1)
    assert limiter._metrics.rules["shop/other"].compared is None


async def test_quotas_and_shadows_are_compared(clock):
    """A quota denies if all of the request's do; a shadow, where it would."""
    limiter = make(MemoryStore(clock), rules=BESIDE, clock=clock)
    clock.now = MINUTE_BEGINS + 58 * SECOND
    await send_all(limiter, [asks("quota=a", "other_quota=a")] * 2)
    clock.now = MINUTE_BEGINS + 60 * SECOND
    await send_all(
        limiter, [asks("quota=a", "other_quota=a")]
    )  # here only the other quota has room: it passes both ways
    assert counts_of(limiter, "shop/quota") == Compared(both_allow=3)
    await send_all(limiter, [asks("quota=a", "other_quota=a")] * 2)
    assert counts_of(limiter, "shop/quota") == Compared(both_allow=3, only_enforced_denies=1, both_deny=1)
    clock.now = MINUTE_BEGINS + 118 * SECOND
    await send_all(limiter, [asks("shadow=a")] * 2)
    clock.now = MINUTE_BEGINS + 120 * SECOND
    verdicts = await send_all(limiter, [asks("shadow=a")] * 3)
    assert [verdict.code for _, verdict in verdicts] == [Code.OK] * 3
    assert counts_of(limiter, "shop/shadow") == Compared(both_allow=2, only_enforced_denies=2, both_deny=1)


async def test_checks_refunds_and_costs_that_overdraw_are_compared(clock):
    """A fixed window's check passes at the limit. A cost that overdraws is told OVER_LIMIT: it is a denial here."""
    limiter = make(MemoryStore(clock), rules=BESIDE, clock=clock)
    clock.now = MINUTE_BEGINS + SECOND
    await send_all(limiter, [sends("tokens check")])
    await send_all(limiter, [sends("tokens 10")])
    await send_all(limiter, [sends("tokens check")])
    assert counts_of(limiter, "shop/tokens") == Compared(both_allow=2, only_enforced_denies=1)
    await send_all(limiter, [sends("tokens refund 4")])
    await send_all(limiter, [sends("tokens 9")])  # overdrawn here and there
    assert counts_of(limiter, "shop/tokens") == Compared(both_allow=3, only_enforced_denies=1, both_deny=1)
    clock.now = MINUTE_BEGINS + MINUTE
    await send_all(limiter, [sends("tokens check")])
    assert counts_of(limiter, "shop/tokens") == Compared(both_allow=3, only_enforced_denies=2, both_deny=1)


async def test_a_limit_that_a_request_brings_along_is_compared_under_its_own_name(clock):
    """It counts in the rule's windows, of either algorithm."""
    limiter = make(MemoryStore(clock), rules=compared(), clock=clock)
    clock.now = MINUTE_BEGINS - SECOND
    await send_all(limiter, [sends("d0 1")] * 3)
    clock.now = MINUTE_BEGINS
    await send_all(limiter, [sends("d0 1 of own 4")] * 5)
    assert counts_of(limiter, "shop/d0#0") == Compared(both_allow=3)
    assert counts_of(limiter, "shop/d0#0#override") == Compared(both_allow=1, only_enforced_denies=3, both_deny=1)
    assert limiter.comparison.rules["shop/d0#0#override"].compared.requests_per_unit == 4


async def test_limits_brought_along_without_a_rule_are_compared_with_the_processes(clock):
    """As they are counted by the process's default, so are they compared."""
    limiter = make(MemoryStore(clock), rules=rules_of(compare=FIXED), clock=clock)
    await send_all(limiter, [sends("d0 1 of own 4")] * 5)
    assert counts_of(limiter, "shop#override") == Compared(both_allow=4, both_deny=1)


# ── what is not compared ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_the_store_nothing_is_compared_and_only_what_decides_is_owed(held, clock):
    """This replica's share is no algorithm's answer: such requests are counted by themselves."""
    limiter = make(held, rules=ONE_RULE, clock=clock)
    held.away = True
    await send_all(limiter, [asks("tenant=acme")] * 7)
    held.away = False
    known = limiter.comparison.rules["shop/tenant"]
    assert (known.counts, known.without_store) == (Compared(), 7)
    assert [key.endswith(b":f") for key in limiter.owed._debts] == [False]
    await send_all(limiter, [asks("tenant=acme")])
    assert counts_of(limiter) == Compared(only_enforced_denies=1)  # what was owed, only the enforced window has


async def test_denials_are_not_told_from_memory(held, clock):
    """Else a flood of them would hide what the other algorithm says; other rules' still are."""
    limiter = make(held, rules=BESIDE, clock=clock, denial_memory_keys=100)
    await send_all(limiter, [asks("compared=a")] * 9)
    await send_all(limiter, [asks("other=a")] * 9)
    held.batches.clear()
    await send_all(limiter, [asks("compared=a")] * 9)
    await send_all(limiter, [asks("other=a")] * 9)
    assert len(held.batches) == 1
    await until(lambda: limiter._metrics.denied_from_memory == 9)  # counted in the loop's next turn
    assert counts_of(limiter, "shop/compared") == Compared(both_allow=3, both_deny=15)


@pytest.mark.parametrize("shared_server", ["redis", "valkey", "cluster"], indirect=True)
async def test_a_spoilt_key_beside_harms_nobody(store, clock):
    """What decides is not touched by what is compared, whatever its key holds."""
    limiter = make(store, rules=ONE_RULE, clock=clock)
    beside = b"{acme}shop/tenant=acme:s60000000:f"
    await store.command(beside, b"LPUSH", beside, b"not ours")
    verdicts = await send_all(limiter, [asks("tenant=acme")] * 6)
    assert [verdict.code for _, verdict in verdicts] == [Code.OK] * 5 + [Code.OVER_LIMIT]
    assert limiter.comparison.rules["shop/tenant"].counts == Compared()
    assert limiter._metrics.store_failures.bad_key == 0


async def test_a_request_of_very_many_limits_is_answered_and_not_compared(clock):
    """Twice as many charges must fit into one batch."""
    limiter = make(MemoryStore(clock), rules=ONE_RULE, clock=clock)
    half = MAX_CHARGES // 2
    for many, expected in ((half, Compared(both_allow=half)), (half + 1, Compared(both_allow=half))):
        verdict = await tell(limiter, asks(*(f"tenant={number}" for number in range(many))))
        assert verdict.code is Code.OK
        assert counts_of(limiter) == expected


def test_what_is_not_compared_is_looked_at_and_no_more():
    """Hits of other rules are looked at, checks make no budget, refunds give nothing."""
    rules = load([RuleFile("rules.yaml", BESIDE.encode())])
    plan = planned(rules, asks("compared=a", "other=b"))
    assert plan.compared is not None
    assert not plan.coalesces
    assert [charge.kind for charge in plan.compared.charges] == [Kind.POSITIVE, Kind.LOOK]
    assert [charge.key for charge in plan.compared.charges] == [
        b"{shop}shop/compared=a:s60000000:f",
        b"{shop}shop/other=b:s3600000000",
    ]


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_rules_that_stay_keep_what_is_known_and_others_lose_it(clock):
    """A changed limit is another limit."""
    limiter = make(MemoryStore(clock), rules=compared(), clock=clock)
    await send_all(limiter, [sends("d0 1"), sends("d1 1")])
    stays, changes = compared().rules[0], compared().rules[1]
    assert changes.limit is not None
    changed = Rule("shop/d1#0", minutely(8, FIXED), compared=minutely(8))
    limiter.use(rules_of((stays,), (changed,)))
    known = limiter.comparison.rules
    assert {rule: each.counts.both_allow for rule, each in known.items()} == {"shop/d0#0": 1, "shop/d1#0": 0}
    limiter.comparison.reset()
    assert [each.counts for each in limiter.comparison.rules.values()] == [Compared(), Compared()]
    assert limiter._metrics.rules["shop/d0#0"].compared == Compared(both_allow=1)


async def test_what_is_kept_is_bounded(clock):
    """Many rules, long values, differences all the time: so many rules, so many examples, each cut to what a person reads."""
    many = MOST_RULES + 500
    rules = rules_of(*((Rule(f"shop/d{at}", minutely(0), compared=minutely(1, FIXED)),) for at in range(many)))
    limiter = make(MemoryStore(clock), rules=rules, clock=clock)
    for at in range(many):
        await send_all(limiter, [sends(f"d{at} 1")])
    assert len(limiter.comparison.rules) == MOST_RULES
    assert limiter._metrics.rules[f"shop/d{many - 1}"].compared == Compared(only_enforced_denies=1)
    for turn in range(50):
        clock.now += MINUTE
        await send_all(limiter, [asks(f"d0={turn}" + "é" * 9_000)])
    (told,) = describe(limiter.comparison, rule="shop/d0")["rules"]
    assert told["only_enforced_denies"] == 51
    assert [len(each["entries"][0]) for each in told["examples"]] == [100] * 5
    assert len(told["by_minute"]) == 51
    clock.now += 55 * MINUTE
    assert len(describe(limiter.comparison, rule="shop/d0")["rules"][0]["by_minute"]) == 5
    assert len(describe(limiter.comparison, most=7)["rules"]) == 7


async def test_examples_are_a_second_apart(clock):
    """So that those that are kept do not all tell of the same moment."""
    rules = rules_of((Rule("shop/d0", minutely(0), compared=minutely(9, FIXED)),))
    limiter = make(MemoryStore(clock), rules=rules, clock=clock)
    for value in ("first", "too soon", "second"):
        await send_all(limiter, [asks(f"d0={value}")])
        clock.now += SECOND // 2
    (told,) = describe(limiter.comparison)["rules"]
    assert told["only_enforced_denies"] == 3
    assert [each["entries"] for each in told["examples"]] == [["d0=second"], ["d0=first"]]
