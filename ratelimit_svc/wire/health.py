"""`grpc.health.v1` for any engine: is this replica ready? Ours and not the library's, whose watches have no end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from ratelimit_svc.wire import rls
from ratelimit_svc.wire.calls import CallError, GrpcStatus, only

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

NAMES = ("", "ratelimit", rls.SERVICE)
"""What may be asked for: the whole server, the reference implementation's name, the service's own."""


class Health:
    """Who asks or watches is told what `set_ready` was told last; NOT_SERVING before. Belongs to one event loop."""

    def __init__(self) -> None:
        self._status = health_pb2.HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()
        self._ended = False
        self.checks = 0
        """How often `check` was asked."""

    def set_ready(self, *, ready: bool) -> None:
        """Tell all who watch."""
        served = health_pb2.HealthCheckResponse
        self._status = served.SERVING if ready else served.NOT_SERVING
        self._wake()

    def end_watches(self) -> None:
        """End the watches there are, and those to come: an engine that drains would wait for them."""
        self._ended = True
        self._wake()

    async def check(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Answer with the status now."""
        self.checks += 1
        service = _service(await only(requests))
        if service not in NAMES:
            raise CallError(GrpcStatus.NOT_FOUND, f"unknown service {service}")
        yield health_pb2.HealthCheckResponse(status=self._status).SerializeToString()

    async def list(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Answer with the status now of every name that may be asked for."""
        _request(health_pb2.HealthListRequest, await only(requests))
        status = health_pb2.HealthCheckResponse(status=self._status)
        yield health_pb2.HealthListResponse(statuses=dict.fromkeys(NAMES, status)).SerializeToString()

    async def watch(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Answer with the status now, and with each one that follows."""
        known = _service(await only(requests)) in NAMES
        told = None
        while not self._ended:
            status = self._status if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            changed = self._changed
            if status != told:
                yield health_pb2.HealthCheckResponse(status=status).SerializeToString()
                told = status
            await changed.wait()
        raise CallError(GrpcStatus.UNAVAILABLE, "the server is stopping")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _service(data: bytes) -> str:
    return str(_request(health_pb2.HealthCheckRequest, data).service)


def _request(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise CallError(GrpcStatus.INTERNAL, f"grpc: error unmarshalling request: {error}") from error
