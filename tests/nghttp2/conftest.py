"""The programs, and a service for them. Without a program nothing here is skipped: the run fails and says so."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ratelimit_svc.demo import shipped
from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import Replica, get
from ratelimit_svc.loadtest import counters
from ratelimit_svc.model import Entry
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.client import request
from tests.conformance.frames import framed
from tests.engines import ENGINES
from tests.waiting import PATIENCE

PATIENCE_S = 60
"""After which a program is ended."""


def pytest_sessionstart(session):
    """End the run where a program is missing."""
    if missing := [name for name in ("h2load", "nghttp") if shutil.which(name) is None]:
        programs = " and ".join(missing)
        pytest.exit(
            f"`make test-h2load` needs {programs} on PATH, of nghttp2 (Debian: nghttp2-client; Homebrew: nghttp2)",
            returncode=1,
        )


@dataclass
class Service:
    """A replica, and how nghttp2's programs call it."""

    replica: Replica
    engine: str
    scheme: str
    body: Path
    """A file with a request's message, framed."""

    @property
    def call(self) -> Sequence[str]:
        """The arguments that make a gRPC call."""
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        return ["-d", str(self.body), *headers, f"{self.scheme}://{self.replica.address}/{rls.SERVICE}/{rls.METHOD}"]

    async def counts(self) -> counters.Counts:
        """What it has counted since it began."""
        pages: list[str] = []

        async def looked() -> bool:
            status, page = await get(f"{self.replica.http}/metrics")
            pages.extend([page] if status == 200 else [])  # a machine that is busy may not answer at once
            return bool(pages)

        await until(looked, "/metrics answers")
        return counters.read(pages)


@asynccontextmanager
async def serve(folder: Path, engine: str, redis_url: str, **env: str) -> AsyncIterator[Service]:
    """Run a replica with the demo's rules, which waits for its store as long as a stall may take. Each has a tenant of its own."""
    body = folder / "request"
    body.write_bytes(framed(request("shop", [[Entry("tenant", folder.name)]]).SerializeToString()))
    settings = {**PATIENCE, "ENGINE": engine, "LOG_LEVEL": "error", **env}
    async with Replica(folder, rules=shipped("demo.yaml"), redis_url=redis_url, env=settings) as replica:
        yield Service(replica, engine, "https" if env else "http", body)


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    """What ENGINE is."""
    return str(request.param)


@pytest.fixture
async def service(engine, tmp_path, valkey_server) -> AsyncIterator[Service]:
    """A replica on each engine, in plaintext."""
    async with serve(tmp_path, engine, valkey_server.url) as one:
        yield one


async def run(program: str, *arguments: str) -> str:
    """Run a program of nghttp2's to its end, and return what it said."""
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, said.decode()
    return said.decode()
