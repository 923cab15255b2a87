"""What the process can be told, by environment variable or by flag. Read once, at the start.

`kinds` has what the text of a setting may be, `redis_address` the ways to write where Redis is, `tls_files` what TLS needs.

Rule 1: the only module that knows the names of variables and flags. The fields of `Settings` are the one table of them:
        variable, kind, default and meaning stand together; `TABLE` is the same for those who list them (help, tests).
Rule 2: a flag goes before its variable. A variable that is set but empty is its default where it is text, and an error where
        it is a number, a duration or a switch, as in the reference implementation.
Rule 3: a password never shows: not in an error, not in a repr.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeVar

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.model import Algorithm
from ratelimit_svc.settings import redis_address
from ratelimit_svc.settings.kinds import BOOLEAN, PORT, TEXT, Kind, choice, duration, integer
from ratelimit_svc.settings.redis_address import RedisAddress
from ratelimit_svc.settings.tls_files import TlsFiles, tls_files

T = TypeVar("T")


class Setting(NamedTuple):
    """One row of the table."""

    field: str
    """Its name in `Settings`."""
    variable: str
    flag: str | None
    """None for a secret: flags are visible to every user of the machine."""
    kind: Kind[Any]
    default: str
    """As one would write it in the environment."""
    doc: str

    def read(self, environ: Mapping[str, str], flags: Mapping[str, str | None]) -> object:
        """Return this setting's value.

        Raises:
            SettingsError: its text breaks the rule of its kind.
        """
        source, text = self.flag, flags.get(self.field)
        if text is None:
            source, text = self.variable, environ.get(self.variable)
        if text is None or (self.kind.is_text and not text):
            text = self.default
        try:
            return self.kind.read(text)
        except ValueError:
            raise SettingsError(f"{source}={text!r}: must be {self.kind.rule}") from None


def _from(variable: str, kind: Kind[T], default: str, doc: str, *, secret: bool = False, flag: bool = True) -> T:
    """Make one field of `Settings`; typed as its value, which is what `dataclass` makes of it."""
    metadata = {"variable": variable, "kind": kind, "default": default, "doc": doc, "flag": flag}
    made: T = dataclasses.field(default=kind.read(default), metadata=metadata, repr=not secret)
    return made


@dataclass(frozen=True, slots=True)
class Settings:
    """The process's settings. Durations are integer microseconds (`_us`), however they were written.

    Raises:
        SettingsError: REDIS_URL, REDIS_SOCKET_TYPE and REDIS_AUTH do not fit together, or what TLS needs is not there.
    """

    host: str = _from("HOST", TEXT, "0.0.0.0", "Address of the HTTP side; :: is every address, IPv4 as well as IPv6.")  # noqa: S104 - the reference's default: a pod is asked from outside
    port: int = _from("PORT", PORT, "8080", "Port of the HTTP side: /healthcheck, /json, /metrics. 0: any free one.")
    grpc_host: str = _from("GRPC_HOST", TEXT, "0.0.0.0", "Address of the gRPC side; :: is every address.")  # noqa: S104 - as above
    grpc_port: int = _from("GRPC_PORT", PORT, "8081", "Port of the gRPC side. 0: any free one.")
    grpc_server_use_tls: bool = _from("GRPC_SERVER_USE_TLS", BOOLEAN, "false", "TLS on the gRPC side.")
    grpc_server_tls_cert: str = _from(
        "GRPC_SERVER_TLS_CERT",
        TEXT,
        "",
        "The server's certificate and those between it and its root, a PEM file. A changed file is taken up.",
    )
    grpc_server_tls_key: str = _from("GRPC_SERVER_TLS_KEY", TEXT, "", "Its private key, a PEM file; likewise.")
    grpc_client_tls_ca: str = _from(
        "GRPC_CLIENT_TLS_CACERT",
        TEXT,
        "",
        "Roots of the clients' certificates, a PEM file; likewise. Given: a client without a certificate is refused.",
    )
    grpc_client_tls_san: str = _from(
        "GRPC_CLIENT_TLS_SAN", TEXT, "", "A DNS name that a client's certificate must have as well."
    )
    grpc_max_connection_age_us: int = _from(
        "GRPC_MAX_CONNECTION_AGE",
        duration("0s", "87600h"),
        "24h",
        "So old, give or take a tenth, a connection is told to end, so that callers find new replicas. 0s: never.",
    )
    grpc_max_connection_age_grace_us: int = _from(
        "GRPC_MAX_CONNECTION_AGE_GRACE",
        duration("0s", "87600h"),
        "1h",
        "So much later it is ended, whatever is under way on it. 0s: never.",
    )
    debug_host: str = _from(
        "DEBUG_HOST",
        TEXT,
        "127.0.0.1",
        "Address of the debug side, which shows what callers sent: loopback unless it is opened.",
    )
    debug_port: int = _from("DEBUG_PORT", PORT, "6070", "Port of the debug side: /debug/requests. 0: any free one.")

    redis_address: str = _from(
        "REDIS_URL",
        TEXT,
        "",
        "Redis or Valkey: host:port, /path of a unix socket, or a redis://, rediss:// (TLS) or unix:// URL. Empty: windows "
        "are kept in this process's memory, which is right for one replica only.",
        secret=True,
    )
    redis_socket_type: str = _from(
        "REDIS_SOCKET_TYPE", choice("", "tcp", "unix"), "", "tcp or unix. Empty: told from REDIS_URL."
    )
    redis_auth: str = _from(
        "REDIS_AUTH",
        TEXT,
        "",
        "password or user:password for Redis, as it is (not percent-encoded).",
        secret=True,
        flag=False,
    )
    cache_key_prefix: str = _from("CACHE_KEY_PREFIX", TEXT, "", "Put before every key in Redis.")
    store_timeout_us: int = _from(
        "STORE_TIMEOUT",
        duration("1us", "10s"),
        "100ms",
        "A request waits so long for the store; then its rule's policy answers.",
    )
    deadline_margin_us: int = _from(
        "DEADLINE_MARGIN",
        duration("0s", "1h"),
        "2ms",
        "Taken off each caller's own deadline, so that the answer is there in time.",
    )
    breaker_latency_us: int = _from(
        "BREAKER_LATENCY", duration("1ms", "10s"), "50ms", "A Redis whose p95 is longer is not called for a moment."
    )
    loop_lag_us: int = _from(
        "LOOP_LAG", duration("0s", "1h"), "20ms", "A process whose turns are mostly later sheds requests. 0s: never."
    )
    replicas: int = _from(
        "REPLICAS", integer(1, 1_000_000), "1", "How many replicas share each limit while the store is away."
    )
    queue_limit: int = _from(
        "QUEUE_LIMIT",
        integer(1, 10_000_000),
        "10000",
        "Requests that wait at most; beyond, the policy answers at once.",
    )
    plan_memory_bytes: int = _from(
        "PLAN_MEMORY_BYTES",
        integer(65_536, 2**40),
        "67108864",
        "Bytes of memory for what repeated requests mean (64 MiB).",
    )
    memory_store_keys: int = _from(
        "MEMORY_STORE_KEYS", integer(1, 2**32), "100000", "Windows kept in this process's memory at most; 6 kB each."
    )
    max_message_bytes: int = _from(
        "MAX_MESSAGE_BYTES", integer(1, 2**31 - 1), "4194304", "Bytes of the largest gRPC message taken (4 MiB)."
    )

    rules: str = _from("RULES", TEXT, "", "A rule file, or a folder of them. Goes before the RUNTIME_ settings.")
    runtime_root: str = _from(
        "RUNTIME_ROOT",
        TEXT,
        "/srv/runtime_data/current",
        "Rules are the files below RUNTIME_ROOT/SUBDIRECTORY/APPDIRECTORY.",
    )
    runtime_subdirectory: str = _from("RUNTIME_SUBDIRECTORY", TEXT, "", "The middle part of that path.")
    runtime_appdirectory: str = _from("RUNTIME_APPDIRECTORY", TEXT, "config", "The last part of that path.")
    runtime_watch_root: bool = _from(
        "RUNTIME_WATCH_ROOT",
        BOOLEAN,
        "true",
        "Accepted: edits in place and swapped symlinks are both seen, either way.",
    )
    runtime_ignore_dot_files: bool = _from(
        "RUNTIME_IGNOREDOTFILES", BOOLEAN, "false", "Accepted: dot files and dot folders are never read, either way."
    )

    strict: bool = _from(
        "STRICT",
        BOOLEAN,
        "false",
        "Refuse rule files for what is only a warning else: what loads, but does not do what it seems to.",
    )
    merge_domain_config: bool = _from(
        "MERGE_DOMAIN_CONFIG",
        BOOLEAN,
        "false",
        "Several rule files may describe one domain: their descriptors are put together, in the order of the files' names.",
    )
    default_algorithm: str = _from(
        "DEFAULT_ALGORITHM",
        choice(*(algorithm.name.lower() for algorithm in Algorithm)),
        "sliding_window",
        "What counts where a rule does not say: fixed_window is what the reference implementation does.",
    )

    ready_requires_redis: bool = _from(
        "READY_REQUIRES_REDIS",
        BOOLEAN,
        "false",
        "Be unready while the store is away. Takes every replica away at once.",
    )
    drain_delay_us: int = _from(
        "DRAIN_DELAY",
        duration("0s", "1h"),
        "5s",
        "Told to stop, be unready and serve on for so long, until Envoy has noticed.",
    )
    drain_timeout_us: int = _from(
        "DRAIN_TIMEOUT", duration("0s", "1h"), "5s", "Then wait at most so long for the requests under way."
    )
    shadow_mode: bool = _from(
        "SHADOW_MODE",
        BOOLEAN,
        "false",
        "Deny nobody: all is counted and reported as if it were enforced, and every request passes.",
    )
    response_dynamic_metadata: bool = _from(
        "RESPONSE_DYNAMIC_METADATA",
        BOOLEAN,
        "false",
        "Tell Envoy with each answer, for its access log, which rule decided, whose quota it is, and the reset.",
    )
    denial_log_every_us: int = _from(
        "DENIAL_LOG_INTERVAL",
        duration("0s", "1h"),
        "1s",
        "Log at most one denial of each rule in this time, with the number of those not logged. 0s: none.",
    )
    log_level: str = _from(
        "LOG_LEVEL",
        choice("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"),
        "info",
        "The least level that is logged; trace adds what the libraries say.",
    )
    log_format: str = _from("LOG_FORMAT", choice("text", "json"), "text", "One line of key=value, or one JSON object.")
    engine: str = _from(
        "ENGINE",
        choice("http2", "grpcio"),
        "http2",
        "The gRPC server: this project's own, or the gRPC authors' library.",
    )
    loop: str = _from("LOOP", choice("uvloop", "asyncio"), "uvloop", "The event loop.")

    def __post_init__(self) -> None:
        _ = self.redis_url, self.tls_files  # what is wrong is told at the start

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], flags: Mapping[str, str | None] = MappingProxyType({})
    ) -> Self:
        """Read all settings. `flags` has the text of the flags given, by field; None is a flag not given.

        Raises:
            SettingsError: the text of one of them breaks its rule; names the variable or flag, the text and the rule.
        """
        if unknown := flags.keys() - {setting.field for setting in TABLE if setting.flag}:
            raise SettingsError(f"no such flag: {', '.join(sorted(unknown))}")
        values: dict[str, Any] = {setting.field: setting.read(environ, flags) for setting in TABLE}
        return cls(**values)

    @property
    def rules_path(self) -> Path:
        """The file or folder that the rules are in."""
        if self.rules:
            return Path(self.rules)
        return Path(self.runtime_root, self.runtime_subdirectory.lstrip("/"), self.runtime_appdirectory.lstrip("/"))

    @property
    def algorithm(self) -> Algorithm:
        """What counts where a rule does not say."""
        return Algorithm[self.default_algorithm.upper()]

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files for TLS on the gRPC side; None: plaintext."""
        if not self.grpc_server_use_tls:
            return None
        return tls_files(
            cert=self.grpc_server_tls_cert,
            key=self.grpc_server_tls_key,
            client_ca=self.grpc_client_tls_ca,
            client_san=self.grpc_client_tls_san,
        )

    @property
    def redis_url(self) -> str | None:
        """A redis://, rediss:// or unix:// URL with its password; None: no Redis."""
        redis = self._redis()
        return redis and redis.url

    @property
    def redis_url_shown(self) -> str | None:
        """The same without its password, for people and logs."""
        redis = self._redis()
        return redis and redis.shown

    def _redis(self) -> RedisAddress | None:
        if not self.redis_address:
            if self.redis_auth:
                raise SettingsError(
                    "REDIS_AUTH is set, but REDIS_URL is not: without it there is no Redis to log in to"
                )
            return None
        try:
            redis = redis_address.parse(self.redis_address)
        except ValueError:
            # Once it is wrong, a URL may hold a password in any of its parts, so only the plain form is repeated.
            shown = "" if "://" in self.redis_address or "@" in self.redis_address else f"={self.redis_address!r}"
            raise SettingsError(
                f"REDIS_URL (--redis-url){shown}: must be {redis_address.RULE}, or in REDIS_AUTH"
            ) from None
        if self.redis_socket_type not in ("", redis.socket_type):
            raise SettingsError(
                f"REDIS_SOCKET_TYPE={self.redis_socket_type!r}: must fit REDIS_URL, which is {redis.socket_type}"
            )
        if self.redis_auth and redis.has_password:
            raise SettingsError("REDIS_URL and REDIS_AUTH both carry a password: give one of them")
        return redis.with_auth(self.redis_auth) if self.redis_auth else redis


TABLE = tuple(
    Setting(
        field=each.name,
        variable=each.metadata["variable"],
        flag="--" + each.metadata["variable"].lower().replace("_", "-") if each.metadata["flag"] else None,
        kind=each.metadata["kind"],
        default=each.metadata["default"],
        doc=each.metadata["doc"],
    )
    for each in dataclasses.fields(Settings)
)
"""Every setting there is."""
