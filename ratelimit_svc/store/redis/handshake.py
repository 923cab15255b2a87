"""The handshake: redis-py opens a connection and makes it ready; then its transport is handed over.

Addresses, unix sockets, TLS, AUTH, SELECT and CLIENT SETINFO are redis-py's. So are the questions asked before the first
take: the script is loaded, INFO says whether it is a primary and what an operator should know, PING shows that it answers
in time.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, ResponseError

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.store.redis.script import SCRIPT

CONNECT_TIMEOUT_S = 1.0

OLDEST_VERSION = (6, 2)


def address(url: str) -> ConnectionPool:
    """Return what makes connections to the URL, none of which tries anything twice or has a timeout of its own."""
    return ConnectionPool.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=None,  # every wait here has its timeout already
        socket_timeout=None,
        protocol=2,
    )


async def connect(pool: ConnectionPool, *, timeout_s: float) -> tuple[asyncio.StreamWriter, list[str]]:
    """Open a connection to a primary that answers in time and has the script.

    Args:
        pool: see `address`.
        timeout_s: how long an answer may take; all before that CONNECT_TIMEOUT_S.

    Returns:
        The connection's writer, with nothing unread, and warnings for an operator.

    Raises:
        Exception: of any kind; `reason` has the words for it.
    """
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()  # type: ignore[no-untyped-call]
            await _call(connection, b"SCRIPT", b"LOAD", SCRIPT)
            info = await _info(connection)
        if info.get("role") == "slave":
            raise StoreUnavailableError("it is a replica, and takes no writes")  # noqa: TRY301
        async with asyncio.timeout(timeout_s):
            await _call(connection, b"PING")
        return _handed_over(connection), _warnings(info)
    except BaseException:
        with suppress(Exception):
            await connection.disconnect(nowait=True)
        raise


def reason(error: BaseException) -> str:
    """Return why no connection stands, in words for a log."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S * 1000:g} ms"
    return str(error) or type(error).__name__


def _handed_over(connection: AbstractConnection) -> asyncio.StreamWriter:
    """Return the connection's writer, and let redis-py believe that it is closed.

    Neither redis-py nor asyncio has a public way to the transport, or to what was read from it and not asked for.
    """
    reader: Any = connection._reader  # noqa: SLF001
    parser: Any = connection._parser  # noqa: SLF001
    writer = connection._writer  # noqa: SLF001
    if writer is None or reader.at_eof():
        raise ConnectionResetError("the connection was closed")
    if reader._buffer or parser._reader.has_data():  # noqa: SLF001
        raise InvalidResponse("it said more than it was asked")
    connection._reader = connection._writer = None  # noqa: SLF001
    return writer


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
