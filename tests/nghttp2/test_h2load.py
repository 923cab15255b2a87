"""h2load: so many requests as fast as they are answered. It takes every answer with status 200 for good, a denial as well, so what
it counts is held against what the service counts.
"""

import re

import pytest
import trustme

from tests.certificates import Files
from tests.nghttp2.conftest import run, serve

REQUESTS = {"http2": 50_000, "grpcio": 2_000}
"""A second's, or less, of each engine. Not `--duration`: what is under way at its end is counted by one side only."""

LIMIT = 5
"""Hits a second that the demo's rules admit of a tenant whom they do not name."""


async def loads(service, connections: int, streams: int) -> None:
    """Load a service, and hold one count against the other."""
    before = await service.counts()
    total = REQUESTS[service.engine]
    said = await run("h2load", "-n", f"{total}", "-c", f"{connections}", "-m", f"{streams}", *service.call)
    counted = (await service.counts()).since(before)
    assert f"{total} done, {total} succeeded, 0 failed, 0 errored, 0 timeout" in said
    assert f"status codes: {total} 2xx, 0 3xx, 0 4xx, 0 5xx" in said
    assert counted.requests == total
    assert (counted.refused, counted.policies) == (0, {})
    # no more than the limit in each second and in what is left of one, and h2load's clock is not the store's
    assert counted.denied == total - counted.admitted
    assert 0 < counted.admitted <= LIMIT * (seconds(said) + 2)


def seconds(said: str) -> float:
    """How long it took."""
    found = re.search(r"^finished in ([0-9.]+)(us|ms|s),", said, re.MULTILINE)
    assert found, said
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[2]]


@pytest.mark.parametrize(("connections", "streams"), [(4, 50), (100, 10), (1, 1000)])
async def test_h2load_and_the_service_count_the_same(service, connections, streams):
    """Nothing fails, whether few connections have much under way or many a little."""
    await loads(service, connections, streams)


async def test_over_tls(tmp_path, valkey_server, engine):
    """The same; ALPN picks HTTP/2."""
    files = Files(tmp_path)
    files.put(trustme.CA())
    env = {
        "GRPC_SERVER_USE_TLS": "true",
        "GRPC_SERVER_TLS_CERT": str(files.cert),
        "GRPC_SERVER_TLS_KEY": str(files.key),
    }
    async with serve(tmp_path, engine, valkey_server.url, **env) as service:
        await loads(service, 20, 20)
