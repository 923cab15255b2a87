"""What a Redis user must be allowed: the list on docs/redis.md is enough for a replica, in both forms of keys."""

import re
from pathlib import Path

import pytest
import redis

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import Replica, valkey
from ratelimit_svc.demo.parts import redis as redis_6_2
from ratelimit_svc.model import Entry
from ratelimit_svc.wire.client import Client, request

PAGE = (Path(__file__).parents[1] / "docs/redis.md").read_text()
KINDS = ("sliding", "fixed", "bucket")
RULES = """
domain: shop
descriptors:
  - {key: sliding, rate_limit: {unit: hour, requests_per_unit: 3, on_store_failure: error}}
  - {key: fixed, rate_limit: {unit: day, requests_per_unit: 3, algorithm: fixed_window, on_store_failure: error}}
  - {key: bucket, rate_limit: {unit: hour, requests_per_unit: 3, algorithm: token_bucket, on_store_failure: error}}
"""


def listed() -> list[str]:
    """The commands of the page for one server: those of all, and those by which replicas count each other."""
    always, counting, *_ = re.findall(r"^\+.*?(?=  )", PAGE, re.MULTILINE)
    return f"{always} {counting}".split()


@pytest.mark.parametrize("make", [valkey, redis_6_2])
@pytest.mark.parametrize("key_format", ["ours", "reference"])
async def test_the_commands_on_the_page_are_enough(tmp_path, make, key_format):
    """Every algorithm is counted by Redis, and so is the replica."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    env = {
        "REDIS_AUTH": "rl:p",
        "CACHE_KEY_PREFIX": "pre_",
        "REDIS_KEY_FORMAT": key_format,
        "STORE_TIMEOUT": "5s",
        "QUEUE_AGE": "5s",
        "BREAKER_LATENCY": "5s",
        "LOOP_LAG": "0s",
    }
    async with make(tmp_path / "store") as server:
        with redis.Redis(port=server.port, host="127.0.0.1") as admin:
            admin.execute_command("ACL", "SETUSER", "rl", "on", ">p", "~pre_*", "resetchannels", *listed())
        async with Replica(tmp_path / "replica", rules=rules, redis_url=server.address, env=env) as replica:
            with Client(replica.address, timeout_s=10) as client:
                for key in KINDS:
                    asked = request("shop", [[Entry(key, "x")]])
                    assert [client.ask(asked).overall_code for _ in range(4)] == [1, 1, 1, 2], key

            async def is_counted() -> bool:
                return "replicas are counted" in replica.log.read_text()

            await until(is_counted, "the replica is counted")
            assert await replica.metric("ratelimit_svc_store_failures_total") == 0
            assert await replica.metric("ratelimit_svc_replica_beats_failed_total") == 0
