"""Where in a window two algorithms differed, and of which request."""

import pytest

from ratelimit_svc.limiter.comparison.differences import MOST_ENTRIES, PARTS, Differences
from ratelimit_svc.limiter.plans import Planner
from ratelimit_svc.model import Algorithm, Align, Descriptor, Entry, Limit, Plan, Request, Rule, Unit
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.client import request
from tests.histories import MINUTE, SECOND, START
from tests.limiting import rules_of

SLIDING = Limit(5, Unit.MINUTE)
FIXED = Limit(5, Unit.MINUTE, algorithm=Algorithm.FIXED_WINDOW)
BEGINS = START // MINUTE * MINUTE
"""A fixed window of a minute begins then."""


def plan(*descriptors: list[Entry]) -> Plan:
    """What a request of these means; the keys d0 and d1 have a compared rule."""
    rules = rules_of(*((Rule(f"shop/d{place}", SLIDING, compared=FIXED),) for place in range(2)))
    return Planner(rules).plan(rls.decode(request("shop", list(descriptors)).SerializeToString()))


ONE = plan([Entry("d0", "x")])


@pytest.mark.parametrize(
    ("after_us", "part"),
    [
        (0, 0),
        (3 * SECOND - 1, 0),
        (3 * SECOND, 1),
        (57 * SECOND - 1, PARTS - 2),
        (57 * SECOND, PARTS - 1),
        (MINUTE - 1, PARTS - 1),
    ],
)
def test_the_part_of_the_window(after_us, part):
    """To the microsecond: a part of a minute has three seconds."""
    found = Differences(SLIDING, FIXED)
    found.note(BEGINS + after_us, ONE, 0, only_enforced=2, only_compared=1)
    assert [at for at, counts in enumerate(found.parts) if counts == [2, 1]] == [part]
    assert sum(map(sum, found.parts)) == 3


def test_windows_that_begin_with_a_hit_have_no_parts():
    """Each key's begins at another time."""
    first_hit = Limit(5, Unit.MINUTE, algorithm=Algorithm.FIXED_WINDOW, align=Align.FIRST_HIT)
    assert Differences(SLIDING, first_hit).parts == []


def test_an_example_is_the_descriptor_on_which_they_differ():
    """As much of it as a person reads."""
    found = Differences(SLIDING, FIXED)
    found.note(BEGINS, plan([Entry("d0", "x")], [Entry("d1", "y")]), 1, only_enforced=1, only_compared=0)
    assert found.examples[-1].entries == ("d1=y",)


def test_an_example_is_short():
    """A descriptor may have as many entries as a caller likes."""
    long = plan([Entry("d0", "x")])
    assert long.compared is not None
    long.compared.request = Request("shop", (Descriptor((Entry("d0", "x"),) * 2 * MOST_ENTRIES),))
    found = Differences(SLIDING, FIXED)
    found.note(BEGINS, long, 0, only_enforced=1, only_compared=0)
    assert found.examples[-1].entries == ("d0=x",) * MOST_ENTRIES
