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
from redis.exceptions import InvalidResponse, NoScriptError, ReadOnlyError, ResponseError

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import BAD_KEY, Algorithm, Grant, Line, Outcome

ALGORITHMS = {
    Algorithm.SLIDING_WINDOW: "sliding_window",
    Algorithm.FIXED_WINDOW: "fixed_window",
    Algorithm.TOKEN_BUCKET: "token_bucket",
}
"""The Lua twin of each algorithm."""

CHARGE = struct.Struct("<cBBBdddd")
"""One charge in the script's arguments; `batch.lua` has the fields."""

CONNECT_TIMEOUT_S = 1.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 0.5
"""Between attempts to connect; doubling, with jitter so that replicas do not come back in step."""
PING_AFTER_S = 1.0
"""An idle connection is asked this often whether it lives."""

OLDEST_VERSION = (6, 2)

ONE_OVERDRAWN = -2
"""What the script says instead of "1 granted", where that one is overdrawn."""


def script() -> bytes:
    """Return the script: each algorithm under its letter, made when the first charge asks for it, then the batch."""
    parts = ["local algorithms = setmetatable({}, {__index = function(made, letter)\n"]
    for algorithm, name in ALGORITHMS.items():
        made = f"made[letter] = (function()\n{_lua(name)}\nreturn {_class(name)}\nend)()"
        parts.append(f"if letter == '{algorithm.value}' then\n{made}\nend\n")
    return "".join([*parts, "return rawget(made, letter)\nend})\n", _lua("batch")]).encode()


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
        key_prefix: put before the one key that is the store's own, which it writes to see whether it may.
        clock: gives the time in µs instead of Redis's own; for tests.
        on_up: called with a list of warnings when the store begins to answer.
        on_down: called with the reason when it ceases to, or if it does not from the start; again with each other reason.

    Resource handling: `async with` opens it; it is usable at once, and up as soon as a connection stands (`up`). On leaving,
    its task and its connection are closed.

    Error handling: `take` raises StoreUnavailableError, whatever went wrong; everything else is tried again in the
    background for ever, less and less often.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.1,
        key_prefix: str = "",
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
        self._probe = f"{key_prefix}ratelimit-svc:probe".encode()
        self._clock = clock
        self._on_up, self._on_down = on_up, on_down
        self._connection: AbstractConnection | None = None
        self._why_down: str | None = "not connected yet"
        """None: up."""
        self._reasons_told: set[str] = set()
        """In this outage, so that reasons that take turns are told once each."""
        self._wait_s = FIRST_WAIT_S
        self._turn = asyncio.Lock()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RedisStore: {'up' if self.up else f'down, {self._why_down}'}>"

    @property
    def up(self) -> bool:
        """Whether a connection stands, and the last take on it was not refused."""
        return self._why_down is None

    async def __aenter__(self) -> Self:
        await self._try_to_connect()  # down at the start is no reason not to start
        self._keeper = asyncio.create_task(self._keep(), name="redis keeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
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
        """Lend the connection for one exchange; give it up if that leaves it in a state in which it cannot be used."""
        connection = self._connection
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                connection = self._connection
                if connection is None:
                    raise StoreUnavailableError(self._why_down or "not connected")  # noqa: TRY301
                if not connection.is_connected:  # else redis-py would connect by itself, past script and checks
                    raise ConnectionResetError("the connection was closed")  # noqa: TRY301
                yield connection
        except StoreUnavailableError:
            raise
        except (
            ResponseError
        ) as error:  # the reply was read whole: the connection is sound, unless it leads to a replica
            why = f"Redis says: {error}"
            if "READONLY" in str(error).upper() or isinstance(error, ReadOnlyError):
                self._give_up(connection, why)
            self._tell(why)
            raise StoreUnavailableError(why) from error
        except Exception as error:  # of any kind: uvloop, redis-py and a broken peer have many
            why = _reason(error, self._timeout_s)
            self._give_up(connection, why)
            raise StoreUnavailableError(why) from error
        self._wait_s = FIRST_WAIT_S
        self._tell(None)

    def _give_up(self, connection: AbstractConnection | None, why: str) -> None:
        """Forget a connection: what it still carries cannot be told from the reply to a later call."""
        if connection is not None and connection is self._connection:
            self._connection = None
            self._closing = asyncio.create_task(_close(connection))
            self._lost.set()
            self._tell(why)

    def _tell(self, why_down: str | None, warnings: Sequence[str] = ()) -> None:
        """Say that the store is up, or why it is down, if that is news."""
        was_up, self._why_down = self.up, why_down
        if why_down is None and not was_up:
            self._reasons_told.clear()
            self._on_up(list(warnings))
        elif why_down is not None and why_down not in self._reasons_told:
            self._reasons_told.add(why_down)
            self._on_down(why_down)

    async def _keep(self) -> None:
        """Connect whenever there is no connection; ask an idle one whether it lives."""
        while True:
            if self._connection is None:
                await asyncio.sleep(self._wait_s * uniform(0.5, 1))  # noqa: S311 — jitter, no secret
                self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
                await self._try_to_connect()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_AFTER_S):  # not wait_for: in Python 3.11 it may swallow a cancel
                    await self._lost.wait()
            if not self._turn.locked():
                # a server that refuses takes answers PING all the same: only a write shows that it takes them again
                question = (b"PING",) if self.up else (b"SET", self._probe, b"1", b"PX", b"1000")
                with suppress(StoreUnavailableError):
                    async with self._exchange() as connection:
                        await _call(connection, *question)

    async def _try_to_connect(self) -> None:
        """Open a connection, see that it answers in time and leads to a primary, and load the script."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
                await _call(connection, b"SCRIPT", b"LOAD", SCRIPT)
                info = await _info(connection)
            if info.get("role") == "slave":
                raise StoreUnavailableError("it is a replica, and takes no writes")  # noqa: TRY301
            async with asyncio.timeout(self._timeout_s):
                await _call(connection, b"PING")
        except asyncio.CancelledError:
            await _close(connection)
            raise
        except Exception as error:  # noqa: BLE001 — of any kind, as above
            await _close(connection)
            self._tell(_reason(error, CONNECT_TIMEOUT_S))
            return
        self._lost.clear()
        self._connection = connection
        self._tell(None, _warnings(info))


async def _close(connection: AbstractConnection) -> None:
    """Close a connection in whatever state it is."""
    with suppress(Exception):
        await connection.disconnect(nowait=True)


async def _call(connection: AbstractConnection, *arguments: bytes) -> Any:
    """Write one command and read its reply, once."""
    await connection.send_packed_command(connection.pack_command(*arguments), check_health=False)
    return await connection.read_response()


async def _info(connection: AbstractConnection) -> Mapping[str, str]:
    """Return what INFO says; nothing where the user may not ask."""
    try:
        text = await _call(connection, b"INFO")
    except ResponseError:
        return {}
    if not isinstance(text, bytes):
        raise InvalidResponse(f"INFO was answered with {text!r:.50}")
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
                charge.kind.value,
                charge.overdraft.value,
                charge.limit,
                charge.window_us,
                charge.shape,
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
        overdrawn = granted == ONE_OVERDRAWN
        grants.append(Grant(1 if overdrawn else granted, tuple(outcomes), overdrawn))
    return grants
