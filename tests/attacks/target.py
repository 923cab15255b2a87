"""What is attacked: a replica of its own, an honest client of it, and what both say of each attack."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from ratelimit_svc.demo.parts import Replica
from tests.attacks.offender import Offender
from tests.bench.cost import memory_mb

RULES = "domain: shop\ntenant: tenant\ndescriptors: [{key: tenant, rate_limit: {unit: hour, requests_per_unit: 4000000000}}]\n"

MOST_CPU_S, MOST_MB, MOST_P99_S = 1.5, 60.0, 0.5
"""What any attack may cost: seconds of the server's CPU, memory that it holds at the end, and what the honest client sees; all as
much as a machine that many share may add. What each really costs is in the report."""


FILES = 400
"""That a replica may open which has few."""


class WithFewFiles(Replica):
    """A replica that may open few files, and may not allow itself more."""

    def __init__(self, folder, **options) -> None:
        super().__init__(folder, **options)
        self._argv = ["/bin/sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh", *self._argv]


@dataclass
class Figures:
    """Of one attack."""

    name: str
    frames: int = 0
    bytes: int = 0
    got: str = ""
    """What became of the offender."""
    cpu_s: float = 0
    memory_mb: float = 0
    honest: dict[str, float] = field(default_factory=dict)
    most_memory_mb: float = MOST_MB

    def note(self, *offenders: Offender, frame_bytes: int = 0) -> None:
        """Add what was sent, and take down what the last offender got."""
        for offender in offenders:
            self.bytes += offender.sent
            self.frames += offender.sent // frame_bytes if frame_bytes else 0
            self.got = offender.got

    def row(self) -> str:
        """One line of the table."""
        cells = (
            self.name,
            f"{self.frames:,}" if self.frames else "",
            f"{self.bytes / 1000:,.0f}",
            self.got,
            f"{self.cpu_s * 1000:.0f}",
            f"{self.memory_mb:+.1f}",
            f"{self.honest['asked']:.0f}",
            *(f"{self.honest[name] * 1000:.1f}" for name in ("p50", "p99", "max")),
        )
        return "| " + " | ".join(cells) + " |"


HEADING = (
    "| attack | frames | kB sent | the offender gets | CPU ms | memory MB | honest asks | p50 ms | p99 ms | max ms |\n"
    "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|"
)


QUIET_S = 0.04
"""How long the server is looked at before it is said to be quiet."""
GONE_WITHIN_S = 15.0
"""How long what offenders leave behind may be there: a second more than what waits longest for what is to come."""


class Target:
    """A running replica and its honest client."""

    def __init__(self, replica: Replica, log: Path) -> None:
        self.replica = replica
        self.port = replica.grpc_port
        self.figures: list[Figures] = []
        argv = [sys.executable, "-m", "tests.attacks.honest", str(self.port)]
        with log.open("w") as errors:
            self._honest = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._log = log
        self.honest()

    def close(self) -> None:
        """End the honest client."""
        self._honest.communicate(timeout=10)

    def honest(self) -> dict[str, float]:
        """What the honest client has seen since it was last asked."""
        assert self._honest.stdin is not None
        assert self._honest.stdout is not None
        self._honest.stdin.write("\n")
        self._honest.stdin.flush()
        line = self._honest.stdout.readline()
        assert line, f"the honest client was not served: {self._log.read_text()}"
        found: dict[str, float] = json.loads(line)
        return found

    def until_alone(self) -> None:
        """Wait until the server says that it has the honest client and nobody else."""
        until = time.monotonic() + GONE_WITHIN_S
        while (left := self._left()) > (1, 1):
            assert time.monotonic() < until, f"{left} connections and calls are left"
            time.sleep(QUIET_S)

    def _left(self) -> tuple[int, int]:
        """Connections, and calls under way, as the server counts them."""
        with urlopen(f"{self.replica.http}/metrics", timeout=10) as page:
            text = page.read().decode()
        found = dict(re.findall(r"^ratelimit_svc_grpc_(connections|calls) (\S+)$", text, re.MULTILINE))
        return int(float(found["connections"])), int(float(found["calls"]))

    def _until_quiet(self, pid: int) -> None:
        """Wait until the server has seen to what was sent: the honest client alone takes a tenth of its time."""
        for _ in range(20):
            begun_s = cpu_s(pid)
            time.sleep(QUIET_S)
            if cpu_s(pid) - begun_s < QUIET_S / 4:
                return

    @contextmanager
    def under(self, name: str) -> Iterator[Figures]:
        """Measure an attack, and hold it to what any may cost."""
        figures = Figures(name)
        assert self.replica.pid is not None
        pid = self.replica.pid
        self.honest()
        begun_s, memory = cpu_s(pid), memory_mb(pid)
        yield figures
        self._until_quiet(pid)
        figures.honest = self.honest()
        figures.cpu_s, figures.memory_mb = cpu_s(pid) - begun_s, memory_mb(pid) - memory
        self.figures.append(figures)
        assert self.replica.running
        assert figures.cpu_s < MOST_CPU_S
        assert figures.memory_mb < figures.most_memory_mb
        assert figures.honest["p99"] < MOST_P99_S


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used, to the microsecond: `stat` counts in hundredths."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
