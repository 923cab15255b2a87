"""Verdicts, statuses, sizes, encodings and metadata, as clients see them."""

import asyncio
import gzip
from urllib.parse import unquote

import grpc
import pytest

from ratelimit_svc.model import Entry
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.client import request
from tests.conformance.frames import connected, framed, reply_to
from tests.conformance.served import (
    BREAK,
    CHECK,
    ECHO,
    FAIL,
    MAX_MESSAGE_BYTES,
    OK,
    OVER_LIMIT,
    SHOULD_RATE_LIMIT,
    asks,
)

ASKED = asks().SerializeToString()
TEXT = 'dömäne 100 % "日本" 🚦\n\ttab'
"""Whatever a text may hold."""


async def test_a_verdict_in_full(served):
    """Code, limit, remaining and reset of each descriptor come over the wire, and nothing that is not set."""
    response = await served.stub.ShouldRateLimit(
        request("shop", [[Entry("tenant", "a")], [Entry("x", "y")]]), timeout=5
    )
    assert response == rls_pb2.RateLimitResponse(
        overall_code=OK,
        statuses=[
            rls_pb2.RateLimitResponse.DescriptorStatus(
                code=OK,
                current_limit=rls_pb2.RateLimitResponse.RateLimit(
                    requests_per_unit=5, unit=rls_pb2.RateLimitResponse.RateLimit.MINUTE
                ),
                limit_remaining=4,
                duration_until_reset={"seconds": 61},
            ),
            rls_pb2.RateLimitResponse.DescriptorStatus(code=OK),
        ],
    )
    assert (await served.ask(hits=6)).overall_code == OVER_LIMIT


async def test_an_answer_in_frames(served):
    """Headers, one message, trailers with status 0: what the gRPC protocol says of an answer, to the byte."""
    reply = await reply_to(served.port, framed(ASKED))
    assert reply.ended
    assert (reply.headers[":status"], reply.headers["content-type"]) == ("200", "application/grpc")
    assert "grpc-status" not in reply.headers
    assert reply.trailers["grpc-status"] == "0"
    assert reply.data[0] == 0
    assert int.from_bytes(reply.data[1:5], "big") == len(reply.data) - 5
    assert rls_pb2.RateLimitResponse.FromString(reply.data[5:]).statuses[0].limit_remaining == 4


# ── statuses ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"", grpc.StatusCode.UNKNOWN, "rate limit domain must not be empty"),
        (
            request("", [[Entry("a", "b")]]).SerializeToString(),
            grpc.StatusCode.UNKNOWN,
            "rate limit domain must not be empty",
        ),
        (
            request("shop", []).SerializeToString(),
            grpc.StatusCode.UNKNOWN,
            "rate limit descriptor list must not be empty",
        ),
        (b"\xff\xff\xff", grpc.StatusCode.INTERNAL, "grpc: error unmarshalling request:"),
        (b"\x0a\x02\xff\xfe", grpc.StatusCode.INTERNAL, "grpc: error unmarshalling request:"),
    ],
)
async def test_bad_requests_are_told_as_by_the_reference(served, data, code, text):
    """Empty domain, no descriptors, undecodable bytes: the reference's status and text."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.send(data)
    assert caught.value.code() is code
    assert (caught.value.details() or "").startswith(text)


async def test_a_store_error_under_policy_error_is_a_grpc_error(served):
    """So that Envoy's failure_mode_deny decides."""
    served.store.away = True
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ShouldRateLimit(request("shop", [[Entry("error", "1")]]), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("text", ["", "plain", TEXT, "x" * 1000])
async def test_every_status_and_any_text(served, text):
    """A method's status and text reach the client as they are, after what it had answered before."""
    for status in set(GrpcStatus) - {GrpcStatus.OK}:
        asked = f"{int(status)} {text}".encode()
        call = served.stream(FAIL)
        await call.write(asked)
        assert await call.read() == asked
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert (caught.value.code().value[0], caught.value.details()) == (status, text)


async def test_a_text_is_percent_encoded(served):
    """On the wire it is printable ASCII, with % itself encoded."""
    reply = await reply_to(served.port, framed(f"7 {TEXT}".encode()), FAIL)
    wire = reply.trailers["grpc-message"]
    assert wire.isascii()
    assert wire.isprintable()
    assert unquote(wire, errors="strict") == TEXT
    assert wire.startswith("d%C3%B6m%C3%A4ne 100 %25 ")


async def test_an_error_at_once_is_in_the_headers_alone(served):
    """Trailers-Only, as the protocol calls it; a client must not need an empty message before the error."""
    reply = await reply_to(served.port, framed(b""))
    assert (reply.status, reply.headers[":status"]) == (GrpcStatus.UNKNOWN, "200")
    assert (reply.data, reply.trailers) == (b"", {})


async def test_a_defect_of_a_method_is_unknown(served):
    """And the next call is answered."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.send(b"", BREAK)
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert await served.send(b"x", ECHO) == b"x"


@pytest.mark.parametrize(
    "path", ["/a.b.C/D", f"{SHOULD_RATE_LIMIT}s", SHOULD_RATE_LIMIT[1:].replace("/", ""), "/", "/x"]
)
async def test_what_is_not_served_is_unimplemented(served, path):
    """Unknown services, unknown methods and paths that are neither."""
    async with connected(served.port) as connection:
        first = await connection.until_over(connection.begin(framed(ASKED), f"/{path.lstrip('/')}"))
        second = await connection.until_over(connection.begin(framed(ASKED)))
    assert first.status is GrpcStatus.UNIMPLEMENTED
    assert second.status is GrpcStatus.OK


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto"])
async def test_content_types_of_grpc(served, content_type):
    """Both spellings of protobuf over gRPC are taken."""
    assert (await reply_to(served.port, framed(ASKED), content_type=content_type)).status is GrpcStatus.OK


async def test_what_is_not_grpc_is_refused(served, engine):
    """A browser or a probe gets an HTTP error or a reset, not a verdict. The library takes any type of content."""
    get = await reply_to(served.port, b"", **{":method": "GET"})
    text = await reply_to(served.port, framed(ASKED), content_type="text/plain")
    if engine == "grpcio":
        assert get.reset is not None
        assert text.status is GrpcStatus.OK
    else:
        assert [reply.headers[":status"] for reply in (get, text)] == ["405", "415"]
        assert served.limiter.timeouts_s == []


# ── messages ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_message_of_the_greatest_size_passes_and_one_byte_more_does_not(served):
    """MAX_MESSAGE_BYTES is the size of the message, without its frame. The next request is answered."""
    padded = asks("a" * (MAX_MESSAGE_BYTES - len(ASKED)))
    message = padded.SerializeToString()
    surplus = len(message) - MAX_MESSAGE_BYTES
    message = asks("a" * (MAX_MESSAGE_BYTES - len(ASKED) - surplus)).SerializeToString()
    assert len(message) == MAX_MESSAGE_BYTES
    assert rls_pb2.RateLimitResponse.FromString(await served.send(message)).overall_code == OK
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.send(message + b"\0")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await served.ask()).overall_code == OK


async def test_a_method_takes_messages_of_that_size_too(served):
    """Streaming methods have the same bound."""
    assert await served.send(b"x" * MAX_MESSAGE_BYTES, ECHO) == b"x" * MAX_MESSAGE_BYTES
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.send(b"x" * (MAX_MESSAGE_BYTES + 1), ECHO)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_length_of_four_gigabytes_is_refused(served):
    """Nothing of that size is waited for."""
    reply = await reply_to(served.port, b"\0\xff\xff\xff\xffxxxx")
    assert reply.status is GrpcStatus.RESOURCE_EXHAUSTED


async def test_a_message_may_come_byte_by_byte(served):
    """HTTP/2 frames have nothing to do with messages."""
    async with connected(served.port) as connection:
        reply = connection.begin(b"", end=False)
        (number,) = connection.replies
        for byte in framed(ASKED):
            connection.h2.send_data(number, bytes([byte]))
            connection._writer.write(connection.h2.data_to_send())
            await asyncio.sleep(0)
        connection.h2.send_data(number, b"", end_stream=True)
        connection._writer.write(connection.h2.data_to_send())
        assert (await connection.until_over(reply)).status is GrpcStatus.OK


async def test_messages_of_a_stream_are_answered_in_order_as_they_come(served):
    """Each is answered before the next is sent; empty ones too; and the half-close ends it."""
    call = served.stream(ECHO)
    for message in (b"one", b"", b"x" * 50_000, b"four"):
        await call.write(message)
        assert await call.read() == message
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("messages", [0, 2, 3])
async def test_a_unary_method_wants_one_message(served, messages):
    """None or several: gRPC says UNIMPLEMENTED."""
    reply = await reply_to(served.port, framed(b"") * messages, CHECK)
    assert reply.status is GrpcStatus.UNIMPLEMENTED


async def test_a_rate_limit_call_wants_one_message(served, engine):
    """Several are UNIMPLEMENTED, and none too. The library answers the first of several, and waits for one on and on."""
    async with connected(served.port) as connection:
        two = connection.begin(framed(ASKED) * 2)
        none = connection.begin(b"")
        await connection.until_over(two)
        after = await connection.until_over(connection.begin(framed(ASKED)))
        if engine != "grpcio":
            await connection.until_over(none)
    assert after.status is GrpcStatus.OK
    assert two.status is (GrpcStatus.OK if engine == "grpcio" else GrpcStatus.UNIMPLEMENTED)
    assert none.status is (None if engine == "grpcio" else GrpcStatus.UNIMPLEMENTED)


# ── encodings and metadata ────────────────────────────────────────────────────────────────────────────────────────────


async def test_gzip(served):
    """Messages may be compressed, or not although they may be; a real client does it too."""
    packed = framed(gzip.compress(ASKED), flag=1)
    for body in (packed, framed(ASKED)):
        reply = await reply_to(served.port, body, grpc_encoding="gzip")
        assert reply.status is GrpcStatus.OK
    response = await served.stub.ShouldRateLimit(asks(), timeout=5, compression=grpc.Compression.Gzip)
    assert response.statuses[0].limit_remaining == 2


async def test_gzip_that_is_none_or_is_not_announced(served):
    """INTERNAL, as the protocol says of a flag without an encoding."""
    for reply in (
        await reply_to(served.port, framed(b"nonsense", flag=1), grpc_encoding="gzip"),
        await reply_to(served.port, framed(gzip.compress(ASKED), flag=1)),
    ):
        assert reply.status is GrpcStatus.INTERNAL


async def test_a_bomb_is_measured_by_what_it_becomes(served):
    """A small message that becomes a large one is as large as that."""
    reply = await reply_to(served.port, framed(gzip.compress(b"\0" * 10_000_000), flag=1), grpc_encoding="gzip")
    assert reply.status is GrpcStatus.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("flag", [0, 1])
async def test_an_unknown_encoding_is_refused_with_those_that_are_known(served, engine, flag):
    """UNIMPLEMENTED and grpc-accept-encoding, as the protocol says. The library says INTERNAL."""
    reply = await reply_to(served.port, framed(ASKED, flag=flag), grpc_encoding="snappy")
    if engine == "grpcio":
        assert reply.status is GrpcStatus.INTERNAL
    elif flag:
        assert reply.status is GrpcStatus.UNIMPLEMENTED
        assert {"identity", "gzip"} <= set((reply.headers | reply.trailers)["grpc-accept-encoding"].split(","))
    else:  # a message that is not compressed can be read, whatever others would be by
        assert reply.status in {GrpcStatus.UNIMPLEMENTED, GrpcStatus.OK}


async def test_metadata_is_ignored(served):
    """What proxies and traces add, binary values too, changes no answer."""
    metadata = (
        ("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
        ("x-bin", b"\0\xff\n"),
        ("x-long", "y" * 5000),
    )
    assert (await served.ask(metadata=metadata)).statuses[0].limit_remaining == 4
    assert (await served.ask()).statuses[0].limit_remaining == 3
