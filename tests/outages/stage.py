"""A store, replicas that each reach it through a proxy of their own, a load on them, and what is seen of it.

    async with stage(folder, replicas=2) as staged:
        async with staged.under_load("kill") as run:
            …
        assert run.findings(outage=True) == []

Rule 1: each load has tenants of its own, so scenarios that share a stage share no window.
Rule 2: a scenario leaves the stage as it was: the store up, the proxies healed, the replicas back at their store.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter

from ratelimit_svc.demo.child import Child, until
from ratelimit_svc.demo.parts import RedisServer, Replica, valkey
from tests.outages import judges
from tests.outages.calls import DOMAIN
from tests.outages.judges import Kept, Span
from tests.outages.load import Load
from tests.outages.looks import Look, Looks
from tests.outages.machine import Machine
from tests.outages.proxy import FaultProxy

LIMIT, WINDOW_S = 40, 2
"""Of each tenant: the busiest asks three times as much, most never reach it. Windows are short, so that tests see many."""
SETTLED_WITHIN_S = 10.0
STORE = "the store"
"""Its name among the processes that `Machine` watches."""


def rules(limit: int = LIMIT, *, window_s: int = WINDOW_S, slices: int = 60) -> str:
    """Return a rule file: each tenant so much in any window."""
    limited = f"{{requests_per_unit: {limit}, per: {window_s}s, slices: {slices}}}"
    return f"domain: {DOMAIN}\ntenant: tenant\ndescriptors: [{{key: tenant, rate_limit: {limited}}}]\n"


def write_rules(folder: Path, text: str) -> None:
    """Put a rule file into a folder, in one step: replicas watch it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".new").write_text(text)
    (folder / ".new").rename(folder / "rules.yaml")


@contextmanager
def stopped(child: Child) -> Iterator[None]:
    """Let a process hang: it refuses nothing, and answers nothing."""
    os.kill(child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(child.pid, signal.SIGCONT)


def empty(store: RedisServer) -> None:
    """Take from a store that is down all that it has kept."""
    shutil.rmtree(store.folder / "appendonlydir")


@dataclass(eq=False)
class Run:
    """A load on replicas, and what is seen of it."""

    store: RedisServer
    load: Load
    machine: Machine
    looks: Looks
    limit: int
    window_s: float
    back_s: float | None = None
    """When the store was back."""
    kept: list[Kept] = field(default_factory=list)
    """Of each replica that lived through it."""

    def back(self) -> None:
        """Note that the store is back now, and may be another process."""
        self.back_s = perf_counter()
        self.machine.watch(STORE, self.store.pid)

    def took(self, replica: str, from_s: float, until_s: float) -> float:
        """Return what the machine took from a replica and the store: neither can do without the other."""
        return sum(self.machine.took(name, from_s, until_s) for name in (replica, STORE))

    @property
    def by_store(self) -> list[Span]:
        """The stretches in which every decision was the store's."""
        return judges.by_store(self.looks.seen)

    @property
    def _kept(self) -> list[Span]:
        """The same, each before or after the store was back: it may have lost what it had."""
        at_s = self.back_s or 0.0
        return [part for span in self.by_store for part in judges.without(span, [(at_s, at_s)])]

    def findings(self, *, emptied: bool = False) -> list[str]:
        """Return what is wrong. `emptied`: the store has lost what it had, once."""
        calls, took = self.load.calls, self.machine.took
        most = judges.bound(self.limit, replicas=len(self.load.replicas), emptied=emptied)
        found = judges.late(calls, took) + judges.errors(calls, took)
        found += judges.overfull(calls, window_s=self.window_s, bound=most)
        for span in self._kept:
            found += judges.overfull(judges.within(calls, span), window_s=self.window_s, bound=self.limit)
        if self.back_s is not None:
            found += judges.slow(self.looks.seen, self.took, back_s=self.back_s)
        return found + judges.left_behind(self.kept)


@dataclass(eq=False)
class Stage:
    """What is put together."""

    folder: Path
    replicas: Sequence[Replica]
    store: RedisServer
    proxies: Mapping[str, FaultProxy] = field(default_factory=dict)
    """By the replica's name."""
    limit: int = LIMIT
    window_s: int = WINDOW_S

    @asynccontextmanager
    async def under_load(
        self, name: str, *, rate: int = 600, every_s: float = 0.1, seed: int = 1, weigh: bool = True
    ) -> AsyncIterator[Run]:
        """Ask all replicas for as long as the context lasts; then wait until they are as they were, as long as that may take.

        Args:
            name: the tenants' names begin with it.
            rate: calls a second.
            every_s: how often replicas are looked at.
            seed: of the load.
            weigh: look at what is left behind.
        """
        pids = {one.name: one.pid for one in self.replicas}
        async with Looks(self.replicas, every_s=every_s) as looks:
            before = [await looks.now(one) for one in self.replicas]
            watched = pids | ({STORE: self.store.pid} if self.store.running else {})
            async with Machine(watched) as machine, Load(self.replicas, rate=rate, name=name, seed=seed) as load:
                run = Run(self.store, load, machine, looks, self.limit, self.window_s)
                yield run
            for one in before if weigh else ():
                (replica,) = (each for each in self.replicas if each.name == one.replica)
                if replica.running and replica.pid == pids[replica.name]:
                    run.kept.append(Kept(one, await self._settled(looks, replica, one)))

    async def heal(self) -> None:
        """End all faults of the proxies."""
        for proxy in self.proxies.values():
            await proxy.heal()

    async def at_store(self) -> None:
        """Wait until every replica is at its store."""
        for replica in self.replicas:
            await until(partial(_up, replica), f"{replica.name} is at its store")

    async def _settled(self, looks: Looks, replica: Replica, before: Look) -> Look:
        """Look at a replica until it holds no more than it did, or for long enough."""
        give_up_s = perf_counter() + SETTLED_WITHIN_S
        while True:
            after = await looks.now(replica)
            if not judges.left_behind([Kept(before, after)]) or perf_counter() > give_up_s:
                return after
            await asyncio.sleep(0.05)


async def _up(replica: Replica) -> bool:
    return await replica.metric("ratelimit_svc_store_up") == 1


@asynccontextmanager
async def stage(
    folder: Path,
    *,
    replicas: int = 2,
    limit: int = LIMIT,
    window_s: int = WINDOW_S,
    make_store: Callable[..., RedisServer] = valkey,
    env: Mapping[str, str] | None = None,
    store_runs: bool = True,
) -> AsyncIterator[Stage]:
    """Start a store that keeps what it has answered, and replicas that reach it through proxies."""
    write_rules(folder, rules(limit, window_s=window_s))
    async with AsyncExitStack() as stack:
        store = make_store(folder / "store", append_only=True)
        stack.push_async_callback(store.stop)
        if store_runs:
            await store.start()
        proxies, made = {}, []
        for number in range(replicas):
            name = f"replica-{number}"
            proxies[name] = await stack.enter_async_context(FaultProxy(store.port, seed=number))
            made.append(replica_at(folder, name, f"redis://127.0.0.1:{proxies[name].port}", replicas, env))
        await start_all(stack, made)
        yield Stage(folder, made, store, proxies, limit, window_s)


def replica_at(folder: Path, name: str, url: str, replicas: int, env: Mapping[str, str] | None = None) -> Replica:
    """Return a replica of so many, with its own copy of the rules, as if by its own volume."""
    own = folder / name
    write_rules(own, (folder / "rules.yaml").read_text())
    settings = {"REPLICAS": str(replicas), "DENIAL_LOG_INTERVAL": "0s"} | dict(env or {})
    return Replica(own, rules=own / "rules.yaml", redis_url=url, env=settings, name=name)


async def start_all(stack: AsyncExitStack, replicas: Sequence[Replica]) -> None:
    """Start replicas side by side, and stop them with the stack."""
    for replica in replicas:
        stack.push_async_callback(replica.stop)
    async with asyncio.TaskGroup() as starting:
        for replica in replicas:
            starting.create_task(replica.start(within=60))
