"""nghttp2 as a client: its header blocks before and after our second SETTINGS, its flow control, its connections."""

import asyncio
from typing import Any

import hpack
import pycurl
import pytest
import trustme

from ratelimit_svc.wire.calls import GrpcStatus
from tests.certificates import Files
from tests.conformance.frames import framed
from tests.conformance.nghttp2 import Ask, Nghttp2, asking
from tests.conformance.served import BIG, ECHO, FAIL, OK, OVER_LIMIT, SHOULD_RATE_LIMIT, Served, asks, serving
from tests.waiting import until

OURS = pytest.mark.parametrize("engine", ["http2"], indirect=True)
"""What the library does otherwise, or does not show."""


def test_it_is_nghttp2():
    """libcurl can be built with another HTTP/2, or with none."""
    assert " nghttp2/" in pycurl.version


@pytest.fixture
def client(served):
    """One connection to an engine."""
    with Nghttp2(served.port) as one:
        yield one


async def test_verdicts(client):
    """Each answer whole: five pass, and each says how many are left."""
    answers = [(await client.send(asking(asks())))[0].verdict for _ in range(6)]
    assert [answer.overall_code for answer in answers] == [OK] * 5 + [OVER_LIMIT]
    assert [answer.statuses[0].limit_remaining for answer in answers] == [4, 3, 2, 1, 0, 0]


async def test_five_hundred_at_once_on_four_connections(served):
    """All are under way before one is answered; five pass, and nobody is forgotten."""
    served.store.go.clear()

    async def let_go() -> None:
        await until(lambda: len(served.limiter.timeouts_s) == 500)
        served.store.go.set()

    with Nghttp2(served.port, connections=4, streams=125) as client:
        replies, _ = await asyncio.gather(client.send(*(asking(asks()) for _ in range(500))), let_go())
    assert sum(reply.connects for reply in replies) == 4
    assert sorted(reply.verdict.overall_code for reply in replies) == [OK] * 5 + [OVER_LIMIT] * 495


async def test_over_tls(engine, clock, tmp_path):
    """ALPN has both ends speak HTTP/2; the certificate is looked at."""
    files = Files(tmp_path)
    files.put(trustme.CA())
    async with serving(engine, clock, tls=files.tls()) as served:
        with Nghttp2(served.port, trusted=files.ca) as client:
            replies = await client.send(*(asking(asks()) for _ in range(50)))
    assert sorted(reply.verdict.overall_code for reply in replies) == [OK] * 5 + [OVER_LIMIT] * 45
    assert sum(reply.connects for reply in replies) == 1


async def test_an_error_is_told_in_the_headers_or_after_a_message(client):
    """At once, it is one block of headers and no content; after an answer, it is in the trailers."""
    at_once, later = await client.send(Ask(framed(b"")), Ask(framed(b"9 100 %"), FAIL))
    assert (at_once.status, at_once.body, at_once.trailers) == (200, b"", {})
    assert (at_once.grpc_status, at_once.headers["grpc-message"]) == (
        GrpcStatus.UNKNOWN,
        "rate limit domain must not be empty",
    )
    assert (later.status, later.body) == (200, framed(b"9 100 %"))
    assert (later.grpc_status, later.trailers["grpc-message"]) == (GrpcStatus.FAILED_PRECONDITION, "100 %25")


@OURS
async def test_what_is_not_grpc_is_told_so_in_http(client):
    """With a text for people, but where a method has no content; the connection goes on."""
    get, head, text = await client.send(
        Ask(method="GET"), Ask(method="HEAD"), asking(BIG)._replace(content_type="text/plain")
    )
    assert (get.status, get.body) == (405, b"this port speaks gRPC: the method must be POST\n")
    assert (head.status, head.body) == (405, b"")
    assert (text.status, text.body) == (415, b"this port speaks gRPC: the content-type must be application/grpc\n")
    (after,) = await client.send(asking(BIG))
    assert (after.verdict.overall_code, after.connects) == (OK, 0)


# ── flow control ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_messages_larger_than_every_window(engine, clock):
    """Up, more than a stream's and the connection's first window; down, more than nghttp2 has room for at once. All at once, too."""
    async with serving(engine, clock, max_message_bytes=3_000_000) as served:
        with Nghttp2(served.port) as client:
            for body in (b"x" * 70_000, b"y" * 2_500_000):
                (reply,) = await client.send(Ask(framed(body), ECHO))
                assert reply.message == body
            bodies = [bytes([number]) * 400_000 for number in range(10)]
            replies = await client.send(*(Ask(framed(body), ECHO) for body in bodies))
    assert [reply.message for reply in replies] == bodies
    assert sum(reply.connects for reply in replies) == 0


async def test_a_large_request_is_a_request_like_any(client):
    """Of several DATA frames, beside small ones on the same connection: a tenant whose name is long has five a minute as well."""
    long = asking(asks("x" * 80_000))
    replies = await client.send(*([asking(asks()), long] * 6))
    assert sorted(reply.verdict.overall_code for reply in replies[::2]) == [OK] * 5 + [OVER_LIMIT]
    assert sorted(reply.verdict.overall_code for reply in replies[1::2]) == [OK] * 5 + [OVER_LIMIT]


# ── header blocks ─────────────────────────────────────────────────────────────────────────────────────────────────────


def table_of(served: Served) -> Any:
    """What the engine knows of its only peer's table."""
    (peer,) = served.engine._shared.peers  # type: ignore[attr-defined]
    return peer.connection._table


def traced(number: int) -> Ask:
    """A request of a trace of its own."""
    return asking(BIG, f"traceparent: 00-{number:032x}-{number:016x}-01")


@OURS
async def test_its_table_ends_with_our_second_settings(client, served):
    """Its first block fills a table, as encoders do. Told to keep none, it says so, and goes on without."""
    await client.send(asking(BIG, "x-name: value"))
    table = table_of(served)
    assert (b"x-name", b"value") in table._decoder.header_table.dynamic_entries
    replies = [(await client.send(asking(BIG, "x-name: value")))[0] for _ in range(3)]
    assert [(reply.verdict.overall_code, reply.connects) for reply in replies] == [(OK, 0)] * 3
    assert table_of(served) is table
    assert table.acknowledged
    assert table._decoder is None


@OURS
async def test_blocks_that_come_again_are_looked_up(client, served):
    """One block, of Huffman's code, is in the memory. What the memory says of it, not what it says itself, is what counts then."""
    for _ in range(5):
        await client.send(asking(BIG, "grpc-timeout: 5S"))
    known = table_of(served).known
    ((block, head),) = known.items()
    assert SHOULD_RATE_LIMIT.encode() not in block
    assert dict(hpack.Decoder().decode(block, raw=True))[b":path"] == SHOULD_RATE_LIMIT.encode()
    known[block] = head._replace(timeout_s=7.0)
    (reply,) = await client.send(asking(BIG, "grpc-timeout: 5S"))
    assert reply.verdict.overall_code == OK
    assert served.limiter.timeouts_s == [pytest.approx(5.0)] * 5 + [pytest.approx(7.0)]


@OURS
async def test_traces_have_a_shape(client, served):
    """Blocks that differ in their `traceparent` are not remembered each, and are known by what they have in common."""
    replies = [(await client.send(traced(number)))[0] for number in range(1, 8)]
    assert [reply.verdict.overall_code for reply in replies] == [OK] * 7
    table = table_of(served)
    assert len(served.engine._shared.blocks.heads) <= 1
    table._shape = table._shape._replace(head=table._shape.head._replace(timeout_s=7.0))
    replies = await client.send(*(traced(number) for number in range(1000, 1100)))
    assert [reply.verdict.overall_code for reply in replies] == [OK] * 100
    assert (
        served.limiter.timeouts_s == [None] * 7 + [pytest.approx(7.0, abs=1)] * 100
    )  # less what some waited for their turn to be read


async def test_headers_of_all_kinds(client):
    """Binary, long, empty, many, new each time: on one connection, before and after its table has gone."""
    for number in range(20):
        odd = [
            "x-empty;",
            f"x-long: {'~' * 200 * number}",
            f"x-new-{number}: {number}",
            "x-bin: AP8B",
            "cookie: a=b; c=d",
        ]
        (reply,) = await client.send(asking(BIG, *odd, f"traceparent: {number:055d}"))
        assert reply.verdict.overall_code == OK


# ── connections that end ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_does_not_notice_the_age_of_its_connections(engine, clock):
    """With fifty under way again and again: nothing fails, and connections are new now and then."""
    ages: dict[str, Any] = {"max_connection_age_s": 0.2, "max_connection_age_grace_s": 10.0}
    connects = 0
    async with serving(engine, clock, **ages) as served, asyncio.timeout(20):
        with Nghttp2(served.port) as client:
            while connects < 4:
                replies = await client.send(*(asking(BIG) for _ in range(50)))
                assert [reply.verdict.overall_code for reply in replies] == [OK] * 50
                connects += sum(reply.connects for reply in replies)
