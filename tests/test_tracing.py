"""Tracing: which requests are sampled, what their spans say, where they go, and that nobody else notices."""

import asyncio
import itertools
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from hpack import Encoder
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.model import Entry
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2_grpc
from ratelimit_svc.tracing.context import Parent, parent
from ratelimit_svc.tracing.spans import Seldom
from ratelimit_svc.tracing.traces import Trace, Traces
from ratelimit_svc.wire.client import request
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.memory import Blocks
from ratelimit_svc.wire.http2.table import Table
from ratelimit_svc.wire.http2.traced import TracedTable, is_unsampled, table, value_in
from tests.collecting import attributes, grpc_collector, http_collector
from tests.conformance.nghttp2 import Nghttp2, asking
from tests.conformance.served import BIG, OK, serving
from tests.engines import ENGINES
from tests.waiting import PATIENCE

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
SAMPLED, UNSAMPLED = f"00-{TRACE:032x}-{SPAN:016x}-01", f"00-{TRACE:032x}-{SPAN:016x}-00"


# ── what headers say ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"traceparent": SAMPLED}, Parent(TRACE, SPAN, sampled=True)),
        ({"traceparent": UNSAMPLED}, Parent(TRACE, SPAN, sampled=False)),
        ({"traceparent": f"{SAMPLED[:-2]}03"}, Parent(TRACE, SPAN, sampled=True)),
        ({"traceparent": f"cc{SAMPLED[2:]}-more"}, Parent(TRACE, SPAN, sampled=True)),
        ({"b3": f"{TRACE:032x}-{SPAN:016x}-1"}, Parent(TRACE, SPAN, sampled=True)),
        ({"b3": f"{TRACE:032x}-{SPAN:016x}-d-{SPAN:016x}"}, Parent(TRACE, SPAN, sampled=True)),
        ({"b3": f"{TRACE:032x}-{SPAN:016x}-0"}, Parent(TRACE, SPAN, sampled=False)),
        ({"b3": f"{SPAN:016X}-{SPAN:016x}"}, Parent(SPAN, SPAN, sampled=False)),
        ({"b3": "0"}, None),
        (
            {"x-b3-traceid": f"{TRACE:032x}", "x-b3-spanid": f"{SPAN:016x}", "x-b3-sampled": "1"},
            Parent(TRACE, SPAN, sampled=True),
        ),
        (
            {"x-b3-traceid": f"{TRACE:032x}", "x-b3-spanid": f"{SPAN:016x}", "x-b3-sampled": "true"},
            Parent(TRACE, SPAN, sampled=True),
        ),
        (
            {"x-b3-traceid": f"{TRACE:032x}", "x-b3-spanid": f"{SPAN:016x}", "x-b3-flags": "1"},
            Parent(TRACE, SPAN, sampled=True),
        ),
        ({"x-b3-traceid": f"{TRACE:032x}", "x-b3-spanid": f"{SPAN:016x}"}, Parent(TRACE, SPAN, sampled=False)),
        ({"x-b3-traceid": f"{TRACE:032x}", "x-b3-sampled": "1"}, None),
    ],
    ids=str,
)
def test_what_headers_say_of_a_trace(headers, found):
    """W3C Trace Context, and B3 in one header or in several."""
    assert parent(headers.get) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        SAMPLED.upper(),
        f"ff{SAMPLED[2:]}",
        SAMPLED[:-1],
        f"{SAMPLED}x",
        f"00-{0:032x}-{SPAN:016x}-01",
        f"00-{TRACE:032x}-{0:016x}-01",
    ],
)
def test_what_is_malformed_says_nothing(text):
    """The request begins a trace of its own, if it is sampled."""
    assert parent({"traceparent": text}.get) is None


def test_a_share_of_those_without_a_trace_is_sampled():
    """Those with one as their callers' spans are, whatever the rate."""

    def begun(rate: float, traceparent: str = "") -> list[bool]:
        chances = iter((0.0, 0.1, 0.5, 0.999))
        traces = Traces(rate, lambda *_: None, chance=lambda: next(chances))
        return [traces.begun({"traceparent": traceparent}.get) is not None for _ in range(4)]

    assert begun(0.3) == [True, True, False, False]
    assert begun(0) == begun(-1) == begun(1, UNSAMPLED) == [False] * 4
    assert begun(1) == begun(100) == begun(0, SAMPLED) == [True] * 4


# ── on the way of a request ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("huffman", [True, False])
def test_a_value_is_found_in_a_block(huffman):
    """In either way to write it; a name that is only a part of another is none."""
    fields = [(":path", "/x"), ("x-traceparent", "no"), ("b3", "1"), ("traceparent", SAMPLED), ("te", "trailers")]
    block = Encoder().encode(fields, huffman=huffman)
    assert value_in(block, "traceparent") == SAMPLED
    assert value_in(block, "b3") == "1"
    assert value_in(block, "x-b3-traceid") is None
    assert value_in(block[:-70], "traceparent") is None


@pytest.mark.parametrize("huffman", [True, False])
def test_that_a_request_is_not_sampled_is_told_without_decoding(huffman):
    """Exactly where the whole value says so; its last bits lie anywhere in their bytes."""
    draw = random.Random(7)
    for number in range(2000):
        flags = draw.choice((0, 1, 2, 3, 0x10, 0x80, 0xF0, 0xFF)) if number % 2 else 0
        text = f"00-{draw.getrandbits(128) | 1:032x}-{draw.getrandbits(64) | 1:016x}-{flags:02x}"
        block = Encoder().encode([("traceparent", text), ("te", "trailers")], huffman=huffman)
        assert is_unsampled(block) == (flags == 0), text
    assert not is_unsampled(Encoder().encode([("te", "trailers")], huffman=huffman))
    for b3 in ("b3", "x-b3-traceid"):
        assert not is_unsampled(Encoder().encode([("traceparent", UNSAMPLED), (b3, "1")], huffman=huffman))


def test_a_block_that_is_cut_or_broken_holds_no_value():
    """The connection has ended for it already, or this is no header at all."""
    block = Encoder().encode([("traceparent", SAMPLED)], huffman=True)
    for end in range(len(block)):
        assert value_in(block[:end], "traceparent") is None
        assert not is_unsampled(block[:end])
    assert value_in(block[:-2] + b"\xff\xff", "traceparent") is None


def test_without_tracing_nothing_stands_in_the_way():
    """A connection's table is the one that there is without this room."""
    assert type(table(Blocks("/"), Calm())) is Table
    assert type(table(Blocks("/", Traces(1, lambda *_: None)), Calm())) is TracedTable


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("header", ["traceparent", "b3"])
async def test_sampled_requests_are_told_of_once_they_are_answered(engine, header, clock):
    """And no others; on a new connection, and once the peer keeps no table and its blocks are looked up."""
    spans: list[tuple[Trace, bytes, object]] = []
    ticks = itertools.count(1)
    traces = Traces(0, lambda trace, data, answer, _: spans.append((trace, data, answer)), clock=lambda: next(ticks))
    async with serving(engine, clock, traces=traces) as served:
        for number in range(1, 21):
            flags = number % 2
            text = (
                f"00-{TRACE:032x}-{number:016x}-0{flags}"
                if header == "traceparent"
                else f"{TRACE:032x}-{number:016x}-{flags}"
            )
            assert (await served.ask("a", metadata=[(header, text), ("x-request-id", str(number))])).overall_code
        await served.ask("b")
    assert [trace.parent for trace, _, _ in spans] == [
        Parent(TRACE, number, sampled=True) for number in range(1, 21, 2)
    ]
    assert [trace.began_ns for trace, _, _ in spans] == list(range(1, 21, 2))
    assert {data for _, data, _ in spans} == {request("shop", [[Entry("tenant", "a")]]).SerializeToString()}
    assert all(isinstance(answer, bytes) for _, _, answer in spans)


async def test_traces_in_the_blocks_that_nghttp2_writes(clock):
    """Envoy's HTTP/2 writes as it does: a table at first, then each name in full. Many at once on one connection."""
    spans: list[Trace] = []
    traces = Traces(0, lambda trace, *_: spans.append(trace))
    asks = [asking(BIG, f"traceparent: 00-{TRACE:032x}-{number:016x}-0{number % 2}") for number in range(1, 121)]
    async with serving("http2", clock, traces=traces) as served:
        with Nghttp2(served.port) as client:
            for batch in (asks[:1], asks[1:2], asks[2:10], asks[10:]):
                await client.send(*batch)
    assert sorted(trace.parent for trace in spans if trace.parent) == [
        Parent(TRACE, number, sampled=True) for number in range(1, 121, 2)
    ]


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_span_that_cannot_be_made_harms_no_request(engine, clock):
    """Whoever records it may fail: the loop hears of it, and all are answered."""
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["message"]))

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with serving(engine, clock, traces=Traces(1, fail)) as served:
        assert [(await served.ask()).overall_code for _ in range(3)] == [OK] * 3
    assert failures == ["a span could not be made"] * 3


# ── the whole service, and who collects ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def rules(tmp_path) -> Path:
    """One rule: a tenant has two an hour."""
    path = tmp_path / "rules.yaml"
    path.write_text("domain: shop\ndescriptors: [{key: tenant, rate_limit: {unit: hour, requests_per_unit: 2}}]\n")
    return path


def tracing(port: int, **more: str) -> dict[str, str]:
    """The environment of a service whose spans are collected here, soon."""
    return {
        **PATIENCE,
        "TRACING_ENABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        **more,
    }


async def ask(replica: Replica, tenant: str, *metadata: tuple[str, str]) -> int:
    """Ask for a tenant and return the overall code, or the negative of gRPC's status."""
    async with grpc.aio.insecure_channel(replica.address) as channel:
        stub = rls_pb2_grpc.RateLimitServiceStub(channel)
        message = request("shop" if tenant else "", [[Entry("tenant", tenant)]])
        try:
            return (await stub.ShouldRateLimit(message, timeout=30, metadata=metadata)).overall_code
        except grpc.aio.AioRpcError as error:
            return -error.code().value[0]


RPC = {
    "rpc.system": "grpc",
    "rpc.service": "envoy.service.ratelimit.v3.RateLimitService",
    "rpc.method": "ShouldRateLimit",
}
SHOP = {"ratelimit.domain": "shop", "ratelimit.rules": ["shop/tenant"], "rpc.grpc.status_code": 0}


@pytest.mark.parametrize("engine", ENGINES)
async def test_spans_reach_a_collector(tmp_path, rules, engine):
    """Named and described as the reference implementation's are, and more; below their callers' spans, or above all."""
    async with http_collector() as (collector, port):
        env = tracing(
            port,
            ENGINE=engine,
            TRACING_SERVICE_NAME="limits",
            TRACING_SERVICE_NAMESPACE="mesh",
            TRACING_SERVICE_INSTANCE_ID="pod-1",
            OTEL_EXPORTER_OTLP_HEADERS="x-team=edge",
        )
        async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
            assert [await ask(replica, "a", ("traceparent", SAMPLED)) for _ in range(3)] == [1, 1, 2]
            assert await ask(replica, "b", ("traceparent", UNSAMPLED)) == 1
            assert await ask(replica, "c") == 1
            assert await ask(replica, "", ("traceparent", SAMPLED)) == -2

            async def came() -> bool:
                return len(collector.spans) >= 5

            await until(came, "the spans come")
    spans = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    assert {span.name for span in spans} == {"envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"}
    assert {span.kind for span in spans} == {Span.SPAN_KIND_SERVER}
    assert [attributes(span) for span in spans] == [
        RPC | SHOP | {"ratelimit.overall_code": "OK"},
        RPC | SHOP | {"ratelimit.overall_code": "OK"},
        RPC | SHOP | {"ratelimit.overall_code": "OVER_LIMIT"},
        RPC | SHOP | {"ratelimit.overall_code": "OK"},
        RPC | {"rpc.grpc.status_code": 2},
    ]
    below, own = [span for span in spans if span.parent_span_id], spans[3]
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in below} == {(f"{TRACE:032x}", f"{SPAN:016x}")}
    assert len(below) == 4
    assert own.trace_id.hex() != f"{TRACE:032x}"
    assert [span.status.code for span in spans] == [Status.STATUS_CODE_UNSET] * 4 + [Status.STATUS_CODE_ERROR]
    assert spans[4].status.message == "rate limit domain must not be empty"
    assert all(span.start_time_unix_nano < span.end_time_unix_nano for span in spans)
    assert collector.service == {"service.name": "limits", "service.namespace": "mesh", "service.instance.id": "pod-1"}
    assert set(collector.headers) == {"edge"}


async def test_spans_by_grpc_and_the_last_of_them_at_the_end(tmp_path, rules):
    """What waits when it is told to stop is sent before it ends."""
    async with grpc_collector() as (collector, port):
        env = tracing(port, TRACING_EXPORTER_PROTOCOL="grpc", OTEL_BSP_SCHEDULE_DELAY="3600000")
        async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
            assert await ask(replica, "a") == 1
            os.kill(replica.pid, signal.SIGTERM)

            async def came() -> bool:
                return len(collector.spans) == 1 and not replica.running

            await until(came, "the span comes, and it ends")
    assert collector.service["service.name"] == "RateLimit"
    assert len(collector.service["service.instance.id"]) == 36


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_a_collector_that_is_away_harms_nobody(tmp_path, rules, protocol):
    """Requests are answered, the log is not filled, and it ends in a few seconds, with status 0."""
    env = tracing(free_port(), TRACING_EXPORTER_PROTOCOL=protocol, TRACING_SERVICE_NAME="limits")
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        assert [await ask(replica, f"t{number}") for number in range(50)] == [1] * 50
        os.kill(replica.pid, signal.SIGTERM)

        async def ended() -> bool:
            return not replica.running

        await until(ended, "it ends")
        assert replica._process is not None
        assert replica._process.returncode == 0
    assert len(replica.log.read_text().splitlines()) < 12


def test_what_the_sdk_says_again_and_again_is_logged_once_a_minute():
    """Whatever the values in it are."""
    now = 0.0
    seldom = Seldom(lambda: now)

    def passes(text: str, value: int) -> bool:
        return seldom.filter(logging.LogRecord("sdk", logging.WARNING, "", 0, text, (value,), None))

    assert passes("away for %d s", 1)
    assert not passes("away for %d s", 2)
    assert passes("dropped %d spans", 2)
    now = 59.9
    assert not passes("away for %d s", 3)
    now = 60.0
    assert passes("away for %d s", 4)


def test_without_opentelemetry_it_says_what_to_install(rules):
    """One line, and exit status 2."""
    program = "import sys; sys.modules['opentelemetry'] = None; from ratelimit_svc.cli import main; main(['serve'])"
    env = {"PATH": os.environ["PATH"], "RULES": str(rules), "PORT": "0", "GRPC_PORT": "0", "DEBUG_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=env | {"TRACING_ENABLED": "true"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        "ratelimit-svc: TRACING_ENABLED is true, but OpenTelemetry is not installed: "
        "pip install 'ratelimit-svc[tracing]'"
    )


def test_what_sends_spans_is_imported_only_where_it_is_asked_for():
    """It takes memory, and time at the start. (The SDK itself is imported by redis-py where it finds it.)"""
    program = "import sys, ratelimit_svc.server, ratelimit_svc.wire.http2.engine; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    found = run.stdout.split()
    assert "ratelimit_svc.server.traced" in found
    assert not [each for each in found if each.startswith(("ratelimit_svc.tracing.spans", "opentelemetry.exporter"))]
