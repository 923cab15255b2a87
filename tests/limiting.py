"""What the limiter's tests share: rules, a store that can be held, callers whose answers are kept."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.limiter import Limiter, verdicts
from ratelimit_svc.limiter.options import Options
from ratelimit_svc.limiter.waiting import Waiting
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import Algorithm, Entry, Grant, Limit, Line, Overdraft, Role, Rule, Unit, Verdict
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.match import Domain, Node, RuleSet
from ratelimit_svc.store import Store, Untaken
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.client import request
from tests.histories import START
from tests.waiting import until

RULES = """
domain: shop
tenant: tenant
descriptors:
  - {key: tenant, rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: big, rate_limit: {unit: minute, requests_per_unit: 1000000}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: allow, rate_limit: {unit: minute, requests_per_unit: 5, on_store_failure: allow}}
  - {key: deny, rate_limit: {unit: minute, requests_per_unit: 5, on_store_failure: deny}}
  - {key: error, rate_limit: {unit: minute, requests_per_unit: 5, on_store_failure: error}}
"""


class Recording:
    """A real store that keeps what it was asked and, while held, keeps its callers waiting. Takes when let go."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batches: list[list[Line]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.asked = asyncio.Event()
        self.away = False

    def take(self, lines, due=None) -> asyncio.Future[list[Grant | Untaken]]:
        self.batches.append(list(lines))
        self.asked.set()
        return asyncio.ensure_future(self._take(lines, due))

    async def _take(self, lines, due) -> list[Grant | Untaken]:
        await self.go.wait()
        if self.away:
            return [Untaken(StoreUnavailableError("away"))] * len(lines)
        return await self.store.take(lines, due)


def as_it_is(verdict: Verdict, later: int = 0, hits: Sequence[int] = ()) -> Any:
    """Hand verdicts through where bytes are expected: these tests look at values."""
    return verdicts.earlier(verdict, later, hits) if later else verdict


FIVE = Limit(5, Unit.MINUTE)


def rule(place: int, limit: Limit | None = FIVE, **others: Any) -> Rule:
    """A rule made by hand, of the key d0, d1 …"""
    return Rule(f"shop/d{place}", limit, **others)


def rules_of(*descriptors: Sequence[Rule], tenant: str | None = None, domain: str = "shop", **others) -> RuleSet:
    """Rules made by hand: a domain in which the keys d0, d1 … have these, whatever their values."""
    nodes = ((f"d{place}", None, Node(rules=tuple(rules))) for place, rules in enumerate(descriptors))
    every = tuple(rule for rules in descriptors for rule in rules)
    return RuleSet({domain: Domain(domain, tenant, Node.of(nodes))}, every, **others)


def make(
    store,
    *,
    local=None,
    rules: str | RuleSet | None = RULES,
    on_denial=None,
    on_spoilt=None,
    clock=lambda: START,
    pressure=None,
    encode=as_it_is,
    metrics=None,
    **options,
) -> Limiter:
    """A limiter of these rules, or without any; one that remembers no denials, and is in no hurry."""
    limiter = Limiter(
        store=store,
        local=MemoryStore(clock) if local is None else local,
        clock=clock,
        decode=rls.decode,
        encode=encode,
        metrics=metrics or Metrics(),
        options=Options(**{"store_timeout_s": 30, "queue_age_s": 30, "denial_memory_keys": 0, **options}),
        pressure=pressure,
        on_denial=on_denial,
        on_spoilt=on_spoilt,
    )
    if rules is not None:
        limiter.use(load([RuleFile("rules.yaml", rules.encode())]) if isinstance(rules, str) else rules)
    return limiter


async def tell(limiter: Limiter, data: bytes) -> Verdict:
    """Ask, and return the verdict as the value that it is here."""
    verdict = await limiter.ask(data)
    assert isinstance(verdict, Verdict)
    return verdict


def submit(limiter: Limiter, data: bytes, told: list[tuple[bytes, Any]]) -> Waiting | None:
    """Submit a request; when it is answered, it stands in `told` with its answer."""
    return limiter.submit(data, lambda answer: told.append((data, answer)))


async def send_all(limiter: Limiter, wave: Sequence[bytes]) -> list[tuple[bytes, Any]]:
    """Submit requests in one turn of the loop, and return each with its answer, in the order of the answers."""
    told: list[tuple[bytes, Any]] = []
    for data in wave:
        submit(limiter, data, told)
    await settled(limiter)
    assert sorted(data for data, _ in told) == sorted(wave)
    return told


async def settled(limiter: Limiter) -> None:
    """Wait until the store has taken all that waited."""
    await until(lambda: limiter._commits.idle and not limiter._unanswered)


def asks(*descriptors: str, hits: int = 0) -> bytes:
    """A serialized request: each descriptor is written `key=value`."""
    entries = [[Entry(*descriptor.split("="))] for descriptor in descriptors]
    return request("shop", entries, hits=hits).SerializeToString()


ASKED = re.compile(r"(\S+) (?:(?P<check>check)|(?P<refund>refund )?(?P<hits>\d+)(?: of own (?P<own>\d+))?)")


def sends(*descriptors: str) -> bytes:
    """A serialized request of all kinds: `d0 3`, `d0 check`, `d0 refund 2`, and `d0 1 of own 9` with a limit a minute."""
    asked = [found for each in descriptors if (found := ASKED.fullmatch(each)) is not None]
    assert len(asked) == len(descriptors), descriptors
    message = request(
        "shop", [[Entry(*found[1].split("=")) if "=" in found[1] else Entry(found[1], "x")] for found in asked]
    )
    for descriptor, found in zip(message.descriptors, asked, strict=True):
        descriptor.hits_addend.value = 0 if found["check"] else int(found["hits"])
        descriptor.is_negative_hits = found["refund"] is not None
        if found["own"] is not None:
            descriptor.limit.requests_per_unit = int(found["own"])
            descriptor.limit.unit = Unit.MINUTE  # type: ignore[assignment] # the same numbers, by model.Unit's contract
    return message.SerializeToString()


ALL_SORTS = rules_of(
    (rule(0),),
    (rule(1, Limit(9, Unit.MINUTE)),),
    (rule(2, Limit(3, Unit.MINUTE), role=Role.QUOTA),),
    (rule(3, role=Role.QUOTA),),
    (rule(4, Limit(3, Unit.MINUTE), role=Role.SHADOW),),
    (
        rule(5, Limit(8, Unit.HOUR), overdraft=Overdraft.NEVER),
        rule(5, Limit(6, Unit.MINUTE, algorithm=Algorithm.FIXED_WINDOW), overdraft=Overdraft.NEVER),
        rule(5, Limit(4, Unit.SECOND, algorithm=Algorithm.TOKEN_BUCKET, burst=7), overdraft=Overdraft.NEVER),
    ),
    (rule(6, overdraft=Overdraft.ALWAYS),),
    (rule(7, Limit(40, Unit.MINUTE, algorithm=Algorithm.TOKEN_BUCKET)),),
)
"""Gates, quotas, a shadow, several limits on a descriptor, a budget, a bucket."""

EVERY_KIND = (
    sends("d0 1"),
    sends("d0 2"),
    sends("d0 check"),
    sends("d0 3"),
    sends("d0 refund 2"),
    sends("d0 1 of own 7"),
    sends("d1 check"),
    sends("d1 4"),
    sends("d1 1", "d0 1"),
    sends("d1 7", "d7 3"),
    sends("d2 1", "d3 1"),
    sends("d2 2", "d3 check", "d0 1"),
    sends("d3 refund 1", "d2 3"),
    sends("d4 2", "d0 1"),
    sends("d5 1"),
    sends("d5 1", "d7 1"),
    sends("d5 3", "d5 1"),
    sends("d5 refund 2"),
    sends("d5 check"),
    sends("d6 4"),
    sends("d6 check", "d7 1"),
    sends("d6 3", "d0 2"),
    sends("d7 4"),
    sends("d7 9"),
    sends("d7 refund 5", "d1 2"),
)
"""Requests of rules like these."""


class Answers:
    """Collects what callers are told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.more = asyncio.Event()

    def __call__(self, answer) -> None:
        self.told.append(answer)
        self.more.set()

    async def wait(self, number: int) -> list[Any]:
        """Wait until so many were told."""
        async with asyncio.timeout(10):
            while len(self.told) < number:
                self.more.clear()
                await self.more.wait()
        return self.told
