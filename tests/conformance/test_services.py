"""Health and reflection, asked as probes and grpcurl ask."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ratelimit_svc.wire import rls
from ratelimit_svc.wire.health import NAMES
from tests.conformance.frames import framed, reply_to
from tests.conformance.served import CHECK, LIST, WATCH

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_follows_readiness_under_every_name(served):
    """SERVING when ready and NOT_SERVING when not, for whoever asks, lists or watches; unknown names are NOT_FOUND."""
    health = health_pb2_grpc.HealthStub(served.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="ratelimit"))
    seen = [(await watch.read()).status]
    for ready in (True, False):
        served.health.set_ready(ready=ready)
        for name in NAMES:
            status = (await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status
            assert status == (SERVING if ready else NOT_SERVING)
        statuses = (await health.List(health_pb2.HealthListRequest(), timeout=5)).statuses
        assert {name: each.status for name, each in statuses.items()} == dict.fromkeys(NAMES, status)
    seen.append((await watch.read()).status)
    watch.cancel()
    assert seen == [SERVING, NOT_SERVING]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="öther"), timeout=5)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "unknown service öther")


async def test_a_watch_of_an_unknown_name_is_told_so_and_goes_on(served):
    """The protocol wants SERVICE_UNKNOWN rather than an error: the service may come."""
    watch = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest(service="other"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert not watch.done()
    watch.cancel()


@pytest.mark.parametrize("path", [CHECK, LIST, WATCH])
async def test_health_of_bytes_that_are_none(served, path):
    """INTERNAL, as for rate-limit calls."""
    reply = await reply_to(served.port, framed(b"\xff"), path)
    assert (reply.status, reply.text[:35]) == (13, "grpc: error unmarshalling request: ")


async def test_reflection_lists_the_services_and_describes_ours(served):
    """grpcurl and its like need no proto files."""
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)

    async def questions():
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=rls.SERVICE)
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Thing")

    answers = [answer async for answer in stub.ServerReflectionInfo(questions(), timeout=5)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert names == {rls.SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert b"ShouldRateLimit" in answers[1].file_descriptor_response.file_descriptor_proto[0]
    assert answers[2].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_what_reflection_lists_it_describes(served):
    """Each service, with all the files it needs."""
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    for service in (await call.read()).list_services_response.service:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.name))
        assert (await call.read()).file_descriptor_response.file_descriptor_proto, service.name
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_reflection_under_its_later_name(served):
    """Clients ask v1 before v1alpha: the same messages."""
    question = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    answer = await served.send(question, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    assert len(reflection_pb2.ServerReflectionResponse.FromString(answer).list_services_response.service) == 3


async def test_reflection_of_bytes_that_are_none(served):
    """INTERNAL again."""
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    assert (await reply_to(served.port, framed(b"\xff"), path)).status == 13
