"""A server on a core of its own, with a Redis of its own beside the load.

Engines of ours and peers are the same thing here: a command that takes its settings from the environment, in the words of
the reference implementation, of which each server takes what it knows.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ratelimit_svc.demo.child import Child, ChildError, free_port
from ratelimit_svc.demo.parts import LOOPBACK, RedisServer, get
from ratelimit_svc.settings import TABLE
from tests.bench.load import answers
from tests.bench.workloads import RULES

POLICY_DECISIONS = "ratelimit_svc_policy_decisions_total"
DEFAULT_ENGINE = next(setting.default for setting in TABLE if setting.variable == "ENGINE")


@dataclass(frozen=True)
class Contender:
    """One of those that are compared."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Beside the settings that all get."""

    @property
    def shown(self) -> str:
        """The command without the folders of this machine."""
        return " ".join(Path(word).name for word in self.command)


def engine(name: str) -> Contender:
    """Return this project's service with an engine."""
    return Contender(name, (sys.executable, "-m", "ratelimit_svc", "serve"), {"ENGINE": name})


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


def add_contender(parser: argparse.ArgumentParser) -> None:
    """Let a command take one server: an engine of ours, or a peer."""
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--engine", default=DEFAULT_ENGINE, metavar="NAME", help=f"of ours [{DEFAULT_ENGINE}]")
    one.add_argument("--peer", type=peer, metavar="NAME=COMMAND", help="a server in its place")


def chosen(arguments: argparse.Namespace) -> Contender:
    """Return that server."""
    return arguments.peer or engine(arguments.engine)


class Server(Child):
    """A contender that runs, on one core. Ready when it has answered a request."""

    def __init__(self, contender: Contender, redis: RedisServer, *, folder: Path, core: int) -> None:
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
            "REDIS_URL": redis.address,
            "RUNTIME_ROOT": str(folder / "runtime"),
            "RUNTIME_SUBDIRECTORY": "ratelimit",
            "RUNTIME_WATCH_ROOT": "false",
            "USE_STATSD": "false",
            "DISABLE_STATS": "true",
            "LOG_LEVEL": "error",
            "DRAIN_DELAY": "0s",
            "STORE_TIMEOUT": "5s",  # ours: every decision is to be Redis's, however slow it gets under this load
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
        _, page = await get(f"http://{LOOPBACK}:{self.http_port}/metrics")
        return decided_by_policy(page)


def decided_by_policy(page: str) -> float:
    """Read it from a page of metrics. Ours counts it; a peer knows no such thing, and may answer anything."""
    if POLICY_DECISIONS not in page:
        return 0
    samples = [one for family in text_string_to_metric_families(page) for one in family.samples]
    return sum(one.value for one in samples if one.name == POLICY_DECISIONS)


def _taskset() -> str:
    """Before the server, not after: threads that it has started by then would stay where they are."""
    if found := shutil.which("taskset"):
        return found
    raise ChildError("there is no taskset here: it comes with util-linux")
