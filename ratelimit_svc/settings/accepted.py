"""The reference implementation's settings that have nothing to set here: memcached, its pool of connections, how it starts.

They are read as it reads them, so that what it would refuse is refused. One that is set to something else than its default there
is told once, at the start, with what happens instead: the sentence of its row.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.settings.kinds import ANY_DURATION, ANY_INTEGER, BOOLEAN, LIST, TEXT, choice, integer
from ratelimit_svc.settings.row import row, setting

_BACKEND = choice("redis", "memcache")
_SIZE = replace(integer(0, 2**63 - 1), short="a whole number, not below 0")

_NO_MEMCACHED = "Windows are kept in Redis: no memcached is called."
_ONE_CONNECTION = "One connection to each node carries all: nothing waits for a free one."
_BATCHES = "What waits while a call is under way is the next call: nothing is held back for it."
_AT_ONCE = "A Cluster's nodes are always called at the same time."
_RETRIES = "It starts without Redis, answers by on_store_failure, and tries again soon, at least twice a second."


@dataclass(frozen=True)
class AcceptedSettings:
    """What has no effect here, and is accepted."""

    backend_type: str = row(
        "BACKEND_TYPE",
        _BACKEND,
        "redis",
        "Windows are kept in Redis, not in memcached; REDIS_URL must name one.",
        flag=False,
    )
    memcache_host_port: tuple[str, ...] = row("MEMCACHE_HOST_PORT", LIST, "", _NO_MEMCACHED, flag=False)
    memcache_max_idle_conns: int = row("MEMCACHE_MAX_IDLE_CONNS", ANY_INTEGER, "2", _NO_MEMCACHED, flag=False)
    memcache_srv: str = row("MEMCACHE_SRV", TEXT, "", _NO_MEMCACHED, flag=False)
    memcache_srv_refresh_us: int = row("MEMCACHE_SRV_REFRESH", ANY_DURATION, "0", _NO_MEMCACHED, flag=False)
    memcache_tls: bool = row("MEMCACHE_TLS", BOOLEAN, "false", _NO_MEMCACHED, flag=False)
    memcache_tls_client_cert: str = row("MEMCACHE_TLS_CLIENT_CERT", TEXT, "", _NO_MEMCACHED, flag=False)
    memcache_tls_client_key: str = row("MEMCACHE_TLS_CLIENT_KEY", TEXT, "", _NO_MEMCACHED, flag=False)
    memcache_tls_ca: str = row("MEMCACHE_TLS_CACERT", TEXT, "", _NO_MEMCACHED, flag=False)
    memcache_tls_skip_hostname: bool = row(
        "MEMCACHE_TLS_SKIP_HOSTNAME_VERIFICATION", BOOLEAN, "false", _NO_MEMCACHED, flag=False
    )

    redis_pool_size: int = row("REDIS_POOL_SIZE", _SIZE, "10", _ONE_CONNECTION, flag=False)
    redis_pool_on_empty: str = row("REDIS_POOL_ON_EMPTY_BEHAVIOR", TEXT, "WAIT", _ONE_CONNECTION, flag=False)
    redis_pipeline_window_us: int = row("REDIS_PIPELINE_WINDOW", ANY_DURATION, "0", _BATCHES, flag=False)
    redis_pipeline_limit: int = row("REDIS_PIPELINE_LIMIT", ANY_INTEGER, "0", _BATCHES, flag=False)
    redis_cluster_parallelism: int = row("REDIS_CLUSTER_PIPELINE_PARALLELISM", ANY_INTEGER, "1", _AT_ONCE, flag=False)
    redis_per_second_pool_size: int = row("REDIS_PERSECOND_POOL_SIZE", _SIZE, "10", _ONE_CONNECTION, flag=False)
    redis_per_second_pool_on_empty: str = row(
        "REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR", TEXT, "WAIT", _ONE_CONNECTION, flag=False
    )
    redis_per_second_pipeline_window_us: int = row(
        "REDIS_PERSECOND_PIPELINE_WINDOW", ANY_DURATION, "0", _BATCHES, flag=False
    )
    redis_per_second_pipeline_limit: int = row("REDIS_PERSECOND_PIPELINE_LIMIT", ANY_INTEGER, "0", _BATCHES, flag=False)
    redis_per_second_cluster_parallelism: int = row(
        "REDIS_PERSECOND_CLUSTER_PIPELINE_PARALLELISM", ANY_INTEGER, "1", _AT_ONCE, flag=False
    )

    redis_startup_initial_us: int = row("REDIS_STARTUP_INITIAL_INTERVAL", ANY_DURATION, "1s", _RETRIES, flag=False)
    redis_startup_max_us: int = row("REDIS_STARTUP_MAX_INTERVAL", ANY_DURATION, "30s", _RETRIES, flag=False)
    redis_startup_elapsed_us: int = row(
        "REDIS_STARTUP_MAX_ELAPSED_TIME",
        ANY_DURATION,
        "0",
        "It does not end for want of Redis, but answers by on_store_failure; with READY_REQUIRES_REDIS it is unready.",
        flag=False,
    )
    expiration_jitter_s: int = row(
        "EXPIRATION_JITTER_MAX_SECONDS",
        ANY_INTEGER,
        "300",
        "A window's key lives for two windows from its last hit, so that keys do not expire all at once anyway.",
        flag=False,
    )

    def _refuse_memcache(self, *, without_redis: bool) -> None:
        """Make sure that who counted in memcached does not come to count in each process's memory without knowing it.

        Raises:
            SettingsError: memcached is asked for, and no Redis is named.
        """
        if self.backend_type == "memcache" and without_redis:
            raise SettingsError(
                "BACKEND_TYPE is memcache, which is not supported, and REDIS_URL is not set: set REDIS_URL; or set BACKEND_TYPE to "
                "redis, and windows are kept in this process's memory, which is right for one replica only"
            )


def without_effect(values: Mapping[str, object]) -> Iterator[str]:
    """Say of each that would have changed something there what happens here. `values` has them by field."""
    for each in map(setting, dataclasses.fields(AcceptedSettings)):
        if values[each.field] != each.kind.read(each.default):
            yield f"{each.variable} has no effect here: {each.doc[:1].lower()}{each.doc[1:]}"
