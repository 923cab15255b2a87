"""Requests that are none: each is refused with a status and a text that say why, and the process lives on as if nothing had been.

One limit brought along whose unit is UNKNOWN ends the reference implementation's process; Envoy forwards such limits.
"""

import asyncio
import io
import sys

import aiohttp
import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.pb.envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit_svc.wire import rls
from tests.bench.cost import memory_mb
from tests.reference.asking import asked, told
from tests.reference.test_json import REFUSED, post

FLOOD = 20_000
AT_ONCE = 250


def message(text: str) -> RateLimitRequest:
    return ParseDict(asked(text), RateLimitRequest())


def good(text: str = "free=x") -> bytes:
    return message(text).SerializeToString()


def own(unit: int, multiplier: int | None = None) -> bytes:
    """A request that brings along a limit of this unit."""
    request = message("day=x")
    request.descriptors[0].limit.unit = unit  # type: ignore[assignment] # any number that the wire can carry
    if multiplier is not None:
        request.descriptors[0].limit.unit_multiplier.value = multiplier
    return request.SerializeToString()


NO_REQUEST = (
    grpc.StatusCode.INTERNAL,
    "grpc: error unmarshalling request: Error parsing message with type 'envoy.service.ratelimit.v3.RateLimitRequest': ",
)
NO_DOMAIN = (grpc.StatusCode.UNKNOWN, "rate limit domain must not be empty")
NO_DESCRIPTORS = (grpc.StatusCode.UNKNOWN, "rate limit descriptor list must not be empty")


def no_unit(number: int) -> tuple[grpc.StatusCode, str]:
    units = "1 (SECOND), 2 (MINUTE), 3 (HOUR), 4 (DAY), 5 (MONTH), 6 (YEAR), 7 (WEEK)"
    return grpc.StatusCode.UNKNOWN, f"rate limit override has the unit {number}; it must be one of {units}"


MALFORMED = {
    "nothing": (b"", NO_DOMAIN),
    "no domain": (good("@ free=x"), NO_DOMAIN),
    "no descriptors": (good("@shop"), NO_DESCRIPTORS),
    "a domain that is a number": (b"\x08\x05", NO_DOMAIN),
    "unknown fields alone": (b"\xa2\x06\x02hi" * 100, NO_DOMAIN),
    "unit UNKNOWN": (own(0), no_unit(0)),
    "unit 8": (own(8), no_unit(8)),
    "the largest unit": (own(2**31 - 1), no_unit(2**31 - 1)),
    "a negative unit": (own(-1), no_unit(-1)),
    "no units": (
        own(2, 0),
        (grpc.StatusCode.UNKNOWN, "rate limit override has the unit_multiplier 0; it must be at least 1"),
    ),
    "eleven years": (
        own(6, 11),
        (grpc.StatusCode.UNKNOWN, "rate limit override has a period of 11 years; it must be at most 10 years"),
    ),
    "a thousand descriptors": (
        good("; ".join(["day=x"] * 1000)),
        (grpc.StatusCode.UNKNOWN, "rate limit request has 1000 descriptors; at most 128 are taken"),
    ),
    "cut off": (good()[:-3], NO_REQUEST),
    "a length beyond the end": (b"\x0a\x05sh", NO_REQUEST),
    "a length of 2 GB": (b"\x0a\xff\xff\xff\xff\x07", NO_REQUEST),
    "a length of 2^64": (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", NO_REQUEST),
    "a length of twelve bytes": (b"\x0a\x84\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00shop", NO_REQUEST),
    "a number of eleven bytes": (b"\x18" + b"\xff" * 11, NO_REQUEST),
    "a domain that is no UTF-8": (b"\x0a\x01\xff", NO_REQUEST),
    "a value that is no UTF-8": (good().replace(b"x", b"\xff"), NO_REQUEST),
    "a surrogate": (good("free=xyz").replace(b"xyz", b"\xed\xa0\x80"), NO_REQUEST),
    "a kind of field that there is not": (b"\x0f\x00", NO_REQUEST),
    "field 0": (b"\x00\x00", NO_REQUEST),
    "groups in groups": (b"\x0b" * 1000, NO_REQUEST),
    "the end of a group": (b"\x0c", NO_REQUEST),
    "zeros": (b"\x00" * 1000, NO_REQUEST),
    "every byte": (bytes(range(256)), NO_REQUEST),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", NO_REQUEST),
    "JSON": (b'{"domain": "shop"}', NO_REQUEST),
}
"""What is sent → its status, and what its text begins with."""

METHOD = f"/{rls.SERVICE}/{rls.METHOD}"


async def ask(channel: grpc.aio.Channel, data: bytes) -> tuple[grpc.StatusCode, str]:
    """The status and text of a request's answer; of one that is answered, the answer as text."""
    try:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        answer = await method(data, timeout=30)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, told(MessageToDict(RateLimitResponse.FromString(answer)))


@pytest.fixture
async def channel(replica: Replica):
    """A connection to the replica, which must be the same process afterwards, and serve."""
    pid = replica.pid
    async with grpc.aio.insecure_channel(replica.address, [("grpc.max_send_message_length", -1)]) as opened:
        yield opened
        assert await ask(opened, good()) == (grpc.StatusCode.OK, "OK: OK no end")
    assert (replica.running, replica.pid) == (True, pid)


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_request_is_told_why(channel, name):
    """Over gRPC. /json: test_json.py."""
    data, (code, text) = MALFORMED[name]
    found = await ask(channel, data)
    assert (found[0], found[1][: len(text)]) == (code, text)


async def test_ten_megabytes_are_refused_unread(channel):
    """More than MAX_MESSAGE_BYTES; the text is that of the engine, here as there."""
    code, text = await ask(channel, good("day=" + "x" * 10_000_000))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "eceived message larger than max (1000002" in text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
async def test_twenty_thousand_of_them_leave_nothing_behind(channel, replica):
    """By gRPC and by /json, in turns: the same process, as large as after the first thousand."""
    async with aiohttp.ClientSession(replica.http) as session:
        await _send(channel, session, FLOOD // 10)
        before = memory_mb(replica.pid)
        await _send(channel, session, FLOOD)
        assert memory_mb(replica.pid) < before + 8
        assert (await post(session, io.BytesIO(b" " * 10_000_000)))[0] == 413


async def _send(channel: grpc.aio.Channel, session: aiohttp.ClientSession, number: int) -> None:
    """Send so many, a tenth of them by /json, and require of each that it is refused as alone."""
    by_grpc, by_json = list(MALFORMED.values()), list(REFUSED.values())
    for start in range(0, number, AT_ONCE):
        some = range(start, start + AT_ONCE)
        posted = [by_json[at // 10 % len(by_json)][0] for at in some if at % 10 == 0]
        sent = [by_grpc[at % len(by_grpc)] for at in some if at % 10]
        codes = [code for code, _ in await asyncio.gather(*(ask(channel, data) for data, _ in sent))]
        assert codes == [code for _, (code, _) in sent]
        assert {status for status, *_ in await asyncio.gather(*(post(session, body) for body in posted))} == {400}
