"""The life of the process: start, ready, drain, close, as its signals, its health and its log show it."""

import asyncio
import json
import os
import resource
import signal
import socket
import time
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import Replica, get, valkey
from ratelimit_svc.model import Entry
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2_grpc
from ratelimit_svc.server import background
from ratelimit_svc.wire.calls import CallError
from ratelimit_svc.wire.client import Client, ClientTls, request
from tests.certificates import CLIENT, Files, chain
from tests.logged import log_of, logged
from tests.waiting import ended

REFUSED = "Error loading new configuration: "
"""What the reference implementation says of rules that cannot be used, and so do we: people look for it."""
RULES = "domain: shop\ndescriptors: [{key: tenant, rate_limit: {unit: hour, requests_per_unit: %d}}]\n"


@pytest.fixture
def rules(tmp_path) -> Path:
    """A rule file of one rule, three an hour."""
    path = tmp_path / "rules" / "shop.yaml"
    path.parent.mkdir()
    path.write_text(RULES % 3)
    return path


def ask(replica: Replica, tenant: str = "a", timeout_s: float = 5):
    with Client(replica.address, timeout_s=timeout_s) as client:
        return client.ask(request("shop", [[Entry("tenant", tenant)]]))


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_quiet_life_logs_a_handful_of_lines(tmp_path, rules, loop):
    """Start, listen, a denial, drain, stop: each one line, on either loop, and exit status 0."""
    env = {"LOOP": loop, "LOG_FORMAT": "json", "LOOP_LAG": "0s", "QUEUE_AGE": "10s"}  # whatever else this machine does
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        assert [ask(replica).overall_code for _ in range(4)] == [1, 1, 1, 2]
        os.kill(replica.pid, signal.SIGTERM)
        assert await ended(replica) == 0
    events = [line["@message"] for line in log_of(replica)]
    assert events[0].startswith("REDIS_URL is not set: windows are kept in this process's memory")
    assert events[1:] == ["rules loaded", "listening", "denied", "draining", "stopped"]


async def test_impatient_callers_fill_no_log(tmp_path, rules):
    """Callers who go before their answer are nobody's error, however many they are."""
    async with Replica(tmp_path / "replica", rules=rules, env={"LOG_FORMAT": "json"}) as replica:
        async with grpc.aio.insecure_channel(replica.address) as channel:
            stub = rls_pb2_grpc.RateLimitServiceStub(channel)
            calls = [stub.ShouldRateLimit(request("shop", [[Entry("tenant", "a")]]), timeout=0.003) for _ in range(500)]
            await asyncio.gather(*calls, return_exceptions=True)
        assert ask(replica, "b").overall_code == 1
    assert len(log_of(replica)) < 10


async def test_it_serves_on_while_it_drains(tmp_path, rules):
    """Told to stop it is unready at once, answers for DRAIN_DELAY, and goes at a second signal."""
    async with Replica(tmp_path / "replica", rules=rules, env={"DRAIN_DELAY": "60s", "LOG_FORMAT": "json"}) as replica:
        assert await get(f"{replica.http}/healthcheck") == (200, "OK")
        os.kill(replica.pid, signal.SIGTERM)

        async def unready() -> bool:
            return await get(f"{replica.http}/healthcheck") == (500, "draining")

        await until(unready, "it is unready")
        assert ask(replica).overall_code == 1
        os.kill(replica.pid, signal.SIGINT)
        assert await ended(replica) == 0


async def test_a_call_under_way_is_answered_before_it_ends(tmp_path, rules):
    """Nothing accepted is dropped: a call that waits for a hanging store gets its answer while the process drains."""
    async with valkey(tmp_path / "valkey") as store:
        env = {"STORE_TIMEOUT": "2s", "DRAIN_DELAY": "0s"}
        async with Replica(tmp_path / "replica", rules=rules, redis_url=store.url, env=env) as replica:
            assert ask(replica).statuses[0].limit_remaining == 2
            os.kill(store.pid, signal.SIGSTOP)
            call = asyncio.create_task(asyncio.to_thread(ask, replica))

            async def waits() -> bool:
                return await replica.metric("ratelimit_svc_store_batches_total") == 2

            await until(waits, "the call waits for the store")
            os.kill(replica.pid, signal.SIGTERM)
            assert (await call).overall_code == 1
            assert await ended(replica) == 0
            os.kill(store.pid, signal.SIGCONT)


async def test_a_second_signal_ends_a_drain_that_a_stream_holds(tmp_path, rules):
    """Someone who leaves a reflection stream open does not decide when the process ends."""
    env = {"DRAIN_TIMEOUT": "600s", "LOG_FORMAT": "json"}
    replica = Replica(tmp_path / "replica", rules=rules, env=env)
    async with replica, grpc.aio.insecure_channel(replica.address) as channel:
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await stream.read()
        os.kill(replica.pid, signal.SIGTERM)
        await until(says(replica, "draining"), "it drains")
        os.kill(replica.pid, signal.SIGTERM)
        assert await ended(replica) == 0


def says(replica: Replica, event: str):
    """A condition: the log has a message that begins so."""

    async def said() -> bool:
        return bool(logged(replica, event))

    return said


async def test_rules_that_cannot_be_read_do_not_hold_the_start(tmp_path):
    """A pipe instead of a file is told, and a signal is heard."""
    pipe = tmp_path / "rules.yaml"
    os.mkfifo(pipe)
    replica = Replica(tmp_path / "replica", rules=pipe, env={"LOG_FORMAT": "json"})
    replica.folder.mkdir()
    replica._spawn()
    try:
        await until(says(replica, REFUSED), "it says what is wrong")
        os.kill(replica.pid, signal.SIGTERM)
        assert await ended(replica) == 0
    finally:
        await replica.stop()
    (line,) = [line for line in log_of(replica) if line["@message"].startswith(REFUSED)]
    assert "not a regular file" in line["@message"]


async def test_a_replica_that_requires_redis_is_not_ready_before_it(tmp_path, rules):
    """A Redis that accepts and never answers is away from the first moment on."""
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    env = {"READY_REQUIRES_REDIS": "true", "LOG_FORMAT": "json"}
    replica = Replica(tmp_path / "replica", rules=rules, redis_url=f"127.0.0.1:{port}", env=env)
    replica.folder.mkdir()
    replica._spawn()
    try:
        await until(says(replica, "listening"), "it listens")
        assert await get(f"{replica.http}/healthcheck") == (500, "the store is away")
        assert await replica.metric("ratelimit_svc_store_up") == 0
    finally:
        await replica.stop()
        silent.close()


async def test_bad_rules_at_the_start_are_told_and_mended_without_a_restart(tmp_path, rules):
    """It starts, says what is wrong, is not ready, and becomes ready when the file is right."""
    rules.write_text("domain: shop\ndescriptors: [{kee: tenant}]\n")
    replica = Replica(tmp_path / "replica", rules=rules, env={"LOG_FORMAT": "json"})
    replica.folder.mkdir()
    replica._spawn()
    try:

        async def told() -> bool:
            return await get(f"{replica.http}/healthcheck") == (500, "no rules loaded")

        await until(told, "it says that it has no rules")
        with pytest.raises(CallError, match="UNKNOWN: no rate limit configuration loaded"):
            ask(replica)
        detail = json.loads((await get(f"{replica.http}/healthcheck?verbose"))[1])
        assert len(detail["rules"]["findings"]) >= 1
        assert "kee" in detail["rules"]["findings"][0]
        rules.write_text(RULES % 3)
        await until(replica.ready, "it is ready")
        assert ask(replica).overall_code == 1
    finally:
        await replica.stop()
    errors = [line for line in log_of(replica) if line["level"] == "error"]
    assert errors[0]["@message"].startswith(REFUSED)
    assert "kee" in errors[0]["@message"]
    assert errors[0]["kept"] == "there are none yet: each request gets an error"


async def test_a_change_of_the_rules_is_taken_and_a_bad_one_is_not(tmp_path, rules):
    """Limits change under the counts; nonsense changes nothing and is told; SIGHUP looks at once and ends nothing."""
    async with Replica(tmp_path / "replica", rules=rules.parent) as replica:
        assert ask(replica).statuses[0].limit_remaining == 2
        rules.write_text(RULES % 10)

        async def limit_is_ten() -> bool:
            return ask(replica, "probe").statuses[0].current_limit.requests_per_unit == 10

        await until(limit_is_ten, "the new limit acts")
        assert ask(replica).statuses[0].limit_remaining == 8
        rules.write_text("nonsense")
        os.kill(replica.pid, signal.SIGHUP)

        async def told() -> bool:
            return await replica.metric("ratelimit_svc_rules_loads_total", result="failed") == 1

        await until(told, "the bad change is told")
        assert ask(replica).statuses[0].limit_remaining == 7
        assert await get(f"{replica.http}/healthcheck") == (200, "OK")


async def test_without_redis_it_starts_is_ready_and_recovers_by_itself(tmp_path, rules):
    """Started while Redis is away it answers by its local share; when Redis comes, by Redis; and it says both."""
    store = valkey(tmp_path / "valkey")
    env = {"REPLICAS": "3", "LOG_FORMAT": "json"}
    async with Replica(tmp_path / "replica", rules=rules, redis_url=store.url, env=env) as replica:
        assert [ask(replica).overall_code for _ in range(2)] == [1, 2]
        detail = json.loads((await get(f"{replica.http}/healthcheck?verbose"))[1])
        assert (detail["ready"], detail["store"]["up"]) == (True, False)
        assert await replica.metric("ratelimit_svc_store_up") == 0
        async with store:

            async def up() -> bool:
                return await replica.metric("ratelimit_svc_store_up") == 1

            await until(up, "the store is up")
            assert [ask(replica).overall_code for _ in range(3)] == [1, 1, 2]  # what was let pass counts
    said = [line["@message"] for line in log_of(replica) if "store is" in line["@message"]]
    assert said[:2] == ["store is away: answering by on_store_failure", "store is up"]


@pytest.mark.parametrize("variable", ["READY_REQUIRES_REDIS", "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION"])
async def test_a_replica_that_requires_redis_is_unready_without_it(tmp_path, rules, variable):
    """READY_REQUIRES_REDIS opts in, also by the reference implementation's name."""
    store = valkey(tmp_path / "valkey")
    env = {variable: "true"}
    async with store, Replica(tmp_path / "replica", rules=rules, redis_url=store.url, env=env) as replica:
        await store.kill()

        async def unready() -> bool:
            return await get(f"{replica.http}/healthcheck") == (500, "the store is away")

        await until(unready, "it is unready")
        await store.start()
        await until(replica.ready, "it is ready again")


async def test_a_loop_that_lags_makes_it_unready_and_it_comes_back(tmp_path, rules):
    """A process that gets hardly any CPU says so, first in the log, then by its health; given CPU again it is ready by itself."""
    env = {"LOOP_LAG": "200ms", "LOG_FORMAT": "json"}
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        starving = asyncio.create_task(starve(replica.pid))
        try:

            async def unready() -> bool:
                return await get(f"{replica.http}/healthcheck") == (500, "overloaded: the event loop lags")

            await until(unready, "it is unready", within=60)
        finally:
            starving.cancel()
            await asyncio.wait([starving])
        assert await replica.metric("ratelimit_svc_loop_late_seconds_total") > 1
        await until(replica.ready, "it is ready again", within=60)
        loop = json.loads((await get(f"{replica.http}/healthcheck?verbose"))[1])["loop"]
        assert not loop["unwell"]
        await until(
            says(replica, "no longer overloaded: requests are not shed any more"), "it sheds no more", within=60
        )
    said = [line["@message"].split(":")[0] for line in log_of(replica) if "loop" in line["@message"]]
    assert said[:3] == ["overloaded", "unready", "ready again"]


async def test_what_is_owed_too_long_is_owed_no_more(tmp_path, rules):
    """Hits let pass while Redis is away are forgotten when they would have left their window, although nobody asks again."""
    rules.write_text((RULES % 3).replace("hour", "second"))
    async with Replica(tmp_path / "replica", rules=rules, redis_url=f"127.0.0.1:{free_port()}") as replica:
        assert [ask(replica, str(tenant)).overall_code for tenant in range(20)] == [1] * 20
        assert await replica.metric("ratelimit_svc_policy_decisions_total", policy="local") == 20

        async def nothing() -> bool:
            return await replica.metric("ratelimit_svc_owed_windows") == 0

        await until(nothing, "nothing is owed")
        assert await replica.metric("ratelimit_svc_owed_hits_total") == 0


async def starve(pid: int) -> None:
    """Let a process run for a tenth of the time only."""
    try:
        while True:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.3)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.03)
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_json_over_http(tmp_path, rules):
    """The reference's /json: 200, 429 over the limit, 400 for nonsense."""
    import aiohttp

    body = {"domain": "shop", "descriptors": [{"entries": [{"key": "tenant", "value": "a"}]}], "hitsAddend": 2}
    async with Replica(tmp_path / "replica", rules=rules) as replica, aiohttp.ClientSession() as session:
        answers = []
        for sent in (body, body, {"domain": ""}, {"domian": "shop"}):
            async with session.post(f"{replica.http}/json", json=sent) as answer:
                answers.append((answer.status, await answer.text()))
    assert [status for status, _ in answers] == [200, 429, 400, 400]
    assert json.loads(answers[0][1])["statuses"][0]["limitRemaining"] == 1
    assert json.loads(answers[1][1])["overallCode"] == "OVER_LIMIT"


async def test_two_replicas_share_what_redis_holds(tmp_path, rules):
    """Each counts what the other has let pass."""
    async with valkey(tmp_path / "valkey") as store:
        folder = tmp_path
        async with (
            Replica(folder / "a", rules=rules, redis_url=store.address) as one,
            Replica(folder / "b", rules=rules, redis_url=store.url) as other,
        ):
            told = [ask(replica).overall_code for replica in (one, other, one, other)]
    assert told == [1, 1, 1, 2]


async def test_a_port_that_is_taken_ends_it_with_a_sentence(tmp_path, rules):
    """No traceback: what could not be had, and exit status 2."""
    async with Replica(tmp_path / "a", rules=rules) as first:
        second = Replica(tmp_path / "b", rules=rules, env={"GRPC_PORT": str(first.grpc_port)})
        second.folder.mkdir()
        second._spawn()
        assert await ended(second) == 2
    text = second.log.read_text()
    assert "gRPC cannot listen on 127.0.0.1" in text
    assert "Traceback" not in text


async def test_fixed_windows_in_memory_begin_at_the_epoch(tmp_path, rules):
    """Without Redis, too, an hour ends with the hour: the store's clock is the time of day, though nobody can step it."""
    rules.write_text(
        "domain: shop\ndescriptors:"
        " [{key: tenant, rate_limit: {unit: hour, requests_per_unit: 9, algorithm: fixed_window}}]\n"
    )
    async with Replica(tmp_path / "replica", rules=rules) as replica:
        before = time.time()
        (status,) = ask(replica).statuses
        after = time.time()
    left = status.duration_until_reset.seconds
    ends = {int(moment // 3600 + 1) * 3600 for moment in (before, after)}  # two, if the hour ended meanwhile
    assert any(before - 1 <= end - left <= after + 1 for end in ends)


async def test_tls_with_client_certificates(tmp_path, rules):
    """`hit` gets in with a certificate and not without; renewed files act without a restart, broken ones change nothing."""
    files, root, other = Files(tmp_path), trustme.CA(), trustme.CA()
    files.put(root)
    env = {
        "GRPC_SERVER_USE_TLS": "true",
        "GRPC_SERVER_TLS_CERT": str(files.cert),
        "GRPC_SERVER_TLS_KEY": str(files.key),
        "GRPC_CLIENT_TLS_CACERT": str(files.ca),
        "GRPC_CLIENT_TLS_SAN": CLIENT,
        "LOG_FORMAT": "json",
    }
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:

        def hit(root: trustme.CA, name: str = CLIENT) -> int:
            made = root.issue_cert(name)
            own, key, ca = tmp_path / "own.pem", tmp_path / "own-key.pem", tmp_path / "root.pem"
            own.write_bytes(chain(made))
            key.write_bytes(made.private_key_pem.bytes())
            ca.write_bytes(root.cert_pem.bytes())
            with Client(replica.address, timeout_s=5, tls=ClientTls(ca, own, key)) as client:
                return client.ask(request("shop", [[Entry("tenant", "a")]])).overall_code

        assert hit(root) == 1
        with pytest.raises(CallError):
            hit(root, "other.example")
        with pytest.raises(CallError, match="UNAVAILABLE"):
            ask(replica)
        files.put(other)
        assert hit(other) == 1
        files.key.write_text("nonsense")
        assert hit(other) == 1
        assert hit(other) == 2
    # the grpcio engine's library writes failed handshakes to stderr by itself
    told = [json.loads(line) for line in replica.log.read_text().splitlines() if '"TLS files' in line]
    assert [line["@message"] for line in told] == [
        "TLS files are renewed",
        "TLS files cannot be used: those before them stay in use",
    ]
    assert str(files.key) in told[1]["reason"]


async def test_tls_files_that_hold_nothing_end_it_with_a_sentence(tmp_path, rules):
    """No traceback: which files, what is wrong with them, and exit status 2."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    env = dict.fromkeys(("GRPC_SERVER_TLS_CERT", "GRPC_SERVER_TLS_KEY"), str(empty)) | {"GRPC_SERVER_USE_TLS": "true"}
    replica = Replica(tmp_path / "replica", rules=rules, env=env)
    replica.folder.mkdir()
    replica._spawn()
    assert await ended(replica) == 2
    text = replica.log.read_text()
    assert f"GRPC_SERVER_USE_TLS is true, but {empty}" in text
    assert "Traceback" not in text


def test_as_many_files_may_be_open_as_the_system_allows():
    """A thousand, the usual number to begin with, is no more than 800 connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        background.allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
