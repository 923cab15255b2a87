"""The limiter: exact when it coalesces, in time when the store is not, bounded under attack."""

import asyncio
import tracemalloc
from functools import partial
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_svc import verdicts
from ratelimit_svc.errors import BadRequestError, StoreUnavailableError
from ratelimit_svc.limiter import Limiter, Options
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import Code, Entry, Grant, Line, Status, Verdict
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.store import MAX_CHARGES, MAX_LINES, Store
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.client import request
from tests.histories import MINUTE, START
from tests.waiting import until

RULES = """
domain: shop
tenant: tenant
descriptors:
  - {key: tenant, rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: big, rate_limit: {unit: minute, requests_per_unit: 1000000}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: allow, rate_limit: {unit: minute, requests_per_unit: 5, on_store_failure: allow}}
  - {key: deny, rate_limit: {unit: minute, requests_per_unit: 5, on_store_failure: deny}}
  - {key: error, rate_limit: {unit: minute, requests_per_unit: 5, on_store_failure: error}}
"""


class Recording:
    """A real store that keeps what it was asked and, while held, keeps its callers waiting. Takes when let go."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batches: list[list[Line]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.asked = asyncio.Event()
        self.away = False

    async def take(self, lines) -> list[Grant]:
        self.batches.append(list(lines))
        self.asked.set()
        await self.go.wait()
        if self.away:
            raise StoreUnavailableError("away")
        return await self.store.take(lines)


def as_it_is(verdict: Verdict) -> Any:
    """Hand verdicts through where bytes are expected: these tests look at values."""
    return verdict


def make(store, *, rules: str = RULES, **options) -> Limiter:
    """A limiter of these rules."""
    limiter = Limiter(
        store=store,
        local=MemoryStore(lambda: START),
        decode=rls.decode,
        encode=as_it_is,
        metrics=Metrics(),
        options=Options(**{"store_timeout_s": 30, **options}),
    )
    limiter.use(load([RuleFile("rules.yaml", rules.encode())]))
    return limiter


async def tell(limiter: Limiter, data: bytes) -> Verdict:
    """Ask, and return the verdict as the value that it is here."""
    verdict = await limiter.ask(data)
    assert isinstance(verdict, Verdict)
    return verdict


async def settled(limiter: Limiter) -> None:
    """Wait until the store has taken all that waited."""
    await until(lambda: limiter._commits is None)


def asks(*descriptors: str, hits: int = 0) -> bytes:
    """A serialized request: each descriptor is written `key=value`."""
    entries = [[Entry(*descriptor.split("="))] for descriptor in descriptors]
    return request("shop", entries, hits=hits).SerializeToString()


class Answers:
    """Collects what callers are told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.more = asyncio.Event()

    def __call__(self, answer) -> None:
        self.told.append(answer)
        self.more.set()

    async def wait(self, number: int) -> list[Any]:
        """Wait until so many were told."""
        async with asyncio.timeout(10):
            while len(self.told) < number:
                self.more.clear()
                await self.more.wait()
        return self.told


@pytest.fixture
def held(clock) -> Recording:
    """A memory store that can be held."""
    return Recording(MemoryStore(clock))


async def test_a_limit_counts_down_and_denies(held):
    """Five of five pass, each told one less; the sixth is told when to come back, rounded up."""
    limiter = make(held)
    told = [await tell(limiter, asks("tenant=acme")) for _ in range(6)]
    assert [verdict.code for verdict in told] == [Code.OK] * 5 + [Code.OVER_LIMIT]
    assert [verdict.statuses[0].remaining for verdict in told] == [4, 3, 2, 1, 0, 0]
    assert [verdict.statuses[0].reset_s for verdict in told] == [61] * 6
    assert told[5].statuses[0].code is Code.OVER_LIMIT


async def test_one_status_per_descriptor_in_order(held):
    """Counted, unlimited, unmatched and shadowed descriptors each have their status in their place."""
    limiter = make(held)
    data = asks("none=1", "tenant=acme", "free=1", "shadow=1")
    await tell(limiter, data)
    verdict = await tell(limiter, data)
    limits = [status.limit and status.limit.requests_per_unit for status in verdict.statuses]
    assert verdict.code is Code.OK
    assert limits == [None, 5, None, 1]
    assert [status.remaining for status in verdict.statuses] == [0, 3, 2**32 - 1, 0]
    assert {status.code for status in verdict.statuses} == {Code.OK}
    assert limiter._metrics.rule("shop/shadow").requests.would_deny == 1


async def test_a_denied_request_consumes_nothing(held):
    """All or nothing: the tenant's window is as it was after the shared one denied."""
    limiter = make(held)
    for _ in range(5):
        await tell(limiter, asks("tenant=full"))
    verdict = await tell(limiter, asks("tenant=acme", "tenant=full"))
    assert verdict.code is Code.OVER_LIMIT
    assert [status.code for status in verdict.statuses] == [Code.OK, Code.OVER_LIMIT]
    assert (await tell(limiter, asks("tenant=acme"))).statuses[0].remaining == 4


async def test_what_asks_no_window_is_answered_without_the_store(held):
    """Unknown domains, unmatched and unlimited descriptors are answered before submit returns."""
    limiter, answers = make(held), Answers()
    assert limiter.submit(asks("none=1", "free=1"), answers) is None
    unknown = request("elsewhere", [[Entry("a", "b")]] * 2).SerializeToString()
    assert limiter.submit(unknown, answers) is None
    assert answers.told == [
        Verdict(Code.OK, (verdicts.NO_RULE, verdicts.UNLIMITED)),
        Verdict(Code.OK, (verdicts.NO_RULE, verdicts.NO_RULE)),
    ]
    assert held.batches == []


async def test_hits_add_up_and_zero_is_a_check(held):
    """hits_addend of the request counts for its descriptors; a descriptor's own 0 asks and counts nothing."""
    limiter = make(held)
    assert (await tell(limiter, asks("tenant=a", hits=4))).statuses[0].remaining == 1
    message = request("shop", [[Entry("tenant", "a")]])
    message.descriptors[0].hits_addend.value = 0
    assert (await tell(limiter, message.SerializeToString())).statuses[0] == Status(
        Code.OK, (await tell(limiter, asks("tenant=b"))).statuses[0].limit, 1, 61
    )
    await tell(limiter, asks("tenant=a"))
    assert (await tell(limiter, message.SerializeToString())).code is Code.OVER_LIMIT


@pytest.mark.parametrize("hits", [2**32, 2**53 + 1, 2**64 - 1])
async def test_hits_beyond_every_limit_are_denied_and_change_nothing(held, hits):
    """Hits of any size that the wire can carry are defined: they never fit."""
    limiter = make(held)
    message = request("shop", [[Entry("tenant", "a")]])
    message.descriptors[0].hits_addend.value = hits
    assert (await tell(limiter, message.SerializeToString())).code is Code.OVER_LIMIT
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 4


async def test_a_refund_is_answered_ok_and_changes_nothing_yet(held):
    """`is_negative_hits` is not added by mistake: the window stays as it is."""
    limiter = make(held)
    message = request("shop", [[Entry("tenant", "a")]], hits=3)
    message.descriptors[0].is_negative_hits = True
    assert (await tell(limiter, message.SerializeToString())).code is Code.OK
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 4


# ── coalescing ────────────────────────────────────────────────────────────────────────────────────────────────────────

KINDS = (
    asks("tenant=a"),
    asks("tenant=a", hits=2),
    asks("tenant=b", "tenant=a"),
    asks("tenant=a", "tenant=a"),
    asks("trial=1", "tenant=b"),
    asks("trial=1", hits=2),
    asks("big=1", hits=3),
)


@given(waves=st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_coalescing_equals_one_after_another(store, clock, waves):
    """For any interleaving each caller is told what taking the lines' requests one by one tells: code, remaining, reset."""
    clock.now += 10 * MINUTE  # whatever the examples before have counted is gone
    limiter = make(store)
    told: list[tuple[bytes, Any]] = []

    def note(data: bytes, answer: Any) -> None:
        told.append((data, answer))

    for wave in waves:
        for data in wave:
            limiter.submit(data, partial(note, data))
        await settled(limiter)
    assert len(told) == sum(map(len, waves))
    alone = make(MemoryStore(clock))
    for data, verdict in told:
        assert await tell(alone, data) == verdict


async def test_equal_requests_are_one_line_and_what_arrives_meanwhile_is_the_next_batch(held):
    """A hot tenant costs the store one operation a batch, however many requests it sends."""
    limiter, answers = make(held), Answers()
    held.go.clear()
    for _ in range(100):
        limiter.submit(asks("big=1"), answers)
    await held.asked.wait()
    for _ in range(50):
        limiter.submit(asks("big=1"), answers)
        limiter.submit(asks("tenant=a", "tenant=a"), answers)
    held.go.set()
    await answers.wait(200)
    assert [[line.n for line in batch] for batch in held.batches] == [[100], [50] + [1] * 50]


async def test_at_most_128_lines_a_batch_in_the_order_of_arrival(held):
    """Distinct requests go in batches of at most 128 charges, first come first served."""
    limiter, answers = make(held), Answers()
    for number in range(300):
        limiter.submit(asks(f"tenant=t{number}"), answers)
    for number in range(30):
        limiter.submit(asks(*[f"tenant=u{number}-{part}" for part in range(100)]), answers)
    await answers.wait(330)
    assert max(len(batch) for batch in held.batches) == MAX_LINES
    assert all(sum(len(line.charges) for line in batch) <= MAX_CHARGES for batch in held.batches)
    keys = [line.charges[0].key for batch in held.batches for line in batch]
    assert keys[:300] == [b"{t%d}shop/tenant=t%d:s60000000" % (number, number) for number in range(300)]


# ── in time ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_held_store_is_answered_for_before_the_callers_deadline(held):
    """Each caller is answered before its own timeout, the shorter not cutting the longer short."""
    limiter, loop = make(held, store_timeout_s=0.4, replicas=5), asyncio.get_running_loop()
    held.go.clear()
    started = loop.time()
    at: dict[float | None, float] = {}

    def ask(timeout_s: float | None) -> None:
        limiter.submit(
            asks("tenant=a"), lambda _: at.__setitem__(timeout_s, loop.time() - started), timeout_s=timeout_s
        )

    for timeout_s in (None, 0.2, 60, 0.1, 0.001):
        ask(timeout_s)
    await until(lambda: len(at) == 5)
    assert at[0.001] < at[0.1] < at[0.2] < at[None]
    assert at[0.1] >= 0.09
    assert at[0.2] >= 0.19
    assert at[None] >= 0.39
    assert at[60] >= 0.39
    assert limiter._metrics.store_failures.timeout == 5


@pytest.mark.parametrize(
    ("timeout_s", "patience_s"),
    [(None, 0.1), (60, 0.1), (0.102, 0.1), (0.02, 0.018), (0.004, 0.002), (0.001, 0.0005), (0, 0)],
)
async def test_a_request_waits_for_less_than_its_caller(held, timeout_s, patience_s):
    """The store timeout, or the caller's own less the margin; half of it where the margin would leave less."""
    limiter = make(held, store_timeout_s=0.1, deadline_margin_s=0.002)
    assert limiter._patience_s(timeout_s) == pytest.approx(patience_s)


async def test_what_expired_before_it_was_sent_is_not_counted(held):
    """The store never hears of a request that was answered while it waited in the queue."""
    limiter, answers = make(held), Answers()
    held.go.clear()
    limiter.submit(asks("big=1"), answers)
    await held.asked.wait()
    limiter.submit(asks("tenant=a"), answers, timeout_s=0.01)
    await answers.wait(1)
    held.go.set()
    await settled(limiter)
    assert [len(batch) for batch in held.batches] == [1]
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 4


async def test_what_was_cancelled_before_it_was_sent_is_not_counted(held):
    """A caller who has gone is neither counted nor answered; one who goes later is counted."""
    limiter = make(held)
    held.go.clear()
    sent = asyncio.create_task(tell(limiter, asks("tenant=a")))
    await held.asked.wait()
    waiting = asyncio.create_task(tell(limiter, asks("tenant=a")))
    await asyncio.sleep(0)
    for task in (sent, waiting):
        task.cancel()
    await asyncio.gather(sent, waiting, return_exceptions=True)
    held.go.set()
    await settled(limiter)
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 3


async def test_a_caller_who_went_takes_no_grant_from_one_who_waits(held):
    """Of the line's grants the first go to those who are still there."""
    limiter, answers = make(held), Answers()
    held.go.clear()
    waiting = [limiter.submit(asks("tenant=a"), answers) for _ in range(10)]
    await held.asked.wait()
    for gone in waiting[:5]:
        assert gone is not None
        limiter.cancel(gone)
    held.go.set()
    await answers.wait(5)
    assert [verdict.code for verdict in answers.told] == [Code.OK] * 5


async def test_nobody_is_answered_twice(held):
    """Neither when the store fails after the deadline, nor when it answers then, nor after a cancel."""
    limiter, answers = make(held), Answers()
    for away in (True, False):
        held.go.clear()
        held.away = away
        held.asked.clear()
        limiter.submit(asks("tenant=a"), answers, timeout_s=0.01)
        gone = limiter.submit(asks("tenant=b"), answers)
        await held.asked.wait()
        assert gone is not None
        limiter.cancel(gone)
        await until(lambda: len(answers.told) == 1)
        held.go.set()
        await settled(limiter)
        assert len(answers.told) == 1
        answers.told.clear()


async def test_grants_go_first_to_those_whom_the_policy_let_pass(held):
    """A request let pass by its local share takes one of the store's grants, so that the sum stays right."""
    limiter, answers = make(held), Answers()
    held.go.clear()
    patient = [limiter.submit(asks("tenant=a"), answers) for _ in range(5)]
    limiter.submit(asks("tenant=a"), answers, timeout_s=0.02)
    await answers.wait(1)
    assert answers.told[0].code is Code.OK
    held.go.set()
    await answers.wait(6)
    assert None not in patient
    assert sorted(verdict.code for verdict in answers.told) == [Code.OK] * 5 + [Code.OVER_LIMIT]


async def test_short_deadlines_beside_long_ones(held):
    """Timers closer than a loop's resolution expire what they should, and disturb nobody else."""
    limiter, answers = make(held), Answers()
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    held.go.clear()
    for number in range(1000):
        limiter.submit(asks(f"tenant=t{number % 7}"), answers, timeout_s=(number % 50) / 10_000)
        limiter.submit(asks("big=1"), answers)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(answers.told) == 1000)
    held.go.set()
    await answers.wait(2000)
    assert faults == []
    assert len(limiter._deadlines) <= 1000


# ── defects ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Broken:
    """A store with a defect, now and then."""

    def __init__(self, store: Store) -> None:
        self.store, self.broken = store, True

    async def take(self, lines) -> list[Grant]:
        if self.broken:
            raise ZeroDivisionError
        return await self.store.take(lines)


async def test_a_defect_of_the_store_leaves_nobody_waiting(clock):
    """Everyone is answered by policy at once, the defect is told, and the next requests are taken."""
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(repr(context.get("exception"))))
    store = Broken(MemoryStore(clock))
    limiter, answers = make(store, replicas=5), Answers()
    for number in range(300):
        limiter.submit(asks(f"tenant=t{number}"), answers)
    await answers.wait(300)
    await settled(limiter)
    assert [verdict.statuses[0].remaining for verdict in answers.told] == [0] * 300
    assert limiter.waiting.requests == 0
    assert set(faults) == {"ZeroDivisionError()"}
    store.broken = False
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 4


async def test_a_verdict_that_cannot_be_written_costs_nobody_else_anything(held):
    """Whoever cannot be told the store's verdict is told the policy's; the others of the batch are told theirs."""
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(repr(context.get("exception"))))
    limiter, broken = make(held), [True]

    def encode(verdict: Verdict) -> Any:
        if broken and verdict.statuses[0].remaining == 3:
            broken.clear()
            raise OverflowError
        return verdict

    limiter._encode = encode
    first = asyncio.gather(
        *(tell(limiter, asks(f"tenant={name}", hits=hits)) for name, hits in (("a", 1), ("b", 2), ("c", 1)))
    )
    assert [verdict.statuses[0].remaining for verdict in await first] == [4, 3, 4]
    assert limiter._metrics.policy_decisions.local == 1
    assert faults == ["OverflowError()"]


# ── without the store ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_local_share_is_enforced_from_memory(held):
    """ceil(5 / 2) a replica while the store is away, each denial with its window; the store's own when it is back."""
    limiter = make(held, replicas=2)
    held.away = True
    told = [await tell(limiter, asks("tenant=a")) for _ in range(4)]
    assert [verdict.code for verdict in told] == [Code.OK] * 3 + [Code.OVER_LIMIT]
    assert [verdict.statuses[0].remaining for verdict in told] == [2, 1, 0, 0]
    assert told[3].statuses[0].reset_s == 61
    held.away = False
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 4
    assert limiter._metrics.policy_decisions.local == 4
    assert limiter._metrics.store_failures.unavailable == 4


@pytest.mark.parametrize(
    ("descriptors", "expected"),
    [
        (["allow=1"], [Code.OK]),
        (["deny=1"], [Code.OVER_LIMIT]),
        (["tenant=a", "allow=1"], [Code.OK, Code.OK]),
        (["tenant=a", "deny=1"], [Code.OK, Code.OVER_LIMIT]),
        (["allow=1", "none=1", "deny=1", "free=1"], [Code.OK, Code.OK, Code.OVER_LIMIT, Code.OK]),
        (["shadow=1"], [Code.OK]),
        (["shadow=1", "allow=1"], [Code.OK, Code.OK]),
        (["error=1"], "error"),
        (["error=1", "deny=1"], "error"),
        (["tenant=a", "error=1"], "error"),
    ],
)
async def test_the_strongest_policy_of_a_request_decides(held, descriptors, expected):
    """error > deny > local > allow, whatever else the request asks."""
    limiter = make(held)
    held.away = True
    if expected == "error":
        with pytest.raises(StoreUnavailableError, match="away"):
            await tell(limiter, asks(*descriptors))
        return
    verdict = await tell(limiter, asks(*descriptors))
    assert [status.code for status in verdict.statuses] == expected
    assert verdict.code is max(expected)


async def test_allow_lets_pass_beside_a_full_local_share(held):
    """A request with both is held to the local rule only."""
    limiter = make(held)
    held.away = True
    told = [await tell(limiter, asks("allow=1")) for _ in range(20)]
    told += [await tell(limiter, asks("tenant=a", "allow=1")) for _ in range(5)]
    assert {verdict.code for verdict in told} == {Code.OK}
    assert (await tell(limiter, asks("tenant=a", "allow=1"))).code is Code.OVER_LIMIT


async def test_a_key_that_holds_something_else_is_answered_by_policy_alone(server, clock):
    """A poisoned key costs its own tenant the policy, and the other requests of the batch nothing."""
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        client.flushall()
        client.hset("{a}shop/tenant=a:s60000000", "x", "y")
    async with RedisStore(server.url, clock=clock, timeout_s=5) as store:
        limiter = make(store, replicas=5)
        first = await asyncio.gather(*(tell(limiter, asks(f"tenant={name}")) for name in "abc"))
        assert [verdict.statuses[0].remaining for verdict in first] == [0, 4, 4]
        assert (await tell(limiter, asks("tenant=a"))).code is Code.OVER_LIMIT
        assert limiter._metrics.store_failures.bad_key == 2


# ── bounded ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_flood_beyond_the_queue_is_answered_at_once(held):
    """No more than QUEUE_LIMIT requests wait; the rest get the policy's answer without waiting, and memory stays flat."""
    limiter, answers = make(held, queue_limit=100), Answers()
    held.go.clear()
    limiter.submit(asks("big=1"), answers)
    await held.asked.wait()
    for number in range(5000):
        limiter.submit(asks(f"tenant=t{number}"), answers)
    assert limiter.waiting.requests == 100
    assert len(answers.told) == 4900
    assert limiter._metrics.policy_decisions.shed == 4900
    held.go.set()
    await answers.wait(5001)
    assert limiter.waiting.requests == 0


async def test_plan_memory_is_bounded_by_bytes_and_tells_the_truth(held):
    """A flood of distinct requests keeps the plan memory below its bound, and the bound is near what is really used."""
    most = 4_000_000
    tracemalloc.start()
    try:
        limiter = make(held, plan_memory_bytes=most)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            limiter.plans.get(asks(f"tenant={number}-{'x' * 50}", "big=1"))
            assert limiter.plans.bytes <= most
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 * most < used < 1.3 * most
    assert 1000 < len(limiter.plans) < 20_000


async def test_the_least_recently_used_plan_goes_first(held):
    """What is asked again and again stays remembered under a flood."""
    limiter = make(held, plan_memory_bytes=100_000)
    hot = limiter.plans.get(asks("tenant=hot"))
    for number in range(1000):
        limiter.plans.get(asks(f"tenant=t{number}"))
        assert limiter.plans.get(asks("tenant=hot")) is hot


async def test_a_bad_request_is_not_remembered(held):
    """Nonsense costs nothing that stays."""
    limiter = make(held)
    for number in range(100):
        with pytest.raises(BadRequestError):
            await tell(limiter, b"\xff" * number)
    assert len(limiter.plans) == 0
    assert limiter._metrics.bad_requests == 100


async def test_more_descriptors_than_one_batch_may_hold_are_refused(held):
    """A request cannot hold Redis for longer than a batch may; the most that is taken is."""
    limiter = make(held)
    most = asks(*[f"tenant=t{number}" for number in range(MAX_CHARGES)])
    assert (await tell(limiter, most)).code is Code.OK
    with pytest.raises(BadRequestError, match="129 descriptors; at most 128"):
        await tell(limiter, asks(*[f"tenant=t{number}" for number in range(MAX_CHARGES + 1)]))


# ── rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_rules_every_request_is_refused(held):
    """As the reference says it."""
    limiter = Limiter(
        store=held,
        local=MemoryStore(lambda: START),
        decode=rls.decode,
        encode=as_it_is,
        metrics=Metrics(),
        options=Options(),
    )
    with pytest.raises(BadRequestError, match="no rate limit configuration loaded"):
        await tell(limiter, asks("tenant=a"))


async def test_new_rules_keep_the_counts(held):
    """A raised limit acts at the next request, on what was counted already; so do new slices."""
    limiter = make(held)
    for _ in range(6):
        await tell(limiter, asks("tenant=a"))
    for changed in ("requests_per_unit: 9", "requests_per_unit: 10, slices: 7"):
        limiter.use(load([RuleFile("rules.yaml", RULES.replace("requests_per_unit: 5}", changed + "}").encode())]))
        assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 3


async def test_rules_that_change_under_waiting_requests_lose_nobody(held):
    """Requests of the old rules are answered by them, those of the new by theirs."""
    limiter, answers = make(held), Answers()
    held.go.clear()
    limiter.submit(asks("tenant=a"), answers)
    await held.asked.wait()
    limiter.submit(asks("tenant=a"), answers)
    limiter.use(
        load([RuleFile("rules.yaml", RULES.replace("requests_per_unit: 5}", "requests_per_unit: 50}").encode())])
    )
    limiter.submit(asks("tenant=a"), answers)
    held.go.set()
    await answers.wait(3)
    assert [verdict.statuses[0].remaining for verdict in answers.told] == [4, 3, 47]
