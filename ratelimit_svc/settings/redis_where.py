"""What was said of one Redis, made one value of: `Where`. What does not fit together is told, by the names of the variables.

A password never shows: of a URL that is wrong nothing is repeated, since it may be in any of its parts.
"""

import re
from typing import NamedTuple, NoReturn

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.model import MICROSECONDS
from ratelimit_svc.settings.files import readable
from ratelimit_svc.store.redis.where import NOBODY, RULE, Kind, Login, Tls, Where

_MASTER = re.compile(r"[A-Za-z0-9._-]+")
"""What Redis lets a primary be called by its sentinels."""

_RULES = {
    Kind.SINGLE: f"{RULE}, or in {{prefix}}_AUTH; several hosts need {{prefix}}_TYPE sentinel or cluster",
    Kind.SENTINEL: "master,host:port,host:port…: first what the sentinels call the primary, then the sentinels, each as host:port, "
    "redis://host:port or rediss://host:port, all alike; "
    "passwords in {prefix}_AUTH and {prefix}_SENTINEL_AUTH",
    Kind.CLUSTER: "host:port,host:port…: some of its nodes, each as host:port, redis://host:port or rediss://host:port, all alike, "
    "with the same password; no unix socket, and no database number",
}


class GivenTls(NamedTuple):
    """What was said of TLS, which holds for every Redis; empty text is nothing said."""

    ca: str
    cert: str
    key: str
    skip_hostname: bool

    @property
    def variables(self) -> dict[str, str | bool]:
        """The same by the variables' names."""
        return {
            "REDIS_TLS_CACERT": self.ca,
            "REDIS_TLS_CLIENT_CERT": self.cert,
            "REDIS_TLS_CLIENT_KEY": self.key,
            "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": self.skip_hostname,
        }


class Given(NamedTuple):
    """What was said of one Redis; empty text is nothing said."""

    prefix: str
    """What the variables' names begin with: REDIS or REDIS_PERSECOND."""
    type: str
    url: str
    socket_type: str
    auth: str
    auth_file: str
    sentinel_auth: str
    sentinel_auth_file: str
    tls: bool | None
    """None: the URL tells."""
    timeout_us: int

    @property
    def kind(self) -> Kind:
        return Kind(self.type)


def where(given: Given, given_tls: GivenTls) -> Where | None:
    """Return where Redis is; None: there is none.

    Raises:
        SettingsError: what was said does not fit together, or a file cannot be read.
    """
    if not given.url:
        _refuse_what_needs_a_url(given)
        return None
    each, master = _servers(given)
    first = each[0]
    _check_socket_type(given, first)
    for name, text in (("SENTINEL_AUTH", given.sentinel_auth), ("SENTINEL_AUTH_FILE", given.sentinel_auth_file)):
        if text and given.kind is not Kind.SENTINEL:
            raise SettingsError(f"{given.prefix}_{name} is set, but {given.prefix}_TYPE is {given.type}, not sentinel")
    return Where(
        tuple(one.addresses[0] for one in each),
        kind=given.kind,
        master=master,
        login=_login(given, "AUTH", given.auth, given.auth_file, first.login),
        sentinel_login=_login(given, "SENTINEL_AUTH", given.sentinel_auth, given.sentinel_auth_file, NOBODY),
        db=first.db,
        tls=_tls(given, given_tls, first),
        connect_timeout_s=given.timeout_us / MICROSECONDS,
    )


def refuse_unused(given: GivenTls, *found: Where | None) -> None:
    """Make sure that what was said of TLS is of use.

    Raises:
        SettingsError: no Redis is called by TLS.
    """
    variable = next((name for name, value in given.variables.items() if value), None)
    if variable and not any(one and one.tls for one in found):
        raise SettingsError(
            f"{variable} is set, but there is no TLS to Redis: REDIS_TLS is not true, and REDIS_URL is no rediss:// URL"
        )


def _refuse_what_needs_a_url(given: Given) -> None:
    said = {
        "TYPE": given.kind is not Kind.SINGLE,
        "SOCKET_TYPE": given.socket_type,
        "AUTH": given.auth,
        "AUTH_FILE": given.auth_file,
        "SENTINEL_AUTH": given.sentinel_auth,
        "SENTINEL_AUTH_FILE": given.sentinel_auth_file,
        "TLS": given.tls,
    }
    for name, value in said.items():
        if value:
            raise SettingsError(
                f"{given.prefix}_{name} is set, but {given.prefix}_URL is not: without it there is no Redis to log in to"
            )


def _servers(given: Given) -> tuple[list[Where], str]:
    """Return each server that the URL names, all alike but for their addresses, and what sentinels call the primary."""
    if given.kind is Kind.SINGLE:
        return [_server(given, given.url)], ""
    master, texts = "", [text.strip() for text in given.url.split(",")]
    if given.kind is Kind.SENTINEL:
        master, *texts = texts
        if not texts or not _MASTER.fullmatch(master):
            _refuse_url(given)
    each = [_server(given, text) for text in texts]
    first = each[0]
    if (
        any((one.login, one.tls, one.db) != (first.login, first.tls, 0) for one in each)
        or any(one.addresses[0].port is None for one in each)
        or (given.kind is Kind.SENTINEL and first.login)
    ):
        _refuse_url(given)
    return each, master


def _server(given: Given, text: str) -> Where:
    try:
        return Where.of_url(text)
    except ValueError:
        _refuse_url(given)


def _refuse_url(given: Given) -> NoReturn:
    variable = f"{given.prefix}_URL"
    flag = f"--{variable.lower().replace('_', '-')}"
    # Once it is wrong, a URL may hold a password in any of its parts, so only the plain form is repeated.
    shown = "" if any(mark in given.url for mark in ("://", "@", "?")) else f"={given.url!r}"
    raise SettingsError(f"{variable} ({flag}){shown}: must be {_RULES[given.kind].format(prefix=given.prefix)}")


def _check_socket_type(given: Given, server: Where) -> None:
    found = "unix" if server.addresses[0].port is None else "tcp"
    if given.socket_type not in ("", found):
        raise SettingsError(
            f"{given.prefix}_SOCKET_TYPE={given.socket_type!r}: must fit {given.prefix}_URL, which is {found}"
        )


def _login(given: Given, name: str, text: str, file: str, in_url: Login) -> Login:
    variable = f"{given.prefix}_{name}"
    said = {variable: text, f"{variable}_FILE": file, f"{given.prefix}_URL": in_url}
    carry = [each for each, value in said.items() if value]
    if len(carry) > 1:
        raise SettingsError(f"{' and '.join(sorted(carry))} both carry a password: give one of them")
    if file:
        return Login(file=readable(f"{variable}_FILE", file))
    return Login.of(text) if text else in_url


def _tls(given: Given, given_tls: GivenTls, server: Where) -> Tls | None:
    variable = f"{given.prefix}_TLS"
    if given.tls is False and server.tls:
        raise SettingsError(f"{variable} is false, but {given.prefix}_URL is a rediss:// URL, which means TLS")
    if given.tls and server.addresses[0].port is None:
        raise SettingsError(f"{variable} is true, but {given.prefix}_URL is a unix socket, which has no TLS")
    if not (given.tls or server.tls):
        return None
    if given_tls.key and not given_tls.cert:
        raise SettingsError("REDIS_TLS_CLIENT_KEY is set, but REDIS_TLS_CLIENT_CERT is not: a key is of no use alone")
    files = {name: readable(name, text) for name, text in given_tls.variables.items() if text and isinstance(text, str)}
    in_url = server.tls or Tls()
    return Tls(
        ca=files.get("REDIS_TLS_CACERT", in_url.ca),
        cert=files.get("REDIS_TLS_CLIENT_CERT", in_url.cert),
        key=files.get("REDIS_TLS_CLIENT_KEY", in_url.key),
        check_hostname=not given_tls.skip_hostname,
    )
