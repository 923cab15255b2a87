"""An engine that runs, real but for its store, which can be held; and methods that only tests have."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.options import Options
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import Entry
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.server.listeners import engine_named
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.calls import CallError, GrpcStatus
from ratelimit_svc.wire.client import request
from ratelimit_svc.wire.engine import Engine, EngineOptions
from ratelimit_svc.wire.health import Health
from ratelimit_svc.wire.methods import methods
from tests.limiting import RULES, Recording

OK, OVER_LIMIT = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT

SHOULD_RATE_LIMIT = f"/{rls.SERVICE}/{rls.METHOD}"
CHECK, LIST, WATCH = (f"/grpc.health.v1.Health/{method}" for method in ("Check", "List", "Watch"))
ECHO, FAIL, BREAK, POUR, HANG = (
    "/test.Test/Echo",
    "/test.Test/Fail",
    "/test.Test/Break",
    "/test.Test/Pour",
    "/test/Hang",
)

MAX_MESSAGE_BYTES = 100_000
CHUNK, CHUNKS = b"x" * 65_000, 300
"""What POUR answers with: each nearly fills the window that a stream has at first."""


def asks(tenant: str = "a", hits: int = 0) -> rls_pb2.RateLimitRequest:
    """A request of a tenant, who has five a minute."""
    return request("shop", [[Entry("tenant", tenant)]], hits=hits)


BIG = request("shop", [[Entry("big", "1")]])
"""A request of which a million a minute pass."""


class Heard(Limiter):
    """The limiter, and what engines say is left of each caller's time."""

    def __init__(self, **parts) -> None:
        super().__init__(**parts)
        self.timeouts_s: list[float | None] = []

    def submit(self, data, answer, *, timeout_s=None):
        self.timeouts_s.append(timeout_s)
        return super().submit(data, answer, timeout_s=timeout_s)


@dataclass
class Methods:
    """Methods that engines must serve like any other."""

    poured: int = 0
    """How many chunks POUR has made so far, for whoever asked."""
    hanging: int = 0
    """How many calls of HANG there are now."""

    async def echo(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Answer each message with itself, as it comes."""
        async for message in requests:
            yield message

    async def fail(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Answer once, then end with the status and the text of the first message: `7 text`."""
        async for message in requests:
            status, text = message.decode().split(" ", 1)
            yield message
            raise CallError(GrpcStatus(int(status)), text)

    async def breaks(self, _requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Have a defect."""
        raise ZeroDivisionError("secret")
        yield b""

    async def pour(self, _requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Answer with much."""
        for _ in range(CHUNKS):
            self.poured += 1
            yield CHUNK

    async def hang(self, _requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Never answer."""
        self.hanging += 1
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            self.hanging -= 1

    def table(self):
        """Each by its path."""
        return {ECHO: self.echo, FAIL: self.fail, BREAK: self.breaks, POUR: self.pour, HANG: self.hang}


@dataclass
class Served:
    """A running engine and what it stands on."""

    engine: Engine
    health: Health
    limiter: Heard
    store: Recording
    port: int
    methods: Methods
    channel: Any = field(init=False)
    """A grpcio client's."""

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def stub(self) -> rls_pb2_grpc.RateLimitServiceStub:
        """Envoy's service on the channel."""
        return rls_pb2_grpc.RateLimitServiceStub(self.channel)

    async def ask(self, tenant: str = "a", hits: int = 0, **options) -> rls_pb2.RateLimitResponse:
        """One request of a tenant."""
        response: rls_pb2.RateLimitResponse = await self.stub.ShouldRateLimit(asks(tenant, hits), timeout=10, **options)
        return response

    async def send(self, data: bytes, path: str = SHOULD_RATE_LIMIT, timeout: float = 10) -> bytes:
        """Send these very bytes, and return the answer's."""
        answer: bytes = await self.channel.unary_unary(path)(data, timeout=timeout)
        return answer

    def stream(self, path: str, timeout: float = 20, **options):
        """Begin a call that streams both ways."""
        return self.channel.stream_stream(path)(timeout=timeout, **options)


@asynccontextmanager
async def serving(name: str, clock, *, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Served]:
    """Run one engine, ready; `options` are EngineOptions'."""
    store = Recording(MemoryStore(clock))
    limiter = Heard(
        store=store,
        local=MemoryStore(clock),
        clock=clock,
        decode=rls.decode,
        encode=rls.encode,
        metrics=Metrics(),
        options=Options(store_timeout_s=10, deadline_margin_s=1, queue_age_s=10),
    )
    limiter.use(load([RuleFile("rules.yaml", RULES.encode())]))
    health, own = Health(), Methods()
    options = {"max_message_bytes": MAX_MESSAGE_BYTES, **options}
    engine = engine_named(name)(limiter, {**methods(health), **own.table()}, EngineOptions(**options))
    port = await engine.start(host, 0)
    health.set_ready(ready=True)
    try:
        served = Served(engine, health, limiter, store, port, own)
        async with grpc.aio.insecure_channel(served.address) as served.channel:
            yield served
    finally:
        health.end_watches()
        await engine.stop(0)
        limiter.close()
