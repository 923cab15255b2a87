"""The HTTP side, as a client sees it: a real server on loopback, a real client."""

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientConnectorError, ClientSession, web
from prometheus_client.parser import text_string_to_metric_families

from ratelimit_svc.admin import debug, http
from ratelimit_svc.admin.http import CLOSING_SECONDS, MOST_BODY_BYTES, make_app, serving
from ratelimit_svc.admin.token import Token
from ratelimit_svc.errors import BadRequestError, StoreUnavailableError
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.metrics.page import Page
from ratelimit_svc.model import Code

LOOPBACK = "127.0.0.1"


@dataclass
class Service:
    """What stands behind the HTTP side, told what to say."""

    reasons: Sequence[str] = ()
    details: Mapping[str, object] = field(default_factory=dict)
    answer: tuple[Code, str] | Exception = (Code.OK, '{"overallCode": "OK"}')
    asked: list[bytes] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    def app(self) -> web.Application:
        return make_app(
            unready=lambda: self.reasons,
            detail=lambda: self.details,
            decide=self.decide,
            render_metrics=Page(self.metrics).render,
        )

    async def decide(self, body: bytes) -> tuple[Code, str]:
        self.asked.append(body)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: str


@asynccontextmanager
async def client(service: Service) -> AsyncIterator[ClientSession]:
    async with (
        serving(service.app(), LOOPBACK, 0) as port,
        ClientSession(f"http://{LOOPBACK}:{port}") as session,
    ):
        yield session


async def ask(service: Service, path: str, *, method: str = "GET", body: bytes = b"") -> Answer:
    """Start the service, ask it once, and stop it."""
    async with client(service) as session, session.request(method, path, data=io.BytesIO(body)) as response:
        return Answer(response.status, response.content_type, await response.text())


# ---------------------------------------------------------------------------------------------------------------------
# /healthcheck


async def test_ready() -> None:
    """A ready replica says OK, as the reference implementation does."""
    assert await ask(Service(), "/healthcheck") == Answer(200, "text/plain", "OK")


async def test_not_ready() -> None:
    """A replica that is not ready answers 500, and says why."""
    service = Service(reasons=["no rules loaded", "draining"])
    assert await ask(service, "/healthcheck") == Answer(500, "text/plain", "no rules loaded; draining")


async def test_readiness_is_asked_each_time() -> None:
    """Readiness is what it is now, not what it was at the start."""
    service = Service()
    async with client(service) as session:
        for reasons, status in (([], 200), (["draining"], 500), ([], 200)):
            service.reasons = reasons
            async with session.get("/healthcheck") as response:
                assert response.status == status


@pytest.mark.parametrize(("reasons", "status"), [([], 200), (["draining"], 500)])
async def test_verbose(reasons: list[str], status: int) -> None:
    """With ?verbose the same status carries every detail as JSON."""
    service = Service(reasons=reasons, details={"version": "0.1.0", "store": {"kind": "redis", "up": False}})
    answer = await ask(service, "/healthcheck?verbose")
    assert (answer.status, answer.content_type) == (status, "application/json")
    assert json.loads(answer.body) == {
        "ready": not reasons,
        "reasons": reasons,
        "version": "0.1.0",
        "store": {"kind": "redis", "up": False},
    }


# ---------------------------------------------------------------------------------------------------------------------
# /json


@pytest.mark.parametrize(("code", "status"), [(Code.OK, 200), (Code.OVER_LIMIT, 429), (Code.UNKNOWN, 500)])
async def test_json_status(code: Code, status: int) -> None:
    """The overall code is the HTTP status; the body is the response."""
    service = Service(answer=(code, '{"overallCode": "…"}'))
    answer = await ask(service, "/json", method="POST", body=b'{"domain": "d"}')
    assert answer == Answer(status, "application/json", '{"overallCode": "…"}')
    assert service.asked == [b'{"domain": "d"}']


async def test_json_takes_a_get_with_a_body() -> None:
    """The method does not matter, as in the reference implementation."""
    service = Service()
    assert (await ask(service, "/json", body=b"{}")).status == 200
    assert service.asked == [b"{}"]


async def test_json_bad_request() -> None:
    """What the caller did wrong is a 400 that says what."""
    service = Service(answer=BadRequestError("rate limit domain must not be empty"))
    answer = await ask(service, "/json", method="POST", body=b"{}")
    assert answer == Answer(400, "text/plain", "rate limit domain must not be empty\n")


async def test_json_store_away() -> None:
    """What is our fault is a 500, not the caller's 400."""
    service = Service(answer=StoreUnavailableError("no answer from redis"))
    answer = await ask(service, "/json", method="POST", body=b"{}")
    assert answer == Answer(500, "text/plain", "no answer from redis\n")


async def test_json_bug() -> None:
    """An error that nobody expected is a 500 that gives nothing away, and the server lives on."""
    service = Service(answer=ZeroDivisionError("a detail"))
    async with client(service) as session:
        for _ in range(2):
            async with session.post("/json", data=b"{}") as response:
                assert response.status == 500
                assert "a detail" not in await response.text()


@pytest.mark.parametrize(("size", "status"), [(MOST_BODY_BYTES, 200), (MOST_BODY_BYTES + 1, 413)])
async def test_json_body_is_bounded(size: int, status: int) -> None:
    """A body of 1 MiB is read, a larger one is refused before anyone is asked."""
    service = Service()
    assert (await ask(service, "/json", method="POST", body=b" " * size)).status == status
    assert len(service.asked) == (status == 200)


async def test_json_chunked_body_is_bounded() -> None:
    """A body whose size is not announced is bounded too."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(2 * MOST_BODY_BYTES // 65_536):
            yield b" " * 65_536

    service = Service()
    async with client(service) as session, session.post("/json", data=endless()) as response:
        assert response.status == 413
    assert service.asked == []


# ---------------------------------------------------------------------------------------------------------------------
# /metrics, and the rest


async def test_metrics() -> None:
    """Prometheus can read what the metrics say."""
    service = Service()
    service.metrics.requests = 7
    answer = await ask(service, "/metrics")
    assert (answer.status, answer.content_type) == (200, "text/plain")
    samples = {
        sample.name: sample.value for each in text_string_to_metric_families(answer.body) for sample in each.samples
    }
    assert samples["ratelimit_svc_requests_total"] == 7


@pytest.mark.parametrize("path", ["/", "/healthcheck/", "/jsonx", "/stats"])
async def test_nothing_else(path: str) -> None:
    """There is nothing under other paths, and Go says so in these words."""
    assert await ask(Service(), path) == Answer(404, "text/plain", "404 page not found\n")


# ---------------------------------------------------------------------------------------------------------------------
# what is slow, large or too many


async def say(port: int, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, and send the beginning of a request."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(text.encode())
    await writer.drain()
    return reader, writer


def both_sides() -> list[tuple[web.Application, str]]:
    """The HTTP side and the debug side, each with a path that takes a POST."""
    endpoint = debug.Endpoint("/change", "changes", change=lambda _: "changed")
    return [(Service().app(), "/json"), (debug.make_app([endpoint], Token("sesame")), "/change")]


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request is answered 408 and its connection closed; nobody is asked."""
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.2)
    service = Service()
    async with asyncio.timeout(20), serving(service.app(), LOOPBACK, 0) as port:
        reader, writer = await say(port, "POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = (await reader.read()).decode()
        writer.close()
    assert answer.startswith("HTTP/1.1 408 ")
    assert answer.endswith("\r\n\r\nthe request took too long\n")
    assert service.asked == []


async def test_the_debug_side_waits_for_no_body() -> None:
    """It is answered before the body has come; what comes of it is not kept, and the connection is closed soon."""
    app, path = both_sides()[1]
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\nContent-Length: 1000000000000\r\n\r\n"
    async with asyncio.timeout(20), serving(app, LOOPBACK, 0) as port:
        reader, writer = await say(port, head + "some of it")
        answer = (await reader.read()).decode()
        writer.close()
    assert answer.startswith("HTTP/1.1 200 ")
    assert answer.endswith("changed\n")


@pytest.mark.parametrize("side", [0, 1])
async def test_connections_are_bounded(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are too many the oldest makes room: who opens many and says nothing keeps nobody out."""
    monkeypatch.setattr(http, "MOST_CONNECTIONS", 5)
    app, path = both_sides()[side]
    async with asyncio.timeout(30), serving(app, LOOPBACK, 0) as port, ClientSession() as session:
        silent = [await say(port, "") if number % 2 else await say(port, "GET / HT") for number in range(20)]
        for _ in range(3):
            async with session.get(f"http://{LOOPBACK}:{port}{path}", headers={"Connection": "close"}) as response:
                assert response.status in (200, 405)
        for reader, _ in silent[:10]:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        for _, writer in silent:
            writer.close()


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    "text",
    [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: " + "x" * 100_000 + "\r\n\r\n",
        "GET /" + "x" * 100_000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_nonsense_is_refused(side: int, text: str) -> None:
    """A request that is none is answered 400, and the next one who asks is served."""
    app, path = both_sides()[side]
    async with asyncio.timeout(20), serving(app, LOOPBACK, 0) as port, ClientSession() as session:
        reader, writer = await say(port, text)
        assert (await reader.readline()).split()[1:2] == [b"400"]
        writer.close()
        async with session.get(f"http://{LOOPBACK}:{port}{path}") as response:
            assert response.status in (200, 405)


# ---------------------------------------------------------------------------------------------------------------------
# the log, the port


async def test_nothing_is_logged_per_request(caplog: pytest.LogCaptureFixture) -> None:
    """Probes come every few seconds: the log does not repeat them."""
    with caplog.at_level("DEBUG", "aiohttp"):
        await ask(Service(), "/healthcheck")
    assert not caplog.records


# ---------------------------------------------------------------------------------------------------------------------
# serving


async def test_port_is_free_afterwards() -> None:
    """The port is known while the server runs, and given back after it."""
    async with (
        serving(Service().app(), LOOPBACK, 0) as port,
        ClientSession() as session,
        session.get(f"http://{LOOPBACK}:{port}/healthcheck") as response,
    ):
        assert response.status == 200
    async with ClientSession() as session:
        with pytest.raises(ClientConnectorError):
            await session.get(f"http://{LOOPBACK}:{port}/healthcheck")
    async with serving(Service().app(), LOOPBACK, port) as again:
        assert again == port


async def test_taken_port() -> None:
    """A port that is taken is an OSError at the start."""
    with socket.create_server((LOOPBACK, 0)) as taken, pytest.raises(OSError, match="address already in use"):
        async with serving(Service().app(), LOOPBACK, taken.getsockname()[1]):
            pytest.fail("it serves on a port that is taken")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_every_address() -> None:
    """`::` is reached over IPv4 as well as IPv6: manifests for the reference implementation count on it."""
    async with serving(Service().app(), "::", 0) as port, ClientSession() as session:
        for host in (LOOPBACK, "[::1]"):
            async with session.get(f"http://{host}:{port}/healthcheck") as response:
                assert response.status == 200


async def test_idle_connections_do_not_delay_the_end() -> None:
    """A client that keeps its connection open does not keep the server."""
    async with ClientSession() as session:
        async with serving(Service().app(), LOOPBACK, 0) as port:
            async with session.get(f"http://{LOOPBACK}:{port}/healthcheck") as response:
                await response.read()
            loop = asyncio.get_running_loop()
            before = loop.time()
        assert loop.time() - before < CLOSING_SECONDS / 2
