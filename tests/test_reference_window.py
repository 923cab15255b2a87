"""The window that is kept as the reference implementation keeps it: what is stored where, and what it makes of what it finds there."""

from datetime import UTC, datetime

import pytest

from ratelimit_svc.model import BAD_KEY, Algorithm, Grant, Kind, Line, Outcome, Overdraft, Unit
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.windows.reference_window import place_of
from tests.histories import MINUTE, SECOND, START, charge, fixed, shared, undo
from tests.test_twins import Lua
from tests.walk import Walk

START_S = START // SECOND
NUMBER = b"shop_a_%d" % START_S
"""Where the hits of `shared()` are at START, which is the first microsecond of an hour."""


@pytest.fixture
def lua(client) -> Lua:
    """The script on an empty server."""
    client.flushall()
    return Lua(client)


def ask(lua: Lua, *charges, n: int = 1, now: int = START) -> Grant:
    (grant,) = lua.take((Line(charges, n),), now)
    return grant


@pytest.mark.parametrize(
    ("unit", "starts"),
    [
        (Unit.SECOND, "2026-11-25 04:47:45"),
        (Unit.MINUTE, "2026-11-25 04:47:00"),
        (Unit.HOUR, "2026-11-25 04:00:00"),
        (Unit.DAY, "2026-11-25"),
        (Unit.WEEK, "2026-11-19"),  # a Thursday
        (Unit.MONTH, "2026-11-03"),  # 30 days
        (Unit.YEAR, "2025-12-18"),  # 365 days
    ],
)
def test_a_window_is_where_the_reference_implementation_has_it(lua, unit, starts):
    """Its start in seconds, at multiples of its length since the epoch, stands at the end of its key."""
    second = int(datetime(2026, 11, 25, 4, 47, 45, tzinfo=UTC).timestamp())
    expected = b"p:shop_y_1_%d" % int(datetime.fromisoformat(f"{starts}+00:00").timestamp())
    key, window = f"p:shop_y_1_{unit.seconds}s", unit.seconds * SECOND
    assert place_of(key.encode(), second * SECOND + 999_999, window) == expected
    ask(lua, shared(5, key=key, window=window, hits=3), now=second * SECOND + 999_999)
    assert lua.client.keys() == [expected]
    assert lua.client.get(expected) == b"3"


def test_what_is_stored_is_a_number_that_can_be_added_to(lua):
    """As INCRBY leaves it; what others add is there at once."""
    assert ask(lua, shared(10, hits=3)).outcomes == (Outcome(7, MINUTE, 0),)
    assert lua.client.incrby(NUMBER, 4) == 7
    assert ask(lua, shared(10, hits=2)).outcomes == (Outcome(1, MINUTE, 0),)
    assert lua.client.get(NUMBER) == b"9"


def test_a_denial_adds_nothing_and_what_others_were_denied_is_understood(lua):
    """The reference implementation counts what it denies: whatever is above the limit is full, until the window ends."""
    lua.client.set(NUMBER, 104)
    assert ask(lua, shared(5), now=START + 20 * SECOND) == Grant(0, (Outcome(0, 40 * SECOND, 40 * SECOND),))
    assert lua.client.get(NUMBER) == b"104"
    assert ask(lua, shared(5), now=START + MINUTE).granted == 1


def test_no_number_is_without_an_expiry(lua):
    """It lives for a window longer than its own, and gets an expiry where it has lost it."""
    ask(lua, shared(5), now=START + 20 * SECOND)
    assert 99_000 < lua.client.pttl(NUMBER) <= 100_000
    lua.client.set(NUMBER, 1)
    ask(lua, shared(5), now=START + 50 * SECOND)
    assert 69_000 < lua.client.pttl(NUMBER) <= 70_000


def test_a_check_passes_at_the_limit_and_writes_nothing(lua):
    """As that of a fixed window."""
    check = shared(5, hits=0, overdraft=Overdraft.AUTO)
    assert ask(lua, check) == Grant(1, (Outcome(5, MINUTE, 0),))
    assert lua.client.keys() == []
    lua.client.set(NUMBER, 5)
    assert ask(lua, check) == Grant(1, (Outcome(0, MINUTE, 0),))
    lua.client.set(NUMBER, 6)
    assert ask(lua, check) == Grant(0, (Outcome(0, MINUTE, MINUTE),))


@pytest.mark.parametrize("checked", [True, False])
def test_a_cost_that_does_not_fit_counts_whoever_was_asked_before(lua, checked):
    """60 + 60 of 100: the second counts, and is told so; then not even one passes. The check may have been another's."""
    if checked:
        ask(lua, shared(100, hits=0, overdraft=Overdraft.AUTO))
    cost = shared(100, hits=60, overdraft=Overdraft.AUTO)
    assert ask(lua, cost) == Grant(1, (Outcome(40, MINUTE, 0),))
    assert ask(lua, cost) == Grant(1, (Outcome(-20, MINUTE, MINUTE),), overdrawn=True)
    assert ask(lua, shared(100, hits=0, overdraft=Overdraft.AUTO)).granted == 0
    assert ask(lua, shared(100, overdraft=Overdraft.AUTO)).granted == 0
    assert ask(lua, cost) == Grant(0, (Outcome(0, MINUTE, MINUTE),))
    assert lua.client.get(NUMBER) == b"120"


def test_what_must_not_overdraw_does_not(lua):
    """`overdraft: never`: all or nothing, as everywhere."""
    assert ask(lua, shared(5, hits=4)).granted == 1
    assert ask(lua, shared(5, hits=2)) == Grant(0, (Outcome(1, MINUTE, MINUTE),))
    assert lua.client.get(NUMBER) == b"4"


def test_refunds_end_at_nothing_and_undos_belong_to_their_window(lua):
    """An undo of a window that has passed takes nothing off the next."""
    line = Line((shared(5, hits=3),), 1)
    ask(lua, *line.charges, now=START + 59 * SECOND)
    lua.take((undo(START + 59 * SECOND, line),), START + MINUTE)
    assert lua.client.get(NUMBER) == b"3"
    lua.take((undo(START + 59 * SECOND, line),), START + 59 * SECOND)
    assert lua.client.get(NUMBER) == b"0"
    ask(lua, shared(5, hits=3))
    assert ask(lua, shared(5, hits=9, kind=Kind.REFUND)) == Grant(1, (Outcome(5, MINUTE, 0),))
    assert lua.client.get(NUMBER) == b"0"


@pytest.mark.parametrize("number", [2**31, 2**32, 10**14 + 1, 2**53 - 2**33 - 1])
def test_large_numbers_are_exact(lua, number):
    """To the last digit, where Lua of itself writes 14 of them."""
    lua.client.set(NUMBER, number)
    ask(lua, shared(5, hits=2**32, overdraft=Overdraft.ALWAYS))
    assert lua.client.get(NUMBER) == b"%d" % (number + 2**32)


@pytest.mark.parametrize("number", [2**53, 2**63 - 1])
def test_the_largest_numbers_stay_large(lua, number):
    """Beyond 2^53 all is the same: full. No addition overflows."""
    lua.client.set(NUMBER, number)
    assert ask(lua, shared(2**32 - 1)).granted == 0
    ask(lua, shared(5, hits=2**32, overdraft=Overdraft.ALWAYS))
    assert lua.client.get(NUMBER) == b"9007199254740991"


def test_a_number_below_nothing_is_none(lua):
    """The reference implementation subtracts where it is asked for 2^63 hits and more; nobody gets more than the limit for it."""
    lua.client.set(NUMBER, -3)
    assert ask(lua, shared(5, hits=6)).granted == 0
    assert ask(lua, shared(5, hits=5)).granted == 1
    assert lua.client.get(NUMBER) == b"5"


@pytest.mark.parametrize("text", ["", "x", "1.5", "1e3", " 1", "1\n", "0x10", "-", "9" * 21])
def test_what_is_no_number_is_a_bad_key(lua, text):
    """It fails alone, and stays as it is."""
    lua.client.set(NUMBER, text)
    lines = (Line((shared(5),), 1), Line((charge("good", 5),), 1))
    assert [grant.granted for grant in lua.take(lines, START)] == [BAD_KEY, 1]
    assert lua.client.get(NUMBER) == text.encode()


def test_a_list_is_a_bad_key(lua):
    """WRONGTYPE, likewise."""
    lua.client.rpush(NUMBER, 1)
    assert ask(lua, shared(5)).granted == BAD_KEY


def test_two_periods_that_begin_together_are_one_number_as_there(lua):
    """Each counts, and what is counted is not forgotten before the longer one ends; a minute later they are two."""
    both = shared(9, window=60 * MINUTE, key="shop_a_3600s"), shared(9)
    assert [outcome.remaining for outcome in ask(lua, *both).outcomes] == [8, 7]
    assert lua.client.get(NUMBER) == b"2"
    assert lua.client.pttl(NUMBER) > 60 * MINUTE / 1000
    ask(lua, *both, now=START + MINUTE)
    assert lua.client.get(NUMBER) == b"3"
    assert lua.client.get(b"shop_a_%d" % (START_S + 60)) == b"1"


def test_it_counts_as_a_fixed_window_does():
    """Whatever of single hits, at any moment: the same answers."""
    walk = Walk(START + 50 * SECOND)
    for passes in (0, 0, 0, 9 * SECOND, SECOND - 1, 1, 0, 30 * SECOND, 0, 0, 31 * SECOND):
        walk.now += passes
        assert walk.ask(fixed("k", 3), n=2) == walk.ask(shared(3), n=2)


def test_memory_counts_in_the_same_way_and_forgets(clock):
    """The share in an outage, and a process without Redis: each window is one entry, gone a window after its end."""
    store = MemoryStore(clock)
    assert [store.take_now([Line((shared(2),), 3)])[0].granted for _ in range(2)] == [2, 0]
    clock.now += MINUTE
    assert store.take_now([Line((shared(2),), 3)])[0].granted == 2
    assert len(store) == 2
    clock.now += 2 * MINUTE
    store.expire(clock.now)
    assert len(store) == 0


def test_no_rule_may_name_it():
    """It is how fixed windows are kept, not a way to count."""
    from ratelimit_svc.rules.files import RuleFile
    from ratelimit_svc.rules.load import load

    rule = "{key: a, rate_limit: {unit: minute, requests_per_unit: 1, algorithm: reference_window}}"
    with pytest.raises(Exception, match="reference_window"):
        load([RuleFile("r.yaml", f"domain: d\ndescriptors: [{rule}]".encode())])
    assert Algorithm.REFERENCE_WINDOW.value == "r"
