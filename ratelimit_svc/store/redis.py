"""The redis store: windows shared by all replicas, counted by the Lua twins inside Redis or Valkey (≥ 6.2).

One script takes a whole batch atomically, on Redis's own clock. One connection carries one batch at a time: whatever
arrives meanwhile is the next batch (`limiter`). redis-py owns addresses, AUTH, TLS and the handshake; what is written and
read for a batch is ours, so that a take is never sent twice: its client would retry ten times.

A store that is away says so at once: `take` raises without trying, and a task of the store's own connects again.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha1
from importlib.resources import files
from random import uniform
from typing import Any, Self

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import BAD_KEY, Algorithm, Grant, Line, Outcome

ALGORITHMS = {Algorithm.SLIDING_WINDOW: "sliding_window"}
"""The Lua twin of each algorithm."""

CHARGE = struct.Struct("<cBdddd")
"""One charge in the script's arguments; `batch.lua` has the fields."""

CONNECT_TIMEOUT_S = 1.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 0.5
"""Between attempts to connect; doubling, with jitter so that replicas do not come back in step."""
PING_AFTER_S = 1.0
"""An idle connection is asked this often whether it lives."""

OLDEST_VERSION = (6, 2)


def script() -> bytes:
    """Return the script: each algorithm as a local of its letter, then the batch that takes them."""
    parts = ["local algorithms = {}\n"]
    for algorithm, name in ALGORITHMS.items():
        parts.append(f"algorithms['{algorithm.value}'] = (function()\n{_lua(name)}\nreturn {_class(name)}\nend)()\n")
    return "".join([*parts, _lua("batch")]).encode()


def _lua(name: str) -> str:
    return files("ratelimit_svc.windows").joinpath(f"{name}.lua").read_text("utf-8")


def _class(name: str) -> str:
    """Return the name of the twin's table: SlidingWindow for sliding_window."""
    return "".join(word.capitalize() for word in name.split("_"))


SCRIPT = script()
SHA = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()


def _ignore(*_: object) -> None:
    """Tell nobody."""


class RedisStore:
    """Windows in Redis.

    Args:
        url: redis://, rediss:// or unix://, with user, password and database where needed.
        timeout_s: how long a take may last before its outcome is unknown and its connection given up.
        clock: gives the time in µs instead of Redis's own; for tests.
        on_up: called with a list of warnings each time a connection stands.
        on_down: called with the reason each time it is lost, and once if the first attempt fails.

    Resource handling: `async with` opens it; it is usable at once, and up as soon as a connection stands (`up`). On leaving,
    its task and its connection are closed.

    Error handling: `take` raises StoreUnavailableError; everything else is retried in the background for ever.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.1,
        clock: Callable[[], int] | None = None,
        on_up: Callable[[list[str]], None] = _ignore,
        on_down: Callable[[str], None] = _ignore,
    ) -> None:
        self._pool = ConnectionPool.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=None,  # every wait here has its timeout already
            socket_timeout=None,
            protocol=2,
        )
        self._timeout_s = timeout_s
        self._clock = clock
        self._on_up, self._on_down = on_up, on_down
        self._connection: AbstractConnection | None = None
        self._reason = "not connected yet"
        self._turn = asyncio.Lock()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RedisStore: {'up' if self.up else 'down, ' + self._reason}>"

    @property
    def up(self) -> bool:
        """Whether a connection stands."""
        return self._connection is not None

    async def __aenter__(self) -> Self:
        with suppress(RedisError, OSError, TimeoutError):  # down at start is no reason not to start: the keeper goes on
            await self._connect()
        self._keeper = asyncio.create_task(self._keep(), name="redis keeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._connection is not None:
            await self._connection.disconnect()
            self._connection = None

    async def take(self, lines: Sequence[Line]) -> list[Grant]:
        """Charge a batch; see `Store.take`. Sent once: again only after NOSCRIPT, which proves that it did not run."""
        keys = [charge.key for line in lines for charge in line.charges]
        now = 0 if self._clock is None else self._clock()
        arguments = [b"EVALSHA", SHA, b"%d" % len(keys), *keys, b"%d" % now, *_arguments(lines)]
        async with self._exchange() as connection:
            try:
                reply = await _call(connection, *arguments)
            except NoScriptError:
                await _call(connection, b"SCRIPT", b"LOAD", SCRIPT)
                reply = await _call(connection, *arguments)
        return _grants(reply, lines)

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[AbstractConnection]:
        """Lend the connection for one exchange; give it up if the exchange fails in a way that leaves it unusable."""
        if self._connection is None:
            raise StoreUnavailableError(self._reason)
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                if self._connection is None:
                    raise StoreUnavailableError(self._reason)
                yield self._connection
        except ReadOnlyError as error:  # a primary that became a replica: another connection may find the new one
            self._give_up(error)
            raise StoreUnavailableError(self._reason) from error
        except ResponseError as error:  # the reply was read whole: the connection is sound
            raise StoreUnavailableError(f"Redis says: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            self._give_up(error)
            raise StoreUnavailableError(self._reason) from error

    def _give_up(self, error: BaseException) -> None:
        """Forget the connection: what it still carries cannot be told from the reply to a later call."""
        connection, self._connection = self._connection, None
        self._reason = _reason(error, self._timeout_s)
        if connection is not None:
            self._closing = asyncio.create_task(connection.disconnect(nowait=True))
            self._on_down(self._reason)
            self._lost.set()

    async def _keep(self) -> None:
        """Connect whenever there is no connection; ask an idle one whether it lives."""
        wait_s = FIRST_WAIT_S
        told = self.up
        while True:
            if self._connection is not None:
                wait_s, told = FIRST_WAIT_S, True
                with suppress(TimeoutError):
                    async with asyncio.timeout(PING_AFTER_S):  # not wait_for: in Python 3.11 it may swallow a cancel
                        await self._lost.wait()
                if not self._turn.locked():
                    with suppress(StoreUnavailableError):
                        async with self._exchange() as connection:
                            await _call(connection, b"PING")
                continue
            try:
                await self._connect()
            except (RedisError, OSError, TimeoutError) as error:
                self._reason = _reason(error, CONNECT_TIMEOUT_S)
                if not told:
                    told = True
                    self._on_down(self._reason)
                await asyncio.sleep(wait_s * uniform(0.5, 1))  # noqa: S311 — jitter, no secret
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _connect(self) -> None:
        """Open a connection, see that it answers, and load the script."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
                await _call(connection, b"SCRIPT", b"LOAD", SCRIPT)
                warnings = _warnings(await _info(connection))
        except BaseException as error:
            self._reason = _reason(error, CONNECT_TIMEOUT_S)
            await connection.disconnect(nowait=True)
            raise
        self._lost.clear()
        self._connection = connection
        self._on_up(warnings)


async def _call(connection: AbstractConnection, *arguments: bytes) -> Any:
    """Write one command and read its reply, once."""
    await connection.send_packed_command(connection.pack_command(*arguments), check_health=False)
    return await connection.read_response()


async def _info(connection: AbstractConnection) -> Mapping[str, str]:
    """Return what INFO says; nothing where the user may not ask."""
    try:
        text: bytes = await _call(connection, b"INFO")
    except ResponseError:
        return {}
    return dict(line.split(":", 1) for line in text.decode("utf-8", "replace").splitlines() if ":" in line)


def _warnings(info: Mapping[str, str]) -> list[str]:
    """Return what an operator should know about this server."""
    found = []
    version = info.get("redis_version", "")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(parts) == len(OLDEST_VERSION) and parts < OLDEST_VERSION:
        found.append(f"Redis {version} is older than 6.2, the oldest version that is tested")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        found.append(
            f"maxmemory-policy is {policy}: Redis may evict windows, and with them counted hits; use noeviction"
        )
    return found


def _reason(error: BaseException, timeout_s: float) -> str:
    """Return why the store is away, in words for a log."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s * 1000:g} ms"
    return str(error) or type(error).__name__


def _arguments(lines: Sequence[Line]) -> Iterator[bytes]:
    """Yield ARGV from its second on: n and the packed charges of each line."""
    for line in lines:
        yield b"%d" % line.n
        yield b"".join(
            CHARGE.pack(
                charge.algorithm.value.encode(),
                charge.role.value,
                charge.limit,
                charge.window_us,
                charge.slices,
                charge.hits,
            )
            for charge in line.charges
        )


def _grants(reply: Sequence[int], lines: Sequence[Line]) -> list[Grant]:
    """Return the script's reply as grants."""
    grants, at = [], 1
    for line in lines:
        granted = reply[at]
        at += 1
        if granted == BAD_KEY:
            grants.append(Grant(BAD_KEY, ()))
            continue
        outcomes = []
        for _ in line.charges:
            outcomes.append(Outcome(*reply[at : at + 3]))
            at += 3
        grants.append(Grant(granted, tuple(outcomes)))
    return grants
