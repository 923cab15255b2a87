"""A real replica that compares: what it decides, what its metrics and its debug side show of it, and who may reset that."""

import json
from http import HTTPStatus

import aiohttp
import pytest

from ratelimit_svc.admin import compare, debug, http
from ratelimit_svc.admin.token import Token
from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.model import Code, Entry
from ratelimit_svc.wire.client import Client, request
from tests.waiting import PATIENCE

RULES = """
domain: shop
tenant: tenant
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: counted_so, rate_limit: {unit: year, requests_per_unit: 2, algorithm: fixed_window}}
"""
ACME = [[Entry("tenant", "acme")], [Entry("counted_so", "x")]]


async def page(url: str, **headers: str) -> tuple[int, str]:
    method = "POST" if headers else "GET"
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_a_replica_compares(tmp_path, redis_server):
    """With COMPARE every rule is compared that is not counted so; a fixed window's check passes at the limit, a sliding one's does not."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    env = PATIENCE | {"COMPARE": "fixed_window", "DEBUG_TOKEN": "s3cret-and-long-enough", "CACHE_KEY_PREFIX": "served:"}
    async with Replica(tmp_path / "replica", rules=rules, redis_url=redis_server.url, env=env) as replica:
        with Client(replica.address, timeout_s=30) as client:
            told = [int(client.ask(request("shop", ACME[:1])).overall_code) for _ in range(3)]
            check = request("shop", ACME)
            for descriptor in check.descriptors:
                descriptor.hits_addend.value = 0
            told.append(int(client.ask(check).overall_code))
        assert told == [Code.OK, Code.OK, Code.OVER_LIMIT, Code.OVER_LIMIT]
        found = json.loads((await page(replica.debug + compare.COMPARE))[1])
        (rule,) = found["rules"]
        assert (rule["rule"], rule["algorithm"], rule["compared"]) == ("shop/tenant", "sliding_window", "fixed_window")
        assert (rule["both_allow"], rule["both_deny"]) == (2, 1)
        assert (rule["only_enforced_denies"], rule["only_compared_denies"], rule["differ"]) == (1, 0, 0.25)
        assert rule["examples"][0]["entries"] == ["tenant=acme"]
        metrics = (await page(f"{replica.http}/metrics"))[1]
        counted = 'ratelimit_svc_compare_decisions_total{decision="only_enforced_denies",rule="shop/tenant"} 1.0'
        assert counted in metrics
        assert 'rule="shop/counted_so"} ' not in "".join(
            line for line in metrics.splitlines() if line.startswith("ratelimit_svc_compare")
        )
        requests = json.loads((await page(f"{replica.debug}/debug/requests"))[1])["requests"]
        limits = [each["limits"][0] for each in requests[0]["descriptors"]]
        assert [limit.get("compared") for limit in limits] == ["2 per year, fixed windows since the epoch", None]
        assert (await page(replica.debug + compare.RESET, Authorization="Bearer wrong"))[0] != HTTPStatus.OK
        assert json.loads((await page(replica.debug + compare.COMPARE))[1])["rules"] == [rule]
        status, _ = await page(replica.debug + compare.RESET, Authorization="Bearer s3cret-and-long-enough")
        assert status == HTTPStatus.OK
        (rule,) = json.loads((await page(replica.debug + compare.COMPARE))[1])["rules"]
        assert (rule["requests"], "examples" in rule) == (0, False)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("limit=0", "limit=0: must be a whole number from 1 to 1000\n"),
        ("limit=1001", "limit=1001: must be a whole number from 1 to 1000\n"),
        ("limit=many", "limit=many: must be a whole number from 1 to 1000\n"),
        ("tenant=acme", "tenant: unknown; there are rule and limit\n"),
    ],
)
async def test_a_wrong_query_is_told(query, why):
    """What is not understood is refused with what would be."""

    def never(**_):
        raise AssertionError

    app = debug.make_app(compare.endpoints(describe=never, reset=never), Token("", None))
    async with http.serving(app, "127.0.0.1", 0) as port:
        found = await page(f"http://127.0.0.1:{port}{compare.COMPARE}?{query}")
    assert found == (HTTPStatus.BAD_REQUEST, why)
