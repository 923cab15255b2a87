"""What the tests of token budgets need besides the stage: a language model, and someone who listens to what Envoy asks."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc
from aiohttp import web

from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import LOOPBACK
from ratelimit_svc.demo.traffic import Upstream
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2


class Model(Upstream):
    """Answers `/<how>/<cost>`, and says the cost in a header, in its JSON, in its stream, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        """Requests to `/held/…` that are not answered yet: `let_go` answers them."""
        self.let_go = asyncio.Event()
        self.gone = asyncio.Event()
        """Set when the caller of `/hung-up` has gone."""

    async def _answer(self, request: web.Request) -> web.StreamResponse:  # type: ignore[override]
        self.arrived[request.headers.get("x-tenant", "")] += 1
        _, how, *rest = request.path.split("/")
        cost = rest[0] if rest else ""
        if how == "json":
            return web.json_response({"choices": [], "usage": {"total_tokens": int(cost)}})
        if how == "stream":
            return await _stream(request, ['{"choices":[]}', f'{{"usage":{{"total_tokens":{cost}}}}}', "[DONE]"])
        if how == "held":
            self.waiting += 1
            await self.let_go.wait()
            self.waiting -= 1
        if how == "hung-up":
            return await self._never_ends(request)
        return web.Response(text="words\n", headers={"x-tokens-used": cost} if cost else {})

    async def _never_ends(self, request: web.Request) -> web.StreamResponse:
        """A stream whose cost would be in its last event, and whose caller does not wait for that."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b'data: {"choices":[]}\n\n')
                await asyncio.sleep(0.01)  # a word at a time
        finally:
            self.gone.set()


async def _stream(request: web.Request, events: list[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        await response.write(f"data: {event}\n\n".encode())
    await response.write_eof()
    return response


@dataclass(frozen=True)
class Asked:
    """One question of Envoy's, and what a replica answered."""

    request: rls_pb2.RateLimitRequest
    response: rls_pb2.RateLimitResponse

    @property
    def hits(self) -> str:
        """`50` or `−30`, of each descriptor."""
        numbers = ((one.is_negative_hits, one.hits_addend.value) for one in self.request.descriptors)
        return " and ".join("−" * negative + str(value) for negative, value in numbers)

    @property
    def answer(self) -> str:
        """`OK` or `OVER_LIMIT`."""
        return rls_pb2.RateLimitResponse.Code.Name(self.response.overall_code)


class Tap:
    """Stands between Envoy and the replicas, hands every byte on, and keeps what went by. Enter it before Envoy asks."""

    def __init__(self) -> None:
        self.log: list[Asked] = []
        self._channels: list[grpc.aio.Channel] = []
        self._servers: list[grpc.aio.Server] = []
        self._ports: dict[int, int] = {}

    def ports(self, replicas: list[int]) -> list[int]:
        """Return a port for each replica's."""
        self._ports = {free_port(): replica for replica in replicas}
        return list(self._ports)

    async def asked(self, count: int) -> list[Asked]:
        """Wait until so many questions in all were answered, and return them."""

        async def enough() -> bool:
            return len(self.log) >= count

        await until(enough, f"Envoy has asked {count} times", within=5)
        assert len(self.log) == count, [one.hits for one in self.log]
        return self.log

    async def __aenter__(self) -> Self:
        for port, replica in self._ports.items():
            channel = grpc.aio.insecure_channel(f"{LOOPBACK}:{replica}")
            server = grpc.aio.server()
            server.add_generic_rpc_handlers([_Through(self._hand_on(channel))])
            server.add_insecure_port(f"{LOOPBACK}:{port}")
            await server.start()
            self._channels.append(channel)
            self._servers.append(server)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            await server.stop(0)
        for channel in self._channels:
            await channel.close()

    def _hand_on(self, channel: grpc.aio.Channel) -> "Behaviour":
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        )

        async def hand_on(data: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            answer = await ask(data, timeout=context.time_remaining())
            read = rls_pb2.RateLimitRequest.FromString, rls_pb2.RateLimitResponse.FromString
            self.log.append(Asked(read[0](data), read[1](answer)))
            return answer

        return hand_on


Behaviour = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


class _Through(grpc.GenericRpcHandler):
    """One behaviour for every method, on raw bytes."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(self._behaviour)
