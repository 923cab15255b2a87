"""Group commit is exact: n requests in a line are told what they would be one after another."""

from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_svc.model import Algorithm, Code, Verdict
from ratelimit_svc.store import MAX_CHARGES, MAX_LINES
from ratelimit_svc.store.memory import MemoryStore
from tests.histories import MINUTE, SECOND
from tests.limiting import ALL_SORTS, EVERY_KIND, Answers, asks, make, send_all, settled, tell

KINDS = (
    asks("tenant=a"),
    asks("tenant=a", hits=2),
    asks("tenant=b", "tenant=a"),
    asks("tenant=a", "tenant=a"),
    asks("trial=1", "tenant=b"),
    asks("trial=1", hits=2),
    asks("big=1", hits=3),
)


ONE_SCRIPT = ["memory", "redis", "valkey"]
"""Stores that take a batch in one go. On a Cluster lines see what another is about to give back, and may be told of it: all of
that is in test_spanning."""


@pytest.mark.parametrize("shared_server", ONE_SCRIPT, indirect=True)
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


EXAMPLES = count()


def _without_buckets_resets(verdict: Verdict) -> Verdict:
    """The verdict without the resets of what passed a bucket."""
    statuses = (
        status._replace(reset_s=None)
        if status.code is Code.OK and status.limit is not None and status.limit.algorithm is Algorithm.TOKEN_BUCKET
        else status
        for status in verdict.statuses
    )
    return verdict._replace(statuses=tuple(statuses))


@pytest.mark.parametrize("shared_server", ONE_SCRIPT, indirect=True)
@given(waves=st.lists(st.lists(st.sampled_from(EVERY_KIND), min_size=1, max_size=15), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_requests_of_every_kind_in_waves_are_told_what_one_after_another_tells(store, clock, waves):
    """Refunds, checks, overdraft, quotas, shadows, several limits a descriptor, limits brought along; time goes on between.

    One thing is less: of several that a bucket grants at once, each is told when it is empty after all of them.
    """
    limiter = make(store, rules=ALL_SORTS, key_prefix=f"{next(EXAMPLES)}:")  # each example has windows of its own
    alone = make(MemoryStore(clock), rules=ALL_SORTS)
    for wave in waves:
        for data, verdict in await send_all(limiter, wave):
            one = await tell(alone, data)
            assert _without_buckets_resets(verdict) == _without_buckets_resets(one)
            for status, alone_status in zip(verdict.statuses, one.statuses, strict=True):
                assert (status.reset_s or 0) >= (alone_status.reset_s or 0)
        clock.now += 7 * SECOND


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
