"""Replicas: each process says in Redis that it lives, and counts those that do, so that all know their share of the limits.

One sorted set has the ids of all processes, each with the time when it last spoke, on Redis's clock. A beat, every HEARTBEAT_S or
a little less, writes one's own, drops those that have been silent for SILENT_BEATS, and returns how many are left.

Rules:
1. What was counted last stays through an outage, and whenever a beat fails: then it is needed.
2. A count that grows is believed at once; one that falls, when BELIEVED_AFTER beats in a row have said so. A Redis that comes back,
   empty or with everybody silent for too long, or whose clock was put forward, knows at first only who has spoken since.
3. A clock that was put back makes nobody look alive for ever: who seems to have spoken in the future is taken to have spoken now.

So in an outage a replica's share is too large only by those that it does not count: who came in the last beat before the outage, or
in it, or was cut off from Redis alone, before everybody was, for SILENT_BEATS + BELIEVED_AFTER beats. Each of them lets pass its
own share beyond the bound, at most: ceil(limit / those that it counts). REPLICAS is the least that all count, whatever they hear. A
replica that was killed is counted for SILENT_BEATS + BELIEVED_AFTER beats yet, and one that stopped for BELIEVED_AFTER: the share is
too small meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import uniform
from secrets import token_hex

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import MICROSECONDS

HEARTBEAT_S = 2.0
"""Between two beats at most; with jitter so that replicas do not beat in step."""
SILENT_BEATS = 3
"""One is lost, one is late."""
BELIEVED_AFTER = 3
"""In two waits, however short, everybody else has beaten once, and what had been lost before the first of the three is there again."""

BEAT = b"""
-- KEYS[1]: a sorted set of the ids of all replicas; the scores say when each has spoken last, in us
-- ARGV: our id; the us of silence after which one is gone; the time in us, or 0: Redis's own
-- returns how many there are
local key, id, silence, now = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local stamp = string.format('%.0f', now)
redis.call('ZADD', key, stamp, id)
for _, ahead in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. stamp, '+inf')) do
  redis.call('ZADD', key, stamp, ahead)
end
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('(%.0f', now - silence))
redis.call('PEXPIRE', key, string.format('%.0f', silence / 100)) -- ten times that: it frees memory, and decides nothing
return redis.call('ZCARD', key)
"""

_SILENCE_US = b"%d" % (SILENT_BEATS * HEARTBEAT_S * MICROSECONDS)


def _ignore(*_: object) -> None:
    """Tell nobody."""


class Replicas:
    """This process among all that share a Redis.

    Args:
        command: sends a command to where a key is, given the key and the command's words; its awaitable fails with
            StoreUnavailableError, and does not last.
        key_prefix: put before the set's key.
        clock: gives the time in µs instead of Redis's own; for tests.
        on_count: called with how many replicas there are, whenever that has changed.
        on_failure: called with the reason when they cannot be counted; again only after they could be, or for another reason.
    """

    def __init__(
        self,
        command: Callable[..., Awaitable[object]],
        *,
        key_prefix: str = "",
        clock: Callable[[], int] | None = None,
        on_count: Callable[[int], None] = _ignore,
        on_failure: Callable[[str], None] = _ignore,
    ) -> None:
        self._command = command
        self._key = f"{key_prefix}ratelimit-svc:replicas".encode()
        self._id = token_hex(8).encode()
        self._clock = clock
        self._on_count, self._on_failure = on_count, on_failure
        self._counts = deque[int](maxlen=BELIEVED_AFTER)
        """What the last beats have counted."""
        self._reason_told = ""
        self.count = 0
        """How many there are, this one included; 0: it was never counted."""
        self.failed = 0
        """Beats that Redis did not take."""

    def __repr__(self) -> str:
        return f"<Replicas: {self.count}>"

    async def beat(self) -> None:
        """Say that this process lives, and count."""
        now = 0 if self._clock is None else self._clock()
        try:
            said = await self._command(self._key, b"EVAL", BEAT, b"1", self._key, self._id, _SILENCE_US, b"%d" % now)
        except StoreUnavailableError as error:
            self._fail(str(error))
            return
        if not isinstance(said, int):
            self._fail(f"a beat was answered with {said!r:.50}")
            return
        self._reason_told = ""
        self._counts.append(said)
        count = max(self._counts)
        if count != self.count:
            self.count = count
            self._on_count(count)

    async def keep(self) -> None:
        """Beat for ever, after a first beat."""
        while True:
            await asyncio.sleep(HEARTBEAT_S * uniform(0.75, 1))  # noqa: S311 — jitter, no secret
            await self.beat()

    async def leave(self) -> None:
        """Say that this process is about to end. If Redis does not hear it, silence will tell."""
        with suppress(StoreUnavailableError):
            await self._command(self._key, b"ZREM", self._key, self._id)

    def _fail(self, reason: str) -> None:
        self.failed += 1
        if reason != self._reason_told:
            self._reason_told = reason
            self._on_failure(reason)
