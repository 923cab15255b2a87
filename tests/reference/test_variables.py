"""§3 of the reference implementation: each of its variables, what each may be, and what happens with those that have nothing to set."""

import pytest

from ratelimit_svc.demo.parts import Replica, get
from ratelimit_svc.settings import TABLE, Settings, page
from ratelimit_svc.settings.reference import ELSEWHERE, REFERENCE, WHY
from tests.environment import read, refused

_NAMES = """
    HOST PORT DEBUG_HOST DEBUG_PORT GRPC_UDS GRPC_HOST GRPC_PORT GRPC_MAX_CONNECTION_AGE GRPC_MAX_CONNECTION_AGE_GRACE
    GRPC_SERVER_USE_TLS GRPC_SERVER_TLS_CERT GRPC_SERVER_TLS_KEY GRPC_CLIENT_TLS_CACERT GRPC_CLIENT_TLS_SAN
    LOG_LEVEL LOG_FORMAT
    CONFIG_TYPE FORCE_START_WITHOUT_INITIAL_CONFIG CONFIG_GRPC_XDS_NODE_ID CONFIG_GRPC_XDS_NODE_METADATA
    CONFIG_GRPC_XDS_SERVER_URL CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS
    CONFIG_GRPC_XDS_SERVER_USE_TLS CONFIG_GRPC_XDS_CLIENT_TLS_CERT CONFIG_GRPC_XDS_CLIENT_TLS_KEY
    CONFIG_GRPC_XDS_SERVER_TLS_CACERT CONFIG_GRPC_XDS_SERVER_TLS_SAN
    XDS_CLIENT_BACKOFF_INITIAL_INTERVAL XDS_CLIENT_BACKOFF_MAX_INTERVAL XDS_CLIENT_BACKOFF_RANDOM_FACTOR
    XDS_CLIENT_BACKOFF_JITTER XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES
    USE_DOG_STATSD USE_DOG_STATSD_MOGRIFIERS USE_STATSD STATSD_HOST STATSD_PORT EXTRA_TAGS STATS_FLUSH_INTERVAL
    DISABLE_STATS USE_PROMETHEUS PROMETHEUS_ADDR PROMETHEUS_PATH PROMETHEUS_MAPPER_YAML
    PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS
    RUNTIME_ROOT RUNTIME_SUBDIRECTORY RUNTIME_APPDIRECTORY RUNTIME_IGNOREDOTFILES RUNTIME_WATCH_ROOT
    EXPIRATION_JITTER_MAX_SECONDS LOCAL_CACHE_SIZE_IN_BYTES NEAR_LIMIT_RATIO CACHE_KEY_PREFIX BACKEND_TYPE
    STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT
    LIMIT_RESPONSE_HEADERS_ENABLED LIMIT_LIMIT_HEADER LIMIT_REMAINING_HEADER LIMIT_RESET_HEADER
    HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED
    REDIS_SOCKET_TYPE REDIS_TYPE REDIS_URL REDIS_POOL_SIZE REDIS_AUTH REDIS_TLS REDIS_TLS_CLIENT_CERT
    REDIS_TLS_CLIENT_KEY REDIS_TLS_CACERT REDIS_TLS_SKIP_HOSTNAME_VERIFICATION REDIS_PIPELINE_WINDOW
    REDIS_PIPELINE_LIMIT REDIS_CLUSTER_PIPELINE_PARALLELISM REDIS_SENTINEL_AUTH REDIS_HEALTH_CHECK_ACTIVE_CONNECTION
    REDIS_TIMEOUT REDIS_POOL_ON_EMPTY_BEHAVIOR
    REDIS_PERSECOND REDIS_PERSECOND_SOCKET_TYPE REDIS_PERSECOND_TYPE REDIS_PERSECOND_URL REDIS_PERSECOND_POOL_SIZE
    REDIS_PERSECOND_AUTH REDIS_PERSECOND_TLS REDIS_PERSECOND_SENTINEL_AUTH REDIS_PERSECOND_PIPELINE_WINDOW
    REDIS_PERSECOND_PIPELINE_LIMIT REDIS_PERSECOND_CLUSTER_PIPELINE_PARALLELISM REDIS_PERSECOND_TIMEOUT
    REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR
    REDIS_STARTUP_INITIAL_INTERVAL REDIS_STARTUP_MAX_INTERVAL REDIS_STARTUP_MAX_ELAPSED_TIME
    MEMCACHE_HOST_PORT MEMCACHE_MAX_IDLE_CONNS MEMCACHE_SRV MEMCACHE_SRV_REFRESH MEMCACHE_TLS MEMCACHE_TLS_CLIENT_CERT
    MEMCACHE_TLS_CLIENT_KEY MEMCACHE_TLS_CACERT MEMCACHE_TLS_SKIP_HOSTNAME_VERIFICATION
    SHADOW_MODE QUOTA_MODE RESPONSE_DYNAMIC_METADATA MERGE_DOMAIN_CONFIG
    TRACING_ENABLED TRACING_SERVICE_NAME TRACING_SERVICE_NAMESPACE TRACING_SERVICE_INSTANCE_ID
    TRACING_EXPORTER_PROTOCOL TRACING_SAMPLING_RATE
"""
NAMES = set(_NAMES.split())
"""Every variable of its settings."""


# ── all of them ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_variable_of_the_reference_is_a_setting():
    """None is forgotten, and none is told to be misspelt."""
    assert len(NAMES) == 114
    assert REFERENCE.keys() == NAMES
    assert {each.variable for each in TABLE} >= NAMES


def test_a_default_that_is_another_has_its_reason():
    """And no reason is given for one that is the same."""
    different = {each.variable for each in TABLE if page.differs(each)}
    assert different == WHY.keys() & {each.variable for each in TABLE}
    assert WHY.keys() <= NAMES


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_what_its_libraries_read_is_on_the_page(pattern):
    """They are no settings of its own, but operators set them."""
    assert f"`{pattern}`" in page.text()


@pytest.mark.parametrize("each", TABLE, ids=lambda each: each.variable)
def test_what_is_its_default_there_can_be_said_here(each):
    """A manifest that writes a default out starts: alone, or with what it belongs to."""
    if each.variable not in REFERENCE or REFERENCE[each.variable] == "":
        return
    with_it = {"REDIS_SOCKET_TYPE": {"REDIS_URL": REFERENCE["REDIS_URL"]}}.get(each.variable, {})
    assert read(**with_it, **{each.variable: REFERENCE[each.variable]}).warnings == ()


def test_all_defaults_of_the_reference_at_once():
    """What it would take as its own configuration starts, and nothing is told."""
    environ = {each.variable: REFERENCE[each.variable] for each in TABLE if REFERENCE.get(each.variable)}
    settings = read(**environ)
    assert settings.warnings == ()
    assert str(settings.redis) == "unix:///var/run/nutcracker/ratelimit.sock"


# ── how each kind is written ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("PORT", "0x1F90", "port", 8080),
        ("PORT", "0b1", "port", 1),
        ("PORT", "017", "port", 15),
        ("GRPC_PORT", "+18_081", "grpc_port", 18081),
        ("GRPC_MAX_CONNECTION_AGE", "24h0m0s", "grpc_max_connection_age_us", 86_400_000_000),
        ("GRPC_MAX_CONNECTION_AGE", "0", "grpc_max_connection_age_us", 0),
        ("GRPC_MAX_CONNECTION_AGE_GRACE", "1.5h", "grpc_max_connection_age_grace_us", 5_400_000_000),
        ("REDIS_TIMEOUT", "10s", "redis_timeout_us", 10_000_000),
        ("REDIS_TIMEOUT", "150ms", "redis_timeout_us", 150_000),
        ("SHADOW_MODE", "t", "shadow_mode", True),
        ("SHADOW_MODE", "FALSE", "shadow_mode", False),
        ("MERGE_DOMAIN_CONFIG", "1", "merge_domain_config", True),
        ("LOG_LEVEL", "WARNING", "log_level", "warning"),
        ("LOG_FORMAT", "JSON", "log_format", "json"),
        ("HOST", "::", "host", "::"),
        ("HOST", "", "host", "0.0.0.0"),
        ("CACHE_KEY_PREFIX", "p_", "cache_key_prefix", "p_"),
        ("REDIS_TYPE", "SINGLE", "redis_type", "single"),
        ("BACKEND_TYPE", "", "backend_type", "redis"),
        ("REDIS_CLUSTER_PIPELINE_PARALLELISM", "-1", "redis_cluster_parallelism", -1),
        ("REDIS_PIPELINE_WINDOW", "150us", "redis_pipeline_window_us", 150),
        ("REDIS_PIPELINE_WINDOW", "0", "redis_pipeline_window_us", 0),
        ("EXPIRATION_JITTER_MAX_SECONDS", "0x7fffffffffffffff", "expiration_jitter_s", 2**63 - 1),
        ("MEMCACHE_HOST_PORT", "a:11211,b:11211", "memcache_host_port", ("a:11211", "b:11211")),
        ("MEMCACHE_HOST_PORT", "", "memcache_host_port", ()),
        ("TRACING_SAMPLING_RATE", "1e-2", "tracing_sampling_rate", 0.01),
        ("TRACING_SAMPLING_RATE", "2", "tracing_sampling_rate", 2.0),
        ("TRACING_EXPORTER_PROTOCOL", "", "tracing_exporter_protocol", "http"),
    ],
)
def test_values(variable, text, field, value):
    """The text means here what it means there."""
    assert getattr(read(**{variable: text}), field) == value


_INTEGER = "must be a whole number"
_DURATION = "must be a duration with its unit"
_SWITCH = "must be true or false"


@pytest.mark.parametrize(
    ("variable", "text", "rule"),
    [
        ("PORT", "", _INTEGER),
        ("PORT", "8080x", _INTEGER),
        ("PORT", "8080.0", _INTEGER),
        ("DEBUG_PORT", "tcp://10.0.0.1:6070", _INTEGER),
        ("REDIS_POOL_SIZE", "", _INTEGER),
        ("REDIS_POOL_SIZE", "ten", _INTEGER),
        ("REDIS_POOL_SIZE", "9223372036854775808", _INTEGER),
        ("REDIS_PERSECOND_POOL_SIZE", "-1", _INTEGER),
        ("MEMCACHE_MAX_IDLE_CONNS", "2.0", _INTEGER),
        ("GRPC_MAX_CONNECTION_AGE", "24", _DURATION),
        ("GRPC_MAX_CONNECTION_AGE", "", _DURATION),
        ("GRPC_MAX_CONNECTION_AGE", "1d", _DURATION),
        ("REDIS_PIPELINE_WINDOW", "150", _DURATION),
        ("REDIS_STARTUP_MAX_INTERVAL", "30 s", _DURATION),
        ("MEMCACHE_SRV_REFRESH", "", _DURATION),
        ("SHADOW_MODE", "", _SWITCH),
        ("SHADOW_MODE", "yes", _SWITCH),
        ("RUNTIME_WATCH_ROOT", "off", _SWITCH),
        ("MEMCACHE_TLS", "on", _SWITCH),
        ("TRACING_SAMPLING_RATE", "", "must be a decimal number, 0 … 1"),
        ("TRACING_SAMPLING_RATE", "all", "must be a decimal number, 0 … 1"),
        ("REDIS_TYPE", "replicated", "must be one of single, sentinel, cluster"),
        ("BACKEND_TYPE", "dynamo", "must be one of redis, memcache"),
        ("LOG_LEVEL", "loud", "must be one of trace, debug, info, warn, warning, error, fatal, panic"),
    ],
)
def test_what_it_refuses(variable, text, rule):
    """The text that ends its start ends ours; the error names variable, text and rule."""
    assert refused(**{variable: text}).startswith(f"{variable}={text!r}: {rule}")


@pytest.mark.parametrize(
    ("variable", "text", "rule"),
    [
        ("LOG_FORMAT", "logfmt", "must be one of text, json"),
        ("REDIS_SOCKET_TYPE", "udp", "must be one of tcp, unix"),
        ("REDIS_TIMEOUT", "0", _DURATION),
        ("TRACING_EXPORTER_PROTOCOL", "zipkin", "must be one of http, grpc"),
        ("PORT", "-1", _INTEGER),
    ],
)
def test_what_only_we_refuse(variable, text, rule):
    """It takes these, and means something else, or ends later."""
    assert refused(**{variable: text}).startswith(f"{variable}={text!r}: {rule}")


@pytest.mark.parametrize(
    "environ",
    [
        {"REDIS_TLS_CACERT": "/ca.pem", "REDIS_URL": "redis:6379"},
        {"REDIS_SENTINEL_AUTH": "pass", "REDIS_URL": "redis:6379"},
        {"REDIS_SOCKET_TYPE": "tcp"},
        {"REDIS_SOCKET_TYPE": "unix", "REDIS_URL": "redis:6379"},
        {"REDIS_AUTH": "pass", "REDIS_URL": "redis://:pass@redis:6379"},
        {"REDIS_PERSECOND": "true", "REDIS_URL": "redis:6379"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_what_does_not_fit_together_is_refused(environ):
    """It takes no notice of these, or finds out when it connects: here the first variable is named."""
    assert next(iter(environ)) in refused(**environ)


# ── those without effect ──────────────────────────────────────────────────────────────────────────────────────────────

WITHOUT_EFFECT = {
    "REDIS_POOL_SIZE": "50",
    "REDIS_POOL_ON_EMPTY_BEHAVIOR": "CREATE",
    "REDIS_PIPELINE_WINDOW": "150us",
    "REDIS_PIPELINE_LIMIT": "8",
    "REDIS_CLUSTER_PIPELINE_PARALLELISM": "0",
    "REDIS_PERSECOND_POOL_SIZE": "50",
    "REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR": "ERROR",
    "REDIS_PERSECOND_PIPELINE_WINDOW": "150us",
    "REDIS_PERSECOND_PIPELINE_LIMIT": "8",
    "REDIS_PERSECOND_CLUSTER_PIPELINE_PARALLELISM": "4",
    "REDIS_STARTUP_INITIAL_INTERVAL": "2s",
    "REDIS_STARTUP_MAX_INTERVAL": "10s",
    "REDIS_STARTUP_MAX_ELAPSED_TIME": "5m",
    "EXPIRATION_JITTER_MAX_SECONDS": "0",
    "MEMCACHE_HOST_PORT": "memcached:11211",
    "MEMCACHE_MAX_IDLE_CONNS": "10",
    "MEMCACHE_SRV": "_memcache._tcp.example.com",
    "MEMCACHE_SRV_REFRESH": "30s",
    "MEMCACHE_TLS": "true",
    "MEMCACHE_TLS_CLIENT_CERT": "/nowhere/cert.pem",
    "MEMCACHE_TLS_CLIENT_KEY": "/nowhere/key.pem",
    "MEMCACHE_TLS_CACERT": "/nowhere/ca.pem",
    "MEMCACHE_TLS_SKIP_HOSTNAME_VERIFICATION": "true",
}


@pytest.mark.parametrize(("variable", "text"), WITHOUT_EFFECT.items())
def test_what_has_no_effect_is_told_once(variable, text):
    """One warning, with what happens instead, and nothing else is changed by it."""
    settings = read(**{variable: text})
    (warning,) = settings.warnings
    assert warning.startswith(f"{variable} has no effect here: ")
    assert warning.endswith(".")


def test_all_that_have_no_effect_at_once():
    """One line for each, in the order of the table: both addresses of memcached as well, which it would not start with."""
    settings = read(**WITHOUT_EFFECT)
    assert sorted(warning.split()[0] for warning in settings.warnings) == sorted(WITHOUT_EFFECT)


async def test_the_start_tells_it(tmp_path):
    """Once, in the log; and the service is up."""
    (tmp_path / "rules.yaml").write_text("domain: shop\n")
    env = {"REDIS_POOL_SIZE": "50", "REDIS_ULR": "redis:6379"}
    async with Replica(tmp_path / "replica", rules=tmp_path / "rules.yaml", env=env) as replica:
        assert await get(f"{replica.http}/healthcheck") == (200, "OK")
    log = replica.log.read_text()
    assert log.count("REDIS_POOL_SIZE has no effect here") == 1
    assert log.count("REDIS_ULR is no setting: is REDIS_URL meant?") == 1


def test_memcache_is_not_replaced_by_memory_unasked():
    """Limits would be multiplied by the replicas. With a Redis, that is used; `redis` is what one says who wants memory."""
    assert "set REDIS_URL" in refused(BACKEND_TYPE="memcache", MEMCACHE_HOST_PORT="memcached:11211")
    (warning,) = read(BACKEND_TYPE="memcache", REDIS_URL="redis:6379").warnings
    assert warning == (
        "BACKEND_TYPE has no effect here: windows are kept in Redis, not in memcached; REDIS_URL must name one."
    )
    assert read(BACKEND_TYPE="redis").redis is None


# ── those that are none ───────────────────────────────────────────────────────────────────────────────────────────────


def links(service: str, port: int = 6379) -> dict[str, str]:
    """What Kubernetes sets in each pod for a Service with a named port."""
    address = f"tcp://10.0.0.11:{port}"
    return {
        f"{service}_SERVICE_HOST": "10.0.0.11",
        f"{service}_SERVICE_PORT": str(port),
        f"{service}_SERVICE_PORT_MAIN": str(port),
        f"{service}_PORT": address,
        f"{service}_PORT_{port}_TCP": address,
        f"{service}_PORT_{port}_TCP_PROTO": "tcp",
        f"{service}_PORT_{port}_TCP_PORT": str(port),
        f"{service}_PORT_{port}_TCP_ADDR": "10.0.0.11",
    }


_SERVICES = "REDIS REDIS_MASTER MEMCACHE RATELIMIT PORT HOST GRPC DEBUG STATSD LOG LIMIT TRACING CONFIG XDS_CLIENT"


@pytest.mark.parametrize("service", _SERVICES.split())
def test_what_kubernetes_tells_of_services_is_no_setting(service):
    """Of a Service `grpc` it says GRPC_PORT=tcp://…, which ends the reference implementation's start: here it means nothing."""
    settings = read(**links(service))
    assert settings == Settings()
    assert settings.warnings == ()


def test_a_port_of_ones_own_beside_a_service_of_that_name():
    """A manifest's own GRPC_PORT goes before Kubernetes's, and counts."""
    assert read(**links("GRPC") | {"GRPC_PORT": "9000"}).grpc_port == 9000
    assert "GRPC_PORT='tcp://10.0.0.1:1': must be" in refused(GRPC_PORT="tcp://10.0.0.1:1")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("REDIS_ULR", "REDIS_URL"),
        ("GRPC_MAX_CONN_AGE", "GRPC_MAX_CONNECTION_AGE"),
        ("RUNTIME_SUBDIR", "RUNTIME_SUBDIRECTORY"),
        ("STORE_TIMOUT", "STORE_TIMEOUT"),
        ("LOG_LEVELS", "LOG_LEVEL"),
        ("MEMCACHE_HOSTPORT", "MEMCACHE_HOST_PORT"),
        ("REDIS_PER_SECOND_URL", "REDIS_PERSECOND_URL"),
    ],
)
def test_a_misspelt_variable_is_told_with_the_nearest(variable, meant):
    """Its value is not shown: it may be a password."""
    (warning,) = read(**{variable: "secret"}).warnings
    assert warning == f"{variable} is no setting: is {meant} meant?"


def test_a_variable_that_only_we_could_have_is_told():
    """Though nothing here is like it."""
    assert read(REDIS_MASTER_NAME="mymaster").warnings == ("REDIS_MASTER_NAME is no setting",)


_OTHERS = """
    PATH HOME HOSTNAME LANG PYTHON_VERSION KUBERNETES_PORT GRPC_VERBOSITY GRPC_TRACE GRPC_GO_LOG_VERBOSITY_LEVEL
    GRPC_DNS_RESOLVER PROMETHEUS_MULTIPROC_DIR LOG_DIR RUNTIME_CLASS OTEL_EXPORTER_OTLP_ENDPOINT
    OTEL_SERVICE_NAME DOG_STATSD_MOGRIFIER_TAG_PATTERN MAX_WORKERS DEFAULT_REGION
"""


@pytest.mark.parametrize("variable", _OTHERS.split())
def test_variables_of_others_are_let_be(variable):
    """A service says nothing of what is not its own."""
    assert read(**{variable: "1"}).warnings == ()
