"""Three real replicas that were not told how many they are: each one's share of a limit in an outage, and who is counted."""

import json
from typing import Any

import pytest
from redis import Redis

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import Replica, get, valkey
from ratelimit_svc.model import Entry
from ratelimit_svc.wire.client import Client, request
from tests.logged import logged
from tests.waiting import PATIENCE

RULES = "domain: shop\ndescriptors: [{key: tenant, rate_limit: {unit: hour, requests_per_unit: 10}}]\n"
ENV = PATIENCE | {"LOG_FORMAT": "json"}


def passed(replica: Replica, tenant: str) -> int:
    """Ask ten times, and return how often it may pass."""
    with Client(replica.address, timeout_s=10) as client:
        asked = [client.ask(request("shop", [[Entry("tenant", tenant)]])) for _ in range(10)]
    return sum(response.overall_code == 1 for response in asked)


async def counts(count: int, *replicas: Replica) -> None:
    """Wait until each of them has counted so many."""

    async def so_many() -> bool:
        return {await each.metric("ratelimit_svc_replicas") for each in replicas} == {count}

    await until(so_many, f"each counts {count}", within=60)


async def detail(replica: Replica) -> dict[str, Any]:
    return json.loads((await get(f"{replica.http}/healthcheck?verbose"))[1])


@pytest.mark.slow
async def test_the_share_in_an_outage_is_of_those_who_were_counted(tmp_path):
    """ceil(10 / 3) of each of three; then one is killed, one stops, and the count follows; health, metrics and log say so."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    store = valkey(tmp_path / "valkey")
    one, two, three = (
        Replica(tmp_path / name, rules=rules, redis_url=store.url, env=ENV) for name in ("one", "two", "three")
    )
    async with store, one:
        async with two, three:
            assert await three.metric("ratelimit_svc_replicas") == 3  # before it says that it is ready
            await counts(3, one, two, three)
            await store.kill()
            assert [passed(each, "a") for each in (one, two, three)] == [4, 4, 4]
            told = await detail(one)
            assert told["replicas"] == {"counted": 3, "sharing": 3}
            assert told["owed"] == {"windows": 1, "charged": 0, "dropped": 0}
            assert told["store"]["nodes"][store.address]["breaker"]["state"] != "closed"
            assert await one.metric("ratelimit_svc_breaker_state", node=store.address) > 0
            assert await one.metric("ratelimit_svc_breaker_opened_total", node=store.address) >= 1
            await store.start()

            async def up() -> bool:
                return all([await each.metric("ratelimit_svc_store_up") == 1 for each in (one, two, three)])

            await until(up, "Redis is back")
            await three.kill()
            await counts(2, one, two)
            assert passed(one, "a") == 6  # Redis has come back empty, and what the share let pass is charged first
            assert await one.metric("ratelimit_svc_owed_hits_total", outcome="charged") == 4
            assert await one.metric("ratelimit_svc_owed_windows") == 0
        with Redis(host="127.0.0.1", port=store.port) as client:
            assert client.zcard("ratelimit-svc:replicas") == 1
        await counts(1, one)
    counted = [each["counted"] for each in logged(one, "replicas are counted")]
    assert (counted[0], counted[-3:]) == (1, [3, 2, 1])
    breaker = [each["@message"] for each in logged(one, "breaker")]
    assert breaker[:2] == ["breaker open", "breaker closed"]
