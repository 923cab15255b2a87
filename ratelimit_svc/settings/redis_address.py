"""Where Redis is: the address as an operator writes it, taken apart, and put together as the URL that redis-py reads.

A password never shows: not in the text of an error, not in `shown`.
"""

import re
from typing import NamedTuple
from urllib.parse import parse_qs, quote

RULE = (
    "host:port, /path/of/socket, redis://host:port/db, rediss://host:port/db or unix:///path/of/socket; one host only, an IPv6 "
    "one in [brackets]; a password percent-encoded"
)

_USER = r"(?:(?P<credentials>[^@/?#\s]*)@)?"
_HOST = r"(?P<host>(?:\[[0-9A-Za-z:.%]+\]|[^@:/?#,\[\]\s]+)(?::(?P<port>[0-9]{1,5}))?)"
_QUERY = r"(?:\?(?P<query>[^#\s]*))?"
_TCP = re.compile(rf"(?:(?P<scheme>rediss?)://{_USER})?{_HOST}(?P<path>/[0-9]*)?{_QUERY}")
_UNIX = re.compile(rf"(?P<scheme>unix)://{_USER}(?P<host>)(?P<port>)(?P<path>/[^?#\s]+){_QUERY}")


class RedisAddress(NamedTuple):
    """One Redis."""

    scheme: str
    """redis, rediss or unix."""
    credentials: str
    """`user:password`, percent-encoded; either may be empty, and so may be all of it."""
    host: str
    """host or host:port; empty for a unix socket."""
    path: str
    """The socket's path, or /db."""
    query: str
    """Options of redis-py, `db` among them."""

    @property
    def socket_type(self) -> str:
        return "unix" if self.scheme == "unix" else "tcp"

    @property
    def has_password(self) -> bool:
        return bool(self.credentials or "password" in parse_qs(self.query))

    @property
    def url(self) -> str:
        """What redis-py reads."""
        user = f"{self.credentials}@" if self.credentials else ""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{user}{self.host}{self.path}{query}"

    @property
    def shown(self) -> str:
        """The URL for people and logs.

        The user is hidden too, since `redis://secret@host` is a common slip; of the options only `db` is surely no secret.
        """
        db = "".join(parse_qs(self.query).get("db", [])[:1])
        return self._replace(credentials="***" * self.has_password, query=f"db={db}" * db.isdigit()).url

    def with_auth(self, auth: str) -> "RedisAddress":
        """Log in with `password` or `user:password`, written as they are."""
        user, colon, password = auth.partition(":")
        user, password = (user, password) if colon else ("", auth)
        return self._replace(credentials=f"{quote(user, safe='')}:{quote(password, safe='')}")


def parse(text: str) -> RedisAddress:
    """Take an address apart.

    Raises:
        ValueError: it breaks `RULE`.
    """
    if text.startswith("/"):
        return RedisAddress("unix", "", "", quote(text), "")
    match = _TCP.fullmatch(text) or _UNIX.fullmatch(text)
    parts = match.groupdict(default="") if match else {}
    port = parts.pop("port", "")
    # A host alone is a typing error more often than a wish for the usual port, unless the rest of a URL stands around it.
    if not parts or (port and not 0 < int(port) < 65_536) or not (parts["scheme"] or port):
        raise ValueError
    return RedisAddress(**parts | {"scheme": parts["scheme"] or "redis"})
