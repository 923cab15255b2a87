"""The load generator of `make bench`: what it sends is what it says, and what it counts is what was answered."""

import asyncio
from collections import Counter
from itertools import islice

import h2.errors
import h2.settings
import hpack
import pytest

from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2
from tests.bench import frames
from tests.bench.connection import ERROR, OK, OVER_LIMIT, Connection, Tally
from tests.bench.load import connect, rest
from tests.bench.workloads import RULES, TENANTS, WORKLOADS, traceparents
from tests.h2_server import H2Server

HEADERS = [*frames.ENVOY_HEADERS]
TRACED = [*HEADERS, ("traceparent", next(traceparents())[-frames.TRACEPARENT_SIZE :].decode())]
CODES = (rls_pb2.RateLimitResponse.UNKNOWN, rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT)
ANSWERS = [frames.message(rls_pb2.RateLimitResponse(overall_code=code).SerializeToString()) for code in CODES]


@pytest.mark.parametrize("table_size", [0, 100, 4096, 65536])
def test_header_blocks_say_what_envoy_says(table_size):
    """By a decoder of somebody else's that allows no larger table: the first block, and those that follow."""
    decoder, blocks = hpack.Decoder(), frames.blocks(table_size)
    decoder.max_allowed_table_size = table_size
    trace = next(traceparents())
    for block, expected in (
        (blocks.first, HEADERS),
        (blocks.then, HEADERS),
        (blocks.then + trace, TRACED),
        (blocks.then, HEADERS),
    ):
        assert [(str(name), str(value)) for name, value in decoder.decode(block)] == expected


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_messages_are_requests_of_one_length(workload):
    """Each message and each trace has the length that its frame says, and is a request for the bench's domain."""
    feed = workload.feed()
    for message, trace in islice(zip(feed.messages, feed.traces, strict=False), 2000):
        assert (len(message), len(trace)) == (feed.message_size, feed.trace_size)
        request = rls_pb2.RateLimitRequest.FromString(message[5:])
        assert request.domain == "bench"
        assert frames.message(request.SerializeToString()) == message
        assert len(request.descriptors) == (4 if workload.name == "four" else 1)


def test_unique_and_traceparent_never_repeat():
    """What says that it is new is new."""
    unique, traced = WORKLOADS["unique"].feed(), WORKLOADS["traceparent"].feed()
    assert len(set(islice(unique.messages, 5000))) == 5000
    assert len(set(islice(traced.traces, 5000))) == 5000


def test_zipf_is_zipf_and_the_same_every_time():
    """The n-th tenant asks 1/n as often as the first, and a second feed is the first again."""
    counts = Counter(islice(WORKLOADS["zipf"].feed().messages, 100_000))
    first, second, *_ = (count for _, count in counts.most_common())
    assert first / 100_000 == pytest.approx(1 / sum(1 / rank for rank in range(1, TENANTS + 1)), rel=0.1)
    assert second == pytest.approx(first / 2, rel=0.1)
    again = [[*islice(WORKLOADS["zipf"].feed().messages, 100)] for _ in range(2)]
    assert again[0] == again[1]


async def ask(port: int, workload, *, connections: int, requests: int, in_flight: int) -> Tally:
    """Ask so often on each of so many connections."""
    tally, feed = Tally(), workload.feed()
    asking = [
        await connect(port, lambda: Connection(feed, tally, in_flight=in_flight, requests=requests))
        for _ in range(connections)
    ]
    await asyncio.gather(*(one.quiet.wait() for one in asking))
    for one in asking:
        one.close()
        await one.closed.wait()
    assert tally.lost == 0
    return tally


async def test_the_service_has_counted_what_the_generator_has(tmp_path):
    """Of every workload: as many requests, as many denials, and a rule for each descriptor."""
    async with Replica(tmp_path, rules=RULES, env={"STRICT": "true"}) as replica:
        requests = denied = hits = 0
        for workload in WORKLOADS.values():
            tally = await ask(replica.grpc_port, workload, connections=3, requests=100, in_flight=7)
            assert (tally.answers[ERROR], tally.total, len(tally.latencies_s)) == (0, 300, 300)
            requests, denied = requests + 300, denied + tally.answers[OVER_LIMIT]
            hits += 300 * (4 if workload.name == "four" else 1)
            assert (tally.answers[OVER_LIMIT] > 0) == (workload.name == "denials")
        assert await replica.metric("ratelimit_svc_requests_total") == requests
        assert await replica.metric("ratelimit_svc_over_limit_total") == denied
        assert await replica.metric("ratelimit_svc_rule_decisions_total") == hits


def whole(_, conn, stream, *, code=OK, pieces=1):
    """Answer as a gRPC server does, the message in so many frames."""
    conn.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    size = -(-len(ANSWERS[code]) // pieces)
    for at in range(0, len(ANSWERS[code]), size):
        conn.send_data(stream, ANSWERS[code][at : at + size])
    conn.send_headers(stream, [("grpc-status", "0")], end_stream=True)


def only_trailers(_, conn, stream):
    conn.send_headers(stream, [(":status", "200"), ("grpc-status", "14")], end_stream=True)


def no_trailers(_, conn, stream):
    conn.send_headers(stream, [(":status", "200")])
    conn.send_data(stream, ANSWERS[OK], end_stream=True)


def reset(_, conn, stream):
    conn.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)


def gone_after_ten(server, conn, stream):
    whole(server, conn, stream)
    if server.requests == 10:
        server.flush()
        server.transport.close()


def go_away_after_ten(server, conn, stream):
    whole(server, conn, stream)
    if server.requests == 10:
        conn.close_connection(last_stream_id=stream)
        server.flush()
        server.transport.close()


def one_by_one(server, conn, stream):
    whole(server, conn, stream, pieces=len(ANSWERS[OK]))


def unknown(server, conn, stream):
    whole(server, conn, stream, code=0)


def no_table_from_now_on(server, conn, stream):
    """Answer, and with the tenth answer say so, as our own engine does with its first."""
    if server.requests == 10:
        conn.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0})
    whole(server, conn, stream)


def over(server, conn, stream):
    whole(server, conn, stream, code=OVER_LIMIT)


async def served(answer, settings=(), *, requests=500, in_flight=20) -> tuple[Tally, H2Server]:
    """Ask a server that answers so; return what each has seen."""
    servers: list[H2Server] = []

    def make() -> H2Server:
        servers.append(H2Server(answer, dict(settings)))
        return servers[-1]

    tally, feed = Tally(), WORKLOADS["traceparent"].feed()
    listening = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        asking = await connect(port, lambda: Connection(feed, tally, in_flight=in_flight, requests=requests))
        async with asyncio.timeout(10):
            await asking.quiet.wait()
            asking.close()
            await asking.closed.wait()
    return tally, servers[0]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (whole, (0, 500, 0)),
        (over, (0, 0, 500)),
        (one_by_one, (0, 500, 0)),
        (no_table_from_now_on, (0, 500, 0)),
        (unknown, (500, 0, 0)),
        (only_trailers, (500, 0, 0)),
        (no_trailers, (500, 0, 0)),
        (reset, (500, 0, 0)),
    ],
)
async def test_what_is_an_answer_and_what_an_error(answer, expected):
    """An answer has a message that says OK or OVER_LIMIT, and trailers; the connection goes on after any of these."""
    tally, server = await served(answer)
    assert tuple(tally.answers) == expected
    assert (server.requests, server.pings, tally.lost) == (500, 1, 0)
    assert [headers[:-1] for headers in server.headers] == [HEADERS] * 500


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 20),
        ({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0}, 20),
        ({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 3}, 3),
        ({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 200}, 20),
    ],
)
async def test_what_a_server_allows_is_kept(settings, most):
    """Its table, its streams and its windows: h2 raises where they are not, and 2000 requests are more than one window."""
    tally, server = await served(whole, settings, requests=2000)
    assert tally.answers == [0, 2000, 0]
    assert server.most_under_way <= most
    assert [headers[:-1] for headers in server.headers] == [HEADERS] * 2000
    assert len({headers[-1] for headers in server.headers}) == 2000


@pytest.mark.parametrize("answer", [gone_after_ten, go_away_after_ten])
async def test_a_server_that_goes_is_told(answer):
    """What was under way is an error, and the connection is counted as lost, once."""
    tally, _ = await served(answer)
    assert tally.answers[OK] == 10
    assert 0 < tally.answers[ERROR] <= 20
    assert tally.lost == 1


async def test_stopped_it_waits_for_what_is_under_way(tmp_path):
    """Every request that was sent is counted before it is quiet."""
    async with Replica(tmp_path, rules=RULES) as replica:
        tally, feed = Tally(), WORKLOADS["hot"].feed()
        asking = await connect(replica.grpc_port, lambda: Connection(feed, tally, in_flight=20))
        async with asyncio.timeout(10):
            while tally.total < 100:
                await asyncio.sleep(0)
            await rest([asking])
        asking.close()
        assert await replica.metric("ratelimit_svc_requests_total") == tally.total
