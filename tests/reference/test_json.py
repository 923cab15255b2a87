"""POST /json of a real replica: what a caller without gRPC is told."""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ratelimit_svc.demo.parts import Replica
from tests.reference.asking import asked, told


@pytest.fixture
async def session(replica: Replica) -> AsyncIterator[aiohttp.ClientSession]:
    """Callers of the replica."""
    async with aiohttp.ClientSession(replica.http) as opened:
        yield opened


async def post(
    session: aiohttp.ClientSession, body: str | bytes | io.BytesIO, method: str = "POST"
) -> tuple[int, str, str]:
    """The answer's status, content type and body."""
    async with session.request(method, "/json", data=body) as response:
        return response.status, response.headers["content-type"], await response.text()


async def answer(session: aiohttp.ClientSession, body: str | bytes) -> dict[str, Any]:
    """What one that is taken is told."""
    status, kind, text = await post(session, body)
    assert (status, kind) == (200, "application/json")
    found: dict[str, Any] = json.loads(text)
    return found


async def test_an_answer(session):
    """Names in camel case, enums by name, durations with an s, response headers by name and value."""
    found = await answer(session, json.dumps(asked("day=answer; free=x; unknown=x")))
    reset = found["statuses"][0].pop("durationUntilReset")
    assert found == {
        "overallCode": "OK",
        "statuses": [
            {"code": "OK", "currentLimit": {"requestsPerUnit": 5, "unit": "DAY"}, "limitRemaining": 4},
            {"code": "OK", "limitRemaining": 4294967295},
            {"code": "OK"},
        ],
        "responseHeadersToAdd": [
            {"key": "X-Limit", "value": "5"},
            {"key": "RateLimit-Remaining", "value": "4"},
            {"key": "RateLimit-Reset", "value": reset.removesuffix("s")},
        ],
    }
    assert 0 < int(reset.removesuffix("s")) <= 86_400


async def test_over_the_limit(session):
    """429, and the same body."""
    status, kind, text = await post(session, json.dumps(asked("none=x")))
    assert (status, kind) == (429, "application/json")
    assert told(json.loads(text)) == "OVER_LIMIT: OVER_LIMIT 0/0 hour [0 0]"


SPELLINGS = {
    "hits": ('{"domain": "shop", "hitsAddend": 2, "descriptors": [D]}', "3/5 day [5 3]"),
    "hits as the contract writes them": ('{"domain": "shop", "hits_addend": 2, "descriptors": [D]}', "3/5 day [5 3]"),
    "hits as text": ('{"domain": "shop", "hitsAddend": "2", "descriptors": [D]}', "3/5 day [5 3]"),
    "hits with a point": ('{"domain": "shop", "hitsAddend": 2.0, "descriptors": [D]}', "3/5 day [5 3]"),
    "in any order, with blanks": (' \n{"descriptors": [D], "hitsAddend": 2, "domain": "shop"}\t', "3/5 day [5 3]"),
    "own hits": ('{"domain": "shop", "descriptors": [{"entries": [E], "hitsAddend": "3"}]}', "2/5 day [5 2]"),
    "own hits as the contract writes them": (
        '{"domain": "shop", "descriptors": [{"entries": [E], "hits_addend": 3}]}',
        "2/5 day [5 2]",
    ),
    "a limit": (
        '{"domain": "shop", "descriptors": [{"entries": [E], "limit": {"requestsPerUnit": 9, "unit": "DAY"}}]}',
        "8/9 day [9 8]",
    ),
    "a limit as the contract writes it": (
        '{"domain": "shop", "descriptors": [{"entries": [E], "limit": {"requests_per_unit": 9, "unit": 4}}]}',
        "8/9 day [9 8]",
    ),
}
"""Bodies in which D stands for a descriptor, and E for its entry."""


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_both_spellings(session, spelling):
    """Fields in any order, under either name; numbers as text, units by number; a wrapped number without its wrapping."""
    body, left = SPELLINGS[spelling]
    body = body.replace("[D]", '[{"entries": [E]}]').replace("[E]", json.dumps([{"key": "day", "value": spelling}]))
    assert told(await answer(session, body)) == f"OK: OK {left}"


async def test_any_method(session):
    """The reference does not look at it."""
    for method in ("GET", "PUT", "DELETE"):
        assert (await post(session, json.dumps(asked("free=x")), method))[0] == 200


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "a RateLimitRequest as a JSON object is expected"),
    "a list": ("[]", "a RateLimitRequest as a JSON object is expected"),
    "null": ("null", "a RateLimitRequest as a JSON object is expected"),
    "an empty object": ("{}", "rate limit domain must not be empty"),
    "no descriptors": ('{"domain": "shop"}', "rate limit descriptor list must not be empty"),
    "null for descriptors": ('{"domain": "shop", "descriptors": null}', "rate limit descriptor list must not be empty"),
    "cut off": ('{"domain": "shop"', "Failed to load JSON"),
    "a comma too many": ('{"domain": "shop", }', "Failed to load JSON"),
    "more behind": ('{"domain": "shop"} x', "Failed to load JSON: Extra data"),
    "a field twice": ('{"domain": "shop", "domain": "shop"}', "duplicate key domain"),
    "an unknown field": ('{"domian": "shop"}', 'has no field named "domian"'),
    "a number for text": ('{"domain": 5}', "Failed to parse domain field"),
    "an object for a list": ('{"descriptors": {}}', "repeated field descriptors must be in []"),
    "null in a list": ('{"descriptors": [null]}', "null is not allowed"),
    "half a hit": ('{"hitsAddend": 2.5}', "Failed to parse hitsAddend field"),
    "negative hits": ('{"hitsAddend": -1}', "out of range"),
    "too many hits": ('{"hitsAddend": 4294967296}', "out of range"),
    "wrapped hits": ('{"descriptors": [{"hitsAddend": {"value": 1}}]}', "Failed to parse hitsAddend field"),
    "no unit": ('{"descriptors": [{"limit": {"unit": "FORTNIGHT"}}]}', "Invalid enum value FORTNIGHT"),
    "a byte that is no UTF-8": (b'{"domain": "\xff"}', "can't decode byte 0xff"),
    "half a character": ('{"domain": "\\ud800"}', "Unpaired surrogate"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "a RateLimitRequest as a JSON object is expected"),
    "deeper than one may be": ('{"a":' * 10_000, "Failed to load JSON"),
    "an unknown unit": (
        '{"domain": "shop", "descriptors": [{"limit": {"unit": 0}}]}',
        "rate limit override has the unit 0; it must be one of 1 (SECOND)",
    ),
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_is_told_why(session, body, reason):
    """400 as by the reference, which says `Bad Request` of each."""
    status, kind, text = await post(session, body)
    assert (status, kind) == (400, "text/plain; charset=utf-8")
    assert reason in text
    assert text.endswith("\n")
    assert text.count("\n") == 1


async def test_the_largest_body(session):
    """A megabyte; the reference reads whatever comes."""
    assert (await post(session, io.BytesIO(b" " * 10_000_000)))[0] == 413
    assert (await post(session, json.dumps(asked("free=x"))))[0] == 200


async def test_a_field_in_both_spellings_at_once(session):
    """The last counts; the reference refuses it."""
    body = json.dumps({"hits_addend": 5, **asked("hits 1: day=twice")})
    assert told(await answer(session, body)) == "OK: OK 4/5 day [5 4]"


@pytest.mark.parametrize("hits", ["02", "+2"])
async def test_numbers_in_quotes(session, hits):
    """With a sign, with a zero before them, and units; the reference refuses them."""
    own = {"requestsPerUnit": "9", "unit": "4"}
    body = {
        "domain": "shop",
        "hitsAddend": hits,
        "descriptors": [{"entries": [{"key": "quotes", "value": hits}], "limit": own}],
    }
    assert told(await answer(session, json.dumps(body))) == "OK: OK 7/9 day [9 7]"


async def test_what_is_our_fault_is_told_so(tmp_path):
    """500 with the reason where the store is away and the rule says `error`; the reference says 400 `Bad Request`."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "domain: shop\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1, on_store_failure: error}}]"
    )
    async with (
        Replica(tmp_path / "replica", rules=rules, redis_url="redis://127.0.0.1:1") as replica,
        aiohttp.ClientSession(replica.http) as session,
    ):
        status, _, text = await post(session, json.dumps(asked("a=x")))
    assert status == 500
    assert text.strip()
