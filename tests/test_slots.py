"""Slots as the servers count them, and what they say of who has them."""

import pytest
from redis.exceptions import InvalidResponse

from ratelimit_svc.model import Algorithm, Entry
from ratelimit_svc.store import keys
from ratelimit_svc.store.redis.slots import Range, Redirect, ranges, redirect, slot_of
from ratelimit_svc.store.redis.where import Address
from tests.clusters import ClusterServers

ASKED = Address("10.0.0.9", 6379)


def key(prefix: str, tenant: str | None) -> bytes:
    """A window's key."""
    entries = [Entry("path", "/a{b}c")]
    return keys.key(prefix, "shop", entries, tenant=tenant, algorithm=Algorithm.SLIDING_WINDOW, window_us=60_000_000)


KEYS = [
    b"foo",
    b"",
    b"{}",
    b"{",
    b"}{",
    b"{a}b",
    b"x{a}b{c}",
    b"{}{a}",
    b"{{a}}",
    b"a}b{c}",
    bytes(range(256)),
    *(key(prefix, tenant) for prefix in ("", "app:", "{app}:", "{}", "{", "}{") for tenant in (None, "acme", "{", "é")),
]


async def test_a_key_is_in_the_slot_that_the_server_says(cluster_servers: ClusterServers):
    """Braces in odd places, prefixes that have some themselves, any bytes."""
    client = cluster_servers.client(cluster_servers.servers[0])
    assert [slot_of(one) for one in KEYS] == [client.execute_command("CLUSTER KEYSLOT", one) for one in KEYS]


def test_windows_of_a_tenant_are_in_one_slot():
    """Whatever the prefix, unless it has a tag itself: then all are."""
    assert slot_of(key("", "acme")) == slot_of(key("app:", "acme")) == slot_of(b"acme")
    assert slot_of(key("{app}", "acme")) == slot_of(key("{app}", None)) == slot_of(b"app")


@pytest.mark.parametrize("host", [b"", None, b"?", ""])
def test_a_server_that_does_not_know_its_name_is_the_one_that_was_asked(host):
    """Older servers leave it out, newer ones say nil or a question mark."""
    reply = [[0, 5460, [host, 7000, b"id", []], [b"h", 7001, b"id"]], [5461, 16383, [b"h2", 7002]]]
    assert ranges(reply, ASKED) == [
        Range(0, 5460, Address("10.0.0.9", 7000)),
        Range(5461, 16383, Address("h2", 7002)),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"OK",
        1,
        [1],
        [[0]],
        [[0, 1]],
        [[0, 99999, [b"h", 1]]],
        [[2, 1, [b"h", 1]]],
        [[0, 1, []]],
        [[0, 1, [b"h", b"x"]]],
    ],
)
def test_what_is_no_map_is_refused(reply):
    """A peer may say anything."""
    with pytest.raises(InvalidResponse):
        ranges(reply, ASKED)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirect(3999, Address("127.0.0.1", 6381), once=False)),
        ("ASK 0 node.example:6381", Redirect(0, Address("node.example", 6381), once=True)),
        ("MOVED 3999 :6381", Redirect(3999, Address("10.0.0.9", 6381), once=False)),
        ("MOVED 3999 ?:6381", Redirect(3999, Address("10.0.0.9", 6381), once=False)),
        ("MOVED 3999 2001:db8::1:6381", Redirect(3999, Address("2001:db8::1", 6381), once=False)),
        ("TRYAGAIN Multiple keys request during rehashing of slot", None),
        ("CLUSTERDOWN The cluster is down", None),
        ("MOVED 16384 h:1", None),
        ("MOVED x h:1", None),
        ("MOVED 1", None),
        ("MOVED", None),
    ],
)
def test_a_redirect_names_slot_and_server(said, expected):
    """Anything else is none."""
    assert redirect(said, ASKED) == expected
