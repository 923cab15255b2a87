"""Group commit is exact: n requests in a line are told what they would be one after another."""

from functools import partial
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_svc.store import MAX_CHARGES, MAX_LINES
from ratelimit_svc.store.memory import MemoryStore
from tests.histories import MINUTE
from tests.limiting import Answers, asks, make, settled, tell

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
