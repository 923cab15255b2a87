"""A whole replica whose rules come from an xDS server: when it listens, when it is ready, and what it answers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import Replica, get
from ratelimit_svc.model import Entry
from ratelimit_svc.pb.envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from ratelimit_svc.wire.calls import CallError
from ratelimit_svc.wire.client import Client, request
from tests.logged import log_of
from tests.waiting import PATIENCE
from tests.xds.ads import Listening, config, listening

NO_CONFIG = "UNKNOWN: no rate limit configuration loaded"
SOON = {
    "CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL": "100ms",
    "XDS_CLIENT_BACKOFF_INITIAL_INTERVAL": "100ms",
    "XDS_CLIENT_BACKOFF_MAX_INTERVAL": "200ms",
}


@pytest.fixture
async def server() -> AsyncIterator[Listening]:
    async with listening() as made:
        yield made


@asynccontextmanager
async def replica(folder: Path, server: Listening, **env: str) -> AsyncIterator[Replica]:
    """A replica that is started, and not waited for."""
    settings = PATIENCE | {
        "CONFIG_TYPE": "GRPC_XDS_SOTW",
        "CONFIG_GRPC_XDS_SERVER_URL": server.url,
        "CONFIG_GRPC_XDS_NODE_ID": "envoy-ratelimit",
        "LOG_FORMAT": "json",
        **SOON,
    }
    made = Replica(folder / "replica", rules=folder / "none", env=settings | env)
    made.folder.mkdir()
    made._spawn()
    try:
        yield made
    finally:
        await made.stop()


async def ask(replica: Replica, domain: str = "shop") -> RateLimitResponse:
    def call() -> RateLimitResponse:
        with Client(replica.address, timeout_s=30) as client:
            return client.ask(request(domain, [[Entry("k", "a")]]))

    return await asyncio.to_thread(call)


async def limit_of(replica: Replica) -> int:
    return int((await ask(replica)).statuses[0].current_limit.requests_per_unit)


async def health(replica: Replica) -> tuple[int, str]:
    return await get(f"{replica.http}/healthcheck")


async def detail(replica: Replica) -> Mapping[str, Any]:
    told: Mapping[str, Any] = json.loads((await get(f"{replica.http}/healthcheck?verbose"))[1])
    return told


async def until_it_listens(replica: Replica) -> None:
    async def listens() -> bool:
        return (await get(f"{replica.http}/healthcheck"))[0] in {200, 500}

    await until(listens, "it listens", within=60)


async def test_as_envoy_gateway_starts_it(tmp_path: Path, server: Listening) -> None:
    """Healthy before any rules, with the reference's error; then each update changes the next answer, and a bad one nothing."""
    async with replica(tmp_path, server, FORCE_START_WITHOUT_INITIAL_CONFIG="true") as ours:
        talk = await server.ads.stream()
        assert (await talk.heard()).node.id == "envoy-ratelimit"
        await until_it_listens(ours)
        assert await health(ours) == (200, "OK")
        with pytest.raises(CallError, match=NO_CONFIG):
            await ask(ours)

        await talk.say("1", config("shop", "shop", limit=3))
        assert (await talk.heard()).version_info == "1"
        assert await limit_of(ours) == 3
        await talk.say("2", config("shop", "shop", limit=5))
        assert (await talk.heard()).version_info == "2"
        assert await limit_of(ours) == 5

        await talk.say("3", config("shop", "shop", limit=7, unit="UNKNOWN"))
        nack = await talk.heard()
        assert nack.error_detail.message.startswith("shop: descriptors[0].rate_limit.unit: ")
        told = await detail(ours)
        assert (told["xds"]["connected"], told["xds"]["version"]) == (True, "2")
        assert (told["xds"]["refused"]["version"], told["xds"]["refused"]["reason"]) == (
            "3",
            nack.error_detail.message,
        )
        assert told["rules"]["findings"] == [nack.error_detail.message]
        assert await ours.metric("ratelimit_svc_rules_loads_total", result="failed") == 1
        assert await ours.metric("ratelimit_svc_xds_connected") == 1
        assert await limit_of(ours) == 5
        assert await health(ours) == (200, "OK")

        await talk.say("4")
        assert (await talk.heard()).version_info == "4"
        assert not (await ask(ours)).statuses[0].HasField("current_limit")
        assert await health(ours) == (200, "OK")


async def test_rules_outlive_their_server(tmp_path: Path, server: Listening) -> None:
    """While the server is away, the last rules hold; it is told once, and shown."""
    async with replica(tmp_path, server) as ours:
        talk = await server.ads.opened()
        await talk.say("1", config("shop", "shop", limit=3))
        await talk.heard()
        await until_it_listens(ours)
        await server.stop()

        async def away() -> bool:
            return not (await detail(ours))["xds"]["connected"]

        await until(away, "it notices", within=60)
        assert await limit_of(ours) == 3
        assert await health(ours) == (200, "OK")
        assert (await detail(ours))["xds"]["reason"] != ""
        async with listening(port=server.port) as back:
            talk = await back.ads.opened()
            await talk.say("1", config("shop", "shop", limit=4))
            await talk.heard()
            assert await limit_of(ours) == 4
            assert await ours.metric("ratelimit_svc_xds_streams_total") >= 2


async def test_it_listens_no_sooner_than_something_is_known(tmp_path: Path, server: Listening) -> None:
    """Without FORCE_START_WITHOUT_INITIAL_CONFIG, nothing listens before the server has answered; then it is ready."""
    async with replica(tmp_path, server) as ours:
        talk = await server.ads.opened()
        assert await health(ours) == (0, "")
        await talk.say("1", config("shop", "shop", limit=3))
        await until_it_listens(ours)
        assert await health(ours) == (200, "OK")
        assert await limit_of(ours) == 3
        events = [line["@message"] for line in log_of(ours)]
        assert events.index("rules loaded") < events.index("listening")


async def test_bad_first_rules_are_an_answer_too(tmp_path: Path, server: Listening) -> None:
    """It listens then, and is unready until there are good ones."""
    async with replica(tmp_path, server) as ours:
        talk = await server.ads.opened()
        await talk.say("1", config("shop", "shop", limit=3, unit="UNKNOWN"))
        assert (await talk.heard()).error_detail.code == 3
        await until_it_listens(ours)
        assert await health(ours) == (500, "no rules loaded")
        await talk.say("2", config("shop", "shop", limit=3))
        await talk.heard()
        assert await health(ours) == (200, "OK")


async def test_it_can_be_unready_without_rules(tmp_path: Path, server: Listening) -> None:
    """HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED: also where it starts without, and again when the server takes all away."""
    flags = {"FORCE_START_WITHOUT_INITIAL_CONFIG": "true", "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED": "true"}
    async with replica(tmp_path, server, **flags) as ours:
        talk = await server.ads.opened()
        await until_it_listens(ours)
        assert await health(ours) == (500, "no rules loaded")
        await talk.say("1", config("shop", "shop", limit=3))
        await talk.heard()
        assert await health(ours) == (200, "OK")
        await talk.say("2")
        await talk.heard()
        assert await health(ours) == (500, "no rules loaded")


async def test_it_ends_while_it_waits_for_a_server(tmp_path: Path, server: Listening) -> None:
    """A replica that listens to nobody yet hears signals: Kubernetes need not kill it."""
    await server.stop()
    async with replica(tmp_path, server) as ours:

        async def told() -> bool:
            return any(line["@message"] == "xDS server is away" for line in log_of(ours))

        await until(told, "it says that there is no server", within=60)
        os.kill(ours.pid, signal.SIGTERM)

        async def is_over() -> bool:
            return not ours.running

        await until(is_over, "it ends")
        assert ours._process is not None
        assert ours._process.returncode == 0
        (line,) = [line for line in log_of(ours) if line["@message"] == "xDS server is away"]
        assert line["kept"] == "there are none yet: each request gets an error"


async def test_files_can_start_without_rules_too(tmp_path: Path) -> None:
    """FORCE_START_WITHOUT_INITIAL_CONFIG is not of xDS alone: a folder that is still empty makes nobody unready then."""
    env = {"FORCE_START_WITHOUT_INITIAL_CONFIG": "true"}
    async with Replica(tmp_path / "replica", rules=tmp_path / "none", env=env) as ours:
        assert await health(ours) == (200, "OK")
        with pytest.raises(CallError, match=NO_CONFIG):
            await ask(ours)
        assert (await detail(ours))["xds"] is None


def test_the_client_is_not_there_for_files() -> None:
    """Who reads files does not pay for what asks a server."""
    code = "import sys, ratelimit_svc.server; sys.exit('ratelimit_svc.xds.client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_kind_of_configuration_is_refused() -> None:
    """CONFIG_TYPE is one of two; the process says so and does not start."""
    env = {"PATH": os.environ["PATH"], "CONFIG_TYPE": "GRPC_XDS_DELTA"}
    command = [sys.executable, "-m", "ratelimit_svc", "serve"]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "CONFIG_TYPE='GRPC_XDS_DELTA': must be one of FILE, GRPC_XDS_SOTW" in run.stderr
