"""How the tables of this room write what is asked and what is told: one request a line, and its answer.

    day=x                          → OK: OK 4/5 day
    hits 2: day=x; up=a > down=b   → OVER_LIMIT: OK 3/5 day; OVER_LIMIT 0/1 hour "name"

A request: its domain if it is not `shop` (`@other`), its own hits, and its descriptors with their entries; a descriptor's own
`hits 3`, and the limit that it brings along, `own 7 week`. An answer: the overall code, and each descriptor's code with what is left
of which limit; behind it, where there are response headers, the limit and what is left that they show: `[5 4]`.

The rules are written as a user of the reference implementation writes them, without a key of this project's own.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.model import Algorithm, Unit
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.wire import rls
from tests.histories import START
from tests.limiting import make

RULES = """
domain: shop
descriptors:
  - {key: minute, rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: hour, rate_limit: {unit: hour, requests_per_unit: 3, name: hourly}}
  - {key: day, rate_limit: {unit: day, requests_per_unit: 5}}
  - {key: week, rate_limit: {unit: week, requests_per_unit: 5}}
  - {key: month, rate_limit: {unit: month, requests_per_unit: 5}}
  - {key: year, rate_limit: {unit: year, requests_per_unit: 5}}
  - {key: none, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: most, rate_limit: {unit: hour, requests_per_unit: 4294967295}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 2}, metadata: {who: shadow, more: {a: 1}}}
  - {key: quota, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 2}, metadata: {who: quota, more: {b: 2}}}
  - {key: quota2, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 3}}
  - {key: both, quota_mode: true, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: named, rate_limit: {unit: day, requests_per_unit: 3, name: a}}
  - {key: replacer, rate_limit: {unit: day, requests_per_unit: 6, name: b, replaces: [{name: a}]}}
  - {key: one, rate_limit: {unit: day, requests_per_unit: 3, name: one, replaces: [{name: two}]}}
  - {key: two, rate_limit: {unit: day, requests_per_unit: 4, name: two, replaces: [{name: one}]}}
  - {key: free-replacer, rate_limit: {unlimited: true, replaces: [{name: hourly}]}}
  - {key: white, value: list}
  - {key: white, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: wild, value: x*, rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: wild, value: xy*, rate_limit: {unit: day, requests_per_unit: 4}}
  - {key: wild, value: xyz, rate_limit: {unit: day, requests_per_unit: 5}}
  - {key: share, value: f/*, share_threshold: true, rate_limit: {unit: day, requests_per_unit: 4}}
  - key: share-up
    value: f/*
    share_threshold: true
    descriptors:
      - {key: below, rate_limit: {unit: day, requests_per_unit: 4}}
  - {key: wk*, rate_limit: {unit: day, requests_per_unit: 2}}
  - key: up
    rate_limit: {unit: day, requests_per_unit: 9}
    descriptors:
      - {key: named, rate_limit: {unit: day, requests_per_unit: 7, name: a}}
      - {key: down, value: one, rate_limit: {unit: day, requests_per_unit: 2}}
      - key: down
        descriptors:
          - {key: deep, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: detailed, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 4}, metadata: {who: detailed}}
"""

REQUEST = re.compile(r"(?:@(?P<domain>\S*) ?)?(?:hits (?P<hits>\d+): )?(?P<descriptors>.*)")
DESCRIPTOR = re.compile(r"(?P<path>.*?)(?: hits (?P<hits>\d+))?(?: own (?P<own>\d+) (?P<unit>\w+))?")


def asked(text: str) -> dict[str, Any]:
    """The request that a line writes, as JSON has it."""
    found = REQUEST.fullmatch(text)
    assert found is not None
    domain = "shop" if found["domain"] is None else found["domain"]
    message: dict[str, Any] = {"domain": domain, "hitsAddend": int(found["hits"] or 0)}
    message["descriptors"] = [_descriptor(each) for each in found["descriptors"].split("; ") if each]
    return message


def _descriptor(text: str) -> dict[str, Any]:
    found = DESCRIPTOR.fullmatch(text)
    assert found is not None
    pairs = [entry.split("=", 1) for entry in found["path"].split(" > ") if entry != "-"]
    descriptor: dict[str, Any] = {"entries": [{"key": key, "value": value} for key, value in pairs]}
    if found["hits"] is not None:
        descriptor["hitsAddend"] = found["hits"]
    if found["own"] is not None:
        unit = int(Unit[found["unit"].upper()])
        descriptor["limit"] = {"requestsPerUnit": int(found["own"]), "unit": unit}
    return descriptor


def told(answer: Mapping[str, Any]) -> str:
    """An answer in JSON as the tables write it."""
    text = f"{answer['overallCode']}: " + "; ".join(map(_status, answer["statuses"]))
    if headers := answer.get("responseHeadersToAdd"):
        text += " [" + " ".join(header["value"] for header in headers[:2]) + "]"
    return text


def _status(status: Mapping[str, Any]) -> str:
    text, left = str(status["code"]), status.get("limitRemaining", 0)
    if "currentLimit" not in status:
        return f"{text} no end" if left == 2**32 - 1 else text
    limit = status["currentLimit"]
    name = f' "{limit["name"]}"' if "name" in limit else ""
    return f"{text} {left}/{limit.get('requestsPerUnit', 0)} {limit['unit'].lower()}{name}"


def lines(table: str) -> Iterator[tuple[str, str]]:
    """The requests of a table, each with its answer."""
    for line in filter(None, map(str.strip, table.splitlines())):
        request, _, answer = line.partition("→")
        yield request.strip(), answer.strip()


def limiter_of(
    clock: Any = lambda: START,
    *,
    rules: str = RULES,
    algorithm: Algorithm = Algorithm.FIXED_WINDOW,
    quota_mode: bool = False,
    **options: Any,
) -> Limiter:
    """A limiter of these rules that counts and answers as the reference implementation, in bytes."""
    loaded = load([RuleFile("r.yaml", rules.encode())], algorithm=algorithm, quota_mode=quota_mode)
    return make(MemoryStore(clock), clock=clock, rules=loaded, encode=rls.encode, **options)


async def ask(limiter: Limiter, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request, both as JSON has them."""
    answer = await limiter.ask(rls.request_from_json(json.dumps(request).encode()))
    found: dict[str, Any] = json.loads(rls.response_to_json(answer)[1])
    return found


async def tell(limiter: Limiter, text: str) -> str:
    """The answer to a line; of one that is refused, the reason."""
    try:
        return told(await ask(limiter, asked(text)))
    except RateLimitError as error:
        return f"{rls.status_of(error)[0].name}: {error}"


async def as_written(limiter: Limiter, table: str) -> None:
    """Require that each request of a table is answered as it says, one after the other."""
    for request, answer in lines(table):
        assert await tell(limiter, request) == answer, request
