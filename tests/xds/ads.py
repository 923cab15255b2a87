"""An xDS server for tests, by grpcio: the test says what each stream hears, and sees what is asked."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as Resource
from google.protobuf.json_format import ParseDict

from ratelimit_svc.pb.envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from ratelimit_svc.pb.ratelimit.config.ratelimit.v3.rls_conf_pb2 import RateLimitConfig

TYPE_URL = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"
SERVICE, METHOD = "envoy.service.discovery.v3.AggregatedDiscoveryService", "StreamAggregatedResources"
WITHIN_S = 30
"""What must happen happens by then, also on a slow machine."""


def config(name: str, domain: str, *, limit: int | None = None, unit: str = "MINUTE", key: str = "k") -> dict[str, Any]:
    """One domain with one rule, as generators write it: with all fields, also those that hold nothing."""
    rate_limit: dict[str, Any] | None = None
    if limit is not None:
        rate_limit = {"unit": unit, "requests_per_unit": limit, "unlimited": False, "name": "", "replaces": []}
    descriptor: dict[str, Any] = {
        "key": key,
        "value": "",
        "rate_limit": rate_limit,
        "descriptors": [],
        "shadow_mode": False,
    }
    return {"name": name, "domain": domain, "descriptors": [descriptor]}


def resource(config: Mapping[str, Any]) -> Resource:
    """A RateLimitConfig from its fields, packed."""
    packed = Resource()
    packed.Pack(ParseDict(dict(config), RateLimitConfig()))
    return packed


class Talk:
    """One stream, from the server's side."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._over = asyncio.Event()
        self.gone = asyncio.Event()
        """Set once the stream is no more, whoever ended it."""
        self.headers = {str(key): value for key, value in context.invocation_metadata()}

    async def heard(self) -> DiscoveryRequest:
        """The next request."""
        async with asyncio.timeout(WITHIN_S):
            request = await self._context.read()
        assert request is not grpc.aio.EOF, "the client has ended the stream"
        assert isinstance(request, DiscoveryRequest)
        return request

    async def say(self, version: str, *configs: Mapping[str, Any], nonce: str = "") -> None:
        """Send all resources there are."""
        await self.say_resources(version, *map(resource, configs), nonce=nonce)

    async def say_resources(
        self, version: str, *resources: Resource, nonce: str = "", type_url: str = TYPE_URL
    ) -> None:
        response = DiscoveryResponse(
            version_info=version, resources=resources, type_url=type_url, nonce=nonce or f"nonce of {version}"
        )
        await self.say_bytes(response.SerializeToString())

    async def say_bytes(self, data: bytes) -> None:
        async with asyncio.timeout(WITHIN_S):
            await self._context.write(data)

    def end(self) -> None:
        """End the stream, with status OK."""
        self._over.set()

    async def serve(self) -> None:
        try:
            await self._over.wait()
        finally:
            self.gone.set()


class Ads(grpc.GenericRpcHandler):
    """The service: each stream waits for a test to take it."""

    def __init__(self) -> None:
        self._streams: asyncio.Queue[Talk] = asyncio.Queue()

    async def stream(self) -> Talk:
        """The next stream that a client opened."""
        async with asyncio.timeout(WITHIN_S):
            return await self._streams.get()

    async def opened(self) -> Talk:
        """The next stream, after its first request."""
        talk = await self.stream()
        await talk.heard()
        return talk

    @property
    def waiting(self) -> int:
        """Streams that no test has taken yet."""
        return self._streams.qsize()

    def service(self, details: Any) -> Any:
        assert details.method == f"/{SERVICE}/{METHOD}"
        return grpc.stream_stream_rpc_method_handler(
            self._talk, request_deserializer=DiscoveryRequest.FromString, response_serializer=None
        )

    async def _talk(self, _requests: Any, context: Any) -> None:
        talk = Talk(context)
        self._streams.put_nowait(talk)
        await talk.serve()


class Listening:
    """A server that listens."""

    def __init__(self, ads: Ads, server: grpc.aio.Server, port: int) -> None:
        self.ads, self._server, self.port = ads, server, port

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """Cut all streams, and listen no more."""
        await self._server.stop(None)


@asynccontextmanager
async def listening(*, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[Listening]:
    """An xDS server for as long as the context lasts."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)])
    ads = Ads()
    server.add_generic_rpc_handlers((ads,))
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield Listening(ads, server, bound)
    finally:
        with suppress(asyncio.CancelledError):
            await server.stop(None)
