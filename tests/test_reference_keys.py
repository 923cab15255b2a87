"""The reference implementation's keys: which charges are kept there, and that its replicas and ours share what is counted.

Its part is played by the two commands that it sends, INCRBY and EXPIRE, on its exact keys.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis

from ratelimit_svc.demo.parts import RedisServer, Replica
from ratelimit_svc.errors import SettingsError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.reference_keys import ReferencePlanner, not_shared
from ratelimit_svc.metrics.counts import Compared
from ratelimit_svc.model import Algorithm, Code, Descriptor, Entry, Limit, Plan, Request, Unit, Verdict
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.settings import Settings
from ratelimit_svc.store.keys import MAX_REFERENCE_KEY
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.store.redis.per_second import PerSecond
from ratelimit_svc.store.redis.spread import SpreadStore
from ratelimit_svc.wire.client import Client, request
from tests.histories import SECOND, START
from tests.limiting import Recording, asks, make, sends, settled, tell
from tests.waiting import PATIENCE, until

RULES = """
domain: shop
descriptors:
  - {key: day, rate_limit: {unit: day, requests_per_unit: 10}}
  - {key: minute, rate_limit: {unit: minute, requests_per_unit: 10}}
  - {key: second, rate_limit: {unit: second, requests_per_unit: 10}}
  - {key: tokens, rate_limit: {unit: hour, requests_per_unit: 100}}
  - key: tenant
    descriptors: [{key: path, rate_limit: {unit: week, requests_per_unit: 10}}]
  - {key: files, value: "files/*", share_threshold: true, rate_limit: {unit: month, requests_per_unit: 10}}
  - {key: "wk*", share_threshold: true, rate_limit: {unit: month, requests_per_unit: 10}}
  - {key: "pre*_x", value: "a*", share_threshold: true, rate_limit: {unit: month, requests_per_unit: 10}}
  - {key: sliding, rate_limit: {unit: minute, requests_per_unit: 10, algorithm: sliding_window}}
  - {key: bucket, rate_limit: {unit: minute, requests_per_unit: 10, algorithm: token_bucket}}
  - {key: multiple, rate_limit: {unit: minute, unit_multiplier: 5, requests_per_unit: 10}}
  - {key: odd, rate_limit: {per: 1500ms, requests_per_unit: 10}}
  - {key: calendar, rate_limit: {unit: month, requests_per_unit: 10, align: calendar}}
  - {key: first_hit, rate_limit: {unit: minute, requests_per_unit: 10, align: first_hit}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: a, rate_limit: {unit: minute, requests_per_unit: 10}}
  - key: a
    value: x
    rate_limits: [{unit: second, requests_per_unit: 10}, {unit: minute, requests_per_unit: 10, name: long}]
  - {key: a_b, rate_limit: {unit: minute, requests_per_unit: 10}}
"""
DAY_S = 1_800_000_000 // 86_400 * 86_400
"""When the day of START began, in seconds."""


def rules() -> RuleSet:
    return load([RuleFile("rules.yaml", RULES.encode())], algorithm=Algorithm.FIXED_WINDOW)


def plan(*descriptors: Descriptor, prefix: str = "") -> Plan:
    return ReferencePlanner(rules(), prefix).plan(Request("shop", descriptors))


def on(*entries: str, **others) -> Descriptor:
    """A descriptor of these entries, each written `key=value`."""
    return Descriptor(tuple(Entry(*entry.split("=")) for entry in entries), **others)


# ── which charges, and where ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("descriptor", "key"),
    [
        (on("day=1"), b"p:shop_day_1_86400s"),
        (on("minute=1"), b"p:shop_minute_1_60s"),
        (on("second=1"), b"p:shop_second_1_1s"),
        (on("day="), b"p:shop_day__86400s"),
        (on("tenant={a}:b", "path=/é x"), b"p:shop_tenant_{a}:b_path_/\xc3\xa9 x_604800s"),
        (on("files=files/a"), b"p:shop_files_files/*_2592000s"),
        (on("wkfoo=bar"), b"p:shop_wkfoo_wk*_2592000s"),
        (on("prea_x=abc"), b"p:shop_prea_x_pre*_x_a*_2592000s"),
        (on("day=1", limit=Limit(3, Unit.YEAR)), b"p:shop_day_1_31536000s"),
        (on("files=files/a", limit=Limit(3, Unit.MONTH)), b"p:shop_files_files/a_2592000s"),
        (on("unknown=1", limit=Limit(3, Unit.HOUR)), b"p:shop_unknown_1_3600s"),
    ],
)
def test_fixed_windows_are_kept_in_the_reference_implementations_keys(descriptor, key):
    """As it writes them (looked at in its own Redis), but for the window's start, which the script puts where the length is."""
    (charge,) = plan(descriptor, prefix="p:").charges
    assert (charge.key, charge.algorithm) == (key, Algorithm.REFERENCE_WINDOW)


OWN = ["sliding", "bucket", "multiple", "odd", "calendar", "first_hit"]


@pytest.mark.parametrize("name", OWN)
def test_windows_that_it_has_not_are_kept_as_always(name):
    """Another algorithm, several units, no unit, another beginning: in our own keys."""
    (charge,) = plan(on(f"{name}=1")).charges
    assert charge.key.startswith(b"{shop/%b=1}:" % name.encode())
    assert charge.algorithm is not Algorithm.REFERENCE_WINDOW


def test_those_that_are_not_shared_are_named():
    """All that have a limit which the reference implementation cannot have."""
    assert not_shared(rules()) == [f"shop/{name}" for name in OWN]


def test_very_long_keys_are_not_shared():
    """Up to 1 KiB with the prefix they are; beyond, the key is one of ours, and of bounded length."""
    longest = MAX_REFERENCE_KEY - len("shop_day__86400s")
    keys = [plan(on("day=" + "x" * length)).charges[0].key for length in (longest, longest + 1)]
    assert [len(key) <= 300 for key in keys] == [False, True]
    assert keys[0].startswith(b"shop_day_xxx")


@pytest.mark.parametrize(
    ("descriptors", "coalesces"),
    [
        ([on("day=1"), on("minute=1")], True),
        ([on("day=1"), on("sliding=1")], True),
        ([on("day=1"), on("day=1")], False),
        ([on("a=x")], False),
        ([on("a=b_1"), on("a_b=1")], False),
    ],
)
def test_requests_whose_charges_may_meet_in_one_number_do_not_coalesce(descriptors, coalesces):
    """n of them are one line only where each charge has a number of its own: not where two limits, or two texts, make one key."""
    assert plan(*descriptors).coalesces is coalesces


def test_a_cluster_is_refused():
    """There the start of a window would decide which server has it, and only Redis's clock knows it."""
    env = {"REDIS_KEY_FORMAT": "reference", "REDIS_URL": "a:1"}
    assert Settings.from_environment(env).reference_keys
    for more in (
        {"REDIS_TYPE": "cluster"},
        {"REDIS_PERSECOND": "true", "REDIS_PERSECOND_URL": "b:1", "REDIS_PERSECOND_TYPE": "cluster"},
    ):
        assert Settings.from_environment(env | more | {"REDIS_KEY_FORMAT": "ours"}).redis is not None
        with pytest.raises(SettingsError, match="REDIS_KEY_FORMAT=reference does not go with a Cluster"):
            Settings.from_environment(env | more)
    with pytest.raises(SettingsError, match="REDIS_KEY_FORMAT='theirs': must be one of ours, reference"):
        Settings.from_environment({"REDIS_KEY_FORMAT": "theirs"})


# ── one replica of each kind ──────────────────────────────────────────────────────────────────────────────────────────


class Theirs:
    """A replica of the reference implementation: what it sends, and what it makes of the answer."""

    def __init__(self, client: Redis, clock) -> None:
        self.client, self.clock = client, clock

    def key(self, descriptor: str, unit_s: int) -> str:
        return f"{descriptor}_{self.clock() // SECOND // unit_s * unit_s}"

    def ask(self, descriptor: str, *, limit: int, unit_s: int, hits: int = 1) -> tuple[Code, int, int]:
        """Code, remaining and reset."""
        pipeline = self.client.pipeline(transaction=False)
        pipeline.incrby(self.key(descriptor, unit_s), hits)
        pipeline.expire(self.key(descriptor, unit_s), unit_s)
        after = pipeline.execute()[0]
        code = Code.OVER_LIMIT if after > limit else Code.OK
        return code, max(limit - after, 0), unit_s - self.clock() // SECOND % unit_s


@pytest.fixture
def windows(valkey_server: RedisServer) -> Iterator[Redis]:
    """A client of an empty server."""
    with Redis(host="127.0.0.1", port=valkey_server.port) as opened:
        opened.flushall()
        yield opened


@pytest.fixture
def theirs(windows, clock) -> Theirs:
    """A replica of the one kind."""
    return Theirs(windows, clock)


@pytest.fixture
async def ours(valkey_server, windows, clock) -> AsyncIterator[Limiter]:
    """A replica of the other kind, on the same server and at the same time."""
    async with RedisStore(valkey_server.url, clock=clock, timeout_s=5) as store:
        yield make(Recording(store), rules=rules(), clock=clock, planner=ReferencePlanner)


def told(verdict: Verdict) -> tuple[Code, int, int | None]:
    (status,) = verdict.statuses
    return verdict.code, status.remaining, status.reset_s


async def test_two_kinds_of_replica_share_one_limit(ours, theirs, windows):
    """Whoever is asked, ten pass, and the answers are the same: the code, what remains, and when it ends."""
    reset_s = DAY_S + 86_400 - START // SECOND
    for left in range(9, -1, -2):
        assert told(await tell(ours, asks("day=1"))) == (Code.OK, left, reset_s)
        assert theirs.ask("shop_day_1", limit=10, unit_s=86_400) == (Code.OK, left - 1, reset_s)
    for _ in range(3):
        assert told(await tell(ours, asks("day=1"))) == (Code.OVER_LIMIT, 0, reset_s)
        assert theirs.ask("shop_day_1", limit=10, unit_s=86_400) == (Code.OVER_LIMIT, 0, reset_s)
    assert windows.get(f"shop_day_1_{DAY_S}") == b"13"  # with the three that they denied


@pytest.mark.parametrize("ours_first", [True, False])
async def test_each_goes_on_where_the_other_stopped(ours, theirs, windows, ours_first):
    """Rolled forward and rolled back: what one kind has counted the other finds, and nobody gets a limit twice."""
    for first in (ours_first, not ours_first):
        passed = 0
        for _ in range(6):
            if first:
                passed += (await tell(ours, asks("day=1"))).code is Code.OK
            else:
                passed += theirs.ask("shop_day_1", limit=10, unit_s=86_400)[0] is Code.OK
        assert passed == (6 if first is ours_first else 4)


async def test_window_after_window_ten_pass(ours, theirs, clock):
    """Seconds of which each is asked of both kinds, in turn and from another one first each time."""
    for second in range(5):
        clock.now = START + second * SECOND
        passed = 0
        for number in range(30):
            clock.now += SECOND // 40
            if (number + second) % 2:
                passed += (await tell(ours, asks("second=1"))).code is Code.OK
            else:
                passed += theirs.ask("shop_second_1", limit=10, unit_s=1)[0] is Code.OK
        assert passed == 10


async def test_several_descriptors_are_charged_all_or_not_at_all(ours, theirs, windows):
    """Also in these keys: what the reference implementation has filled denies, and the others lose nothing."""
    theirs.ask("shop_day_1", limit=10, unit_s=86_400, hits=11)
    assert (await tell(ours, asks("minute=1", "day=1", "sliding=1"))).code is Code.OVER_LIMIT
    assert windows.get("shop_minute_1_1800000000") is None
    assert (await tell(ours, asks("minute=1", "day=2", "sliding=1"))).code is Code.OK
    assert windows.get("shop_minute_1_1800000000") == b"1"
    assert windows.get(f"shop_day_2_{DAY_S}") == b"1"


async def test_a_cost_is_counted_whichever_kind_was_asked_before(ours, theirs, windows):
    """Token budgets: the check there, 60 here, 60 more here: the second counts, and the next is denied, here and there."""
    theirs.ask("shop_tokens_1", limit=100, unit_s=3600, hits=0)
    codes = [(await tell(ours, sends(f"tokens=1 {hits}"))).code for hits in ("60", "60", "1")]
    assert codes == [Code.OK, Code.OVER_LIMIT, Code.OVER_LIMIT]
    assert windows.get("shop_tokens_1_1800000000") == b"120"
    assert (await tell(ours, sends("tokens=1 check"))).code is Code.OVER_LIMIT
    assert theirs.ask("shop_tokens_1", limit=100, unit_s=3600, hits=0)[0] is Code.OVER_LIMIT


async def test_their_numbers_are_compared_with_sliding_windows(valkey_server, theirs, windows, clock):
    """The canary tells what sliding windows would deny: what decides is the shared number, and only hits go into it."""
    async with RedisStore(valkey_server.url, clock=clock, timeout_s=5) as store:
        loaded = load(
            [RuleFile("rules.yaml", RULES.encode())],
            algorithm=Algorithm.FIXED_WINDOW,
            compare=Algorithm.SLIDING_WINDOW,
        )
        ours = make(store, rules=loaded, clock=clock, planner=ReferencePlanner)
        clock.now = START + 59 * SECOND
        assert [told(await tell(ours, asks("minute=1")))[1] for _ in range(5)] == [9, 8, 7, 6, 5]
        assert theirs.ask("shop_minute_1", limit=10, unit_s=60) == (Code.OK, 4, 1)
        clock.now = START + 61 * SECOND
        codes = [(await tell(ours, asks("minute=1", "sliding=1"))).code for _ in range(6)]
    assert codes == [Code.OK] * 6
    assert windows.get("shop_minute_1_1800000000") == b"6"
    assert windows.get("shop_minute_1_1800000060") == b"6"
    assert windows.strlen("shop_minute_1_60s:s") > 0
    assert ours._metrics.rule("shop/minute").compared == Compared(both_allow=10, only_compared_denies=1)
    assert windows.keys("*sliding*:s*:*") == []


async def test_what_is_given_back_here_may_be_had_there(ours, theirs, windows):
    """Refunds take off the number, down to nothing."""
    theirs.ask("shop_day_1", limit=10, unit_s=86_400, hits=10)
    await tell(ours, sends("day=1 refund 4"))
    assert theirs.ask("shop_day_1", limit=10, unit_s=86_400, hits=4) == (Code.OK, 0, DAY_S + 86_400 - START // SECOND)
    await tell(ours, sends("day=1 refund 99"))
    assert windows.get(f"shop_day_1_{DAY_S}") == b"0"


async def test_two_texts_that_make_one_key_are_one_there_and_here(ours, windows):
    """(a, b_1) and (a_b, 1) are not told apart by the reference implementation; nor are they in its keys."""
    assert told(await tell(ours, asks("a=b_1")))[:2] == (Code.OK, 9)
    verdict = await tell(ours, asks("a_b=1", "a=b_1"))
    assert [status.remaining for status in verdict.statuses] == [8, 7]
    assert windows.get("shop_a_b_1_1800000000") == b"3"


async def test_an_outage_is_owed_to_the_same_number(ours, windows, clock):
    """What this replica's share lets pass is told to Redis when it is back, and both kinds see it."""
    store = ours._commits._store
    store.away = True
    codes = [(await tell(ours, asks("day=1"))).code for _ in range(12)]
    assert codes == [Code.OK] * 10 + [Code.OVER_LIMIT] * 2
    assert windows.keys("shop_*") == []
    store.away = False
    assert (await tell(ours, asks("day=1"))).code is Code.OVER_LIMIT
    await settled(ours)
    assert windows.get(f"shop_day_1_{DAY_S}") == b"10"


async def test_seconds_are_in_the_second_redis(valkey_server, redis_server, windows, clock):
    """With REDIS_PERSECOND, as the reference implementation does; a request that has both is charged whole or not at all."""
    with Redis(host="127.0.0.1", port=redis_server.port) as short:
        short.flushall()
        places = PerSecond(
            RedisStore(valkey_server.url, clock=clock, timeout_s=5),
            RedisStore(redis_server.url, clock=clock, timeout_s=5),
        )
        async with SpreadStore(places) as store:
            limiter = make(store, rules=rules(), clock=clock, planner=ReferencePlanner)
            assert (await tell(limiter, asks("second=1", "day=1"))).code is Code.OK
            assert short.keys("shop_*") == [b"shop_second_1_1800000000"]
            assert windows.keys("shop_*") == [b"shop_day_1_%d" % DAY_S]
            windows.set(f"shop_day_1_{DAY_S}", 10)
            assert (await tell(limiter, asks("second=1", "day=1"))).code is Code.OVER_LIMIT
            await until(lambda: short.get("shop_second_1_1800000000") == b"1")  # undone


# ── the process ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_replica_counts_beside_the_reference_implementation(valkey_server, windows, tmp_path: Path):
    """The real process, in real time: in each second ten pass, whoever of the two is asked; and it says what is not shared."""
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    env = PATIENCE | {
        "REDIS_KEY_FORMAT": "reference",
        "DEFAULT_ALGORITHM": "fixed_window",
        "CACHE_KEY_PREFIX": "p:",
    }
    theirs = Theirs(windows, lambda: time.time_ns() // 1000)
    passed = Counter[int]()
    denied = 0
    async with Replica(tmp_path / "replica", rules=file, redis_url=valkey_server.url, env=env) as replica:
        with Client(replica.address, timeout_s=10) as client:
            message = request("shop", [[Entry("second", "1")]])
            for _ in range(400):
                before = int(time.time())
                theirs_ok = theirs.ask("p:shop_second_1", limit=10, unit_s=1)[0] is Code.OK
                ours_ok = client.ask(message).overall_code == rls_pb2.RateLimitResponse.OK
                if before == int(time.time()):
                    passed[before] += theirs_ok + ours_ok
                denied += (not theirs_ok) + (not ours_ok)
            assert (
                client.ask(request("shop", [[Entry("day", "1")]], hits=3)).overall_code == rls_pb2.RateLimitResponse.OK
            )
    assert passed
    assert max(passed.values()) <= 10
    assert denied
    (day,) = windows.keys("p:shop_day_1_*")
    assert windows.get(day) == b"3"
    assert 0 < windows.ttl(day) <= 2 * 86_400
    (line,) = [line for line in replica.log.read_text().splitlines() if "count in keys of their own" in line]
    assert all(f"shop/{name}" in line for name in OWN)
