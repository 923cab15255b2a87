"""Why was I limited? What Envoy's access log, the service's log and /debug/requests say of the same denial."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.traffic import LIMITED, PASSED
from tests.e2e.conftest import Client, client_of
from tests.logged import logged

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

RULES = """
domain: shop
tenant: tenant
descriptors:
  - key: tenant
    value: acme
    metadata: {team: checkout}
    rate_limits:
      - {unit: hour, requests_per_unit: 100, name: much}
      - {unit: minute, requests_per_unit: 2, name: little, algorithm: token_bucket}
  - {key: tenant, value: free, rate_limit: {unlimited: true}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def why(tmp_path_factory: pytest.TempPathFactory, engine: str) -> AsyncIterator[Client]:
    """Callers of a gateway whose replicas tell Envoy what they decided."""
    env = {"RESPONSE_DYNAMIC_METADATA": "true", "LOG_FORMAT": "json", "ENGINE": engine}
    async for client in client_of(tmp_path_factory.mktemp("why"), RULES, replicas=1, env=env):
        yield client


async def test_access_log_service_log_and_debug_page_agree(why):
    """The denied request's line in Envoy's log names rule, tenant and reset; the service's log and its page say the same."""
    assert await why.statuses(3, "acme") == [PASSED, PASSED, LIMITED]
    assert await why.statuses(2, "free") == [PASSED, PASSED]

    async def has_come() -> bool:
        return len(why.scene.envoy.access_log()) >= 5

    await until(has_come, "Envoy has logged five requests")
    lines = why.scene.envoy.access_log()
    assert [line["status"] for line in lines] == [200, 200, 429, 200, 200]
    assert [line["rule"] for line in lines] == ["shop/tenant=acme#little"] * 3 + [None, None]
    assert [line["tenant"] for line in lines] == ["acme"] * 3 + [None, None]
    denied = lines[2]
    assert 1 <= denied["reset"] <= 30  # one of two a minute comes back in half a minute

    (replica,) = why.scene.replicas
    told = logged(replica, "denied")
    assert [(line["rule"], line["tenant"]) for line in told] == [(denied["rule"], "acme")]
    assert abs(told[0]["reset_s"] - denied["reset"]) <= 1
    assert told[0]["limit"] == "2 per minute, at once up to 2 (token bucket)"

    async with aiohttp.ClientSession() as session, session.get(f"{replica.debug}/debug/requests") as answer:
        requests = (await answer.json())["requests"]
    (acme,) = [each for each in requests if each["descriptors"][0]["entries"] == ["tenant=acme"]]
    much, little = acme["descriptors"][0]["limits"]
    assert (much["rule"], much["used"]) == ("shop/tenant=acme#much", 2)
    assert (little["rule"], little["remaining"]) == (denied["rule"], 0)
    assert 0 < little["frees_in_s"] <= denied["reset"]
