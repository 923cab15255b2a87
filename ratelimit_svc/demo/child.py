"""One child process: started, polled until it is really ready, stopped, never left behind.

Three things end a child: `stop`, the end of its `async with`, and the death of this process however it dies (Linux tells
the kernel so; elsewhere the first two must do). A child runs in its own folder, so that whatever is left of it can be
found by its working directory, and writes to one log there, whose end is shown when a start fails.

What it does not know: what the children are (`parts`).
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

POLL_S = 0.02
"""How often a state is looked at while it is waited for."""

_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
# A program before the program, where `preexec_fn` would be shorter: that forks our own memory and threads, and Python
# warns of it since 3.12. 1 is PR_SET_PDEATHSIG; it survives execv. The second look is for a parent that died before the first.

_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
"""What a child sees of our environment. Not all: a developer's own REDIS_URL or PORT must not steer it."""


class ChildError(Exception):
    """A child did not start, or ended on its own; the text has the end of its log."""


async def until(condition: Callable[[], Awaitable[bool]], what: str, *, within: float = 15) -> None:
    """Wait for a state by looking at it, at most `within` seconds; TimeoutError says `what` did not happen."""
    deadline = time.monotonic() + within
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what}")
        await asyncio.sleep(POLL_S)


def free_port(*, second: int = 0) -> int:
    """Return a loopback TCP port that nobody else who asks here gets while this process lives.

    Below the ephemeral range: there, any outgoing connection may take a port between our look and the child's bind.
    The reservation is the UDP port of the same number, which no child wants, and which the kernel frees when we die.

    Args:
        second: the child takes the port so many above, too: it is free as well, and likewise reserved.
    """
    for port in random.sample(range(12_000, 32_000 - second), k=200):
        if _reserved(port) and (not second or _reserved(port + second)):
            return port
    raise ChildError("no free port on 127.0.0.1 between 12000 and 32000")


def _reserved(port: int) -> bool:
    reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        reservation.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)):
            reservation.detach()  # stays open without an owner
            return True
    except OSError:
        reservation.close()
        return False


class Child(ABC):
    """One process, of which `ready` knows when it can be used. Start it by `async with`, or `start` and `stop`."""

    def __init__(
        self, name: str, argv: Sequence[str | Path], *, folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._argv = [str(arg) for arg in argv]
        self._env = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ} | dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process and self.running else "not running"
        return f"<{self.name}: {state}>"

    @abstractmethod
    async def ready(self) -> bool:
        """Say whether it can be used now; never raises for a process that is not there yet."""

    @property
    def running(self) -> bool:
        """Started, and not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise ChildError(f"{self.name} was not started")
        return self._process.pid

    async def start(self, *, within: float = 20) -> None:
        """Start it and wait until it is ready; on failure nothing is left, and ChildError shows the end of the log."""
        if self.running:
            raise ChildError(f"{self.name} is running already")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._spawn()
        try:
            await until(self._ready_or_ended, f"{self.name} is ready", within=within)
        except BaseException as why:
            await self.kill()
            if isinstance(why, TimeoutError):
                raise ChildError(f"{why}\n{self.tail()}") from why
            raise

    def _spawn(self) -> None:
        shim = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*shim, *self._argv],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we then stop the children in order
            )

    async def _ready_or_ended(self) -> bool:
        if not self.running:
            assert self._process is not None
            raise ChildError(
                f"{self.name} ended with status {self._process.returncode} before it was ready\n{self.tail()}"
            )
        return await self.ready()

    async def stop(self, *, within: float = 10) -> None:
        """Ask it to end (SIGTERM); kill it if it has not after `within` seconds."""
        if self._process is not None and self.running:
            self._process.terminate()
            try:
                await until(self._ended, f"{self.name} ends", within=within)
            except TimeoutError:
                await self.kill()

    async def kill(self) -> None:
        """End it as a crash would (SIGKILL) and wait until it is gone."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGKILL)
            await until(self._ended, f"{self.name} is gone")

    async def _ended(self) -> bool:
        return not self.running

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log, with the log's name."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return "\n".join([f"--- the end of {self.log}:", *text])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
