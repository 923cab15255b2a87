"""`make sizing`: how much Redis a load takes, measured: bytes a window, bytes of append-only file and CPU a decision.

docs/redis.md has the formula that these numbers go into. The server is Valkey, and takes batches as the service writes them; its
CPU is what it says of itself (INFO), so that neither this client nor the other programs of the machine count.
"""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import redis

from ratelimit_svc.demo.parts import RedisServer, valkey
from ratelimit_svc.model import Charge, Line
from ratelimit_svc.store.redis import commands
from ratelimit_svc.store.redis.script import SCRIPT, SHA
from tests.bench.report import aligned
from tests.histories import MINUTE, START, bucket, charge, fixed

WINDOWS = 20_000
"""Kept at a time; each take below charges other ones in turn."""
DECISIONS = 40_000
"""Of which each figure of CPU is the mean."""
BATCHES = (1, 8, 32, 128)
LIMIT = 1_000_000
SLICES = (1, 6, 60)
"""How many slices of a window hold something: a tenant that comes rarely, now and then, all the time."""


def key(number: int) -> str:
    """A key as long as most: a tenant of one domain."""
    return f"{{tenant-{number:06}}}shop/tenant=tenant-{number:06}:s{MINUTE}"


def kinds(number: int) -> dict[str, Charge]:
    """One charge of each algorithm."""
    return {
        "sliding_window": charge(key(number), LIMIT),
        "fixed_window": fixed(key(number), LIMIT),
        "token_bucket": bucket(key(number), LIMIT, LIMIT),
    }


class Sizing:
    """A server, and takes on it at a time that is handed in."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        client.script_load(SCRIPT)

    def take(self, charges: Sequence[Charge], now: int) -> None:
        """Take a batch with a line for each charge."""
        lines = [Line((one,), 1) for one in charges]
        keys = [*(one.key for one in charges), b"receipt"]
        self.client.execute_command("EVALSHA", SHA, len(keys), *keys, commands.pack(lines, now=now))

    def info(self, section: str, *names: str) -> float:
        """The sum of what it says of itself."""
        said = self.client.info(section)
        return sum(float(said[name]) for name in names)

    def cpu_s(self) -> float:
        return self.info("cpu", "used_cpu_user", "used_cpu_sys")

    def fill(self, name: str, slices: int) -> float:
        """Charge all windows in so many slices; return the bytes each takes, its key and its place in the server's tables included."""
        self.client.flushall(asynchronous=False)
        for number in range(slices):
            now = START + number * MINUTE // 60
            for batch in _batches(WINDOWS, 128):
                self.take([kinds(one)[name] for one in batch], now)
        told = self.client.memory_stats()["db.0"]
        tables = told["overhead.hashtable.main"] + told["overhead.hashtable.expires"]
        some = [self.client.memory_usage(kinds(number)[name].key, samples=0) or 0 for number in range(0, WINDOWS, 100)]
        return sum(some) / len(some) + tables / WINDOWS

    def cost(self, name: str, size: int) -> tuple[float, float]:
        """Take batches of so many lines; return µs of CPU and bytes of append-only file a decision."""
        self.client.flushall(asynchronous=False)
        charges = [kinds(number)[name] for number in range(WINDOWS)]
        written, cpu_s = self.info("persistence", "aof_current_size"), self.cpu_s()
        for number, batch in enumerate(_batches(DECISIONS, size)):
            self.take([charges[one % WINDOWS] for one in batch], START + number * MINUTE * size // DECISIONS)
        done = len(range(0, DECISIONS, size)) * size
        written = self.info("persistence", "aof_current_size") - written
        return (self.cpu_s() - cpu_s) / done * 1e6, written / done


def _batches(number: int, size: int) -> Iterator[range]:
    return (range(first, first + size) for first in range(0, number, size))


def sizes(server: RedisServer) -> list[list[str]]:
    """Measure memory."""
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        sizing = Sizing(client)
        table = [["bytes a window", *(f"{slices} slices" for slices in SLICES)]]
        for name in kinds(0):
            several = SLICES if name == "sliding_window" else SLICES[:1]
            table.append([name, *(f"{sizing.fill(name, slices):.0f}" for slices in several)])
            table[-1] += [""] * (len(table[0]) - len(table[-1]))
        return table


def costs(server: RedisServer) -> list[list[str]]:
    """Measure CPU, and what is written to the append-only file."""
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        sizing = Sizing(client)
        table = [["µs of CPU a decision", *(f"batch of {size}" for size in BATCHES), "bytes of AOF, batch of 32"]]
        for name in kinds(0):
            each = {size: sizing.cost(name, size) for size in BATCHES}
            table.append([name, *(f"{cpu:.1f}" for cpu, _ in each.values()), f"{each[32][1]:.0f}"])
        return table


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        keep = ["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]
        async with valkey(Path(folder), append_only=True, args=keep) as server:
            print(aligned(await asyncio.to_thread(sizes, server)), end="\n\n")
            print(aligned(await asyncio.to_thread(costs, server)))


if __name__ == "__main__":
    asyncio.run(main())
