"""A chaos run: five replicas, a hundred tenants, one store, and a schedule of everything that may go wrong.

Rule 1: one seed, one schedule. When exactly each thing happens on a machine is noted, and judged by that.
Rule 2: what is true at any time is judged over all of the run: answers in time, no errors, no window over its bound. What is true
        in good times is judged where every decision was the store's.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from redis.asyncio import Redis

from ratelimit_svc.demo.parts import LOOPBACK, Replica
from tests.outages import judges
from tests.outages.calls import Call
from tests.outages.judges import Span
from tests.outages.load import TENANTS
from tests.outages.looks import Look
from tests.outages.proxy import FaultProxy, Way
from tests.outages.schedule import Fault, Kind, lanes
from tests.outages.stage import LIMIT, STORE, WINDOW_S, Run, Stage, rules, stage, write_rules

REPLICAS, RATE = 5, 800
EVERY_S = 0.2
"""How often each replica is looked at; the page takes it some ms."""
ALONE_S = 1.6
"""How long a replica has nothing else in its way, so that it can be judged how it gets back to its store."""
RELOADED_S = 1.0 + WINDOW_S
"""After so long a rule file that was changed back is in force, and nothing of what it let pass before is in any window."""
TAKES_STORE = frozenset(Kind) - {Kind.RULES, Kind.FLUSH, Kind.CRASH}
"""What keeps a replica that lives from its store."""


class Happened(NamedTuple):
    """A fault, and when it was; by `perf_counter`."""

    fault: Fault
    from_s: float
    until_s: float


class Verdict(NamedTuple):
    """One invariant."""

    name: str
    judged: str
    """What it was judged by."""
    findings: Sequence[str]


@dataclass(eq=False)
class Outcome:
    """What a run was."""

    seed: int
    seconds: float
    run: Run
    happened: list[Happened] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        """All, as they were sent."""
        return self.run.load.calls

    @property
    def looks(self) -> list[Look]:
        """What replicas said of themselves."""
        return self.run.looks.seen

    @property
    def killed(self) -> set[str]:
        """Replicas that were."""
        return {_name(one.fault.replica) for one in self.happened if one.fault.kind is Kind.CRASH}

    @property
    def excused(self) -> int:
        """Answers that were later than their deadlines, and not by more than the machine took."""
        late = [one for one in self.calls if one.answered_s and one.answered_s - one.sent_s > one.timeout_s]
        return len(late) - len(judges.late(late, self.run.machine.took))

    def verdicts(self) -> list[Verdict]:
        """Judge it."""
        took, calls = self.run.machine.took, self.calls
        alike, differing = self._fullest()
        stretches = self.run.by_store
        good_s = sum(until_s - from_s for from_s, until_s in stretches)
        recoveries = self._recoveries()
        return [
            Verdict("every answer before its deadline", f"{len(calls):,} calls", judges.late(calls, took)),
            Verdict("no error", f"{len(calls):,} calls", judges.errors(calls, took, killed=self.killed)),
            Verdict(
                f"no window over {self._most(LIMIT)}, or {self._most(2 * LIMIT)} while rules differ",
                f"{TENANTS} tenants; the fullest held {alike}, or {differing}",
                self._overfull([self._whole()], self._most),
            ),
            Verdict(
                f"none over {LIMIT}, or {2 * LIMIT} while rules differ, where the store decides",
                f"{good_s:.0f} s in {len(stretches)} stretches",
                self._overfull(stretches, lambda limit: limit),
            ),
            Verdict(
                "the store decides again within a second",
                f"{len(recoveries)} times that a replica got its store back",
                [one for looks, back_s in recoveries for one in judges.slow(looks, self.run.took, back_s=back_s)],
            ),
            Verdict("nothing is left behind", f"{len(self.run.kept)} replicas", judges.left_behind(self.run.kept)),
        ]

    def _most(self, limit: int) -> int:
        """Return an outage's bound: a replica that was killed forgets what it let pass, and may let its share pass again."""
        return judges.bound(limit, replicas=REPLICAS) + bool(self.killed) * ceil(limit / REPLICAS)

    def _whole(self) -> Span:
        return self.run.load.began_s, perf_counter()

    def _alike(self, span: Span) -> list[Span]:
        """Return the parts of a stretch in which all replicas had the same rules."""
        differ = [(one.from_s, one.until_s + RELOADED_S) for one in self.happened if one.fault.kind is Kind.RULES]
        return judges.without(span, differ)

    def _fullest(self) -> tuple[int, int]:
        """Return what the fullest window held while all replicas had the same rules, and at any time."""
        whole = self._whole()
        alike = [judges.fullest(judges.within(self.calls, part), WINDOW_S) for part in self._alike(whole)]
        ever = judges.fullest(self.calls, WINDOW_S)
        return max((hits for each in alike for hits in each.values()), default=0), max(ever.values(), default=0)

    def _overfull(self, spans: Sequence[Span], most: Callable[[int], int]) -> list[str]:
        """Judge windows by the larger limit, and those in which all replicas had the same rules by the smaller one."""
        found = []
        for span in spans:
            for part, limit in [(span, 2 * LIMIT), *((part, LIMIT) for part in self._alike(span))]:
                found += judges.overfull(judges.within(self.calls, part), window_s=WINDOW_S, bound=most(limit))
        return found

    def _recoveries(self) -> list[tuple[list[Look], float]]:
        """Return whenever a replica got its store back, with nothing else in its way: what was seen of it then."""
        found = []
        for one in self.happened:
            for name in self._concerned(one.fault) if one.fault.kind in TAKES_STORE else ():
                others = [other for other in self.happened if other is not one and name in self._concerned(other.fault)]
                if not any(_meets(one, other) for other in others):
                    until_s = one.until_s + ALONE_S
                    looks = [look for look in self.run.looks.of(name) if look.at_s < until_s]
                    found.append((looks, one.until_s))
        return found

    def _concerned(self, fault: Fault) -> list[str]:
        """Return the replicas that a fault keeps from their store."""
        if fault.kind in (Kind.RULES, Kind.FLUSH):
            return []
        return [_name(each) for each in range(REPLICAS)] if fault.replica is None else [_name(fault.replica)]


def _meets(one: Happened, other: Happened) -> bool:
    """Whether another fault is at work while it is judged how a replica recovers from one."""
    return other.from_s < one.until_s + ALONE_S and other.until_s + ALONE_S > one.until_s


def _name(replica: int | None) -> str:
    return f"replica-{replica}"


class Chaos:
    """Makes things go wrong on a stage."""

    def __init__(self, staged: Stage, run: Run) -> None:
        self._stage, self._run = staged, run
        self.happened: list[Happened] = []

    async def play(self, lane: Sequence[Fault]) -> None:
        """Play one lane to its end."""
        for fault in lane:
            await self._run.load.for_s(max(fault.at_s - self._run.load.seconds, 0))
            from_s = perf_counter()
            await self._begin(fault)
            await self._run.load.for_s(fault.for_s)
            await self._end(fault)
            self.happened.append(Happened(fault, from_s, perf_counter()))

    def _proxies(self, fault: Fault) -> list[FaultProxy]:
        each = [*self._stage.proxies.values()]
        return each if fault.replica is None else [each[fault.replica]]

    def _replica(self, fault: Fault) -> Replica:
        assert fault.replica is not None
        return self._stage.replicas[fault.replica]

    async def _begin(self, fault: Fault) -> None:
        store, proxies = self._stage.store, self._proxies(fault)
        match fault.kind:
            case Kind.KILL:
                await store.kill()
            case Kind.HANG:
                os.kill(store.pid, signal.SIGSTOP)
            case Kind.FLUSH:
                await self._flush()
            case Kind.CRASH:
                await self._replica(fault).kill()
            case Kind.RULES:
                write_rules(self._replica(fault).folder, rules(2 * LIMIT, slices=10))
            case _:
                for proxy in proxies:
                    _break(proxy, fault.kind)

    async def _end(self, fault: Fault) -> None:
        store = self._stage.store
        match fault.kind:
            case Kind.KILL:
                await store.start()
                self._run.machine.watch(STORE, store.pid)
            case Kind.HANG:
                os.kill(store.pid, signal.SIGCONT)
            case Kind.FLUSH:
                pass
            case Kind.CRASH:
                replica = self._replica(fault)
                await replica.start(within=60)
                self._run.machine.watch(replica.name, replica.pid)
            case Kind.RULES:
                write_rules(self._replica(fault).folder, rules(LIMIT))
            case kind:
                for proxy in self._proxies(fault):
                    await _mend(proxy, kind)

    async def _flush(self) -> None:
        """A store that is down has nothing to flush."""
        try:
            async with Redis(host=LOOPBACK, port=self._stage.store.port, socket_timeout=5) as client:
                await client.script_flush()
        except OSError:
            return


def _break(proxy: FaultProxy, kind: Kind) -> None:
    """Let one thing go wrong; another may be wrong with the same proxy."""
    if kind is Kind.FAR:
        proxy.delay_s = 0.2
    elif kind is Kind.RESETS:
        proxy.reset_one_in = 10
    elif kind is Kind.CUT:
        proxy.cut()
    elif kind is Kind.ANSWERS:
        proxy.answers = Way.LOSE
    elif kind is Kind.QUESTIONS:
        proxy.questions = Way.LOSE


async def _mend(proxy: FaultProxy, kind: Kind) -> None:
    """End that one thing."""
    if kind is Kind.FAR:
        proxy.delay_s = 0.0
    elif kind is Kind.RESETS:
        proxy.reset_one_in = None
    else:
        proxy.questions = proxy.answers = Way.PASS
        await proxy.mend()


async def chaos(folder: Path, *, seed: int, seconds: float, rate: int = RATE) -> Outcome:
    """Run it."""
    async with stage(folder, replicas=REPLICAS) as staged:
        async with staged.under_load("warm", rate=rate, weigh=False) as warm:
            await warm.load.for_s(1)
        async with staged.under_load("chaos", rate=rate, every_s=EVERY_S, seed=seed) as run:
            playing = Chaos(staged, run)
            async with asyncio.TaskGroup() as lane:
                for faults in lanes(seed, seconds, REPLICAS):
                    lane.create_task(playing.play(faults))
                lane.create_task(run.load.for_s(seconds))
    return Outcome(seed, seconds, run, sorted(playing.happened, key=lambda one: one.from_s))
