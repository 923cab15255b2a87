"""The limiter: verdicts, rules, and bounds under attack."""

import asyncio
import gc
import tracemalloc

import pytest

from ratelimit_svc.errors import BadRequestError
from ratelimit_svc.limiter import verdicts
from ratelimit_svc.model import Code, Entry, Limit, Rule, Status, Unit, Verdict
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.store import MAX_CHARGES
from ratelimit_svc.wire.client import request
from tests.limiting import RULES, Answers, asks, make, rules_of, sends, tell


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


async def test_an_answer_without_windows_is_written_once(held):
    """It is the same each time, and remembered with the plan."""
    limiter, answers = make(held), Answers()
    for _ in range(3):
        limiter.submit(asks("none=1", "free=1"), answers)
    assert len({id(each) for each in answers.told}) == 1
    limiter.use(load([RuleFile("rules.yaml", RULES.replace("none", "tenant").encode())]))
    limiter.submit(asks("none=1", "free=1"), answers)
    assert answers.told[3] == answers.told[0]
    assert answers.told[3] is not answers.told[0]


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


async def test_a_refund_gives_back_no_more_than_there_is(held):
    """`is_negative_hits` is not added by mistake: three of four come back, and what was never taken does not."""
    limiter = make(held)
    message = request("shop", [[Entry("tenant", "a")]], hits=3)
    message.descriptors[0].is_negative_hits = True
    await tell(limiter, asks("tenant=a", hits=4))
    told = [await tell(limiter, message.SerializeToString()) for _ in range(2)]
    assert [(verdict.code, verdict.statuses[0].remaining) for verdict in told] == [(Code.OK, 4), (Code.OK, 5)]
    assert (await tell(limiter, asks("tenant=a"))).statuses[0].remaining == 4


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


async def test_a_refusal_is_freed_at_once(held):
    """The error, and the frames that it has come through: what goes round in a circle waits for the collector."""
    limiter = make(held)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            with pytest.raises(BadRequestError):
                await limiter.ask(b"")
        assert gc.collect() == 0
    finally:
        gc.enable()


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


THREE = rules_of(tuple(Rule(f"shop/d0#{number}", Limit(5, Unit.MINUTE, multiplier=number + 1)) for number in range(3)))


@pytest.mark.parametrize("dynamic_metadata", [False, True])
@pytest.mark.parametrize("own", ["", " of own 3"], ids=["rules", "brought along"])
@pytest.mark.parametrize("descriptors", [1, 4, 20])
async def test_what_a_plan_takes_is_near_what_it_is_said_to_take(held, descriptors, own, dynamic_metadata):
    """With several limits a descriptor, with limits brought along, and with the request kept for those who tell it."""
    limiter = make(held, rules=THREE, dynamic_metadata=dynamic_metadata)

    def asked(number: int) -> bytes:
        return sends(*(f"d0={number}-{part} 1{own}" for part in range(descriptors)))

    limiter.plans.get(asked(1000))
    said = limiter.plans.bytes
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100):
            limiter.plans.get(asked(number))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    said = limiter.plans.bytes - said
    assert 0.5 * said < used < 1.35 * said


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
    limiter = make(held, rules=None)
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


# ── a log that fails ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("away", [False, True])
async def test_a_log_that_fails_changes_no_answer(held, away):
    """Whoever is denied is denied, and answered, also when telling the log of it raises; the loop hears of it."""

    def broken(_):
        raise BrokenPipeError

    loop, heard = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
    limiter = make(held, on_denial=broken)
    held.away = away
    told = [await tell(limiter, asks("tenant=a")) for _ in range(7)]
    assert [verdict.code for verdict in told] == [Code.OK] * 5 + [Code.OVER_LIMIT] * 2
    assert [type(error) for error in heard] == [BrokenPipeError]  # the second was not to be told


async def test_the_shares_of_an_outage_keep_little_and_are_dropped_with_the_rules(held):
    """What is remembered of an outage is bounded by its charges, not only by its number, and new rules drop it."""
    limiter = make(held)
    held.away = True
    for number in range(50):
        await tell(limiter, asks(*[f"tenant=t{number}-{part}" for part in range(20)]))
        await tell(limiter, asks(f"tenant=t{number}"))
    assert limiter._unanswered.policy._share_of.cache_info().currsize == 50
    limiter.use(load([RuleFile("rules.yaml", RULES.encode())]))
    assert limiter._unanswered.policy._share_of.cache_info().currsize == 0


@pytest.mark.parametrize(
    "value", ["a" * 2000, "a" * 2000 + "\N{FOX FACE}", "\N{FOX FACE}" * 700], ids=["latin", "one fox", "foxes"]
)
async def test_the_plan_memory_counts_wide_text_as_it_is_kept(held, value):
    """One character beyond Latin makes text four times as large: callers choose it, so it is counted."""
    rules = """
domain: shop
tenant: t
descriptors:
  - {key: t, detailed_metric: true, rate_limits: [{unit: second, requests_per_unit: 1}, {unit: hour, requests_per_unit: 9}]}
"""
    tracemalloc.start()
    try:
        limiter = make(held, rules=rules)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(300):
            limiter.plans.get(asks(f"t={number}{value}"))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used < 1.3 * limiter.plans.bytes
