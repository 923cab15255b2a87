"""The requests of `make bench` are Envoy's own."""

import asyncio
from pathlib import Path

from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2
from tests.bench import frames
from tests.e2e.conftest import GATEWAY_RULES, client_of
from tests.h2_server import H2Server

CHOSEN = {":authority", "grpc-timeout", "x-envoy-expected-rq-timeout-ms", "x-forwarded-for"}
"""Headers whose values are this Envoy's configuration, or the bench's choice."""


def let_pass(_, conn, stream: int) -> None:
    answer = rls_pb2.RateLimitResponse(overall_code=rls_pb2.RateLimitResponse.OK)
    conn.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    conn.send_data(stream, frames.message(answer.SerializeToString()))
    conn.send_headers(stream, [("grpc-status", "0")], end_stream=True)


async def test_the_generator_sends_the_headers_that_envoy_sends(tmp_path: Path):
    """Their names, in their order; and their values, but for those that are chosen."""
    seen: list[H2Server] = []

    def make() -> H2Server:
        seen.append(H2Server(let_pass, {}))
        return seen[-1]

    listening = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        async for client in client_of(tmp_path, GATEWAY_RULES, through=lambda _: [port]):
            assert await client.statuses(3, "one-by-one") == [200, 200, 200]
    asked = [headers for server in seen for headers in server.headers if headers[1][1].endswith("ShouldRateLimit")]
    assert len(asked) == 3
    for headers in asked:
        assert [name for name, _ in headers] == [name for name, _ in frames.ENVOY_HEADERS]
        fixed = [(name, value) for name, value in headers if name not in CHOSEN]
        assert fixed == [(name, value) for name, value in frames.ENVOY_HEADERS if name not in CHOSEN]
