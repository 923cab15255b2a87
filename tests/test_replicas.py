"""Replicas announce themselves in Redis, and each counts them; how it goes when Redis, or one of them, is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import Redis

from ratelimit_svc.demo.parts import RedisServer, valkey
from ratelimit_svc.store.redis import RedisStore
from ratelimit_svc.store.redis.replicas import BELIEVED_AFTER, HEARTBEAT_S, SILENT_BEATS, Replicas
from tests.conftest import Clock
from tests.limiting import asks, make, tell
from tests.waiting import until

KEY = b"ratelimit-svc:replicas"
BEAT_US = int(HEARTBEAT_S * 1_000_000)


@pytest.fixture
async def shared(server: RedisServer, client: Redis) -> AsyncIterator[RedisStore]:
    """A store on each server in turn, empty."""
    client.flushall()
    async with RedisStore(server.url, timeout_s=5) as opened:
        yield opened


async def beats(clock: Clock, *replicas: Replicas, times: int = 1) -> list[int]:
    """Let all of these beat in turn, so many times; return what each has counted at the end."""
    for _ in range(times):
        for each in replicas:
            await each.beat()
        clock.now += BEAT_US
    return [each.count for each in replicas]


def three(store: RedisStore, clock: Clock, **options) -> list[Replicas]:
    return [Replicas(store.command, clock=clock, **options) for _ in range(3)]


async def test_three_count_three(shared, clock):
    """Each at its second beat at the latest; a count is told when it changes, and only then."""
    told: list[int] = []
    first = Replicas(shared.command, clock=clock, on_count=told.append)
    others = three(shared, clock)[:2]
    assert await beats(clock, first, *others) == [1, 2, 3]
    assert await beats(clock, first, *others) == [3, 3, 3]
    await beats(clock, first, *others, times=5)
    assert told == [1, 3]


async def test_one_that_falls_silent_is_counted_no_more(shared, clock):
    """Killed, it is counted for SILENT_BEATS more, and until BELIEVED_AFTER beats have missed it. Back, it is counted at once."""
    one, two, killed = three(shared, clock)
    await beats(clock, one, two, killed, times=2)
    assert await beats(clock, one, two, times=SILENT_BEATS + BELIEVED_AFTER - 1) == [3, 3]
    assert await beats(clock, one, two) == [2, 2]
    await killed.beat()  # it was only paused, or is cut off no more
    assert await beats(clock, one, two, killed) == [3, 3, 3]


async def test_one_that_leaves_takes_itself_out(shared, clock, client):
    """A clean stop leaves nothing behind; others believe it after BELIEVED_AFTER beats."""
    one, two, leaving = three(shared, clock)
    await beats(clock, one, two, leaving, times=2)
    await leaving.leave()
    assert client.zcard(KEY) == 2
    assert await beats(clock, one, two, times=BELIEVED_AFTER) == [2, 2]


async def test_a_redis_that_has_lost_all_makes_nobody_forget(shared, clock, client):
    """Nobody counts fewer although the first to beat finds nobody: every other has spoken before that is believed."""
    replicas = three(shared, clock)
    await beats(clock, *replicas, times=2)
    client.flushall()
    assert [await beats(clock, *replicas) for _ in range(2 * BELIEVED_AFTER)] == [[3, 3, 3]] * 2 * BELIEVED_AFTER


@pytest.mark.parametrize("beats_away", [1, SILENT_BEATS, 100])
async def test_a_clock_put_forward_makes_nobody_forget(shared, clock, beats_away):
    """Nor an outage so long that everybody seems silent since."""
    replicas = three(shared, clock)
    await beats(clock, *replicas, times=2)
    clock.now += beats_away * BEAT_US
    assert [await beats(clock, *replicas) for _ in range(5)] == [[3, 3, 3]] * 5


@pytest.mark.parametrize("beats_back", [2, 100, 1_000_000])
async def test_a_clock_put_back_makes_nobody_immortal(shared, clock, beats_back):
    """Who has gone is counted no longer than ever: not until the clock has come to where it was."""
    one, two, killed = three(shared, clock)
    await beats(clock, one, two, killed, times=2)
    clock.now -= beats_back * BEAT_US
    assert await beats(clock, one, two, times=SILENT_BEATS + BELIEVED_AFTER) == [3, 3]
    assert await beats(clock, one, two) == [2, 2]


async def test_on_the_clock_of_redis(shared, client):
    """Without a clock of its own the set has Redis's time, and frees itself."""
    await Replicas(shared.command).beat()
    ((_, spoken),) = client.zrange(KEY, 0, -1, withscores=True)
    seconds, micros = client.time()
    assert 0 <= seconds * 1_000_000 + micros - spoken < 60_000_000
    assert 0 < client.pttl(KEY) <= 10 * SILENT_BEATS * HEARTBEAT_S * 1000


async def test_a_poisoned_key_is_told_once_and_what_was_counted_stays(shared, clock, client):
    """The store stays up; mended, all is as before; and a second time it is told again."""
    reasons: list[str] = []
    one, two, three_ = three(shared, clock, on_failure=reasons.append)
    await beats(clock, one, two, three_, times=2)
    for _ in range(2):
        client.set(KEY, "poison")
        assert await beats(clock, one, times=4) == [3]
        client.delete(KEY)
        assert await beats(clock, one, two, three_, times=2) == [3, 3, 3]
    assert one.failed == 8
    assert len(reasons) == 2
    assert "WRONGTYPE" in reasons[0]
    assert shared.up


async def test_without_permission_it_is_told_once(server, client, clock):
    """A user who may do all that windows need, but has no such key."""
    client.execute_command(
        "ACL", "SETUSER", "narrow", "on", ">secret", "+@all", "~ratelimit-svc:probe", "~ratelimit-svc:receipt:*"
    )
    reasons: list[str] = []
    try:
        async with RedisStore(server.url.replace("redis://", "redis://narrow:secret@"), timeout_s=5) as store:
            one = Replicas(store.command, clock=clock, on_failure=reasons.append)
            await beats(clock, one, times=3)
            await one.leave()
            assert store.up
    finally:
        client.execute_command("ACL", "DELUSER", "narrow")
    assert (one.count, one.failed, len(reasons)) == (0, 3, 1)
    assert "permissions" in reasons[0]


async def test_each_prefix_has_its_own(shared, clock):
    """Two services on one Redis do not count each other's replicas."""
    one, other = (Replicas(shared.command, key_prefix=prefix, clock=clock) for prefix in ("a:", "b:"))
    assert await beats(clock, one, other, times=2) == [1, 1]


async def test_what_was_counted_stays_through_an_outage_and_what_comes_after(tmp_path, clock):
    """Redis is killed, comes back empty, and goes again before all have spoken: the share is still one of three."""
    server = valkey(tmp_path / "valkey")
    async with server, RedisStore(server.url, timeout_s=5) as store:
        replicas = three(store, clock)
        await beats(clock, *replicas, times=3)
        await server.kill()
        assert await beats(clock, *replicas, times=5) == [3, 3, 3]
        assert [each.failed for each in replicas] == [5, 5, 5]
        await replicas[0].leave()
        await server.start()
        await until(lambda: store.up)
        assert await beats(clock, *replicas[1:2], times=BELIEVED_AFTER - 1) == [3]
        await server.kill()
        assert await beats(clock, *replicas, times=2) == [3, 3, 3]


async def test_the_local_share_follows_the_count(held):
    """ceil(5 / 3) where three are counted; never more than what the operator has told to share by."""
    limiter = make(held, replicas=2)
    held.away = True
    shares = []
    for tenant, counted in (("a", 1), ("b", 3), ("c", 5), ("d", 0)):
        limiter.share_among(counted)
        asked = [await tell(limiter, asks(f"tenant={tenant}")) for _ in range(6)]
        shares.append((limiter.replicas, sum(verdict.code == 1 for verdict in asked)))
    assert shares == [(2, 3), (3, 2), (5, 1), (2, 3)]


@pytest.mark.slow
async def test_it_beats_by_itself(shared, client):
    """`keep` goes on, beat after beat."""
    one = Replicas(shared.command)
    task = asyncio.create_task(one.keep())
    try:
        await until(lambda: one.count == 1, within_s=60)
        client.delete(KEY)
        await until(lambda: client.zcard(KEY) == 1, within_s=60)
    finally:
        task.cancel()
        await asyncio.wait([task])
