"""Envoy Gateway: the environment of its Deployment, rules from its xDS server, and its proxies' questions, through a real Envoy."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
import trustme

from ratelimit_svc.demo import envoy
from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import LOOPBACK, Envoy, get, valkey
from ratelimit_svc.demo.traffic import LIMITED, PASSED, Answer, Upstream, call
from tests.certificates import chain
from tests.contracts import gateway
from tests.contracts.manifests import ENVOY_GATEWAY, statsd_mapper
from tests.contracts.pod import Pod
from tests.xds.ads import Ads, Talk, listening

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


class Model(Upstream):
    """The application: answers everything, and says a cost where it was asked to."""

    async def _answer(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        cost = request.headers.get("x-costs", "")
        return aiohttp.web.Response(text="words\n", headers={"x-tokens-used": cost} if cost else {})


@dataclass
class Cluster:
    """What is running."""

    pod: Pod
    xds: Talk
    proxy: Envoy
    hurried: str
    """The URL of the listener that waits for 20 ms."""
    session: aiohttp.ClientSession
    metrics_port: int

    async def call(self, path: str, **headers: str) -> Answer:
        """One request; `x_user_id="one"` is a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await call(self.session, self.proxy.url + path, named)

    async def statuses(self, count: int, path: str, **headers: str) -> list[int]:
        """The statuses of so many requests, one after the other."""
        return [(await self.call(path, **headers)).status for _ in range(count)]


def certificates(folder: Path, root: trustme.CA, *names: str) -> Path:
    """A secret as Envoy Gateway makes them, mounted."""
    folder.mkdir(parents=True)
    made = root.issue_cert(*names)
    (folder / "tls.crt").write_bytes(chain(made))
    (folder / "tls.key").write_bytes(made.private_key_pem.bytes())
    (folder / "ca.crt").write_bytes(root.cert_pem.bytes())
    return folder


def control_plane(folder: Path) -> grpc.ServerCredentials:
    """How its xDS server is reached: with a certificate of one's own."""
    key, cert, ca = ((folder / name).read_bytes() for name in ("tls.key", "tls.crt", "ca.crt"))
    return grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Everything up, with the rules in force."""
    folder, root = tmp_path_factory.mktemp("envoy-gateway"), trustme.CA()
    secret = certificates(folder / "control-plane", root, "envoy-gateway", LOOPBACK)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(valkey(folder / "redis"))
        xds = await stack.enter_async_context(listening(credentials=control_plane(secret)))
        hosts = {"redis.redis.svc:6379": store.address, "envoy-gateway:18001": xds.url}
        metrics_port = free_port()
        pod = Pod(folder / "pod", ENVOY_GATEWAY, {**hosts, ":19001": f":{metrics_port}"})
        certificates(Path(pod.here("/certs")), root, "envoy-ratelimit", LOOPBACK)
        mount_mapper(pod)
        await stack.enter_async_context(pod)
        talk = await told(xds.ads)
        upstream = await stack.enter_async_context(Model())
        port, hurried, admin = free_port(), free_port(), free_port()
        config = gateway.configuration(
            port=port,
            hurried_port=hurried,
            admin_port=admin,
            service=pod.grpc_port,
            upstream=upstream.port,
            certificates=certificates(folder / "envoy", root, "envoy"),
        )
        written = envoy.write(config, folder / "envoy" / "envoy.json")
        proxy = await stack.enter_async_context(Envoy(folder / "envoy", written, port=port, admin_port=admin))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Cluster(pod, talk, proxy, f"http://{LOOPBACK}:{hurried}", session, metrics_port)


def mount_mapper(pod: Pod) -> None:
    """Its ConfigMap for the metrics' names."""
    mapper = Path(pod.here(ENVOY_GATEWAY["PROMETHEUS_MAPPER_YAML"]))
    mapper.parent.mkdir(parents=True)
    mapper.write_text(statsd_mapper())


async def told(ads: Ads) -> Talk:
    """Answer the pod's first question with the rules, and wait until they are in force."""
    talk = await ads.opened()
    await talk.say("1", *gateway.rules())
    accepted = await talk.heard()
    assert (accepted.version_info, accepted.HasField("error_detail")) == ("1", False)
    return talk


# ── the pod ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_its_probes_succeed(cluster):
    """Start-up, readiness and liveness are one: GET /healthcheck on the HTTP side, which has no TLS."""
    assert await cluster.pod.probe() == (200, "OK")


async def test_callers_without_a_certificate_are_refused(cluster):
    """GRPC_SERVER_TLS_CA_CERT, which the reference implementation does not read, is heeded."""
    trusting = ssl.create_default_context(cafile=cluster.pod.here("/certs/ca.crt"))
    trusting.set_alpn_protocols(["h2"])
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await hello(cluster.pod, trusting)
    trusting.load_cert_chain(cluster.pod.here("/certs/tls.crt"), cluster.pod.here("/certs/tls.key"))
    assert await hello(cluster.pod, trusting)


async def hello(pod: Pod, context: ssl.SSLContext) -> bytes:
    """What the gRPC side says first, on a connection of TLS."""
    reader, writer = await asyncio.open_connection(LOOPBACK, pod.grpc_port, ssl=context)
    try:
        return await asyncio.wait_for(reader.readexactly(9), timeout=30)  # the head of its SETTINGS frame
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError from error
    finally:
        writer.close()


# ── its rules, as its proxies ask ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_header_that_matches_is_one_bucket(cluster):
    """Of a user who is named in a rule; others are not asked for. The headers are Envoy's, by the draft."""
    answers = [await cluster.call("/matched", x_user_id="one") for _ in range(7)]
    assert [answer.status for answer in answers] == [PASSED] * 5 + [LIMITED] * 2
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"5, 5;w=3600"}
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == list("4321000")
    assert all(0 < int(answer.headers["x-ratelimit-reset"]) <= 3660 for answer in answers)
    assert "x-envoy-ratelimited" not in answers[-1].headers
    assert await cluster.statuses(7, "/matched", x_user_id="two") == [PASSED] * 7


async def test_an_inverted_match_is_for_all_others(cluster):
    """`invert: true`: everybody but the administrators."""
    assert await cluster.statuses(3, "/inverted", x_org_id="guest") == [PASSED] * 2 + [LIMITED]
    assert await cluster.statuses(3, "/inverted", x_org_id="admin") == [PASSED] * 3


async def test_distinct_values_have_a_bucket_each(cluster):
    """`type: Distinct`: the rule's value is empty, and each user's is counted alone."""
    for user in ("ann", "bob"):
        assert await cluster.statuses(3, "/distinct", x_user_id=user) == [PASSED] * 2 + [LIMITED]


async def test_a_rule_without_a_match_is_for_everyone(cluster):
    """And the route's name, which ends in a literal star, matches itself."""
    assert await cluster.statuses(4, "/everyone") == [PASSED] * 3 + [LIMITED]


async def test_a_network_is_one_bucket_and_its_addresses_one_each(cluster):
    """A source CIDR alone, and with `type: Distinct`."""
    other = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=other) as session:

        async def statuses(path: str, count: int) -> list[int]:
            return [(await call(session, cluster.proxy.url + path, {})).status for _ in range(count)]

        assert await cluster.statuses(2, "/network") == [PASSED] * 2
        assert await statuses("/network", 2) == [PASSED, LIMITED]
        assert await cluster.statuses(3, "/address") == [PASSED] * 2 + [LIMITED]
        assert await statuses("/address", 3) == [PASSED] * 2 + [LIMITED]


async def test_a_request_costs_what_is_said(cluster):
    """`cost.request` as a number, 4 of 10 each, and from metadata."""
    assert await cluster.statuses(3, "/dear") == [PASSED] * 2 + [LIMITED]
    told = [await cluster.call("/told", x_tokens_used=cost) for cost in ("7", "4", "3")]
    assert [answer.status for answer in told] == [PASSED, LIMITED, PASSED]
    assert [answer.headers["x-ratelimit-remaining"] for answer in told] == ["3", "3", "0"]


async def test_a_response_costs_what_it_says(cluster):
    """`cost.response`: 60 and 60 of a budget of 100 pass, since each was asked for before; then it is spent."""

    async def remaining() -> str:
        return (await cluster.call("/tokens")).headers["x-ratelimit-remaining"]

    assert await cluster.statuses(1, "/tokens", x_costs="60") == [PASSED]

    async def charged() -> bool:
        return await remaining() == "40"

    await until(charged, "the first cost is counted")
    assert await cluster.statuses(1, "/tokens", x_costs="60") == [PASSED]

    async def spent() -> bool:
        return (await cluster.call("/tokens")).status == LIMITED

    await until(spent, "the budget is spent")


async def test_a_limit_may_come_with_the_request(cluster):
    """`limit.fromMetadata`: the tenant's two an hour go before the rule's nine."""
    answers = [await cluster.call("/tenant") for _ in range(3)]
    assert [answer.status for answer in answers] == [PASSED] * 2 + [LIMITED]
    assert answers[0].headers["x-ratelimit-limit"] == "2, 2;w=3600"


async def test_shadow_mode_denies_nobody(cluster):
    """As `shadowMode: true` in a rule."""
    assert await cluster.statuses(3, "/shadow") == [PASSED] * 3


async def test_a_shared_policy_has_a_domain_of_its_own(cluster):
    """Its filter asks for another domain than the listener's."""
    assert await cluster.statuses(4, "/shared", x_user_id="one") == [PASSED] * 3 + [LIMITED]


async def test_nobody_waited_in_vain(cluster):
    """Where Envoy waits for 10 s: all of the above was answered. What follows asks the listener that waits for 20 ms, too."""
    _, text = await get(
        f"{cluster.proxy.admin}/stats?filter=http.http.ratelimit|cluster.ratelimit_cluster.upstream_rq_5xx"
    )
    assert "upstream_rq_5xx: 0" in text or "upstream_rq_5xx" not in text


async def test_within_20_ms_no_more_than_the_limit_is_let_pass_by_an_answer(cluster):
    """Where nothing says how long to wait. What passed without an answer Envoy counts; what a replica admitted alone, we do."""
    passed = limited = 0
    while not limited:
        answer = await call(cluster.session, f"{cluster.hurried}/hurried", {"x-user-id": "one"})
        passed += answer.status == PASSED
        limited += answer.status == LIMITED
    stats = await cluster.proxy.rate_limit_stats()
    alone = await metric(cluster.pod.port, "/metrics", 'ratelimit_svc_policy_decisions_total{policy="local"}')
    assert passed <= 5 + stats.get("failure_mode_allowed", 0) + alone


async def test_changed_rules_act_and_bad_ones_do_not(cluster):
    """A new version raises a limit; one with a mistake is refused with its reason, and changes nothing."""
    raised = gateway.rules()
    for descriptor in raised[0]["descriptors"]:
        leaf = leaf_of(descriptor)
        if leaf["key"] == "rule-0-match--1" and "/everyone/" in descriptor["key"]:
            leaf["rate_limit"]["requests_per_unit"] = 5
    await cluster.xds.say("2", *raised)
    accepted = await cluster.xds.heard()
    assert (accepted.version_info, accepted.HasField("error_detail")) == ("2", False)
    assert await cluster.statuses(3, "/everyone") == [PASSED] * 2 + [LIMITED]
    bad: list[Any] = gateway.rules()
    leaf_of(bad[0]["descriptors"][0])["rate_limit"]["unit"] = "UNKNOWN"
    await cluster.xds.say("3", *bad)
    refused = await cluster.xds.heard()
    assert (refused.version_info, bool(refused.error_detail.message)) == ("2", True)
    assert await cluster.statuses(1, "/everyone") == [LIMITED]


def leaf_of(descriptor: dict[str, Any]) -> dict[str, Any]:
    """The one that has the limit."""
    while descriptor["descriptors"]:
        (descriptor,) = descriptor["descriptors"]
    return descriptor


async def metric(port: int, path: str, sample: str) -> float:
    """One sample of a page of metrics; 0 where it is not there."""
    _, text = await get(f"http://{LOOPBACK}:{port}{path}")
    found = [line for line in text.splitlines() if line.startswith(f"{sample} ")]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0
