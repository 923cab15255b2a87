"""A second client with a second codec: grpclib, whose HTTP/2 is `h2`, and Envoy's own messages from `envoy-data-plane`."""

import asyncio
import warnings
from datetime import timedelta

import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

from tests.conformance.served import ECHO, FAIL, HANG, SHOULD_RATE_LIMIT
from tests.waiting import until

with warnings.catch_warnings():  # it was generated for an earlier pydantic
    warnings.simplefilter("ignore", DeprecationWarning)
    from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor, RateLimitDescriptorEntry
    from envoy_data_plane.envoy.service.ratelimit.v3 import (
        RateLimitRequest,
        RateLimitResponse,
        RateLimitResponseCode,
        RateLimitResponseDescriptorStatus,
        RateLimitResponseRateLimit,
        RateLimitResponseRateLimitUnit,
    )


class Betterproto(CodecBase):
    """Messages of `envoy-data-plane`, and plain bytes as they are."""

    __content_subtype__ = "proto"

    def encode(self, message, message_type) -> bytes:
        """Write a message."""
        return bytes(message)

    def decode(self, data, message_type):
        """Read a message."""
        return data if message_type is bytes else message_type.parse(data)


@pytest.fixture
async def client(served):
    """A grpclib client of an engine."""
    channel = Channel("127.0.0.1", served.port, codec=Betterproto())
    yield channel
    channel.close()


def stream(client: Channel, path: str, sent: type = bytes, got: type = bytes, **options):
    return client.request(path, Cardinality.STREAM_STREAM, sent, got, **options)


async def ask(client: Channel, tenant: str, domain: str = "shop") -> RateLimitResponse:
    entries = [RateLimitDescriptorEntry(key="tenant", value=tenant)]
    message = RateLimitRequest(domain=domain, descriptors=[RateLimitDescriptor(entries=entries)])
    async with stream(client, SHOULD_RATE_LIMIT, RateLimitRequest, RateLimitResponse, timeout=10) as call:
        await call.send_message(message, end=True)
        response: RateLimitResponse = await call.recv_message()
    return response


async def test_verdicts(client):
    """All at once: the limit passes, and each answer has what Envoy reads of it."""
    answers = await asyncio.gather(*(ask(client, "a") for _ in range(20)))
    codes = [answer.overall_code for answer in answers]
    assert (codes.count(RateLimitResponseCode.OK), codes.count(RateLimitResponseCode.OVER_LIMIT)) == (5, 15)
    limit = RateLimitResponseRateLimit(requests_per_unit=5, unit=RateLimitResponseRateLimitUnit.MINUTE)
    assert (await ask(client, "b")).statuses == [
        RateLimitResponseDescriptorStatus(
            code=RateLimitResponseCode.OK,
            current_limit=limit,
            limit_remaining=4,
            duration_until_reset=timedelta(seconds=61),
        )
    ]


async def test_errors(client):
    """Of a verdict, and of a method with any text."""
    with pytest.raises(GRPCError) as caught:
        await ask(client, "a", domain="")
    assert (caught.value.status, caught.value.message) == (Status.UNKNOWN, "rate limit domain must not be empty")
    async with stream(client, FAIL) as call:
        await call.send_message("9 dömäne 100 %".encode(), end=True)
        assert await call.recv_message() is not None
        with pytest.raises(GRPCError) as caught:
            await call.recv_trailing_metadata()
    assert (caught.value.status, caught.value.message) == (Status.FAILED_PRECONDITION, "dömäne 100 %")


async def test_streams(client, served):
    """Both ways, in turn; and a cancelled one ends its method."""
    async with stream(client, ECHO) as call:
        for message in (b"one", b"", b"x" * 50_000):
            await call.send_message(message)
            assert await call.recv_message() == message
        await call.end()
        assert await call.recv_message() is None
    async with stream(client, HANG) as call:
        await call.send_message(b"")
        await until(lambda: served.methods.hanging == 1)
        await call.cancel()
    await until(lambda: served.methods.hanging == 0)
