"""The `grpcio` engine: gRPC by `grpc.aio`. Every feature of gRPC, and nothing to distrust.

Serves the RateLimitService, `grpc.health.v1` and server reflection. A request's bytes go to the limiter as they came and
the verdict's bytes back as they are: messages are neither parsed nor built here. The price is ~250 µs of CPU per call.
"""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.wire import rls

HEALTH_NAMES = ("", "ratelimit", rls.SERVICE)
"""What may be asked for: the whole server, the reference implementation's name, the service's own."""

_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # it ships no types
    """`grpc.health.v1`. Ours and not the library's, whose watches have no end: a drain would wait for them."""

    def __init__(self) -> None:
        self._status = health_pb2.HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()
        self._ended = False

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 — gRPC's name
        if request.service not in HEALTH_NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service}")
        return health_pb2.HealthCheckResponse(status=self._status)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 — gRPC's name
        told = None
        while not self._ended:
            known = request.service in HEALTH_NAMES
            status = self._status if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            changed = self._changed
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await changed.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    def set_ready(self, *, ready: bool) -> None:
        """Tell all who watch."""
        served = health_pb2.HealthCheckResponse
        self._status = served.SERVING if ready else served.NOT_SERVING
        self._wake()

    def end_watches(self) -> None:
        """End the watches there are, and those to come."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class GrpcioEngine:
    """One gRPC server.

    Args:
        limiter: answers the requests.
        max_message_bytes: larger messages are refused with RESOURCE_EXHAUSTED.

    Resource handling: `start` listens, `stop` ends; both belong to one event loop.
    """

    def __init__(self, limiter: Limiter, *, max_message_bytes: int) -> None:
        self._limiter = limiter
        self._health = Health()
        # one port is one process: with SO_REUSEPORT a forgotten process would go on taking a part of the requests
        options = [("grpc.max_receive_message_length", max_message_bytes), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options)

    async def start(self, host: str, port: int) -> int:
        """Listen, not serving as far as health says. Return the port: the one asked for, or for 0 a free one.

        Raises:
            OSError: the address cannot be had.
        """
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._should_rate_limit)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(rls.SERVICE, {rls.METHOD: method}),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        reflection.enable_server_reflection((rls.SERVICE, health_name, reflection.SERVICE_NAME), self._server)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: {error}") from error
        await self._server.start()
        return bound

    def set_ready(self, *, ready: bool) -> None:
        """Tell those who ask or watch `grpc.health.v1`."""
        self._health.set_ready(ready=ready)

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, end the watches of health, and wait at most `grace_s` for what else was accepted.

        May be called again with less grace while it waits.
        """
        self._health.end_watches()
        await self._server.stop(grace_s)

    async def _should_rate_limit(self, data: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        try:
            return await self._limiter.ask(data, timeout_s=context.time_remaining())
        except RateLimitError as error:
            status, text = rls.status_of(error)
            await context.abort(_STATUS[status], text)
            raise AssertionError("abort raises") from error
