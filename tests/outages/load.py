"""Many callers at a steady rate, whatever the answers: tenants by Zipf, deadlines mixed, replicas in turn.

Rule 1: what is asked, of whom and with which deadline is drawn from a seed; only when it is sent is the machine's.
Rule 2: whoever is ours alone is asked from one loop: `Machine` knows how late that was.
Rule 3: a replica to which no connection stands is not asked; the next one is. Where there is none, nothing is sent.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, cycle
from random import Random
from time import perf_counter
from typing import Self

from ratelimit_svc.demo.parts import Replica
from tests.outages.calls import Call, Caller, block, connect, message

TIMEOUTS_S = (0.02, 0.1)
"""Envoy's own deadline for such calls, and a patient caller's."""
TICK_S = 0.004
"""So often, what is due is sent."""
MOST_BEHIND = 50
"""Calls that are sent at once after we were late; more are left out, for they would be a burst of our making."""
TENANTS = 100
CHANNELS = 3
"""Connections to each replica."""
ANSWERS_WITHIN_S = 5.0
RECONNECT_S = 0.05


def tenants(name: str) -> list[str]:
    """Return the names of a load's tenants, who asks most first."""
    return [f"{name}-{number:03}" for number in range(TENANTS)]


class Load:
    """Asks for as long as its context lasts; then waits for what is under way.

    Args:
        replicas: whom to ask.
        rate: calls a second.
        name: of the load; see `tenants`.
        seed: of what is drawn.
    """

    def __init__(self, replicas: Sequence[Replica], *, rate: int = 600, name: str, seed: int = 1):
        self.replicas = replicas
        self.calls: list[Call] = []
        """All, as they were sent."""
        self.began_s = 0.0
        self._rate = rate
        self._random = Random(seed)
        self._tenants = tenants(name)
        self._weights = [*accumulate(1 / (rank + 1) for rank in range(TENANTS))]
        self._messages = {tenant: message(tenant) for tenant in self._tenants}
        self._blocks = {timeout_s: block(timeout_s) for timeout_s in TIMEOUTS_S}
        self._callers: dict[str, list[Caller | None]] = {}
        self._turns: Iterator[tuple[str, int]] = iter(())
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._callers = {replica.name: [None] * CHANNELS for replica in self.replicas}
        self._turns = cycle([(one.name, place) for place in range(CHANNELS) for one in self.replicas])
        loop = asyncio.get_running_loop()
        places = [(replica, place) for replica in self.replicas for place in range(CHANNELS)]
        self._connecting = {loop.create_task(self._keep(replica, place)) for replica, place in places}
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            while not all(caller and caller.open for each in self._callers.values() for caller in each):
                await asyncio.sleep(TICK_S)
        self.began_s = self._due = perf_counter()
        self._tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._timer is not None
        self._timer.cancel()
        with suppress(TimeoutError):  # the judges see calls without an answer
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                while any(caller and caller.under_way for each in self._callers.values() for caller in each):
                    await asyncio.sleep(TICK_S)
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    @property
    def seconds(self) -> float:
        """For how long it has asked."""
        return perf_counter() - self.began_s

    async def for_s(self, seconds: float) -> None:
        """Go on for so long."""
        until_s = perf_counter() + seconds
        while perf_counter() < until_s:
            await asyncio.sleep(TICK_S)

    def tenant(self, rank: int) -> str:
        """Return the name of the tenant of this rank; 0 asks most."""
        return self._tenants[rank]

    async def _keep(self, replica: Replica, place: int) -> None:
        """Keep one connection, as Envoy does: a new one as soon as the old one takes no more calls."""
        old: Caller | None = None
        try:
            while True:
                try:
                    caller = await connect(replica, self._again)
                except (OSError, TimeoutError):
                    await asyncio.sleep(RECONNECT_S)
                    continue
                self._callers[replica.name][place] = caller
                while caller.open:
                    await asyncio.sleep(TICK_S)
                old = caller
                while old.under_way:  # what it was asked before it leaves, it answers
                    await asyncio.sleep(TICK_S)
                old.close()
        finally:
            for each in (old, self._callers[replica.name][place]):
                if each is not None:
                    each.close()

    def _tick(self) -> None:
        now = perf_counter()
        due = min(int((now - self._due) * self._rate), MOST_BEHIND)
        self._due = max(self._due + due / self._rate, now - MOST_BEHIND / self._rate)
        for _ in range(due):
            tenant = self._random.choices(self._tenants, cum_weights=self._weights)[0]
            self._send(Call(tenant, "", self._random.choice(TIMEOUTS_S)))
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _send(self, call: Call) -> None:
        if (caller := self._next()) is not None:
            self.calls.append(call)
            caller.ask(call, self._blocks[call.timeout_s], self._messages[call.tenant])

    def _again(self, call: Call) -> None:
        """Ask another replica what one has not looked at; its caller's time runs on."""
        if (caller := self._next()) is not None:
            began_s = call.sent_s
            caller.ask(call, self._blocks[call.timeout_s], self._messages[call.tenant])
            call.sent_s = began_s
        else:
            call.status, call.answered_s = "nobody takes it", perf_counter()

    def _next(self) -> Caller | None:
        for _ in range(CHANNELS * len(self.replicas)):
            name, place = next(self._turns)
            caller = self._callers[name][place]
            if caller is not None and caller.open:
                return caller
        return None
