"""Settings: every one documented, read as the reference implementation reads its own, and refused with a reason."""

import dataclasses
import re
from pathlib import Path

import pytest

from ratelimit_svc import logs
from ratelimit_svc.errors import SettingsError
from ratelimit_svc.model import Algorithm
from ratelimit_svc.settings import TABLE, Setting, Settings
from ratelimit_svc.settings.accepted import AcceptedSettings
from tests.environment import read, refused

PACKAGE = Path(__file__).resolve().parent.parent / "ratelimit_svc"


# ---------------------------------------------------------------------------------------------------------------------
# The table


def test_every_setting_is_documented() -> None:
    """Each field of Settings stands in the table, with a sentence, and nothing else does."""
    assert [setting.field for setting in TABLE] == [field.name for field in dataclasses.fields(Settings)][:-1]
    assert dataclasses.fields(Settings)[-1].name == "warnings"
    for setting in TABLE:
        assert setting.doc.endswith("."), setting.field
        assert setting.kind.rule, setting.field


def test_names_are_unique() -> None:
    """No two settings share a variable or a flag."""
    flags = [setting.flag for setting in TABLE if setting.flag]
    assert len({setting.variable for setting in TABLE}) == len(TABLE)
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.variable)
def test_default_is_what_the_table_says(setting: Setting) -> None:
    """A default, written into the environment, changes nothing."""
    assert read(**{setting.variable: setting.default or ""}) == Settings() == read()


def test_how_rules_are_read() -> None:
    """Leniently, a domain in one file, counted by sliding windows, unless told otherwise."""
    settings = Settings()
    assert (settings.strict, settings.merge_domain_config, settings.algorithm) == (
        False,
        False,
        Algorithm.SLIDING_WINDOW,
    )
    settings = read(STRICT="1", MERGE_DOMAIN_CONFIG="true", DEFAULT_ALGORITHM="Fixed_Window")
    assert (settings.strict, settings.merge_domain_config, settings.algorithm) == (True, True, Algorithm.FIXED_WINDOW)
    assert "must be one of sliding_window, fixed_window, token_bucket" in refused(DEFAULT_ALGORITHM="leaky")


def test_defaults() -> None:
    """The defaults are the reference implementation's, where it has the setting."""
    settings = Settings()
    assert (settings.host, settings.port, settings.grpc_host, settings.grpc_port) == ("0.0.0.0", 8080, "0.0.0.0", 8081)
    assert (settings.redis, settings.redis_per_second, settings.redis_url_shown) == (None, None, None)
    assert settings.rules_path == Path("/srv/runtime_data/current/config")
    assert (settings.store_timeout_us, settings.deadline_margin_us) == (100_000, 2_000)
    assert (settings.drain_delay_us, settings.drain_timeout_us) == (5_000_000, 5_000_000)
    assert (settings.breaker_latency_us, settings.queue_age_us, settings.loop_lag_us) == (50_000, 50_000, 20_000)
    assert (settings.denial_memory_keys, settings.owed_keys) == (100_000, 100_000)
    assert (settings.plan_memory_bytes, settings.max_message_bytes) == (64 * 1024**2, 4 * 1024**2)


def test_only_settings_reads_the_environment() -> None:
    """The environment enters by cli, which hands it to settings; the demo hands its own on to what it starts."""
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name != "cli.py" and not name.startswith("demo/"):
            assert not re.search(
                r"\bos\.(environ|getenv)|from os import .*(environ|getenv)", path.read_text("utf-8")
            ), name


# ---------------------------------------------------------------------------------------------------------------------
# Variables and flags


def test_a_flag_goes_before_its_variable() -> None:
    """What is typed now counts more than what is set around it."""
    assert Settings.from_environment({"PORT": "1"}, {"port": "2"}).port == 2
    assert Settings.from_environment({"PORT": "1"}, {"port": None}).port == 1


def test_an_error_names_the_flag() -> None:
    """A wrong flag is named as it was typed."""
    with pytest.raises(SettingsError, match=r"^--store-timeout='10': must be a duration with its unit"):
        Settings.from_environment({}, {"store_timeout_us": "10"})


def test_there_is_no_flag_for_a_password() -> None:
    """A password in a flag would be seen by every user of the machine. What has no effect has no flag either."""
    idle = {field.name for field in dataclasses.fields(AcceptedSettings)}
    secrets = {setting.field for setting in TABLE if setting.flag is None} - idle
    assert not any(setting.flag for setting in TABLE if setting.field in idle)
    redis = {f"redis{which}{kind}_auth" for which in ("", "_per_second") for kind in ("", "_sentinel")}
    told_to_servers = {"debug_token", "config_grpc_xds_client_additional_headers"}
    assert secrets - {"dog_statsd_mogrifier"} == redis | told_to_servers
    with pytest.raises(SettingsError, match="no such flag: redis_auth"):
        Settings.from_environment({}, {"redis_auth": "secret"})


def test_empty_text_is_the_default() -> None:
    """A text that is set but empty counts as not set."""
    assert read(HOST="", RUNTIME_APPDIRECTORY="", LOG_LEVEL="", REDIS_URL="", REDIS_SOCKET_TYPE="") == Settings()


@pytest.mark.parametrize("variable", ["PORT", "STORE_TIMEOUT", "RUNTIME_WATCH_ROOT"])
def test_an_empty_number_is_an_error(variable: str) -> None:
    """A number, duration or switch that is set but empty is an error, as in the reference implementation."""
    assert refused(**{variable: ""}).startswith(f"{variable}='': must be ")


def test_others_are_ignored() -> None:
    """Variables of other programs are let be."""
    assert read(PATH="/bin", JAVA_HOME="/opt") == Settings()


# ---------------------------------------------------------------------------------------------------------------------
# Kinds


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("8081", 8081),
        ("+1", 1),
        ("0x1F", 31),
        ("0b11", 3),
        ("0o17", 15),
        ("017", 15),
        ("00", 0),
        ("1_000", 1000),
    ],
)
def test_integers_as_in_go(text: str, number: int) -> None:
    """Prefixes, leading zeros and underscores mean what they mean in Go."""
    assert read(PORT=text).port == number


@pytest.mark.parametrize(
    "text", ["-1", "65536", "8081a", " 1", "1.0", "1e3", "08", "0x", "1__0", "_1", "٣", "9" * 5000]
)
def test_not_a_port(text: str) -> None:
    """What is no port is refused, with the text and the range."""
    assert refused(PORT=text) == f"PORT={text!r}: must be a whole number, 0 … 65535"


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_switch_on(text: str) -> None:
    """A switch is on in each of Go's spellings."""
    assert read(READY_REQUIRES_REDIS=text).ready_requires_redis is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_switch_off(text: str) -> None:
    """A switch is off in each of Go's spellings."""
    assert read(RUNTIME_WATCH_ROOT=text).runtime_watch_root is False


@pytest.mark.parametrize("text", ["yes", "on", "tRUE", "2", " true"])
def test_not_a_switch(text: str) -> None:
    """Other spellings are refused rather than guessed."""
    assert refused(READY_REQUIRES_REDIS=text).startswith(f"READY_REQUIRES_REDIS={text!r}: must be true or false")


@pytest.mark.parametrize(
    ("text", "length_us"),
    [
        ("0", 0),
        ("0s", 0),
        ("-0", 0),
        ("100ms", 100_000),
        ("1.5s", 1_500_000),
        (".5s", 500_000),
        ("1.s", 1_000_000),
        ("1m30s", 90_000_000),
        ("1h", 3_600_000_000),
        ("250us", 250),
        ("250µs", 250),
        ("250μs", 250),
        ("1500ns", 1),
        ("0.1ms0.1ms", 200),
    ],
)
def test_durations_as_in_go(text: str, length_us: int) -> None:
    """A duration is a sum of numbers with units, kept in whole microseconds."""
    assert read(DRAIN_DELAY=text).drain_delay_us == length_us


@pytest.mark.parametrize("text", ["10", "1.5", "s", "1 s", "10S", "1s,", "-1s", "1h1us", "2h", "1d", "."])
def test_not_a_duration(text: str) -> None:
    """A plain number needs a unit; what is no duration or out of range is refused."""
    rule = 'must be a duration with its unit, like "100ms", "1.5s" or "1h30m", 0s … 1h'
    assert refused(DRAIN_DELAY=text) == f"DRAIN_DELAY={text!r}: {rule}"


@pytest.mark.parametrize("text", ["0", "999ns"])
def test_the_store_has_some_time(text: str) -> None:
    """No time at all for the store would mean no store."""
    assert "1us … 10s" in refused(STORE_TIMEOUT=text)


def test_ranges() -> None:
    """Every number has a range, and what lies outside is refused."""
    for variable in ("DENIAL_MEMORY_KEYS", "OWED_KEYS"):
        assert "must be a whole number, 0 …" in refused(**{variable: "-1"})
    for variable in ("REPLICAS", "QUEUE_LIMIT", "PLAN_MEMORY_BYTES", "MEMORY_STORE_KEYS", "MAX_MESSAGE_BYTES"):
        assert "must be a whole number" in refused(**{variable: "0"})
        assert "must be a whole number" in refused(**{variable: "0xffffffffffffffff"})


@pytest.mark.parametrize("level", [*logs.LEVELS, "WARN", "Info"])
def test_log_levels(level: str) -> None:
    """Every level that logs knows can be asked for, in any case."""
    assert read(LOG_LEVEL=level).log_level == level.lower()


def test_words() -> None:
    """A wrong word is told the right ones."""
    assert refused(LOG_FORMAT="xml") == "LOG_FORMAT='xml': must be one of text, json"
    assert refused(REDIS_SOCKET_TYPE="udp") == "REDIS_SOCKET_TYPE='udp': must be one of tcp, unix"


# ---------------------------------------------------------------------------------------------------------------------
# Rules


def test_rules_path_of_the_reference() -> None:
    """RUNTIME_ROOT, the subdirectory and the app directory make the folder."""
    settings = read(RUNTIME_ROOT="/data", RUNTIME_SUBDIRECTORY="ratelimit", RUNTIME_APPDIRECTORY="/rules")
    assert settings.rules_path == Path("/data/ratelimit/rules")
    assert read(RUNTIME_ROOT="/data", RUNTIME_WATCH_ROOT="true").rules_path == Path("/data/config")


def test_rules_go_before_the_runtime_settings() -> None:
    """RULES is the one path, and may be a file."""
    assert read(RULES="rules.yaml", RUNTIME_ROOT="/data").rules_path == Path("rules.yaml")


# ---------------------------------------------------------------------------------------------------------------------
# TLS of the gRPC side, and the age of its connections


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A file that can be read; settings do not look into it."""
    path = tmp_path / "some.pem"
    path.touch()
    return path


def test_tls_as_the_reference_names_it(pem: Path) -> None:
    """Off by default, whatever the files are; on with certificate and key, and clients as far as they are named."""
    assert read(GRPC_SERVER_TLS_CERT="/nowhere").tls_files is None
    environ = {"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": str(pem), "GRPC_SERVER_TLS_KEY": str(pem)}
    assert read(**environ).tls_files == (pem, pem, None, None)
    environ |= {"GRPC_CLIENT_TLS_CACERT": str(pem), "GRPC_CLIENT_TLS_SAN": "envoy.example"}
    assert read(**environ).tls_files == (pem, pem, pem, "envoy.example")


def test_tls_as_envoy_gateway_names_it(pem: Path) -> None:
    """GRPC_SERVER_TLS_CA_CERT is GRPC_CLIENT_TLS_CACERT; both may be set, and then to the same file."""
    both = {"GRPC_CLIENT_TLS_CACERT": str(pem), "GRPC_SERVER_TLS_CA_CERT": str(pem)}
    environ = {"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": str(pem), "GRPC_SERVER_TLS_KEY": str(pem)}
    assert read(**environ, GRPC_SERVER_TLS_CA_CERT=str(pem)).tls_files == (pem, pem, pem, None)
    assert read(**environ, **both).tls_files == (pem, pem, pem, None)
    assert refused(**environ, **both | {"GRPC_SERVER_TLS_CA_CERT": "/other.pem"}) == (
        f"GRPC_CLIENT_TLS_CACERT='{pem}' and GRPC_SERVER_TLS_CA_CERT='/other.pem' mean the same, and differ: set one of them"
    )
    text = refused(**environ, GRPC_SERVER_TLS_CA_CERT="/nowhere/x.pem")
    assert text == "GRPC_SERVER_TLS_CA_CERT='/nowhere/x.pem': cannot be read: No such file or directory"


def test_the_token_of_the_debug_side(pem: Path) -> None:
    """In the environment, where no repr shows it, or in a file that can be read; not in both."""
    assert "secret" not in repr(read(DEBUG_TOKEN="secret"))
    assert read(DEBUG_TOKEN_FILE=str(pem)).debug_token_path == pem
    assert refused(DEBUG_TOKEN_FILE="/nowhere").startswith("DEBUG_TOKEN_FILE='/nowhere': cannot be read")
    assert refused(DEBUG_TOKEN="a", DEBUG_TOKEN_FILE=str(pem)).startswith("DEBUG_TOKEN and DEBUG_TOKEN_FILE are both")


@pytest.mark.parametrize("variable", ["READY_REQUIRES_REDIS", "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION"])
def test_readiness_may_follow_redis(variable: str) -> None:
    """By our name for it, or by the reference implementation's; not by default."""
    assert read(**{variable: "true"}).requires_redis
    assert not read().requires_redis


@pytest.mark.parametrize("missing", ["GRPC_SERVER_TLS_CERT", "GRPC_SERVER_TLS_KEY", "GRPC_CLIENT_TLS_CACERT"])
def test_tls_names_the_variable_and_the_file_that_is_not_there(missing: str, pem: Path) -> None:
    """A typing error in a path is found by reading one line."""
    environ = dict.fromkeys(("GRPC_SERVER_TLS_CERT", "GRPC_SERVER_TLS_KEY", "GRPC_CLIENT_TLS_CACERT"), str(pem))
    text = refused(GRPC_SERVER_USE_TLS="1", **environ | {missing: "/nowhere/x.pem"})
    assert text == f"{missing}='/nowhere/x.pem': cannot be read: No such file or directory"


def test_tls_without_files(pem: Path) -> None:
    """TLS that is on needs both; a client's name needs its certificate."""
    assert "GRPC_SERVER_TLS_CERT is not set" in refused(GRPC_SERVER_USE_TLS="1")
    assert "GRPC_SERVER_TLS_KEY is not set" in refused(GRPC_SERVER_USE_TLS="1", GRPC_SERVER_TLS_CERT=str(pem))
    environ = {"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": str(pem), "GRPC_SERVER_TLS_KEY": str(pem)}
    assert refused(GRPC_CLIENT_TLS_SAN="envoy.example", **environ).startswith(
        "GRPC_CLIENT_TLS_SAN is set, but GRPC_CLIENT_TLS_CACERT is not"
    )


def test_connections_age_as_in_the_reference() -> None:
    """A day and an hour, unless told otherwise."""
    settings = Settings()
    assert settings.grpc_max_connection_age_us == 24 * 3600 * 1_000_000
    assert settings.grpc_max_connection_age_grace_us == 3600 * 1_000_000
    assert read(GRPC_MAX_CONNECTION_AGE="0s").grpc_max_connection_age_us == 0
    assert "must be a duration" in refused(GRPC_MAX_CONNECTION_AGE="never")


def test_engines() -> None:
    """One of two."""
    assert refused(ENGINE="nginx") == "ENGINE='nginx': must be one of http2, grpcio"
