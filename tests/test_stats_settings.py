"""The settings of who is told the reference implementation's numbers."""

import pytest

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.server import stats
from tests.environment import read


def test_nobody_is_told_unless_a_server_is_named() -> None:
    """Not localhost either, which the reference tells by default; and nothing is counted for nobody."""
    assert read().statsd is None
    assert not read().serves_prometheus
    metrics = Metrics()
    stats.page(read(), metrics)
    assert metrics.reference is None
    stats.page(read(STATSD_HOST="statsd"), metrics)
    assert metrics.reference is not None


@pytest.mark.parametrize(
    ("environ", "where"),
    [
        ({"STATSD_HOST": "statsd"}, ("statsd", 8125, True, False)),
        ({"STATSD_PORT": "9125"}, ("localhost", 9125, True, False)),
        ({"USE_STATSD": "true", "STATSD_PROTOCOL": "UDP"}, ("localhost", 8125, False, False)),
        ({"USE_DOG_STATSD": "true", "STATSD_HOST": "agent"}, ("agent", 8125, False, True)),
        ({"USE_STATSD": "false", "STATSD_HOST": "statsd"}, None),
        ({"USE_PROMETHEUS": "true", "STATSD_HOST": "statsd"}, None),
        ({"USE_STATSD": "true", "USE_PROMETHEUS": "true", "DISABLE_STATS": "true"}, None),
    ],
)
def test_which_server(environ: dict[str, str], where: tuple[object, ...] | None) -> None:
    """By TCP unless it is told otherwise; DogStatsD by UDP."""
    statsd = read(**environ).statsd
    assert (statsd and statsd[:4]) == where


@pytest.mark.parametrize(
    "environ",
    [
        {"USE_STATSD": "true", "USE_PROMETHEUS": "true"},
        {"USE_STATSD": "true", "USE_DOG_STATSD": "true"},
        {"USE_PROMETHEUS": "1", "USE_DOG_STATSD": "1"},
    ],
)
def test_one_sink_at_a_time(environ: dict[str, str]) -> None:
    """More are refused at the start, as in the reference."""
    with pytest.raises(SettingsError, match="unable to use more than one stats sink at the same time"):
        read(**environ)


def test_mogrifiers() -> None:
    """In the order in which they are named; a number of variables each."""
    statsd = read(
        USE_DOG_STATSD="true",
        USE_DOG_STATSD_MOGRIFIERS="two,ONE",
        DOG_STATSD_MOGRIFIER_ONE_PATTERN="^a=(.*)$",
        DOG_STATSD_MOGRIFIER_ONE_NAME="b.$1",
        DOG_STATSD_MOGRIFIER_TWO_PATTERN="x",
        DOG_STATSD_MOGRIFIER_TWO_NAME="y",
        DOG_STATSD_MOGRIFIER_TWO_TAGS="k:$1,l:m",
    ).statsd
    assert statsd is not None
    assert [(each.pattern.pattern, each.name, each.tags) for each in statsd.mogrifiers] == [
        ("x", "y", {"k": "$1", "l": "m"}),
        ("^a=(.*)$", "b.$1", {}),
    ]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "DOG_STATSD_MOGRIFIER_A_PATTERN is not set, but USE_DOG_STATSD_MOGRIFIERS names 'a'"),
        ({"PATTERN": "("}, "DOG_STATSD_MOGRIFIER_A_NAME is not set"),
        ({"PATTERN": "(", "NAME": "x"}, "DOG_STATSD_MOGRIFIER_A_PATTERN='(': must be a regular expression: missing"),
        ({"PATTERN": "x", "NAME": "x", "TAGS": "k"}, "DOG_STATSD_MOGRIFIER_A_TAGS='k': must be pairs with commas"),
    ],
)
def test_a_mogrifier_that_is_not_right_is_refused(environ: dict[str, str], message: str) -> None:
    """With the variable's name."""
    given = {f"DOG_STATSD_MOGRIFIER_A_{part}": text for part, text in environ.items()}
    with pytest.raises(SettingsError) as error:
        read(USE_DOG_STATSD="true", USE_DOG_STATSD_MOGRIFIERS="a", **given)
    assert str(error.value).startswith(message)


def test_addresses() -> None:
    """As Go writes them."""
    assert read().prometheus_address == ("", 9090)
    assert read(PROMETHEUS_ADDR=":19001").prometheus_address == ("", 19001)
    assert read(PROMETHEUS_ADDR="[::1]:1").prometheus_address == ("::1", 1)
    with pytest.raises(SettingsError, match="PROMETHEUS_ADDR='9090': must be an address like"):
        read(PROMETHEUS_ADDR="9090")


def test_a_mapping_file_that_cannot_be_used_ends_the_start(tmp_path) -> None:
    """With the file, the line, what is there and what may be: without it a dashboard would miss its metrics."""
    path = tmp_path / "conf.yaml"
    for text, message in (
        (None, "No such file"),
        ("mappings:\n- match: a\n  name: b\n  ttl: 1m\n", ":4: mappings[0].ttl: "),
    ):
        if text:
            path.write_text(text)
        with pytest.raises(SettingsError) as error:
            stats.page(read(USE_PROMETHEUS="true", PROMETHEUS_MAPPER_YAML=str(path)), Metrics())
        assert str(error.value).startswith(f"PROMETHEUS_MAPPER_YAML='{path}' cannot be used: ")
        assert message in str(error.value)
