"""The handshake: redis-py opens a connection and makes it ready; then its transport is handed over.

Addresses, unix sockets, TLS, AUTH, SELECT and CLIENT SETINFO are redis-py's. So are the questions asked before the first
take: the script is loaded, INFO says whether it is a primary and what an operator should know, PING shows that it answers
in time. Secrets and certificates are what is in their files when a connection is opened.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, ResponseError

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.store.redis.script import SCRIPT
from ratelimit_svc.store.redis.where import Address, Kind, Login, Tls, Where

OLDEST_VERSION = (6, 2)


async def connect(where: Where, address: Address, *, timeout_s: float) -> tuple[asyncio.StreamWriter, list[str]]:
    """Open a connection to a primary that answers in time and has the script.

    Args:
        where: how one logs in there.
        address: the server's.
        timeout_s: how long an answer may take; all before that `where.connect_timeout_s`.

    Returns:
        The connection's writer, with nothing unread, and warnings for an operator.

    Raises:
        Exception: of any kind; `reason` has the words for it.
    """
    async with opened(where, address, where.login, db=where.db) as connection:
        await call(connection, b"SCRIPT", b"LOAD", SCRIPT)
        info = await _info(connection)
        if info.get("role") == "slave":
            raise StoreUnavailableError("it is a replica, and takes no writes")
        async with _in_time(timeout_s):
            await call(connection, b"PING")
        return _handed_over(connection), _warnings(info, where.kind)


def reason(error: BaseException) -> str:
    """Return why no connection stands, in words for a log."""
    return str(error) or type(error).__name__


@asynccontextmanager
async def opened(where: Where, address: Address, login: Login, *, db: int = 0) -> AsyncIterator[AbstractConnection]:
    """Open a connection to one server and log in. Secrets and certificates are what is in their files now.

    Resource handling: on leaving it is closed, unless its transport was handed over.

    Error handling: StoreUnavailableError if all that is done with it takes longer than `where.connect_timeout_s`, or if a file
    is no good; whatever redis-py raises.
    """
    connection: AbstractConnection | None = None
    try:
        async with _in_time(where.connect_timeout_s):
            # in a thread: the system's roots take 15 ms to read, and a volume with secrets may hang
            connection = await asyncio.to_thread(_made, where, address, login, db)
            await connection.connect()  # type: ignore[no-untyped-call]
            yield connection
    finally:
        if connection is not None:
            with suppress(Exception):
                await connection.disconnect(nowait=True)
            _untie(connection)


def _untie(connection: AbstractConnection) -> None:
    """Let a connection be freed when it is forgotten: its parser holds a method of its own, and the collector comes in quiet times only."""
    parser: Any = connection._parser  # noqa: SLF001
    parser.pubsub_push_handler_func = None


async def call(connection: AbstractConnection, *arguments: bytes) -> Any:
    """Write one command and read its reply, once."""
    await connection.send_packed_command(connection.pack_command(*arguments), check_health=False)
    return await connection.read_response()


@asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise StoreUnavailableError(f"no answer within {timeout_s * 1000:g} ms") from None


def _made(where: Where, address: Address, login: Login, db: int) -> AbstractConnection:
    """Return a connection that is not opened yet, tries nothing twice and has no timeout of its own: every wait has one already.

    Raises:
        StoreUnavailableError: a file is no good.
    """
    now = login.read()
    options: dict[str, Any] = {
        "username": now.user or None,
        "password": now.password or None,
        "db": db,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": None,
        "socket_timeout": None,
        "protocol": 2,
    }
    if address.port is None:
        return UnixDomainSocketConnection(path=address.host, **options)
    if where.tls is None:
        return Connection(host=address.host, port=address.port, **options)
    secured = SSLConnection(host=address.host, port=address.port, **options)
    secured.ssl_context.context = _context(where.tls)  # redis-py's own trusts the system's roots beside the given ones
    return secured


def _context(tls: Tls) -> ssl.SSLContext:
    """Read the certificates.

    Raises:
        StoreUnavailableError: they cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:  # ssl.SSLError is one
        raise StoreUnavailableError(f"{tls.ca} has no certificate in it: {error}") from None
    context.check_hostname = tls.check_hostname
    if tls.cert is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            files = f"{tls.cert} and {tls.key} are" if tls.key else f"{tls.cert} is"
            raise StoreUnavailableError(f"{files} no certificate with its key: {error}") from None
    return context


def _no_passphrase() -> str:
    """Say that there is none, where OpenSSL would ask for it on the terminal."""
    raise ValueError("the key is encrypted")


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


async def _info(connection: AbstractConnection) -> Mapping[str, str]:
    """Return what INFO says; nothing where the user may not ask."""
    try:
        text = await call(connection, b"INFO")
    except ResponseError:
        return {}
    if not isinstance(text, bytes):
        raise InvalidResponse(f"INFO was answered with {text!r:.50}")
    return dict(line.split(":", 1) for line in text.decode("utf-8", "replace").splitlines() if ":" in line)


def _warnings(info: Mapping[str, str], kind: Kind) -> list[str]:
    """Return what an operator should know about this server."""
    found = []
    version = info.get("redis_version", "")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(parts) == len(OLDEST_VERSION) and parts < OLDEST_VERSION:
        found.append(f"Redis {version} is older than 6.2, the oldest version that is tested")
    if info.get("cluster_enabled") == "1" and kind is not Kind.CLUSTER:
        found.append(
            "this is a node of a Cluster, used as if it were none: it will refuse what has keys in several slots"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        found.append(
            f"maxmemory-policy is {policy}: Redis may evict windows, and with them counted hits; use noeviction"
        )
    return found
