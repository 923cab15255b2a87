"""What is asked: the workloads, and the requests of each as Envoy would send them.

Rule 1: all messages of a workload have one length, so that frames around them are made once.
Rule 2: what is random is seeded, so that every server is asked the same.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, count, cycle, repeat
from pathlib import Path
from typing import NamedTuple

from ratelimit_svc.model import Entry
from ratelimit_svc.wire.client import request
from tests.bench.frames import TRACEPARENT, message

RULES = Path(__file__).with_name("rules.yaml")
DOMAIN = "bench"
TENANTS = 10_000
ZIPF_EXPONENT = 1.0
"""The n-th busiest tenant asks 1/n as often as the busiest: of 10 000, that one sends 10 % of the requests."""
DRAWN = 1 << 17
"""So many tenants are drawn beforehand; then the same again. All of a second or more."""
SEED = 17

FULL = (4, 50)
"""Connections, and requests under way on each: more than any server answers at once, as from four busy Envoys."""


class Feed(NamedTuple):
    """What connections send, each taking the next."""

    messages: Iterator[bytes]
    """gRPC messages, all of one length."""
    traces: Iterator[bytes]
    """Header fields after those that do not change: traceparents, all of one length, or nothing."""
    message_size: int
    trace_size: int


@dataclass(frozen=True)
class Workload:
    """One kind of load."""

    name: str
    what: str
    """For people."""
    messages: Callable[[], Iterator[bytes]]
    """Endless."""
    connections: int = FULL[0]
    in_flight: int = FULL[1]
    """Requests under way on each connection."""
    traces: Callable[[], Iterator[bytes]] = lambda: repeat(b"")

    def feed(self) -> Feed:
        """Return what is sent, from the start."""
        messages, traces = self.messages(), self.traces()
        return Feed(messages, traces, len(next(messages)), len(next(traces)))


def asking(*descriptors: str) -> bytes:
    """Return the message for descriptors that are written `key=value,key=value`."""
    split = [[Entry(*entry.split("=")) for entry in one.split(",")] for one in descriptors]
    return message(request(DOMAIN, split).SerializeToString())


def hot() -> Iterator[bytes]:
    """The same tenant always."""
    return repeat(asking("tenant=t00000"))


def zipf() -> Iterator[bytes]:
    """Tenants, a few of them often and many seldom."""
    tenants = [asking(f"tenant=t{number:05}") for number in range(TENANTS)]
    weights = [*accumulate(1 / (rank + 1) ** ZIPF_EXPONENT for rank in range(TENANTS))]
    return cycle(random.Random(SEED).choices(tenants, cum_weights=weights, k=DRAWN))


def unique() -> Iterator[bytes]:
    """A new descriptor in every request."""
    placeholder = "0" * 12
    before, after = asking(f"address={placeholder}").split(placeholder.encode())
    return (b"%b%012x%b" % (before, number, after) for number in count(1))


def four() -> Iterator[bytes]:
    """Four descriptors, five entries, always the same."""
    return repeat(asking("tenant=t00000", "tenant=t00000,path=/v1/orders", "plan=gold", "everyone=all"))


def denials() -> Iterator[bytes]:
    """One tenant, far over its limit."""
    return repeat(asking("flood=t00000"))


def traceparents() -> Iterator[bytes]:
    """A new traceparent in every request, sampled, as from a proxy that traces."""
    rng = random.Random(SEED)
    trace, span = rng.getrandbits(64), rng.getrandbits(32)
    return (TRACEPARENT + b"00-%016x%016x-%08x%08x-01" % (trace, number, span, number) for number in count(1))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("zipf", "10 000 tenants, Zipf", zipf),
        Workload("unique", "every request a new descriptor", unique),
        Workload("four", "four descriptors a request", four),
        Workload("traceparent", "one hot descriptor, a new traceparent in every request", hot, traces=traceparents),
        Workload("mesh", "500 connections, one request under way on each, Zipf", zipf, 500, 1),
        Workload("denials", "a flood of denials", denials),
        Workload("hot", "one hot descriptor", hot),
        Workload("idle", "one caller, one request at a time", hot, 1, 1),
    )
}
"""In the order of the table: what flatters least first."""
