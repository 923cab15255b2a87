"""Server reflection for any engine: grpcurl and its like need no proto files.

v1 and v1alpha are one service under two names, with the same messages: both are served, and asked for by their own paths.
Only v1alpha is listed, since the library knows v1's description not, and what is listed must be described.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ratelimit_svc.wire.calls import CallError, GrpcStatus, Method

SERVICE: str = reflection.SERVICE_NAME
SERVICE_V1 = SERVICE.replace("v1alpha", "v1")


def describing(services: Sequence[str]) -> Method:
    """Return the method `ServerReflectionInfo` that lists these services, and describes all that is known here."""
    servicer = reflection.aio.ReflectionServicer(services)

    async def info(requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for answer in servicer.ServerReflectionInfo(_read(requests), None):
            yield answer.SerializeToString()

    return info


async def _read(requests: AsyncIterator[bytes]) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    async for data in requests:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(data)
        except DecodeError as error:
            raise CallError(GrpcStatus.INTERNAL, f"grpc: error unmarshalling request: {error}") from error
