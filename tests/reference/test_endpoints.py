"""§4 of the reference implementation: what each path of the HTTP and the debug side answers, asked of a real replica.

What differs is marked, and stands in docs/migration.md.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import Replica
from tests.engines import ENGINES
from tests.waiting import for_the_session

RULES = """
domain: shop
descriptors:
  - key: tenant
    rate_limit: {unit: minute, requests_per_unit: 3}
  - key: tenant
    value: gold
    shadow_mode: true
    rate_limit: {unit: hour, requests_per_unit: 30, name: gold}
    descriptors:
      - key: path
        quota_mode: true
        rate_limit: {unit: second, requests_per_unit: 5}
  - key: free
    rate_limit: {unlimited: true}
  - key: wild
    value: "a*"
    rate_limit: {unit: day, requests_per_unit: 7}
"""

RLCONFIG = """\
shop.free: unit=UNKNOWN requests_per_unit=0, shadow_mode: false, quota_mode: false
shop.tenant: unit=MINUTE requests_per_unit=3, shadow_mode: false, quota_mode: false
shop.tenant_gold.path: unit=SECOND requests_per_unit=5, shadow_mode: false, quota_mode: true
shop.tenant_gold: unit=HOUR requests_per_unit=30, shadow_mode: true, quota_mode: false
shop.wild_a*: unit=DAY requests_per_unit=7, shadow_mode: false, quota_mode: false
"""
"""What the reference says of these rules, but for the order: there it is another each time."""

NOT_FOUND = (404, "text/plain", "404 page not found\n")
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD")


class Served(NamedTuple):
    """A replica with these rules, and which engine it has."""

    replica: Replica
    engine: str

    async def ask(self, side: str, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Return status, content type and body."""
        url = {"http": self.replica.http, "debug": self.replica.debug}[side] + path
        async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
            return answer.status, answer.content_type, await answer.text()


@pytest.fixture(scope="module", params=ENGINES)
def served(request, tmp_path_factory) -> Iterator[Served]:
    """A replica of each engine."""
    folder = tmp_path_factory.mktemp("endpoints")
    rules = folder / "a.yaml"
    rules.write_text(RULES)
    with for_the_session(Replica(folder / "replica", rules=rules, env={"ENGINE": request.param})) as replica:
        yield Served(replica, request.param)


@pytest.mark.parametrize("method", METHODS)
async def test_healthcheck_takes_any_method(served, method):
    """200 and `OK`, without a newline."""
    body = "" if method == "HEAD" else "OK"
    assert await served.ask("http", "/healthcheck", method) == (200, "text/plain", body)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/", "/nothing", "/healthcheck/", "/rlconfig", "/json/x", "//json"])
async def test_other_paths_are_404(served, path, method):
    """With Go's text, for any method. The reference makes `/json` of `//json` (differs)."""
    status, kind, body = NOT_FOUND
    assert await served.ask("http", path, method) == (status, kind, "" if method == "HEAD" else body)


async def test_the_debug_sides_index_is_sorted(served):
    """`path: help`, a line each. The reference has its own five; Go's profiles themselves are not here (differs)."""
    status, kind, body = await served.ask("debug", "/")
    lines = body.splitlines()
    assert (status, kind) == (200, "text/plain")
    assert [line for line in lines if line.partition(":")[0] in ("/rlconfig", "/stats")] == [
        "/rlconfig: print out the currently loaded configuration for debugging",
        "/stats: print out stats; ?format=json: as one object",
    ]
    assert [line.partition(": ")[0] for line in lines] == [
        "/debug/compare",
        "/debug/compare/reset",
        "/debug/log-level",
        "/debug/pprof/",
        "/debug/requests",
        "/debug/rules/reload",
        "/debug/stacks",
        "/rlconfig",
        "/stats",
    ]


@pytest.mark.parametrize("path", ["/nothing", "/rlconfig/x", "/debug", "/debug/requests/x"])
async def test_other_debug_paths_are_404(served, path):
    """Differs: the reference answers 200 with the index, which a script takes for success."""
    assert await served.ask("debug", path) == NOT_FOUND


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_rlconfig(served, method):
    """A line for each limit, for any method; sorted (differs: the reference's order is another each time)."""
    assert await served.ask("debug", "/rlconfig", method) == (200, "text/plain", RLCONFIG)


async def test_stats_has_the_references_lines_and_ours(served):
    """`name: JSON`, with `cmdline` and `memstats`; and every metric (differs: the reference has no more than those two)."""
    status, kind, body = await served.ask("debug", "/stats")
    found = {name: json.loads(value) for name, _, value in (line.rpartition(": ") for line in body.splitlines()[2:])}
    assert (status, kind) == (200, "text/plain")
    assert body.startswith("cmdline: [")
    assert body.splitlines()[1].startswith('memstats: {"Alloc": ')
    assert found["ratelimit_svc_requests_total"] == 0
    assert found['ratelimit_svc_rules_loads_total{result="ok"}'] == 1
    assert list(found) == sorted(found)


async def test_stats_as_one_object(served):
    """As Go's expvar shows it, for those who read that."""
    status, kind, body = await served.ask("debug", "/stats?format=json")
    found = json.loads(body)
    assert (status, kind) == (200, "application/json")
    assert found["cmdline"][-1] == "serve"
    assert found["memstats"]["Alloc"] == found["memstats"]["Sys"] > 1_000_000
    assert found["ratelimit_svc_store_up"] == 1


@pytest.mark.parametrize("path", ["/debug/pprof/", "/debug/pprof/profile", "/debug/pprof/trace", "/debug/pprof/heap"])
async def test_gos_profiles_are_not_here(served, path):
    """Differs: who asks for one is told what there is in its place."""
    status, kind, body = await served.ask("debug", path)
    assert (status, kind) == (404, "text/plain")
    assert "/debug/stacks" in body


async def test_stacks(served):
    """What is asked of Go's pprof for goroutines: where each thread and each task is, the innermost call last."""
    status, kind, body = await served.ask("debug", "/debug/stacks")
    assert (status, kind) == (200, "text/plain")
    assert "thread MainThread\n" in body
    blocks = {block.partition("\n")[0]: block for block in body.replace("\ntask ", "\n\ntask ").split("\n\n")}
    lines = blocks["task rules"].splitlines()
    assert lines[1].endswith("keep")
    assert lines[-1].endswith("Event.wait")


async def check(replica: Replica, service: str) -> int:
    """Ask grpc.health.v1."""
    async with grpc.aio.insecure_channel(replica.address) as channel:
        asked = health_pb2.HealthCheckRequest(service=service)
        status: int = (await health_pb2_grpc.HealthStub(channel).Check(asked, timeout=10)).status
        return status


@pytest.mark.parametrize("service", ["ratelimit", "envoy.service.ratelimit.v3.RateLimitService", ""])
async def test_grpc_health(served, service):
    """By the reference's name, and by the service's own (differs: unknown there)."""
    assert await check(served.replica, service) == health_pb2.HealthCheckResponse.SERVING


async def test_grpc_health_of_an_unknown_service(served):
    """Is NOT_FOUND."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await check(served.replica, "other")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_grpc_health_lists_its_names(served):
    """Each with its status (differs: the service's own name is one of them)."""
    async with grpc.aio.insecure_channel(served.replica.address) as channel:
        listed = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=10)
    names = ("", "ratelimit", "envoy.service.ratelimit.v3.RateLimitService")
    assert {name: each.status for name, each in listed.statuses.items()} == dict.fromkeys(
        names, health_pb2.HealthCheckResponse.SERVING
    )


async def test_without_a_configuration_it_is_not_healthy(tmp_path):
    """Differs: the reference says 200 while every call is an error, and `""` is SERVING always. The body has the reasons."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("nonsense")
    replica = Replica(tmp_path / "replica", rules=rules)

    async def healthcheck() -> tuple[int, str]:
        try:
            status, _, body = await Served(replica, "").ask("http", "/healthcheck")
        except aiohttp.ClientError:
            return 0, ""
        return status, body

    replica.folder.mkdir()
    replica._spawn()
    try:

        async def listens() -> bool:
            return (await healthcheck())[0] != 0

        await until(listens, "it listens")
        assert await healthcheck() == (500, "no rules loaded")
        assert await Served(replica, "").ask("debug", "/rlconfig") == (200, "text/plain", "")
        for service in ("", "ratelimit"):
            assert await check(replica, service) == health_pb2.HealthCheckResponse.NOT_SERVING
    finally:
        await replica.stop()
