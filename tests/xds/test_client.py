"""The xDS client against a server of the test's own: what it asks, takes, refuses and survives."""

import asyncio
import socket
from contextlib import suppress
from types import CoroutineType

import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as Resource

from ratelimit_svc.xds.client import Client, _Latest, _read
from ratelimit_svc.xds.source import Node
from tests.proxying import Proxy
from tests.waiting import until
from tests.xds.ads import Listening, config, listening, resource
from tests.xds.asking import SOON, Asking, asking, source

LONG = SOON._replace(retry_s=3600, initial_s=3600, most_s=3600)
"""Waits that no test lives to see the end of."""


def where_the_client_stands() -> list[str]:
    """The names of the coroutines that the client is in, from the outermost to the one that waits."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    inside: object = next(each for each in coroutines if each.__qualname__ == Client.run.__qualname__)  # type: ignore[union-attr]
    names = []
    while isinstance(inside, CoroutineType):
        names.append(inside.__qualname__)
        inside = inside.cr_await
    return names


@pytest.fixture
async def server():
    async with listening() as made:
        yield made


# ---------------------------------------------------------------------------------------------------------------------
# What is asked, and what is taken


async def test_first_rules(server: Listening) -> None:
    """The first request says who asks for what; what comes is in force before it is acknowledged, by version and nonce."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.stream()
        first = await talk.heard()
        assert (first.node.id, first.node.user_agent_name) == ("ours", "ratelimit-svc")
        assert first.type_url == "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"
        assert (first.version_info, first.response_nonce, list(first.resource_names)) == ("", "", [])
        await talk.say("7", config("a.yaml", "shop", limit=3), config("b", "bank"), nonce="n1")
        ack = await talk.heard()
        assert ours.limits() == {"shop/k": 3}
        assert (ack.version_info, ack.response_nonce, ack.HasField("error_detail")) == ("7", "n1", False)
        assert not ack.HasField("node")
        assert sorted(ours.rules[-1].domains) == ["bank", "shop"]
        assert (ours.ups, ours.downs, ours.errors) == (1, [], [])
        assert ours.client.describe() == {
            "server": server.url,
            "connected": True,
            "reason": "",
            "streams": 1,
            "version": "7",
            "refused": None,
        }


async def test_who_asks(server: Listening) -> None:
    """The server sees the node's id and metadata, and the headers that the operator added."""
    node = Node("envoy-ratelimit", {"zone": "a", "team": "b=c"})
    headers = {"x-tenant": "42", "authorization": "Bearer secret"}
    async with asking(source(server.url, node=node, headers=headers)):
        talk = await server.ads.stream()
        first = await talk.heard()
        assert first.node.id == "envoy-ratelimit"
        assert dict(first.node.metadata) == {"zone": "a", "team": "b=c"}
        assert {name: talk.headers[name] for name in headers} == headers


async def test_updates(server: Listening) -> None:
    """Each response replaces all that was there; one without resources leaves nothing, as without a rule nothing is limited."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", config("a", "shop", limit=3))
        await talk.heard()
        await talk.say("2", config("a", "shop", limit=5), config("b", "bank", limit=1))
        assert (await talk.heard()).version_info == "2"
        assert ours.limits() == {"shop/k": 5, "bank/k": 1}
        await talk.say("3")
        assert (await talk.heard()).version_info == "3"
        assert dict(ours.rules[-1].domains) == {}
        assert len(ours.rules) == 3


async def test_equal_resources_are_not_loaded_again(server: Listening) -> None:
    """A new version of the same, in another order, is acknowledged, and changes nothing."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        one, other = config("a", "shop", limit=3), config("b", "bank", limit=1)
        await talk.say("1", one, other)
        await talk.heard()
        await talk.say("2", other, one)
        ack = await talk.heard()
        assert (ack.version_info, ack.response_nonce) == ("2", "nonce of 2")
        assert (ours.loads, len(ours.rules), ours.client.version) == (1, 1, "2")


async def test_domains_in_several_resources(server: Listening) -> None:
    """MERGE_DOMAIN_CONFIG puts them together, in the order of their names; without it they are refused."""
    both = config("b", "shop", limit=3, key="late"), config("a", "shop", limit=4, key="early")
    async with asking(source(server.url), merge_domains=True) as ours:
        talk = await server.ads.opened()
        await talk.say("1", *both)
        assert (await talk.heard()).version_info == "1"
        assert list(ours.limits().items()) == [("shop/early", 4), ("shop/late", 3)]
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", *both)
        nack = await talk.heard()
        assert (nack.version_info, nack.error_detail.code) == ("", 3)
        assert nack.error_detail.message.endswith(
            "put the descriptors of a domain into one file, or set MERGE_DOMAIN_CONFIG"
        )


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


async def test_refusal_then_good(server: Listening) -> None:
    """A refusal names resource, place, value and rule, and the version before it; the rules stay until better ones come."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", config("a", "shop", limit=3))
        await talk.heard()
        await talk.say("2", config("a", "shop", limit=5, unit="UNKNOWN"), config("b", "", limit=1), nonce="n2")
        nack = await talk.heard()
        assert (nack.version_info, nack.response_nonce, nack.error_detail.code) == ("1", "n2", 3)
        lines = nack.error_detail.message.split("\n")
        units = "second, minute, hour, day, week, month, year"
        assert lines == [
            f'a: descriptors[0].rate_limit.unit: "UNKNOWN" is not a unit; write one of {units}',
            "b: `domain` is missing; write the domain that Envoy asks with",
        ]
        assert lines == ours.findings
        assert ours.limits() == {"shop/k": 3}
        refused = ours.client.describe()["refused"]
        assert isinstance(refused, dict)
        assert (refused["version"], refused["reason"]) == ("2", nack.error_detail.message)
        await talk.say("3", config("a", "shop", limit=6))
        ack = await talk.heard()
        assert (ack.version_info, ack.HasField("error_detail")) == ("3", False)
        assert ours.limits() == {"shop/k": 6}
        assert ours.client.describe()["refused"] is None


async def test_the_rules_in_force_come_again_after_a_refusal(server: Listening) -> None:
    """They are reported once more, so that the error is seen to be over."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        for version, limit in (("1", 3), ("2", None), ("3", 3)):
            unit = "MINUTE" if limit else "UNKNOWN"
            await talk.say(version, config("a", "shop", limit=limit or 1, unit=unit))
            await talk.heard()
        assert (len(ours.rules), len(ours.errors)) == (2, 1)
        assert ours.limits() == {"shop/k": 3}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (
            Resource(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster"),
            "resource 0: is a 'type.googleapis.com/envoy.config.cluster.v3.Cluster'; this service takes 'type.googleapis.com/",
        ),
        (Resource(type_url=resource({}).type_url, value=b"\xff\xff\xff"), "resource 0: is not a RateLimitConfig: "),
    ],
    ids=["of another type", "garbage"],
)
async def test_resources_that_are_none(server: Listening, sent: Resource, told: str) -> None:
    """Whatever stands in a resource's place is refused with a reason, and the stream goes on."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        await talk.say_resources("1", sent)
        assert (await talk.heard()).error_detail.message.startswith(told)
        assert [str(error).startswith(told) for error in ours.errors] == [True]
        await talk.say("2", config("a", "shop", limit=3))
        assert (await talk.heard()).version_info == "2"
        assert (ours.limits(), server.ads.waiting) == ({"shop/k": 3}, 0)


async def test_a_refused_response_that_is_sent_again_and_again(server: Listening) -> None:
    """It is told once, compiled once, and answered after a wait each time: such servers send it as soon as it is refused."""
    bad = config("a", "shop", limit=5, unit="UNKNOWN")
    waits = SOON._replace(retry_s=0.5)
    async with asking(source(server.url, waits=waits)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", bad)
        await talk.heard()
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            await talk.say("1", bad)
            assert (await talk.heard()).error_detail.code == 3
        assert asyncio.get_running_loop().time() - began > 1.4
        assert (ours.loads, len(ours.errors)) == (1, 1)


async def test_a_newer_response_ends_that_wait(server: Listening) -> None:
    """A server that has something better to say is not kept waiting for the answer to what it said before."""
    bad = config("a", "shop", limit=5, unit="UNKNOWN")
    async with asking(source(server.url, waits=LONG)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", bad)
        await talk.heard()
        await talk.say("1", bad, nonce="again")
        await until(lambda: _Latest.newer.__qualname__ in where_the_client_stands(), within_s=30)
        await talk.say("2", config("a", "shop", limit=3), nonce="better")
        answer = await talk.heard()
        assert (answer.response_nonce, answer.HasField("error_detail")) == ("better", False)
        assert ours.limits() == {"shop/k": 3}


async def test_equal_findings_are_told_once(server: Listening) -> None:
    """Other resources in which the same is wrong are refused, and nobody hears of it again."""
    bad = config("a", "shop", limit=5, unit="UNKNOWN")
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        for version, configs in (("1", (bad,)), ("2", (bad, config("b", "bank", limit=1)))):
            await talk.say(version, *configs)
            assert (await talk.heard()).HasField("error_detail")
        assert (ours.loads, len(ours.errors)) == (2, 1)


async def test_very_many_findings_are_not_all_sent(server: Listening) -> None:
    """A reason is no larger than a server takes; log and health have all of it."""
    broken = config("a", "shop")
    broken["descriptors"] = [{"key": f"k{n}", "rate_limit": {"requests_per_unit": 1}} for n in range(500)]
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", broken)
        message = (await talk.heard()).error_detail.message
        assert len(message) < 5_000
        assert message.endswith("\n… of 500 findings")
        assert len(ours.findings) == 500


# ---------------------------------------------------------------------------------------------------------------------
# Streams that end, or go on too much


async def test_a_stream_that_ends_is_opened_again(server: Listening) -> None:
    """The rules stay meanwhile; the next stream asks for everything, without a version, and the same is not loaded again."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", config("a", "shop", limit=3))
        await talk.heard()
        talk.end()
        again = await server.ads.stream()
        first = await again.heard()
        assert (first.version_info, first.response_nonce, first.node.id) == ("", "", "ours")
        assert ours.downs == ["the server ended the stream"]
        await again.say("1", config("a", "shop", limit=3))
        assert (await again.heard()).version_info == "1"
        assert (ours.loads, ours.ups, ours.limits()) == (1, 2, {"shop/k": 3})
        assert ours.client.streams == 2


async def test_streams_without_rules_are_told_once(server: Listening) -> None:
    """A server that hangs up again and again: the reason is told once, and so is that there was a stream after it."""
    async with asking(source(server.url)) as ours:
        for _ in range(4):
            talk = await server.ads.opened()
            talk.end()
        await server.ads.opened()
        assert (ours.ups, ours.downs) == (2, ["the server ended the stream"])


async def test_each_end_of_a_stream_with_rules_is_told(server: Listening) -> None:
    """The rules were an end of what went before: the same reason is news, and the wait is the first one again."""
    waits = SOON._replace(initial_s=0.2)
    async with asking(source(server.url, waits=waits)) as ours:
        for version in ("1", "2"):
            talk = await server.ads.opened()
            await talk.say(version, config("a", "shop", limit=3))
            await talk.heard()
            talk.end()
        await server.ads.opened()
        assert ours.downs == ["the server ended the stream"] * 2
        assert ours.waits_s == [waits.retry_s] * 2


async def test_what_came_before_the_end_is_taken(server: Listening) -> None:
    """A server that says everything and hangs up at once has been heard."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", config("a", "shop", limit=3))
        talk.end()
        await until(lambda: bool(ours.rules), within_s=30)
        assert ours.limits() == {"shop/k": 3}


async def test_a_server_that_comes_late(server: Listening) -> None:
    """Without a server, the reason is told once, however often it is tried; when it comes, there are rules."""
    port = server.port
    await server.stop()
    async with asking(source(f"127.0.0.1:{port}")) as ours:
        await until(lambda: ours.waits > 3, within_s=60)
        assert not ours.client.connected
        reason = ours.client.describe()["reason"]
        assert isinstance(reason, str)
        assert reason.startswith("UNAVAILABLE: ")
        async with listening(port=port) as back:
            talk = await back.ads.opened()
            await talk.say("1", config("a", "shop", limit=3))
            await talk.heard()
            assert ours.limits() == {"shop/k": 3}
            assert (ours.ups, len(set(ours.downs))) == (1, len(ours.downs))


async def test_a_signal_ends_the_wait(server: Listening) -> None:
    """`wake` (SIGHUP) tries at once, however long there was to wait yet."""
    async with asking(source(server.url, waits=LONG)) as ours:
        talk = await server.ads.opened()
        talk.end()
        await ours.until_down("the server ended the stream")
        assert server.ads.waiting == 0
        ours.wake.set()
        await server.ads.opened()


async def test_bytes_that_are_no_response(server: Listening) -> None:
    """They end the stream, with a reason, and the next one is tried: there is no nonce to refuse."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        await talk.say_bytes(b"\xff\xff\xff\xff")
        await ours.until_down("the server sent 4 bytes that are no DiscoveryResponse")
        talk = await server.ads.opened()
        await talk.say("1", config("a", "shop", limit=3))
        await talk.heard()
        assert ours.limits() == {"shop/k": 3}


async def test_a_message_that_is_too_large(server: Listening) -> None:
    """100 MB are refused unread; the rules stay."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", config("a", "shop", limit=3))
        await talk.heard()
        with suppress(grpc.aio.InternalError):  # the client has hung up before all is sent
            await talk.say_bytes(b"\n" + bytes(100 * 1024**2))
        await ours.until_down("RESOURCE_EXHAUSTED")
        await server.ads.opened()
        assert (ours.limits(), ours.errors) == ({"shop/k": 3}, [])


async def test_messages_as_large_as_is_set(server: Listening) -> None:
    """XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES goes both ways: more than gRPC's own 4 MiB, or less."""
    large = config("a", "shop", limit=3)
    large["name"] = "a" * 5 * 1024**2
    async with asking(source(server.url, max_message_bytes=8 * 1024**2)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", large)
        await talk.heard()
        assert ours.limits() == {"shop/k": 3}
    async with asking(source(server.url, max_message_bytes=10)) as ours:
        talk = await server.ads.opened()
        await talk.say("1", config("a", "shop", limit=3))
        await ours.until_down("RESOURCE_EXHAUSTED")


async def test_a_flood_of_updates(server: Listening) -> None:
    """Of versions that wait for no answer not all are looked at, and the last one is in force."""
    async with asking(source(server.url)) as ours:
        talk = await server.ads.opened()

        async def flood() -> None:
            for number in range(500):
                await talk.say(str(number), config("a", "shop", limit=number), nonce=str(number))

        flooding = asyncio.create_task(flood())
        answered = []
        while "499" not in answered:
            answer = await talk.heard()
            assert not answer.HasField("error_detail")
            answered.append(answer.response_nonce)
        await flooding
        assert ours.limits() == {"shop/k": 499}
        assert answered == sorted(answered, key=int)
        assert len(answered) == ours.loads < 500


async def test_a_server_that_says_nothing(server: Listening) -> None:
    """That is no error: it has no rules for us yet. There is a stream, and nothing is told."""
    async with asking(source(server.url)) as ours:
        await server.ads.opened()
        await until(lambda: ours.client.connected, within_s=30)
        assert (ours.ups, ours.downs, ours.errors, ours.rules) == (1, [], [], [])


async def test_a_server_that_is_dead_without_a_word(server: Listening) -> None:
    """A connection over which nothing comes back, not even an answer to a ping, is given up, and another one is tried."""
    async with Proxy(server.port) as proxy, asking(source(f"127.0.0.1:{proxy.port}"), keepalive_s=1) as ours:
        talk = await server.ads.opened()
        await talk.say("1", config("a", "shop", limit=3))
        await talk.heard()
        proxy.hold()
        await ours.until_down("UNAVAILABLE")
        proxy.let_go()
        talk = await server.ads.opened()
        await talk.say("2", config("a", "shop", limit=4))
        await talk.heard()
        assert ours.limits() == {"shop/k": 4}


# ---------------------------------------------------------------------------------------------------------------------
# The end


async def _ended(ours: Asking, task: "asyncio.Task[None]") -> None:
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not ours.client.connected


async def test_cancelled_while_connecting() -> None:
    """The end comes at once, also where a peer takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        ours = Asking(source(f"127.0.0.1:{port}"))
        task = asyncio.create_task(ours.client.run())
        await until(lambda: len(asyncio.all_tasks()) > 2, within_s=30)
        await _ended(ours, task)


async def test_cancelled_in_a_stream(server: Listening) -> None:
    """The server sees the stream end."""
    ours = Asking(source(server.url))
    task = asyncio.create_task(ours.client.run())
    talk = await server.ads.opened()
    await talk.say("1", config("a", "shop", limit=3))
    await talk.heard()
    await _ended(ours, task)
    async with asyncio.timeout(30):
        await talk.gone.wait()


async def test_cancelled_while_it_waits() -> None:
    """So it does between streams."""
    ours = Asking(source("127.0.0.1:1", waits=LONG))
    task = asyncio.create_task(ours.client.run())
    await ours.until_down("UNAVAILABLE")
    await _ended(ours, task)


async def test_the_end_leaves_no_task(server: Listening) -> None:
    """What reads a stream ends with it."""
    async with asking(source(server.url)):
        await server.ads.opened()
    assert not [task for task in asyncio.all_tasks() if task.get_coro().__qualname__.startswith(_read.__name__)]  # type: ignore[union-attr]
