"""The settings of Redis: which one, how one logs in there, and the second one for short windows.

The names, and what they mean, are the reference implementation's; `redis_where` says what fits together.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.settings.kinds import BOOLEAN, BOOLEAN_IF_SET, TEXT, choice, duration
from ratelimit_svc.settings.redis_where import Given, GivenTls, refuse_unused, where
from ratelimit_svc.settings.row import row
from ratelimit_svc.store.redis.where import Kind, Where

_TYPE = choice(*(kind.value for kind in Kind))
_SOCKET = choice("", "tcp", "unix")
_TIMEOUT = duration("1ms", "1h")

_TAG = re.compile(r"^[^{]*\{[^}]+\}")
"""A prefix whose first pair of braces has something in it: a Cluster's hash tag."""


@dataclass(frozen=True)
class RedisSettings:
    """Which Redis, and how one logs in there."""

    redis_type: str = row(
        "REDIS_TYPE", _TYPE, "single", "single, sentinel or cluster: how the servers of REDIS_URL belong together."
    )
    redis_address: str = row(
        "REDIS_URL",
        TEXT,
        "",
        "Redis or Valkey: host:port, /path of a unix socket, or a redis://, rediss:// (TLS) or unix:// URL; sentinel: "
        "master,host:port,host:port…; cluster: host:port,host:port… Empty: windows are kept in this process's memory, "
        "which is right for one replica only.",
        secret=True,
    )
    redis_socket_type: str = row("REDIS_SOCKET_TYPE", _SOCKET, "", "tcp or unix. Empty: told from REDIS_URL.")
    redis_auth: str = row(
        "REDIS_AUTH",
        TEXT,
        "",
        "password or user:password for Redis, as it is (not percent-encoded).",
        secret=True,
        flag=False,
    )
    redis_auth_file: str = row(
        "REDIS_AUTH_FILE",
        TEXT,
        "",
        "A file with what else would be in REDIS_AUTH. It is read at each connection, so a changed one is taken up.",
    )
    redis_sentinel_auth: str = row(
        "REDIS_SENTINEL_AUTH", TEXT, "", "password or user:password for the sentinels only.", secret=True, flag=False
    )
    redis_sentinel_auth_file: str = row(
        "REDIS_SENTINEL_AUTH_FILE", TEXT, "", "A file with what else would be in REDIS_SENTINEL_AUTH; likewise."
    )
    redis_tls: bool | None = row(
        "REDIS_TLS", BOOLEAN_IF_SET, "", "TLS to Redis, and to the sentinels. Not set: told from REDIS_URL."
    )
    redis_tls_client_cert: str = row(
        "REDIS_TLS_CLIENT_CERT",
        TEXT,
        "",
        "Our certificate for Redis, a PEM file. It is read at each connection, so a changed one is taken up.",
    )
    redis_tls_client_key: str = row(
        "REDIS_TLS_CLIENT_KEY", TEXT, "", "Its private key, a PEM file; likewise. Empty: it is in the same file."
    )
    redis_tls_ca: str = row(
        "REDIS_TLS_CACERT", TEXT, "", "Roots of Redis's certificate, a PEM file; likewise. Empty: the system's."
    )
    redis_tls_skip_hostname: bool = row(
        "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION",
        BOOLEAN,
        "false",
        "Take a certificate with any name in it; it must be under one of the roots all the same.",
    )
    redis_timeout_us: int = row(
        "REDIS_TIMEOUT", _TIMEOUT, "1s", "Opening a connection to Redis takes so long at most; then it is tried again."
    )

    use_redis_per_second: bool = row(
        "REDIS_PERSECOND", BOOLEAN, "false", "Keep the windows shorter than a minute in a second Redis."
    )
    redis_per_second_type: str = row("REDIS_PERSECOND_TYPE", _TYPE, "single", "REDIS_TYPE of the second one.")
    redis_per_second_address: str = row("REDIS_PERSECOND_URL", TEXT, "", "REDIS_URL of the second one.", secret=True)
    redis_per_second_socket_type: str = row(
        "REDIS_PERSECOND_SOCKET_TYPE", _SOCKET, "", "REDIS_SOCKET_TYPE of the second one."
    )
    redis_per_second_auth: str = row(
        "REDIS_PERSECOND_AUTH", TEXT, "", "REDIS_AUTH of the second one.", secret=True, flag=False
    )
    redis_per_second_auth_file: str = row("REDIS_PERSECOND_AUTH_FILE", TEXT, "", "REDIS_AUTH_FILE of the second one.")
    redis_per_second_sentinel_auth: str = row(
        "REDIS_PERSECOND_SENTINEL_AUTH", TEXT, "", "REDIS_SENTINEL_AUTH of the second one.", secret=True, flag=False
    )
    redis_per_second_sentinel_auth_file: str = row(
        "REDIS_PERSECOND_SENTINEL_AUTH_FILE", TEXT, "", "REDIS_SENTINEL_AUTH_FILE of the second one."
    )
    redis_per_second_tls: bool | None = row(
        "REDIS_PERSECOND_TLS",
        BOOLEAN_IF_SET,
        "",
        "REDIS_TLS of the second one; the files, and whether names are verified, are the same for both.",
    )
    redis_per_second_timeout_us: int = row(
        "REDIS_PERSECOND_TIMEOUT", _TIMEOUT, "1s", "REDIS_TIMEOUT of the second one."
    )
    cache_key_prefix: str = row("CACHE_KEY_PREFIX", TEXT, "", "Put before every key in Redis.")
    redis_key_format: str = row(
        "REDIS_KEY_FORMAT",
        choice("ours", "reference"),
        "ours",
        "reference: fixed windows are counted in the reference implementation's keys, so that its replicas and ours share them.",
    )

    @property
    def reference_keys(self) -> bool:
        """Whether fixed windows are counted in the reference implementation's keys."""
        return self.redis_key_format == "reference"

    @cached_property
    def redis(self) -> Where | None:
        """Where the windows are; None: in this process's memory."""
        found = where(
            Given(
                prefix="REDIS",
                type=self.redis_type,
                url=self.redis_address,
                socket_type=self.redis_socket_type,
                auth=self.redis_auth,
                auth_file=self.redis_auth_file,
                sentinel_auth=self.redis_sentinel_auth,
                sentinel_auth_file=self.redis_sentinel_auth_file,
                tls=self.redis_tls,
                timeout_us=self.redis_timeout_us,
            ),
            self._given_tls,
        )
        refuse_unused(self._given_tls, found, self.redis_per_second)
        clusters = [one for one in (found, self.redis_per_second) if one is not None and one.kind is Kind.CLUSTER]
        if clusters and self.reference_keys:
            raise SettingsError(
                "REDIS_KEY_FORMAT=reference does not go with a Cluster: a key has its window's start there, which decides which server"
                " has it, and is known to Redis's clock only; use single or sentinel, or REDIS_KEY_FORMAT=ours"
            )
        if clusters and "{" in self.cache_key_prefix and not _TAG.search(self.cache_key_prefix):
            raise SettingsError(
                f"CACHE_KEY_PREFIX={self.cache_key_prefix!r}: in a Cluster it must be without braces, or with a tag in them,"
                " as in {tag}: else a window and its receipt are in different slots"
            )
        return found

    @property
    def redis_url_shown(self) -> str | None:
        """The same for people and logs, without its password."""
        return None if self.redis is None else str(self.redis)

    @cached_property
    def redis_per_second(self) -> Where | None:
        """Where the windows shorter than a minute are, if elsewhere."""
        if not self.use_redis_per_second:
            return None
        for variable, url in (
            ("REDIS_PERSECOND_URL", self.redis_per_second_address),
            ("REDIS_URL", self.redis_address),
        ):
            if not url:
                raise SettingsError(f"REDIS_PERSECOND is true, but {variable} is not set: both must be")
        found = where(
            Given(
                prefix="REDIS_PERSECOND",
                type=self.redis_per_second_type,
                url=self.redis_per_second_address,
                socket_type=self.redis_per_second_socket_type,
                auth=self.redis_per_second_auth,
                auth_file=self.redis_per_second_auth_file,
                sentinel_auth=self.redis_per_second_sentinel_auth,
                sentinel_auth_file=self.redis_per_second_sentinel_auth_file,
                tls=self.redis_per_second_tls,
                timeout_us=self.redis_per_second_timeout_us,
            ),
            self._given_tls,
        )
        return None if found is None else replace(found, short=True)

    @property
    def _given_tls(self) -> GivenTls:
        return GivenTls(
            ca=self.redis_tls_ca,
            cert=self.redis_tls_client_cert,
            key=self.redis_tls_client_key,
            skip_hostname=self.redis_tls_skip_hostname,
        )
