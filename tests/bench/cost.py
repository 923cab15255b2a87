"""What a process has used, by Linux's own books, and what a Redis was told to do.

Rule 1: a server is its whole tree of processes: one that forks workers is not cheaper for it.
Rule 2: nobody is asked in between. Both are read before and after, never while it is measured.
"""

import os
import re
from collections import Counter
from pathlib import Path

from redis import Redis

from ratelimit_svc.demo.parts import RedisServer

PROC = Path("/proc")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
"""100: over 5 s of a busy core a tick is 0.2 %."""
OURS = {"info", "select", "hello", "client"}
"""What the bench itself tells Redis, and what clients say when they connect."""


def tree(pid: int) -> list[int]:
    """Return a process and all that it has started, and so on."""
    everybody = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]
    parents = {one: int(fields[1]) for one in everybody if (fields := _stat(one))}
    found = [pid]
    for one in found:  # grows as it goes
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU, user and system, that a tree has used; also those of its children that are gone."""
    return sum(sum(map(int, _stat(one)[11:15])) for one in tree(pid)) / TICKS_A_SECOND


def core_s(core: int) -> float:
    """Return the seconds in which a core was not idle since the machine's start, also those that a hypervisor took."""
    (line,) = re.findall(rf"^cpu{core} (.*)$", (PROC / "stat").read_text(), re.MULTILINE)
    user, nice, system, _idle, _iowait, *rest = map(int, line.split())
    return (user + nice + system + sum(rest[:3])) / TICKS_A_SECOND  # after steal come guests, which are in user already


def memory_mb(pid: int) -> float:
    """Return a tree's resident memory now."""
    return _status(pid, "VmRSS")


def peak_memory_mb(pid: int) -> float:
    """Return the most resident memory that each of a tree's processes has had, summed."""
    return _status(pid, "VmHWM")


def open_files(pid: int) -> int:
    """Return how many file descriptors a tree has open."""
    return sum(len(os.listdir(PROC / str(one) / "fd")) for one in tree(pid))  # noqa: PTH208 - names are enough


def commands(server: RedisServer) -> Counter[str]:
    """Return how often each command was run, also by scripts, without what the bench itself said."""
    with Redis(host="127.0.0.1", port=server.port) as client:
        stats = client.info("commandstats")
    assert isinstance(stats, dict)
    counts = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
    return Counter({name: calls for name, calls in counts.items() if name.partition("|")[0] not in OURS})


def version(server: RedisServer) -> str:
    """Return what the server is, and which."""
    with Redis(host="127.0.0.1", port=server.port) as client:
        told = client.info("server")
    assert isinstance(told, dict)
    return f"{told.get('server_name', 'redis')} {told.get('valkey_version', told['redis_version'])}"


def _stat(pid: int) -> list[str]:
    """Return the fields of proc(5)'s stat that come after the name, which may hold anything; none of who is gone."""
    return _read(pid, "stat").rpartition(")")[2].split()


def _status(pid: int, name: str) -> float:
    pages = [_read(one, "status") for one in tree(pid)]
    return sum(int(kb) for page in pages for kb in re.findall(rf"^{name}:\s+(\d+) kB", page, re.MULTILINE)) / 1024


def _read(pid: int, name: str) -> str:
    """Return a page of a process; nothing if it has gone meanwhile."""
    try:
        return (PROC / str(pid) / name).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
