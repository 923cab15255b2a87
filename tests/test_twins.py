"""The twins are one: Lua equals Python on generated histories, on Redis and on Valkey, and keeps the promises itself."""

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import redis
from hypothesis import HealthCheck, Phase, example, given, settings

from ratelimit_svc.demo.parts import RedisServer
from ratelimit_svc.model import Grant, Line
from ratelimit_svc.store.redis import SCRIPT, _arguments, _grants
from ratelimit_svc.windows import batch
from ratelimit_svc.windows.sliding_window import SlidingWindow
from tests.histories import MINUTE, START, Log, Step, admit, charge, histories

TWINS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Lua:
    """The script in a real server, under a clock that is handed in."""

    def __init__(self, client: redis.Redis, script: bytes = SCRIPT) -> None:
        self.client = client
        self._take = client.register_script(script)

    def take(self, lines: tuple[Line, ...], now: int) -> list[Grant]:
        keys = [one.key for line in lines for one in line.charges]
        return _grants(self._take(keys=keys, args=[b"%d" % now, *_arguments(lines)]), lines)

    def state(self, key: bytes) -> bytes | None:
        found = self.client.get(key)
        assert found is None or isinstance(found, bytes)
        return found


class Python:
    """The Python twin on a dict."""

    def __init__(self) -> None:
        self.windows: dict[bytes, SlidingWindow] = {}

    def take(self, lines: tuple[Line, ...], now: int) -> list[Grant]:
        return batch.take(lines, now, self._load, self.windows.__setitem__)

    def _load(self, key: bytes) -> SlidingWindow | None:
        return self.windows.get(key)


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A plain client of each server in turn."""
    with redis.Redis(port=server.port, host="127.0.0.1") as opened:
        yield opened


def same(lua: Lua, history, now: int = START) -> None:
    """Run a history on both and require the same answers and the same states."""
    python = Python()
    lua.client.flushall()
    for number, step in enumerate(history):
        now = max(now + step.passes + step.stepped, 1)
        assert lua.take(step.lines, now) == python.take(step.lines, now), f"step {number}"
    for key, window in python.windows.items():
        stored = lua.state(key)
        assert stored is not None
        assert SlidingWindowState(stored) == SlidingWindowState(window)


class SlidingWindowState:
    """What of a window is stored, for comparison."""

    def __init__(self, window: SlidingWindow | bytes) -> None:
        if isinstance(window, bytes):
            self.fields = [*struct.unpack_from("<4d", window, 1), *struct.iter_unpack("<2d", window[33:])]
        else:
            self.fields = [window.width, window.head, window.total, window.here, *window.older]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlidingWindowState) and self.fields == other.fields

    def __repr__(self) -> str:
        return repr(self.fields)

    __hash__ = None  # type: ignore[assignment]


@given(history=histories())
@TWINS
def test_lua_equals_python(client, history):
    """Same answers and same states on any history: keys, hits, limits, re-cuts, roles, coalesced lines, clock jumps."""
    same(Lua(client), history)


@given(history=histories(clock_is_set=False))
@TWINS
def test_lua_keeps_promise_1(client, history):
    """No interval of one window holds more than the limit, judged without the Python twin."""
    lua, log, now = Lua(client), Log(MINUTE), START
    client.flushall()
    for step in history:
        now += step.passes
        admit(log, now, step.lines, lua.take(step.lines, now))


FULL = (Line((charge("full", 1),), 1),)


@contextmanager
def broken(old: str, new: str) -> Iterator[bytes]:
    """The script with one place changed; the place must exist."""
    text = SCRIPT.decode()
    assert text.count(old) == 1
    yield text.replace(old, new).encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if number >= present - slices then", "if number > present - slices then"),
        ("return (number + self.slices + 1) * self.width", "return (number + self.slices) * self.width"),
        ("((number + 1) * width - 1) / new_width", "number * width / new_width"),
        ("self.here = self.here + hits", "self.here = hits"),
        ("state.must_save = true", "state.must_save = false"),
        ("if ahead > window then", "if ahead >= 0 then"),
    ],
)
def test_one_wrong_slice_makes_the_twins_differ(valkey_server, old, new):
    """The judge is awake: each small mistake in the Lua is found by the same comparison."""

    @given(history=histories())
    @example(history=[Step(0, 50 * MINUTE, FULL), Step(0, -50 * MINUTE, FULL), Step(30_000_000, 0, FULL)])
    @settings(TWINS, max_examples=1000, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
    def compare(history):
        same(lua, history)

    with broken(old, new) as script, redis.Redis(port=valkey_server.port, host="127.0.0.1") as client:
        lua = Lua(client, script)
        with pytest.raises(AssertionError):
            compare()


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
    "a short string": lambda client: client.set("bad", b"\x01" + b"\0" * 20),
    "a string of odd length": lambda client: client.set("bad", b"\x01" + b"\0" * 39),
    "a version of the future": lambda client: client.set("bad", b"\x02" + b"\0" * 32),
    "a total that is not there": lambda client: client.set("bad", b"\x01" + b"\0" * 16 + b"\x11" * 8 + b"\0" * 8),
}


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
                for grant in await store.take([Line((charge("shared", 100, window=3600_000_000),), 2)]):
                    for _ in range(grant.granted):
                        next(admitted)

    async def all_callers() -> None:
        await asyncio.gather(*(caller() for _ in range(8)))

    with redis.Redis(port=server.port, host="127.0.0.1") as client:
        client.flushall()
    asyncio.run(all_callers())
    assert next(admitted) == 100
