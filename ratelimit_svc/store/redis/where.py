"""Where Redis is, and how one logs in there: a value that `settings` builds, and that `handshake` opens connections by.

Secrets and certificates may be in files. Those are read whenever a connection is opened, so that what is rotated is taken up.

A password never shows: not in a repr, not in `str`, not in an error.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from ratelimit_svc.errors import StoreUnavailableError

CONNECT_TIMEOUT_S = 1.0

USUAL_PORT = 6379

LONGEST_SECRET = 65_536
"""Bytes of a secret's file that are read: a file named by mistake may have no end."""

RULE = (
    "host:port, /path/of/socket, redis://host:port/db, rediss://host:port/db or unix:///path/of/socket; one host only, an IPv6 "
    "one in [brackets]; a password percent-encoded"
)
"""What the text of one server must be."""


class Kind(Enum):
    """How the servers belong together."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Address(NamedTuple):
    """Where one server listens."""

    host: str
    """A name or an IP address; the path of a unix socket where there is no port."""
    port: int | None

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are; nobody, if all of it is empty."""

    user: str = field(default="", repr=False)
    """Not shown either, since `redis://secret@host` is a common slip."""
    password: str = field(default="", repr=False)
    file: Path | None = None
    """Has `password` or `user:password`, and perhaps a newline after it, in place of the other two."""

    def __bool__(self) -> bool:
        return bool(self.user or self.password or self.file)

    @classmethod
    def of(cls, text: str) -> "Login":
        """Take `password` or `user:password`, written as they are."""
        user, colon, password = text.partition(":")
        return cls(user, password) if colon else cls(password=text)

    def read(self) -> "Login":
        """Return user and password as they are now.

        Raises:
            StoreUnavailableError: the file cannot be read.
        """
        if self.file is None:
            return self
        try:
            with self.file.open("rb") as opened:
                text = opened.read(LONGEST_SECRET).decode()
        except OSError as error:
            raise StoreUnavailableError(f"the password cannot be read from {self.file}: {error.strerror}") from None
        except UnicodeDecodeError:  # its own words would repeat the secret
            raise StoreUnavailableError(f"the password in {self.file} is not UTF-8") from None
        if not (text := text.removesuffix("\n").removesuffix("\r")):
            raise StoreUnavailableError(f"there is no password in {self.file}")
        return Login.of(text)


NOBODY = Login()


class Tls(NamedTuple):
    """What TLS needs. Certificates are verified, always."""

    ca: Path | None = None
    """Roots of the servers' certificates, PEM; None: the system's."""
    cert: Path | None = None
    """Our certificate, PEM, where the servers ask for one."""
    key: Path | None = None
    """Its private key, PEM; None: it is in `cert`."""
    check_hostname: bool = True
    """Whether a server's certificate must have the name that it is called by."""


@dataclass(frozen=True, slots=True)
class Where:
    """One Redis, be it of one server or of many."""

    addresses: tuple[Address, ...]
    """The server; the sentinels; or nodes of the Cluster, by which the others are found."""
    kind: Kind = Kind.SINGLE
    master: str = ""
    """What the sentinels call it."""
    login: Login = NOBODY
    sentinel_login: Login = NOBODY
    """For the sentinels only."""
    db: int = 0
    tls: Tls | None = None
    """For the sentinels too. None: plaintext."""
    short: bool = False
    """Whether it is for short windows only (`per_second`)."""
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    """How long opening a connection may take until it is ready for a take."""

    @classmethod
    def of_url(cls, text: str) -> "Where":
        """Return one server as an operator writes it.

        Raises:
            ValueError: it breaks `RULE`.
        """
        if text.startswith("/"):
            return cls((Address(text, None),))
        match = _TCP.fullmatch(text) or _UNIX.fullmatch(text)
        parts = match.groupdict(default="") if match else {}
        # A host alone is a typing error more often than a wish for the usual port, unless a URL stands around it.
        if not parts or not (parts["scheme"] or parts["port"]):
            raise ValueError
        options = _options(parts["query"], tls=parts["scheme"] == "rediss")
        return cls(
            (_address(parts),),
            login=_login(parts["credentials"], options),
            db=_db("" if parts["scheme"] == "unix" else parts["path"].removeprefix("/"), options.get("db", "")),
            tls=_tls(options) if parts["scheme"] == "rediss" else None,
        )

    def __str__(self) -> str:
        """For people and logs."""
        user = "***@" if self.login else ""
        first = self.addresses[0]
        if first.port is None:
            return f"unix://{user}{quote(first.host)}" + (f"?db={self.db}" if self.db else "")
        hosts = ",".join(map(str, self.addresses))
        db = f"/{self.db}" if self.db else ""
        url = f"{'rediss' if self.tls else 'redis'}://{user}{hosts}{db}"
        match self.kind:
            case Kind.SINGLE:
                return url
            case Kind.SENTINEL:
                return f"{url} (sentinels of {self.master})"
            case Kind.CLUSTER:
                return f"{url} (cluster)"


_USER = r"(?:(?P<credentials>[^@/?#\s]*)@)?"
_HOST = r"(?:\[(?P<ipv6>[0-9A-Za-z:.%]+)\]|(?P<host>[^@:/?#,\[\]\s]+))(?::(?P<port>[0-9]{1,5}))?"
_QUERY = r"(?:\?(?P<query>[^#\s]*))?"
_TCP = re.compile(rf"(?:(?P<scheme>rediss?)://{_USER})?{_HOST}(?P<path>/[0-9]*)?{_QUERY}")
_UNIX = re.compile(rf"(?P<scheme>unix)://{_USER}(?P<path>/[^?#\s]+){_QUERY}")

_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = {"db", "username", "password"}
"""What redis-py calls them, and so those who used it know."""


def _address(parts: dict[str, str]) -> Address:
    if parts["scheme"] == "unix":
        return Address(unquote(parts["path"]), None)
    port = int(parts["port"] or USUAL_PORT)
    if not 0 < port < 65_536:
        raise ValueError
    return Address(unquote(parts["ipv6"] or parts["host"]), port)


def _options(query: str, *, tls: bool) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    options = dict(pairs)
    if len(options) < len(pairs) or options.keys() - _OPTIONS - set(_TLS_OPTIONS if tls else ()):
        raise ValueError
    return options


def _login(credentials: str, options: dict[str, str]) -> Login:
    given = Login(options.get("username", ""), options.get("password", ""))
    user, _, password = credentials.partition(":")
    if given and credentials:
        raise ValueError
    return given or Login(unquote(user), unquote(password))


def _db(path: str, option: str) -> int:
    if path and option:
        raise ValueError
    return int(path or option or "0")


def _tls(options: dict[str, str]) -> Tls:
    ca, cert, key = (Path(options[name]) if name in options else None for name in _TLS_OPTIONS)
    return Tls(ca, cert, key)
