"""The twins are one: Lua equals Python on generated histories, on Redis and on Valkey, and keeps the promises itself."""

import asyncio
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, example, given, settings

from ratelimit_svc.model import BAD_KEY, BEGIN_ON_MONDAY, Algorithm, Grant, Kind, Line, Overdraft
from ratelimit_svc.store.redis import commands
from ratelimit_svc.store.redis.script import SCRIPT, script, twin
from ratelimit_svc.windows import batch
from ratelimit_svc.windows.fixed_window import FixedWindow
from ratelimit_svc.windows.reference_window import ReferenceWindow
from ratelimit_svc.windows.sliding_window import SlidingWindow
from ratelimit_svc.windows.token_bucket import TokenBucket
from tests.histories import (
    DAY,
    MINUTE,
    SLIDING,
    START,
    Charged,
    Log,
    Step,
    admit,
    bucket,
    charge,
    fixed,
    histories,
    shared,
    undo,
)
from tests.taking import granted

TWINS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Lua:
    """The script in a real server, under a clock that is handed in."""

    def __init__(self, client: redis.Redis, script: bytes = SCRIPT) -> None:
        self.client = client
        self._take = client.register_script(script)

    def take(self, lines: tuple[Line, ...], now: int) -> list[Grant]:
        keys = [one.key for line in lines for one in line.charges]
        found = commands.taken(self._take(keys=[*keys, b"receipt"], args=[commands.pack(lines, now=now)]), lines)
        assert found.grants is not None
        assert found.now == now
        return found.grants

    def state(self, key: bytes) -> bytes | None:
        found = self.client.get(key)
        assert found is None or isinstance(found, bytes)
        return found


class Python:
    """The Python twin on a dict."""

    def __init__(self) -> None:
        self.windows: dict[bytes, batch.Window] = {}

    def take(self, lines: tuple[Line, ...], now: int) -> list[Grant]:
        return batch.take(lines, now, self._load, self.windows.__setitem__)

    def _load(self, key: bytes) -> batch.Window | None:
        return self.windows.get(key)


def same(lua: Lua, history, now: int = START) -> None:
    """Run a history on both and require the same answers and the same states."""
    python = Python()
    lua.client.flushall()
    charged = Charged()
    for number, step in enumerate(history):
        now = max(now + step.passes + step.stepped, 1)
        lines = charged.batch(step)
        grants = python.take(lines, now)
        assert lua.take(lines, now) == grants, f"step {number}"
        charged.note(now, lines, grants)
    for key, window in python.windows.items():
        stored = lua.state(key)
        assert stored is not None, f"{key!r} is not there"
        assert fields_of(stored, type(window)) == fields_of(window), f"{key!r}"


def fields_of(window: batch.Window | bytes, kind: type = object) -> list[object]:
    """What of a window is stored, for comparison."""
    if isinstance(window, SlidingWindow):
        return [window.budget, window.width, window.head, window.total, window.here, *window.older]
    if isinstance(window, FixedWindow):
        return [window.budget, window.ends, window.total]
    if isinstance(window, ReferenceWindow):
        return [window.total]
    if isinstance(window, TokenBucket):
        return [window.budget, window.at, window.total, window.part]
    if kind is ReferenceWindow:
        return [int(window)]
    assert window[0] == 1
    assert kind is not None
    numbers = {SlidingWindow: 4, FixedWindow: 2, TokenBucket: 3}[kind]
    header = 2 + 8 * numbers
    return [
        bool(window[1]),
        *struct.unpack_from(f"<{numbers}d", window, 2),
        *struct.iter_unpack("<2d", window[header:]),
    ]


ONE_NUMBER = [
    Step(
        0, 0, (Line((shared(9, hits=2), shared(9, key="shop_a_3600s", window=60 * MINUTE)), 1), Line((shared(9),), 1))
    ),
]
"""Two periods that begin together are one number in the reference implementation's keys."""

NAMED_LATE = [
    Step(0, 0, (one, undo(START + DAY, one)))
    for one in (Line((fixed("late", 5, hits=2),), 1), Line((bucket("late bucket", 5, 5, hits=2),), 1))
]
"""Undos that name a time after the window, as of a charge that a clock ahead of this one has seen: they take nothing."""


@given(history=histories(undone=True))
@example(history=ONE_NUMBER)
@example(history=NAMED_LATE)
@TWINS
def test_lua_equals_python(client, history):
    """Same answers and same states on any history: keys, hits, limits, re-cuts, roles, coalesced lines, undos, clock jumps."""
    same(Lua(client), history)


@given(history=histories(clock_is_set=False, undone=True, **SLIDING))
@TWINS
def test_lua_keeps_promise_1(client, history):
    """No interval of one window holds more than the limit, judged without the Python twin."""
    lua, log, charged, now = Lua(client), Log(MINUTE), Charged(), START
    client.flushall()
    for step in history:
        now += step.passes
        lines = charged.batch(step)
        grants = lua.take(lines, now)
        charged.note(now, lines, grants)
        admit(log, now, lines, grants)


FULL = (Line((charge("full", 1),), 1),)
FAR_AHEAD = [Step(0, 50 * MINUTE, FULL), Step(0, -50 * MINUTE, FULL), Step(30_000_000, 0, FULL)]
FULL_MINUTE = (Line((fixed("fixed", 1),), 1),)
TO_THE_BOUNDARY = [Step(0, 0, FULL_MINUTE), Step(MINUTE, 0, FULL_MINUTE)]

BUDGET = [
    Step(0, 0, (Line(tuple(charge("budget", 3, hits=hits, overdraft=Overdraft.AUTO) for hits in costs), 1),))
    for costs in ([0], [3, 2], [0], [5])
]
"""Made by a check; overdrawn by the second of two costs, each after the other; left as it is when nothing is left."""
OVERDRAWN = [Step(0, 0, (Line((charge("overdrawn", 3, hits=hits, overdraft=Overdraft.AUTO),), 1),)) for hits in (0, 5)]

TWICE = [Step(0, 0, (Line((charge("twice", 5, hits=3), charge("twice", 5, hits=3)), 1),))]
"""The same key twice in one request: each fits, both do not."""

SPENT = Line((charge("undone", 5, hits=5),), 1)
UNDONE_BESIDE = [
    Step(0, 0, (SPENT,)),
    Step(0, 0, (Line((*undo(START, SPENT).charges, charge("undone", 5, hits=3)), 1),)),
]
"""An undo in one line with a charge, which does not see the room yet."""


def broken(name: str, old: str, new: str) -> bytes:
    """The script with one place of one file changed; the place must exist, once."""
    assert twin(name).count(old) == 1
    return script(lambda each: twin(each).replace(old, new) if each == name else twin(each))


MISTAKES = [
    ("sliding_window", "if number >= present - slices then", "if number > present - slices then"),
    ("sliding_window", "return (number + self.slices + 1) * self.width", "return (number + self.slices) * self.width"),
    ("sliding_window", "((number + 1) * width - 1) / new_width", "number * width / new_width"),
    ("sliding_window", "self.here = self.here + hits", "self.here = hits"),
    ("sliding_window", "state.must_save = true", "state.must_save = false"),
    ("sliding_window", "if ahead > window then", "if ahead >= 0 then"),
    ("sliding_window", "if count > cut then kept", "if count >= cut then kept"),
    ("sliding_window", "    self.here = self.here - cut\n", ""),
    ("sliding_window", "self.older, self.unmoved = table.concat(kept), false", "self.unmoved = false"),
    ("sliding_window", "self.older, self.unmoved = table.concat(kept), false", "self.older = table.concat(kept)"),
    ("sliding_window", "(not only or number == only)", "not only"),
    ("sliding_window", "(not only or number == only)", "true"),
    ("sliding_window", "if not only or only == self.head then", "if not only or only >= self.head then"),
    ("sliding_window", "if not only or only == self.head then", "if not only then"),
    ("sliding_window", "local budget = flags == 1", "local budget = false"),
    ("fixed_window", "(floor(now / window) + 1) * window end", "(floor(now / window) + 2) * window end"),
    ("fixed_window", "local MONDAY = 4 * DAY", "local MONDAY = 3 * DAY"),
    ("fixed_window", "return (era * 400 + year) * 12 + month + 2", "return (era * 400 + year) * 12 + month + 3"),
    ("fixed_window", "(stored_ends <= now or total == 0)", "(stored_ends < now or total == 0)"),
    ("fixed_window", "(stored_ends <= now or total == 0)", "stored_ends <= now"),
    ("fixed_window", "FixedWindow.CHECK_NEEDS = 0", "FixedWindow.CHECK_NEEDS = 1"),
    ("fixed_window", "charged_at < self.ends and self.ends", "self.ends"),
    ("fixed_window", " and self.ends <= end_of(charged_at, self.window, self.shape)", ""),
    ("reference_window", "ReferenceWindow.CHECK_NEEDS = 0", "ReferenceWindow.CHECK_NEEDS = 1"),
    ("reference_window", "ReferenceWindow.budget = true", "ReferenceWindow.budget = false"),
    ("reference_window", "floor(now / window) * window / 1000000)", "floor(now / window) / 1000000)"),
    ("reference_window", "'^.*_'", "'^.-_'"),
    ("reference_window", "  self.window = max(self.window, window)\n", ""),
    ("reference_window", "local left = min(hits, self.total)", "local left = hits"),
    ("reference_window", "self.window) * self.window ~= self.starts then", "self.window) ~= self.starts then"),
    ("reference_window", "self.window ~= self.starts then", "self.window > self.starts then"),
    ("reference_window", "= min(self.total + hits, MOST)", "= min(self.total + hits, 4294967296)"),
    ("token_bucket", "if charged_at > self.at then return false end", ""),
    ("token_bucket", "self.total + drained - hits", "self.total - hits"),
    ("token_bucket", "part = self.part + part\n", "part = self.part\n"),
    ("token_bucket", "if part >= self.window then total, part = total + 1, part - self.window end", ""),
    ("token_bucket", "if part < 0 then total, part = total - 1, part + window end", "part = 0"),
    ("token_bucket", "(self.part > 0 and 1 or 0)", "0"),
    ("token_bucket", "sum = rest * 16 + digit * b", "sum = digit * b"),
    ("token_bucket", "if excess < 0 then return 0 end", "if excess <= 0 then return 0 end"),
    ("token_bucket", "if ahead < 0 then", "if ahead ~= 0 then"),
    ("batch", "room >= charge.need then return FITS end", "room > charge.need then return FITS end"),
    ("batch", "AUTO and charge.state.budget\n", "AUTO\n"),
    ("batch", "and max(room, charge.state:room(charge.limit)) > 0 then", "then"),
    ("batch", "max(room, charge.state:room(charge.limit)) > 0", "room > 0"),
    ("batch", "if quotas > 0 and quotas_that_fit == 0 then", "if quotas > quotas_that_fit then"),
    ("batch", "elseif charge.role == GATE and charge.fit == NOT then", "elseif charge.fit == NOT then"),
    ("batch", "or (hits > 0 and overdraft == ALWAYS)", ""),
    ("batch", "return charge.overdraft == AUTO and window:mark()", "return false"),
    ("batch", "window.asked = window.asked - min(charge.hits, window.total + window.asked)", ""),
    ("batch", "  if overdrawn then reply[place] = ONE_OVERDRAWN end\n", ""),
    ("batch", "charge.kind == UNDO and charge.limit or nil", "nil"),
    ("batch", "if charge.kind < REFUND and not", "if charge.kind ~= REFUND and not"),
    ("batch", "charged and charge.fit == OVERDRAWN and room or max(room, 0)", "max(room, 0)"),
    ("batch", "if role ~= GATE or kind >= LOOK", "if kind >= LOOK"),
    ("batch", "if role ~= GATE or kind >= LOOK", "if role ~= GATE or kind >= REFUND"),
    ("batch", "if role ~= GATE or kind >= LOOK", "if role ~= GATE or kind == LOOK or kind == REFUND"),
    ("batch", "if role ~= GATE or kind >= LOOK", "if role ~= GATE"),
    ("batch", "kind >= LOOK or hits == 0 or overdraft", "kind >= LOOK or overdraft"),
    ("batch", "    if charge.kind == LOOK then return false end\n", ""),
    ("batch", "granted == n and charge.kind ~= LOOK", "granted == n"),
    ("batch", "or overdraft == ALWAYS then return false", "then return false"),
    ("batch", "(overdraft == AUTO and hits > 1 and window.budget) or window.line", "window.line"),
    ("batch", "or window.line == first_key then return false", "then return false"),
    ("batch", "granted = max(floor(rooms[i] / asks[i]), 0) end", "granted = 0 end"),
    ("batch", "granted = max(floor(rooms[i] / asks[i]), 0) end", "granted = floor(rooms[i] / asks[i]) end"),
    ("batch", "window:add(granted * hits)", "window:add(hits)"),
    ("batch", "reply[last + 1] = max(rooms[i] - granted * hits, 0)", "reply[last + 1] = rooms[i] - granted * hits"),
    ("batch", "granted < n and window:until_fits", "granted == 0 and window:until_fits"),
]
OF_ONE: dict[str, dict[str, Any]] = {
    "sliding_window": {"algorithms": (Algorithm.SLIDING_WINDOW,)},
    "fixed_window": {"algorithms": (Algorithm.FIXED_WINDOW,)},
    "token_bucket": {"algorithms": (Algorithm.TOKEN_BUCKET,)},
    "reference_window": {"algorithms": (Algorithm.REFERENCE_WINDOW,)},
    "batch": {"algorithms": (Algorithm.SLIDING_WINDOW,)},
}


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize(("name", "old", "new"), MISTAKES)
def test_one_small_mistake_makes_the_twins_differ(valkey_server, name, old, new):
    """The judge is awake: each small mistake in the Lua is found by the same comparison."""

    @given(history=histories(undone=True, **OF_ONE[name]))
    @example(history=FAR_AHEAD)
    @example(history=TO_THE_BOUNDARY)
    @example(history=BUDGET)
    @example(history=OVERDRAWN)
    @example(history=TWICE)
    @example(history=UNDONE_BESIDE)
    @example(history=NAMED_LATE)
    @example(history=ONE_NUMBER)
    @settings(TWINS, max_examples=2000, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
    def compare(history):
        same(lua, history)

    with redis.Redis(port=valkey_server.port, host="127.0.0.1") as client:
        lua = Lua(client, broken(name, old, new))
        with pytest.raises(AssertionError):
            compare()


def test_the_calendar_is_the_same_around_every_boundary(client):
    """Months, quarters, years and fortnights end for both twins in the same microsecond, from 1970 past 2100's missing leap day."""
    lua, python = Lua(client), Python()
    client.flushall()
    kinds = {
        "month": (30 * DAY, 1),
        "quarter": (90 * DAY, 3),
        "year": (365 * DAY, 12),
        "weeks": (14 * DAY, BEGIN_ON_MONDAY),
    }
    lines = tuple(Line((fixed(name, 1, window=window, begin=begin),), 1) for name, (window, begin) in kinds.items())
    month = datetime(1970, 2, 1, tzinfo=UTC)
    while month.year < 2105:
        boundary = int(month.timestamp()) * 1_000_000
        for now in (boundary - 1, boundary):
            told = lua.take(lines, now)
            assert told == python.take(lines, now), month
        assert told[0].granted == 1, month
        month = (month + timedelta(days=31)).replace(day=1)


def test_every_key_has_an_expiry_of_two_windows(client):
    """Expiry frees memory: each key lives until two windows after its head's start, and a take within a slice keeps it."""
    lua = Lua(client)
    client.flushall()
    one = (Line((charge("k", 5),), 1),)
    lua.take(one, START)
    first = client.pttl("k")
    assert 2 * MINUTE / 1000 - 2000 <= first <= 2 * MINUTE / 1000
    lua.take(one, START + 999_999)
    assert 0 < client.pttl("k") <= first
    lua.take(one, START + 1_000_000)
    assert client.pttl("k") >= 2 * MINUTE / 1000 - 2000


@pytest.mark.parametrize(
    ("one", "least_ms", "most_ms"),
    [
        (fixed("k", 5), MINUTE / 1000, 2 * MINUTE / 1000),
        (fixed("k", 5, begin=-1), 2 * MINUTE / 1000 - 2000, 2 * MINUTE / 1000),
        (bucket("k", 5, 5), 2.2 * MINUTE / 1000 - 2000, 2.2 * MINUTE / 1000),
    ],
)
def test_every_key_of_every_algorithm_has_an_expiry(client, one, least_ms, most_ms):
    """No key stays for ever, and none leaves before it holds nothing."""
    lua = Lua(client)
    client.flushall()
    lua.take((Line((one,), 1),), START)
    assert least_ms <= client.pttl("k") <= most_ms


def test_a_denial_writes_nothing(client):
    """A key that was only asked does not exist, and a full one keeps its bytes, a slice later too."""
    lua = Lua(client)
    client.flushall()
    lua.take((Line((charge("full", 1),), 1),), START)
    stored = lua.state(b"full")
    (grant,) = lua.take((Line((charge("other", 9), charge("full", 1)), 1),), START + 5_000_000)
    assert grant.granted == 0
    assert lua.state(b"full") == stored
    assert lua.state(b"other") is None


def _hash(client: redis.Redis) -> None:
    client.hset("bad", "field", "value")


BAD_KEYS: dict[str, Callable[[redis.Redis], object]] = {
    "another type": _hash,
    "an empty string": lambda client: client.set("bad", b""),
    "a short string": lambda client: client.set("bad", b"\x01" + b"\0" * 21),
    "a string of odd length": lambda client: client.set("bad", b"\x01" + b"\0" * 40),
    "a version of the future": lambda client: client.set("bad", b"\x02" + b"\0" * 33),
    "a total that is not there": lambda client: client.set("bad", b"\x01" + b"\0" * 17 + b"\x11" * 8 + b"\0" * 8),
}


@pytest.mark.parametrize("one", [charge("k", 5), fixed("k", 5), bucket("k", 5, 5)], ids=["sliding", "fixed", "bucket"])
@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_state_of_another_version_is_left_as_it_is(client, one, version):
    """Two releases on one Redis: neither reads what the other wrote in another format, nor writes over it."""
    lua = Lua(client)
    client.flushall()
    lua.take((Line((one,), 2),), START)
    client.setrange("k", 0, bytes([version]))
    before = lua.state(b"k")
    for kind in (Kind.POSITIVE, Kind.REFUND, Kind.UNDO):
        (grant,) = lua.take((Line((one._replace(kind=kind),), 1),), START)
        assert grant == Grant(BAD_KEY, ())
    assert lua.state(b"k") == before
    client.setrange("k", 0, b"\x01")
    (grant,) = lua.take((Line((one,), 1),), START)
    assert grant.outcomes[0].remaining == 2


@pytest.mark.parametrize("poison", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_bad_key_fails_alone(client, poison):
    """The line with the bad key is not taken and says so; the others are, and the bad key stays as it is."""
    lua = Lua(client)
    client.flushall()
    poison(client)
    before = client.dump("bad")
    good, bad = charge("good", 5), charge("bad", 5)
    grants = lua.take((Line((good,), 2), Line((good, bad), 1), Line((bad,), 1), Line((good,), 1)), START)
    assert [grant.granted for grant in grants] == [2, -1, -1, 1]
    assert [len(grant.outcomes) for grant in grants] == [1, 0, 0, 1]
    assert grants[3].outcomes[0].remaining == 2
    assert client.dump("bad") == before


def test_rubbish_in_a_window_crashes_nothing(client):
    """Any bytes of the right length give some answer, and the other lines theirs."""
    import random

    lua, seeds = Lua(client), random.Random(7)
    for pairs in (0, 1, 5):
        for _ in range(100):
            client.set("bad", b"\x01" + seeds.randbytes(32 + 16 * pairs))
            for hits in (1, 3):
                grants = lua.take(
                    (Line((charge("bad", 5, hits=hits),), 1), Line((charge("good", 2**32 - 1),), 1)), START
                )
                assert grants[1].granted == 1
                for remaining, _, _ in grants[0].outcomes:
                    assert 0 <= remaining <= 5
    not_a_number = struct.pack("<d", float("nan"))
    for field in range(4):
        state = [struct.pack("<d", number) for number in (1e6, START / 1e6, 1, 1)]
        state[field] = not_a_number
        client.set("bad", b"\x01" + b"".join(state))
        (grant,) = lua.take((Line((charge("bad", 5),), 1),), START)
        assert grant.granted == -1
    client.flushall()


def test_a_batch_is_atomic_between_callers(server):
    """Many callers at once on the real clock admit the limit and not one more."""
    admitted = count()

    async def caller() -> None:
        from ratelimit_svc.store.redis import RedisStore

        async with RedisStore(server.url, timeout_s=5) as store:
            for _ in range(30):
                for grant in await granted(store.take([Line((charge("shared", 100, window=3600_000_000),), 2)])):
                    for _ in range(grant.granted):
                        next(admitted)

    async def all_callers() -> None:
        await asyncio.gather(*(caller() for _ in range(8)))

    with redis.Redis(port=server.port, host="127.0.0.1") as client:
        client.flushall()
    asyncio.run(all_callers())
    assert next(admitted) == 100
