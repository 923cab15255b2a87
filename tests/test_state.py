"""What the process knows of itself: what it says of its store's nodes and its replicas, and when it says nothing."""

from structlog.testing import capture_logs

from ratelimit_svc.breaker import BreakerState
from ratelimit_svc.health import Health
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.settings import Settings
from ratelimit_svc.state import State


def state(*, store_up: bool = True) -> State:
    return State(Settings(), Health(), Metrics(), store_up=store_up)


def test_replicas_that_cannot_be_counted_are_told_unless_the_store_is_away():
    """An outage is told once, as that of the store."""
    with capture_logs() as told:
        state(store_up=False).on_replicas_uncounted("not connected yet")
    assert told == []
    with capture_logs() as told:
        state().on_replicas_uncounted("Redis says: WRONGTYPE")
    assert [(each["log_level"], each["reason"]) for each in told] == [("warning", "Redis says: WRONGTYPE")]


def test_a_breaker_is_told_by_its_node():
    """Open is a warning, closed is none."""
    with capture_logs() as told:
        state().on_breaker("one:6379", BreakerState.OPEN, "5 of 9 calls failed")
        state().on_breaker("one:6379", BreakerState.CLOSED, "3 probes in a row")
    assert [(each["log_level"], each["event"], each["node"]) for each in told] == [
        ("warning", "breaker open", "one:6379"),
        ("info", "breaker closed", "one:6379"),
    ]


def test_replicas_are_told():
    """Who is there, and among how many a limit is shared: REPLICAS may be more."""
    with capture_logs() as told:
        state().on_replicas(counted=2, sharing=3)
    assert told == [{"event": "replicas are counted", "log_level": "info", "counted": 2, "sharing": 3}]


def test_without_a_redis_nothing_is_counted_nor_owed():
    """Health detail is whole all the same."""
    shown = state().detail()
    assert shown["replicas"] == {"counted": None, "sharing": 0}
    assert shown["owed"] == {"windows": 0, "charged": 0, "dropped": 0}
    assert isinstance(shown["store"], dict)
    assert shown["store"]["nodes"] == {}


def test_a_part_of_the_store_that_is_away_is_told_and_that_it_is_back():
    """While it is away, "store is up" would be misleading; health detail shows it, too."""
    known, away = state(store_up=False), list[str]()
    known.away = lambda: away
    with capture_logs() as told:
        known.on_store_up(["maxmemory-policy is allkeys-lru"])
        away.append("one:6379, which has 5461 slots, is away: the connection was closed")
        known.on_store_up(away)
        shown = known.detail()["store"]
        away = []
        known.on_store_up([])
        known.on_store_up([])
    assert [(each["log_level"], each["event"]) for each in told] == [
        ("info", "store is up"),
        ("warning", "maxmemory-policy is allkeys-lru"),
        ("error", "a part of the store is away: answering by on_store_failure there"),
        ("info", "store is up"),
    ]
    assert told[2]["reason"].startswith("one:6379")
    assert isinstance(shown, dict)
    assert (shown["up"], shown["away"]) == (True, [told[2]["reason"]])


def test_of_many_spoilt_keys_one_is_told():
    """Their number is the metric's: the log says where to look, and is not filled."""
    known = state()
    with capture_logs() as told:
        for _ in range(1000):
            known.on_spoilt([b"{acme}shop/tenant=acme:s60000000"])
    (line,) = told
    assert (line["log_level"], line["keys"]) == ("warning", ["{acme}shop/tenant=acme:s60000000"])
