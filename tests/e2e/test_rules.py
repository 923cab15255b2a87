"""What rules can say, as Envoy shows it: periods of any length, algorithms, several limits, quotas, limits from the proxy."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from ratelimit_svc.demo import shipped
from ratelimit_svc.demo.stage import stage
from ratelimit_svc.demo.traffic import LIMITED, PASSED
from tests.e2e.conftest import Client, client_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

RULES = """
domain: shop
tenant: tenant
descriptors:
  - {key: tenant, value: ninety, rate_limit: {per: 90s, requests_per_unit: 2}}
  - {key: tenant, value: blink, rate_limit: {per: 2500ms, requests_per_unit: 2}}
  - {key: tenant, value: fortnight, rate_limit: {unit: week, unit_multiplier: 2, requests_per_unit: 2}}
  - {key: tenant, value: fixed, rate_limit: {unit: year, requests_per_unit: 2, algorithm: fixed_window, align: calendar}}
  - {key: tenant, value: bucket, rate_limit: {unit: hour, requests_per_unit: 2, algorithm: token_bucket, burst: 4}}
  - key: tenant
    value: three
    rate_limits:
      - {unit: hour, requests_per_unit: 9, name: hourly}
      - {unit: minute, requests_per_unit: 2, name: minutely}
      - {unit: day, requests_per_unit: 9, name: daily}
  - {key: tenant, value: brought, rate_limit: {unit: hour, requests_per_unit: 1000}}
"""
BRINGS = """
            - actions:
                - request_headers: {header_name: x-tenant, descriptor_key: tenant}
              limit:
                rate_limit: {requests_per_unit: 3, unit: HOUR}
"""
"""In place of the shipped filter's one descriptor: the same, with a limit that the proxy brings along."""


def brought(envoy_filter: str) -> str:
    """The shipped filter, bringing a limit along."""
    head, found, _ = envoy_filter.partition("            - actions:\n")
    assert found
    return head + BRINGS.lstrip("\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ruled(tmp_path_factory: pytest.TempPathFactory, engine: str) -> AsyncIterator[Client]:
    """Callers of a gateway whose replicas have these rules."""
    async for client in client_of(tmp_path_factory.mktemp("rules"), RULES, env={"ENGINE": engine}):
        yield client


@pytest.mark.parametrize(
    ("tenant", "limit", "passes", "reset"),
    [
        ("ninety", "2, 2;w=90", 2, range(89, 93)),
        ("blink", "2", 2, range(1, 4)),  # Envoy counts in seconds: it says no period rather than a wrong one
        ("fortnight", "2, 2;w=1209600", 2, range(1_209_000, 1_230_000)),
        ("fixed", "2, 2;w=31536000", 2, range(1, 366 * 86_400 + 1)),
        ("bucket", "2, 2;w=3600", 4, range(1790, 1801)),
    ],
)
async def test_envoy_shows_the_period_and_the_reset(ruled, tenant, limit, passes, reset):
    """Each period is in the headers as Envoy writes it, each algorithm lets so many pass, and says when one fits."""
    answers = [await ruled.call(tenant) for _ in range(passes + 1)]
    assert [answer.status for answer in answers] == [PASSED] * passes + [LIMITED]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {limit}
    assert int(answers[-1].headers["retry-after"]) in reset


async def test_of_several_limits_the_tightest_is_shown(ruled):
    """One descriptor with three limits shows the one that is nearest to its end, by its name; a denial charges none."""
    answers = [await ruled.call("three") for _ in range(5)]
    assert [answer.status for answer in answers] == [PASSED] * 2 + [LIMITED] * 3
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {'2, 2;w=60;name="minutely"'}
    file = ruled.scene.rules
    await ruled.scene.edit_rules(
        file.read_text().replace("minute, requests_per_unit: 2", "minute, requests_per_unit: 99")
    )
    answer = await ruled.call("three")
    assert answer.headers["x-ratelimit-remaining"] == "6"  # of nine: three passed, three denials took nothing
    assert answer.status == PASSED


async def test_a_limit_that_the_proxy_brings_goes_before_the_rules(tmp_path, engine):
    """Envoy's static override is enforced in place of the rule's limit, and where there is no rule at all."""
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    envoy_filter = brought(shipped("istio/envoyfilter-gateway.yaml").read_text())
    async with (
        stage(tmp_path, rules=file, envoy_filter=envoy_filter, replicas=1, env={"ENGINE": engine}) as scene,
        aiohttp.ClientSession() as session,
    ):
        client = Client(scene, session)
        for tenant in ("brought", "without a rule"):
            answers = [await client.call(tenant) for _ in range(4)]
            assert [answer.status for answer in answers] == [PASSED] * 3 + [LIMITED]
            assert answers[0].headers["x-ratelimit-limit"] == "3, 3;w=3600"
