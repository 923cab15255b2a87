"""docker-compose.yml, run: healthy, locked down, and every tenant held to its limit, also while Valkey is paused."""

import asyncio
import json

import aiohttp
import pytest

from ratelimit_svc.demo.proof import Hit, fullest
from ratelimit_svc.demo.traffic import LIMITED, PASSED, call
from tests.docker.engine import run
from tests.docker.load import LIMITS, RULES, SECOND_US, answers, counters, most, starved

pytestmark = pytest.mark.timeout(1200)  # the first run makes images

STAYING = ("valkey", "ratelimit", "envoy", "upstream")
_LOCKED = "import os; print(os.getuid(), os.access('/', os.W_OK), os.statvfs('/').f_flag & os.ST_RDONLY)"


def test_everything_is_healthy(compose):
    """Valkey, two replicas, Envoy and the application are up and healthy, and nothing else is there."""
    found = compose.inspect()
    services = sorted(one["Config"]["Labels"]["com.docker.compose.service"] for one in found)
    assert services == ["envoy", "ratelimit", "ratelimit", "upstream", "valkey"]
    assert {one["State"]["Health"]["Status"] for one in found} == {"healthy"}


@pytest.mark.parametrize("service", STAYING)
def test_containers_are_locked_down(compose, service):
    """The engine was told so of every container, and none is reachable from outside the machine."""
    for container in compose.inspect(service):
        host = container["HostConfig"]
        assert container["Config"]["User"] == "65534:65534"
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert not host["Privileged"]
        published = [one["HostIp"] for ports in host["PortBindings"].values() for one in ports]
        assert set(published) <= {"127.0.0.1"}


def test_a_replica_runs_as_nobody_and_can_write_nothing(compose):
    """Seen from inside: another user than root, and a root file system that is mounted read-only."""
    assert compose.python("ratelimit", _LOCKED).split() == ["65534", "False", "1"]


async def calls(compose, *, tenant, number):
    """So many calls of a tenant through Envoy, one after the other."""
    url = f"http://127.0.0.1:{compose.env['ENVOY_PORT']}/"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        return [await call(session, url, {"x-tenant": tenant}) for _ in range(number)]


def passed(seen):
    """Those that passed, with the times that the judge needs."""
    return [Hit(one.sent_us, one.answered_us) for one in seen if one.status == PASSED]


async def test_calls_through_envoy_are_limited(compose):
    """The first five of a tenant without a rule of its own pass; the sixth is told that it is over, and when to return."""
    seen = await calls(compose, tenant="through-envoy", number=30)
    assert [one.status for one in seen[:5]] == [PASSED] * 5
    assert fullest(passed(seen), SECOND_US) <= 5
    over = next(one for one in seen if one.status == LIMITED)
    assert over.headers["x-ratelimit-limit"].split(",")[0] == "5"
    assert int(over.headers["retry-after"]) >= 1


def test_a_load_is_held(compose):
    """ghz asks for four tenants far more than each may: none gets more, none is starved, and the replicas counted the same."""
    before = counters(compose)
    log = compose.to_the_end("load")["load"]
    counted = counters(compose) - before
    for tenant, one in answers(log).items():
        assert fullest(one.admitted, SECOND_US) <= most(LIMITS[tenant], local=counted["policy", "local"]), tenant
        assert not starved(one, LIMITS[tenant]), tenant
        rule = RULES[tenant]
        assert (len(one.admitted), one.denied) == (counted[rule, "allowed"], counted[rule, "denied"]), tenant
        assert one.denied > 0, tenant


def test_the_command_that_reads_the_answers_says_the_same(compose):
    """The one at the head of docker-compose.yml: it needs nothing but the image of the service."""
    log = compose.compose("logs", "load")
    said = compose.compose("exec", "-T", "ratelimit", "python", "-m", "ratelimit_svc.demo.answers", text=log)
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    for tenant, one in answers(log).items():
        assert [int(cell) for cell in rows[tenant][1:5]] == [one.asked, len(one.admitted), one.denied, 0]


async def test_a_paused_valkey_stops_no_answer(compose):
    """While Valkey answers nobody, the replicas answer by their rules' policy `local`, within the bound of an outage.

    Some at once, being shed: STORE_TIMEOUT is longer there than QUEUE_AGE.
    """
    before = counters(compose)
    under_load = asyncio.create_task(asyncio.to_thread(compose.to_the_end, "load", "chaos"))
    seen = []
    while not under_load.done():
        seen += await calls(compose, tenant="meanwhile", number=1)
    logs = await under_load
    assert logs["chaos"].count("over") == 3
    counted = counters(compose) - before
    assert counted["policy", "local"] > 100
    assert [counted["policy", name] for name in ("allow", "deny", "error")] == [0, 0, 0]
    assert {one.status for one in seen} == {PASSED, LIMITED}
    for tenant, one in answers(logs["load"]).items():
        assert fullest(one.admitted, SECOND_US) <= most(LIMITS[tenant], local=1), tenant
        assert one.slowest_us < 2 * SECOND_US


def test_down_leaves_nothing(compose):
    """`docker compose down` stops and removes all there is; a second `up` finds the images and is healthy again."""
    compose.compose("--profile", "*", "down")
    assert compose.left() == []
    compose.up()
    images = json.loads(run("docker", "image", "inspect", compose.env["RATELIMIT_IMAGE"]))
    assert images[0]["Config"]["User"] == "65534:65534"
