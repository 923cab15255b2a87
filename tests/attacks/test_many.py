"""Much of what is allowed: streams, connections, calls, bytes that wait, answers that nobody reads."""

import gzip

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.frames import ErrorCode
from ratelimit_svc.wire.http2.messages import MOST_UNFINISHED
from ratelimit_svc.wire.http2.shared import MOST_CALLS
from ratelimit_svc.wire.http2.streams import FEW_STREAMS, MANY_STREAMS, MOST_STREAMS
from tests.attacks.honest import ASKED
from tests.attacks.offender import Offender
from tests.http2.client import HELLO, SETTINGS_ACK, block, body, head, message, ping, request, settings, window

NO_TABLE = head(1) + body(1, ASKED) + SETTINGS_ACK * 2 + head(3, fields.NO_TABLE + block()) + body(3, ASKED)
"""What a client says that keeps no table: its requests are dear to nobody."""
WATCH, CHECK = block({":path": "/grpc.health.v1.Health/Watch"}), block({":path": "/grpc.health.v1.Health/Check"})
INFO = block({":path": "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"})
NOBODY = message(health_pb2.HealthCheckRequest().SerializeToString())
WIDE = settings(INITIAL_WINDOW_SIZE=2**31 - 1) + window(0, 2**30)
"""All the room there is."""


def test_idle_streams(target):
    """300 000 calls that begin and go no further, on 300 connections: beyond MANY_STREAMS each connection may have few."""
    begun = b"".join(head(number) for number in range(5, 5 + 2 * 1000, 2))
    with target.under("300,000 idle streams, 300 connections") as figures:
        offenders = [Offender(target.port, hello=HELLO + NO_TABLE) for _ in range(300)]
        for offender in offenders:
            assert offender.send(begun)
        for offender in offenders:
            offender.send(ping())
            offender.listen(lambda offender=offender: offender.heard["PING"] > 0)
        figures.note(*offenders)
        figures.frames = 300_000
        figures.most_memory_mb = 100  # 200 000 streams, and what was refused on each connection, for some seconds
    assert not any(offender.closed for offender in offenders)
    refused = sum(offender.reset_codes["REFUSED_STREAM"] for offender in offenders)
    assert 300_000 - refused <= MANY_STREAMS + FEW_STREAMS * len(offenders)
    for offender in offenders:
        offender.close()


def test_more_streams_than_are_allowed(target):
    """The rest is refused, some thousand times; then the connection ends."""
    with target.under(f"more than {MOST_STREAMS} streams") as figures, Offender(target.port) as offender:
        offender.send(b"".join(head(number) for number in range(1, 20_000, 2)))
        offender.listen(lambda: offender.code is not None)
        figures.note(offender)
    assert offender.code is ErrorCode.ENHANCE_YOUR_CALM
    assert offender.reset_codes["REFUSED_STREAM"] >= 2000


def test_connections_that_come_and_go(target):
    """3000 of them, with a request each, without, and without a preface; nothing is left."""
    with target.under("3000 connections that come and go") as figures:
        for hello in (HELLO + request(1), HELLO, b"") * 1000:
            with Offender(target.port, hello=hello) as offender:
                figures.note(offender)
        figures.frames = 3000
    assert figures.memory_mb < 20


def test_connections_that_stay(target):
    """500 that say hello and nothing else."""
    with target.under("500 idle connections") as figures:
        offenders = [Offender(target.port) for _ in range(500)]
        for offender in offenders:
            offender.listen(lambda offender=offender: offender.heard["SETTINGS"] > 1)
        figures.note(*offenders)
    for offender in offenders:
        offender.close()
    assert figures.memory_mb < 20


def test_watches_take_no_place_of_others(target):
    """Twice as many watches of health as there is place for: those who only check are answered, and so are requests."""
    watches = b"".join(head(number, WATCH) + body(number, NOBODY) for number in range(1, 201, 2))
    with target.under(f"{2 * MOST_CALLS} health watches, {MOST_CALLS // 50} connections") as figures:
        offenders = [Offender(target.port) for _ in range(2 * MOST_CALLS // 100)]
        for offender in offenders:
            offender.send(watches + ping())
            offender.listen(lambda offender=offender: offender.heard["PING"] > 0)
        for _ in range(5):
            with Offender(target.port) as other:
                other.send(head(1, CHECK) + body(1, NOBODY))
                other.listen(lambda other=other: other.heard["DATA"] > 0)
                assert other.heard["DATA"] == 1, other.got
        with Offender(target.port) as other:
            other.send(head(1, WATCH) + body(1, NOBODY))
            other.listen(lambda: other.heard["DATA"] > 0)
            assert other.heard["HEADERS"] == other.heard["DATA"] == 1
        figures.note(*offenders)
    for offender in offenders:
        offender.close()


def test_a_watch_without_end_on_one_connection(target):
    """1000 watches on one: it is itself who has no more place."""
    with target.under("1000 health watches, twice, one connection") as figures, Offender(target.port) as offender:
        for start in (1, 2001):
            offender.send(
                b"".join(head(number, WATCH) + body(number, NOBODY) for number in range(start, start + 2000, 2))
            )
        offender.send(ping())
        offender.listen(lambda: offender.code is not None)
        figures.note(offender)
    assert offender.code is ErrorCode.ENHANCE_YOUR_CALM


def test_messages_that_never_end(target):
    """Of 4 MB each, of which all but the end comes, from 20 connections: what waits is bounded in all, and others' requests are
    whole.
    """
    pieces = b"".join(body(number, bytes(16_000), end=False) for number in (1, 3))
    with target.under("128 MB of unfinished messages, 16 connections") as figures:
        figures.most_memory_mb = 1.5 * MOST_UNFINISHED / 2**20
        offenders = [Offender(target.port) for _ in range(16)]
        for offender in offenders:
            offender.send(b"".join(head(number) + body(number, b"\0\0\x3f\xff\xff", end=False) for number in (1, 3)))
            for _ in range(250):
                offender.send(pieces)
        for offender in offenders:
            offender.send(ping())
            offender.listen(lambda offender=offender: offender.heard["PING"] > 0)
        figures.note(*offenders)
    assert any(offender.statuses[GrpcStatus.RESOURCE_EXHAUSTED] for offender in offenders)
    for offender in offenders:
        offender.close()


def test_bombs(target):
    """4 MB in 4 kB of gzip: one passes, and the second ends the connection; from ten connections."""
    bomb = message(gzip.compress(bytes(4 * 2**20 - 1)), 1)
    compressed = block(grpc_encoding="gzip")
    with target.under("gzip bombs of 4 MB, 10 connections") as figures:
        for _ in range(10):
            with Offender(target.port) as offender:
                offender.flood(
                    b"".join(head(number, compressed) + body(number, bomb) for number in range(1, 100, 2)), most_bytes=1
                )
                figures.note(offender)
                assert offender.code is ErrorCode.ENHANCE_YOUR_CALM


def test_bombs_that_never_end(target):
    """The same, in calls that do not end: what they have grown to is held, and counts."""
    bomb = message(gzip.compress(bytes(4 * 2**20 - 1)), 1)
    data = head(1, block(grpc_encoding="gzip")) + body(1, bomb, end=False)
    with target.under("gzip bombs that are held, 40 connections") as figures:
        figures.most_memory_mb = 1.5 * MOST_UNFINISHED / 2**20
        offenders = [Offender(target.port, hello=HELLO + data + ping()) for _ in range(40)]
        for offender in offenders:
            offender.listen(lambda offender=offender: offender.heard["PING"] > 0)
        figures.note(*offenders)
    for offender in offenders:
        offender.close()


def test_prefixes_of_4_gb(target):
    """A message that says to be so long is refused with its first bytes."""
    data = b"".join(head(number) + body(number, b"\0\xff\xff\xff\xff", end=False) for number in range(1, 2000, 2))
    with target.under("1000 prefixes of 4 GB") as figures, Offender(target.port) as offender:
        offender.send(data)
        offender.listen(lambda: offender.heard["HEADERS"] >= 1000)
        figures.note(offender)
    assert offender.reset_codes["NO_ERROR"] == offender.statuses[GrpcStatus.RESOURCE_EXHAUSTED] == 1000


UNREAD = {
    "requests": lambda number: head(number) + body(number, ASKED),
    "health checks": lambda number: head(number, CHECK) + body(number, NOBODY),
    "refused requests": lambda number: head(number, block({":method": "GET"}), end=True),
    "pings": lambda number: ping() * 3,
}


@pytest.mark.parametrize("case", UNREAD)
def test_answers_that_nobody_reads(target, case):
    """All windows are open, and the client never reads: it is read no more itself, and its memory is bounded."""
    with target.under(f"never reads: {case}") as figures, Offender(target.port, reads=False) as offender:
        offender.send(WIDE)
        for start in range(1, 80_000, 2000):
            pieces = [UNREAD[case](number) for number in range(start, start + 2000, 2)]
            if not offender.send(b"".join(pieces), within_s=0.3):
                break
        figures.note(offender)
    assert figures.memory_mb < 20


def test_reflection_that_nobody_reads(target):
    """Each question is 60 bytes and its answer 6 kB: the method waits."""
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="envoy.service.ratelimit.v3.RateLimitService")
    question = message(asked.SerializeToString())
    with target.under("never reads: reflection, 100 calls") as figures, Offender(target.port, reads=False) as offender:
        offender.send(WIDE)
        for number in range(1, 200, 2):
            offender.send(head(number, INFO) + body(number, question * 150, end=False) * 4, within_s=0.3)
        figures.note(offender)
    assert figures.memory_mb < 30


def test_windows_that_are_never_opened(target):
    """Answers for which there is no room: 1000 a connection, on 20 connections."""
    data = settings(INITIAL_WINDOW_SIZE=0) + b"".join(
        head(number) + body(number, ASKED) for number in range(5, 2005, 2)
    )
    with target.under("20,000 answers without a window") as figures:
        offenders = [Offender(target.port, hello=HELLO + NO_TABLE) for _ in range(20)]
        for offender in offenders:
            offender.send(data)
            offender.listen(lambda offender=offender: offender.heard["HEADERS"] >= 1000)
        figures.note(*offenders)
    for offender in offenders:
        offender.close()
