"""What Prometheus reads after a script of requests, series by series: the reference implementation exports these, with these numbers.

The literals are its own, of the same rules and requests in the same order.
"""

import asyncio
import json
import re
from contextlib import nullcontext
from http import HTTPStatus
from pathlib import Path
from urllib.request import urlopen

import pytest

from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import LOOPBACK, RedisServer, Replica, get
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.calls import CallError
from ratelimit_svc.wire.client import Client
from tests.reference.asking import asked
from tests.waiting import PATIENCE

RULES = """
domain: shop
descriptors:
  - key: tenant
    value: acme
    rate_limit: {unit: year, requests_per_unit: 10}
    descriptors:
      - {key: path, value: /buy, rate_limit: {unit: year, requests_per_unit: 5}}
      - key: path
        descriptors:
          - {key: user, rate_limit: {unit: year, requests_per_unit: 3}}
          - {key: user, value: bob, rate_limit: {unit: year, requests_per_unit: 30}}
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 100}}
  - {key: small, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: odd, rate_limit: {unit: year, requests_per_unit: 14}}
  - {key: none, rate_limit: {unit: year, requests_per_unit: 0}}
  - {key: own, rate_limit: {unit: year, requests_per_unit: 100}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: quota, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: host, value: api*, rate_limit: {unit: year, requests_per_unit: 50}}
  - {key: share, value: f/*, share_threshold: true, value_to_metric: true, rate_limit: {unit: year, requests_per_unit: 50}}
  - {key: detailed, detailed_metric: true, rate_limit: {unit: year, requests_per_unit: 50}}
  - key: to_metric
    value_to_metric: true
    descriptors:
      - {key: below, rate_limit: {unit: year, requests_per_unit: 50}}
  - {key: named, rate_limit: {unit: year, requests_per_unit: 50, name: a}}
  - {key: replacer, rate_limit: {unit: year, requests_per_unit: 50, name: b, replaces: [{name: a}]}}
  - {key: free, rate_limit: {unlimited: true}}
"""

SCRIPT = (
    *["tenant=acme"] * 12,  # near the limit from 8 on, over it from 10 on
    "hits 7: tenant=b",
    "hits 90: tenant=b",
    "hits 5: tenant=b",  # 3 fit, 2 do not
    "tenant=acme; tenant=c",  # denied for the first: the second is counted all the same
    "tenant=acme > path=/buy",
    "hits 3: tenant=acme > path=/buy",
    *["tenant=acme > path=/sell > user=ann"] * 4,  # a third level
    "tenant=acme > path=/sell > user=bob",
    "tenant=acme > path=/lend > user=eve",
    "small=x",
    "small=x",
    "hits 12: odd=x",  # near from 11 on: 14 × 0.8 = 11.2
    "none=x",
    *["own=x own 5 year"] * 6,
    "own=x > more=y own 5 year",  # met by no rule
    *["trial=x"] * 3,
    "trial=x hits 4",
    *["quota=x"] * 3,
    "quota=x; quota=y",
    "host=api",
    "hits 2: host=api.example.com",
    "share=f/a",
    "share=f/b",
    "detailed=foo.bar/baz",
    "detailed=10.0.0.1:8080",
    "detailed=a|b",
    "to_metric=one > below=x",
    "to_metric=two > below=x",
    "named=x; replacer=x",
    "free=x",
    "unmatched=x",
    "-",
    "tenant=acme hits 0",
    "tenant=d hits 0",
    "same=x; tenant=e; tenant=e",
    "@nowhere a=b; c=d",
    "@no.where:8080 a=b",
    "@",
    "@shop ",
)
WRONG = ("@", "@shop ")

SERIES = r"""
ratelimit_service_config_load_success 1
ratelimit_service_rate_limit_near_limit{domain="shop",key1="odd"} 1
ratelimit_service_rate_limit_near_limit{domain="shop",key1="own_x"} 1
ratelimit_service_rate_limit_near_limit{domain="shop",key1="quota"} 1
ratelimit_service_rate_limit_near_limit{domain="shop",key1="small"} 1
ratelimit_service_rate_limit_near_limit{domain="shop",key1="tenant"} 20
ratelimit_service_rate_limit_near_limit{domain="shop",key1="tenant_acme",key2="path"} 1
ratelimit_service_rate_limit_near_limit{domain="shop",key1="tenant_acme"} 2
ratelimit_service_rate_limit_near_limit{domain="shop",key1="trial"} 1
ratelimit_service_rate_limit_no_where_8080_domain_not_found 1
ratelimit_service_rate_limit_nowhere_domain_not_found 2
ratelimit_service_rate_limit_over_limit{domain="shop",key1="none"} 1
ratelimit_service_rate_limit_over_limit{domain="shop",key1="own_x"} 1
ratelimit_service_rate_limit_over_limit{domain="shop",key1="quota"} 2
ratelimit_service_rate_limit_over_limit{domain="shop",key1="small"} 1
ratelimit_service_rate_limit_over_limit{domain="shop",key1="tenant"} 2
ratelimit_service_rate_limit_over_limit{domain="shop",key1="tenant_acme",key2="path"} 1
ratelimit_service_rate_limit_over_limit{domain="shop",key1="tenant_acme"} 3
ratelimit_service_rate_limit_over_limit{domain="shop",key1="trial"} 5
ratelimit_service_rate_limit_shadow_mode{domain="shop",key1="trial"} 5
ratelimit_service_rate_limit_total_hits{domain="shop",key1="detailed_10_0_0_1_8080"} 1
ratelimit_service_rate_limit_total_hits{domain="shop",key1="detailed_a_b"} 1
ratelimit_service_rate_limit_total_hits{domain="shop",key1="detailed_foo",key2="bar/baz"} 1
ratelimit_service_rate_limit_total_hits{domain="shop",key1="host_api*"} 3
ratelimit_service_rate_limit_total_hits{domain="shop",key1="none"} 1
ratelimit_service_rate_limit_total_hits{domain="shop",key1="odd"} 12
ratelimit_service_rate_limit_total_hits{domain="shop",key1="own_x",key2="more_y"} 1
ratelimit_service_rate_limit_total_hits{domain="shop",key1="own_x"} 6
ratelimit_service_rate_limit_total_hits{domain="shop",key1="quota"} 5
ratelimit_service_rate_limit_total_hits{domain="shop",key1="replacer"} 1
ratelimit_service_rate_limit_total_hits{domain="shop",key1="share_f/*"} 2
ratelimit_service_rate_limit_total_hits{domain="shop",key1="small"} 2
ratelimit_service_rate_limit_total_hits{domain="shop",key1="tenant"} 105
ratelimit_service_rate_limit_total_hits{domain="shop",key1="tenant_acme",key2="path"} 6
ratelimit_service_rate_limit_total_hits{domain="shop",key1="tenant_acme",key2="path_/buy"} 4
ratelimit_service_rate_limit_total_hits{domain="shop",key1="tenant_acme"} 13
ratelimit_service_rate_limit_total_hits{domain="shop",key1="to_metric_one",key2="below"} 1
ratelimit_service_rate_limit_total_hits{domain="shop",key1="to_metric_two",key2="below"} 1
ratelimit_service_rate_limit_total_hits{domain="shop",key1="trial"} 7
ratelimit_service_rate_limit_within_limit{domain="shop",key1="detailed_10_0_0_1_8080"} 1
ratelimit_service_rate_limit_within_limit{domain="shop",key1="detailed_a_b"} 1
ratelimit_service_rate_limit_within_limit{domain="shop",key1="detailed_foo",key2="bar/baz"} 1
ratelimit_service_rate_limit_within_limit{domain="shop",key1="host_api*"} 3
ratelimit_service_rate_limit_within_limit{domain="shop",key1="odd"} 12
ratelimit_service_rate_limit_within_limit{domain="shop",key1="own_x",key2="more_y"} 1
ratelimit_service_rate_limit_within_limit{domain="shop",key1="own_x"} 5
ratelimit_service_rate_limit_within_limit{domain="shop",key1="quota"} 3
ratelimit_service_rate_limit_within_limit{domain="shop",key1="replacer"} 1
ratelimit_service_rate_limit_within_limit{domain="shop",key1="share_f/*"} 2
ratelimit_service_rate_limit_within_limit{domain="shop",key1="small"} 1
ratelimit_service_rate_limit_within_limit{domain="shop",key1="tenant"} 100
ratelimit_service_rate_limit_within_limit{domain="shop",key1="tenant_acme",key2="path"} 5
ratelimit_service_rate_limit_within_limit{domain="shop",key1="tenant_acme",key2="path_/buy"} 4
ratelimit_service_rate_limit_within_limit{domain="shop",key1="tenant_acme"} 10
ratelimit_service_rate_limit_within_limit{domain="shop",key1="to_metric_one",key2="below"} 1
ratelimit_service_rate_limit_within_limit{domain="shop",key1="to_metric_two",key2="below"} 1
ratelimit_service_rate_limit_within_limit{domain="shop",key1="trial"} 2
ratelimit_service_response_time_seconds_count{grpc_method="ShouldRateLimit"} 63
ratelimit_service_should_rate_limit_error{err_type="service_error"} 2
ratelimit_service_total_requests{grpc_method="ShouldRateLimit"} 63
"""


def ask(address: str) -> None:
    """Ask what the script says, one after another."""
    with Client(address, timeout_s=30) as client:
        for text in SCRIPT:
            message = rls_pb2.RateLimitRequest.FromString(rls.request_from_json(json.dumps(asked(text)).encode()))
            wrong = pytest.raises(CallError, match="must not be empty") if text in WRONG else nullcontext()
            with wrong:
                client.ask(message)


def ask_json(url: str) -> None:
    """Ask once more, over HTTP."""
    with urlopen(f"{url}/json", json.dumps(asked("tenant=f")).encode(), timeout=30) as answer:
        assert answer.status == HTTPStatus.OK


def series(page: str) -> list[str]:
    """All lines that are the reference's, but for times, which are never the same, and what describes its process and connections."""
    return sorted(line for line in page.splitlines() if SAME.match(line))


SAME = re.compile(r"ratelimit_(?!svc_|go_|redis_pool_)(?!\w+_(sum|bucket)\b)")


@pytest.mark.parametrize(
    ("algorithm", "keys"), [("fixed_window", "ours"), ("fixed_window", "reference"), ("sliding_window", "ours")]
)
async def test_series_are_the_references(tmp_path: Path, valkey_server: RedisServer, algorithm: str, keys: str) -> None:
    """The same names, labels and numbers, and no other series."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    port = free_port()
    env = {"USE_PROMETHEUS": "true", "PROMETHEUS_ADDR": f"{LOOPBACK}:{port}", "DEFAULT_ALGORITHM": algorithm}
    env |= PATIENCE | {"CACHE_KEY_PREFIX": f"series-{algorithm}-{keys}:", "REDIS_KEY_FORMAT": keys}
    async with Replica(tmp_path, rules=rules, redis_url=valkey_server.address, env=env) as replica:
        await until(replica.ready, "it is ready")
        await asyncio.to_thread(ask, replica.address)
        _, page = await get(f"http://{LOOPBACK}:{port}/metrics")
        assert series(page) == SERIES.split("\n")[1:-1]
        assert "ratelimit_svc_requests_total 63.0" in page
        assert series((await get(f"{replica.http}/metrics"))[1]) == series(page)
        await asyncio.to_thread(ask_json, replica.http)
        total = 'ratelimit_service_total_requests{grpc_method="ShouldRateLimit"}'
        assert f"\n{total} 64\n" in (await get(f"http://{LOOPBACK}:{port}/metrics"))[1]
        assert f"\n{total}: 64\n" in (await get(f"{replica.debug}/stats"))[1]
        assert (await get(f"http://{LOOPBACK}:{port}/"))[0] == 404
