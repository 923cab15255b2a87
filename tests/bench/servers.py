"""A server on a core of its own, with a Redis of its own beside the load.

Engines of ours and peers are the same thing here: a command that takes its settings from the environment, in the words of
the reference implementation, of which each server takes what it knows.
"""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ratelimit_svc.demo.child import Child, ChildError, free_port
from ratelimit_svc.demo.parts import LOOPBACK, RedisServer, get
from ratelimit_svc.settings import TABLE
from tests.bench.load import answers
from tests.bench.workloads import RULES

POLICY_DECISIONS, CALLS = "ratelimit_svc_policy_decisions_total", "ratelimit_svc_grpc_calls"
DEFAULT_ENGINE = next(setting.default for setting in TABLE if setting.variable == "ENGINE")


@dataclass(frozen=True)
class Contender:
    """One of those that are compared."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Beside the settings that all get."""
    cluster: bool = False
    """Whether it gets a Cluster of three primaries in place of one Redis."""

    @property
    def shown(self) -> str:
        """The command without the folders of this machine."""
        return " ".join(Path(word).name for word in self.command)


def engine(name: str) -> Contender:
    """Return this project's service with an engine."""
    return Contender(name, (sys.executable, "-m", "ratelimit_svc", "serve"), {"ENGINE": name})


def engine_with_cluster() -> Contender:
    """Return this project's service, which keeps its windows in a Cluster."""
    return replace(engine(DEFAULT_ENGINE), name="cluster", cluster=True)


def peer(text: str) -> Contender:
    """Return what `NAME=COMMAND` says.

    Raises:
        ValueError: it does not.
    """
    name, _, command = text.partition("=")
    words = tuple(shlex.split(command))
    if not name or not words:
        raise ValueError(f"{text!r}: must be NAME=COMMAND")
    return Contender(name, words)


class Server(Child):
    """A contender that runs, on one core. Ready when it has answered a request."""

    def __init__(self, contender: Contender, redis: Sequence[RedisServer], *, folder: Path, core: int) -> None:
        self.port = free_port()
        self.http_port = free_port()
        env = {
            "HOST": LOOPBACK,
            "PORT": str(self.http_port),
            "GRPC_HOST": LOOPBACK,
            "GRPC_PORT": str(self.port),
            "DEBUG_HOST": LOOPBACK,
            "DEBUG_PORT": str(free_port()),
            "REDIS_SOCKET_TYPE": "tcp",
            "REDIS_TYPE": "cluster" if contender.cluster else "single",
            "REDIS_URL": ",".join(server.address for server in redis),
            "RUNTIME_ROOT": str(folder / "runtime"),
            "RUNTIME_SUBDIRECTORY": "ratelimit",
            "RUNTIME_WATCH_ROOT": "false",
            "USE_STATSD": "false",
            "DISABLE_STATS": "true",
            "LOG_LEVEL": "error",
            "DRAIN_DELAY": "0s",
            "STORE_TIMEOUT": "5s",  # ours: every decision is to be Redis's, however slow it gets under this load
            "LOOP_LAG": "0s",  # likewise: none is shed
            "QUEUE_AGE": "10s",
        }
        argv = [_taskset(), "--cpu-list", str(core), *contender.command]
        super().__init__(contender.name, argv, folder=folder, env=env | dict(contender.env))

    async def start(self, *, within: float = 20) -> None:
        """Start it with the bench's rules in place."""
        rules = self.folder / "runtime" / "ratelimit" / "config"
        rules.mkdir(parents=True, exist_ok=True)
        shutil.copy(RULES, rules)
        await super().start(within=within)

    async def ready(self) -> bool:
        """A request is answered."""
        return await answers(self.port)

    async def by_policy(self) -> float:
        """How many requests were decided without the store, as far as it says so."""
        return metric(await self._metrics(), POLICY_DECISIONS)

    async def calls(self) -> int:
        """How many calls are under way, as far as it says so."""
        return int(metric(await self._metrics(), CALLS))

    async def _metrics(self) -> str:
        _, page = await get(f"http://{LOOPBACK}:{self.http_port}/metrics")
        return page


def metric(page: str, name: str) -> float:
    """Read one of our own metrics from a page of them. A peer knows no such thing, and may answer anything: that is 0."""
    if name not in page:
        return 0
    samples = [one for family in text_string_to_metric_families(page) for one in family.samples]
    return sum(one.value for one in samples if one.name == name)


def _taskset() -> str:
    """Before the server, not after: threads that it has started by then would stay where they are."""
    if found := shutil.which("taskset"):
        return found
    raise ChildError("there is no taskset here: it comes with util-linux")
