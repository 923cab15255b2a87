"""Response headers where several requests, limits or ways of answering meet; which descriptor is shown: tests/reference/test_requests.py."""

import pytest

from ratelimit_svc.model import Limit, OnStoreFailure, Overdraft, Role, Unit
from tests.limiting import Answers, make, rule, rules_of, sends, tell
from tests.waiting import until

NAMES = "limit", "remaining", "reset"
NINE = Limit(9, Unit.HOUR)


def shown(verdict) -> tuple[int, ...]:
    assert [name for name, _ in verdict.headers] == list(NAMES)
    return tuple(number for _, number in verdict.headers)


async def test_requests_that_are_taken_together_are_each_told_their_own(held):
    """What is left counts down through them, as in the statuses; the descriptor that has least left is each one's own."""
    held.go.clear()
    rules = rules_of((rule(0, NINE, overdraft=Overdraft.NEVER),), (rule(1),))
    limiter, answers = make(held, rules=rules, header_names=NAMES), Answers()
    for _ in range(7):
        limiter.submit(sends("d0 3", "d1 1"), answers)
    held.go.set()
    told = await answers.wait(7)
    assert max(line.n for batch in held.batches for line in batch) > 1  # else nothing was coalesced
    assert [shown(verdict)[:2] for verdict in told] == [(5, 4), (9, 3), (9, 0)] + [(9, 0)] * 4
    for verdict in told:
        assert [status.remaining for status in verdict.statuses][shown(verdict)[0] == 5] == shown(verdict)[1]


async def test_of_several_limits_of_a_descriptor_the_one_that_its_status_tells_is_shown(held):
    """The header and the status say the same."""
    limiter = make(held, rules=rules_of((rule(0, NINE), rule(0), rule(0, Limit(7, Unit.DAY)))), header_names=NAMES)
    assert shown(await tell(limiter, sends("d0 1"))) == (5, 4, 61)


async def test_a_denial_from_memory_is_shown_as_by_the_store(held):
    """Headers, too, are remembered."""
    limiter = make(held, rules=rules_of((rule(0),)), header_names=NAMES, denial_memory_keys=9)
    for _ in range(5):
        await tell(limiter, sends("d0 1"))
    by_store = await tell(limiter, sends("d0 1"))
    assert await tell(limiter, sends("d0 1")) == by_store
    await until(lambda: limiter._metrics.denied_from_memory == 1)
    assert shown(by_store) == (5, 0, 61)


@pytest.mark.parametrize(
    ("policy", "headers"),
    [(OnStoreFailure.DENY, (5, 0, 1)), (OnStoreFailure.LOCAL, (5, 4, 61)), (OnStoreFailure.ALLOW, ())],
)
async def test_without_the_store_what_is_known_is_shown(held, policy, headers):
    """As the statuses say; `allow` has asked no window."""
    held.away = True
    verdict = await tell(
        make(held, rules=rules_of((rule(0, on_store_failure=policy),)), header_names=NAMES), sends("d0 1")
    )
    assert tuple(number for _, number in verdict.headers) == headers


async def test_with_dynamic_metadata_both_are_told(held):
    """Of requests that are taken together as well."""
    held.go.clear()
    limiter, answers = make(held, rules=rules_of((rule(0),)), header_names=NAMES, dynamic_metadata=True), Answers()
    for _ in range(3):
        limiter.submit(sends("d0 1"), answers)
    held.go.set()
    for verdict, left in zip(await answers.wait(3), (4, 3, 2), strict=True):
        assert shown(verdict)[1] == verdict.metadata["descriptors"][0]["remaining"] == left


async def test_a_quota_beside_a_gate_on_one_descriptor(held):
    """Whether what a status tells of is a quota is said by the limit that it tells."""
    several = (rule(0, Limit(1, Unit.DAY), role=Role.QUOTA), rule(0, NINE))
    limiter = make(held, rules=rules_of((rule(1, Limit(0, Unit.MINUTE)),), several), header_names=NAMES)
    assert shown(await tell(limiter, sends("d1 1", "d0 2")))[:2] == (0, 0)
