"""A replica on a real Cluster, set up by the reference implementation's variables."""

import json

import aiohttp
import pytest

from ratelimit_svc.demo.parts import Replica, get
from tests.clusters import ClusterServers

RULES = """
domain: shop
descriptors:
- {key: who, rate_limit: {unit: hour, requests_per_unit: 2, on_store_failure: error}}
- {key: all, rate_limit: {unit: hour, requests_per_unit: 1000, on_store_failure: error}}
"""


def body(*descriptors: tuple[str, str]) -> str:
    """A request of one descriptor each."""
    asked = [{"entries": [{"key": key, "value": value}]} for key, value in descriptors]
    return json.dumps({"domain": "shop", "descriptors": asked})


@pytest.mark.slow
async def test_a_replica_serves_from_a_cluster(cluster_servers: ClusterServers, tmp_path):
    """Each caller has its own two, wherever its window is; what is denied takes nothing off what all share."""
    cluster_servers.flush()
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    url = ",".join(server.address for server in cluster_servers.servers[:2])
    env = {"REDIS_TYPE": "cluster", "REDIS_URL": url, "STORE_TIMEOUT": "5s", "BREAKER_LATENCY": "5s", "LOOP_LAG": "0s"}
    async with (
        Replica(tmp_path / "replica", rules=rules, env=env) as replica,
        aiohttp.ClientSession() as session,
    ):

        async def ask(*descriptors: tuple[str, str]) -> tuple[int, list[int]]:
            async with session.post(f"{replica.http}/json", data=body(*descriptors)) as answer:
                told = json.loads(await answer.text())
                return answer.status, [status.get("limitRemaining", 0) for status in told["statuses"]]

        for number in range(20):
            pair = (("who", f"w{number}"), ("all", "x"))
            assert [await ask(*pair) for _ in range(3)] == [
                (200, [1, 999 - 2 * number]),
                (200, [0, 998 - 2 * number]),
                (429, [0, 998 - 2 * number]),
            ]
        detail = json.loads((await get(f"{replica.http}/healthcheck?verbose"))[1])
        assert detail["store"]["up"] is True
        assert set(detail["store"]["nodes"]) == {server.address for server in cluster_servers.masters}
        assert await replica.metric("ratelimit_svc_policy_decisions_total") == 0
