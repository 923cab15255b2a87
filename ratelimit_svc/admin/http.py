"""The HTTP side: is it ready, what does it count, and `/json` for those who ask without gRPC.

    GET  /healthcheck            200 OK, or 500 with the reasons for not being ready; ?verbose: the same with all details, in JSON
    POST /json                   a RateLimitRequest in protobuf's JSON; 200, or 429 if over the limit, with the response in JSON
    GET  /metrics                for Prometheus

Paths, statuses and bodies are the reference implementation's, which takes any method; two differences: /json says 500, not 400,
when the fault is ours, and every refusal says why.

Knows no protobuf, no limiter, no store: the server hands functions over.

Rule 1: what is slow, large or too many is bounded, here and on the debug side: a request with its body has `ANSWER_SECONDS`, and when
        there are `MOST_CONNECTIONS` the oldest makes room. So who opens many and says nothing keeps no probe out.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import MappingProxyType

from aiohttp import web

from ratelimit_svc.errors import BadRequestError, RateLimitError
from ratelimit_svc.model import Code

MOST_BODY_BYTES = 1024 * 1024
"""A request for one decision is a few hundred bytes; nobody needs to send us more than this."""

ANSWER_SECONDS = 10.0
"""So long a request may take from its headers to its answer, its body included."""

MOST_CONNECTIONS = 512
"""Probes, a Prometheus and some people need a dozen."""

NOT_FOUND = "404 page not found\n"
"""What Go says, and so the reference implementation."""

CLOSING_SECONDS = 2.0
"""What is under way when the server closes has so long: every answer here takes milliseconds."""

_STATUS_OF: Mapping[Code, HTTPStatus] = MappingProxyType(
    {
        Code.OK: HTTPStatus.OK,
        Code.OVER_LIMIT: HTTPStatus.TOO_MANY_REQUESTS,
        Code.UNKNOWN: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)


def make_app(
    *,
    unready: Callable[[], Sequence[str]],
    detail: Callable[[], Mapping[str, object]],
    decide: Callable[[bytes], Awaitable[tuple[Code, str]]],
    render_metrics: Callable[[], tuple[bytes, str]],
) -> web.Application:
    """Build the application.

    Args:
        unready: the reasons for not being ready, each a few words; none: ready.
        detail: what `?verbose` shows beside that, ready for JSON.
        decide: a request in JSON → the overall code and the response in JSON. Raises BadRequestError where the caller is
            at fault, another RateLimitError where we are.
        render_metrics: the page for Prometheus and its content type. Called in another thread.
    """

    async def healthcheck(request: web.Request) -> web.Response:
        reasons = list(unready())
        status = HTTPStatus.INTERNAL_SERVER_ERROR if reasons else HTTPStatus.OK
        if "verbose" in request.query:
            return web.json_response({"ready": not reasons, "reasons": reasons, **detail()}, status=status)
        return web.Response(text="; ".join(reasons) or "OK", status=status)

    async def json(request: web.Request) -> web.Response:
        try:
            code, text = await decide(await request.read())
        except BadRequestError as error:
            return web.Response(text=f"{error}\n", status=HTTPStatus.BAD_REQUEST)
        except RateLimitError as error:
            return web.Response(text=f"{error}\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)
        return web.Response(body=text.encode(), status=_STATUS_OF[code], content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        # In a thread, since with many rules the page takes longer than a request may wait for the loop.
        body, content_type = await asyncio.to_thread(render_metrics)
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[in_time])
    for path, handler in (
        ("/healthcheck", healthcheck),
        ("/json", json),
        ("/metrics", metrics),
        ("/{path:.*}", missing),
    ):
        app.router.add_route("*", path, handler)
    return app


async def missing(_: web.Request) -> web.Response:
    """Answer for a path that is none."""
    return web.Response(text=NOT_FOUND, status=HTTPStatus.NOT_FOUND, headers={"X-Content-Type-Options": "nosniff"})


@web.middleware
async def in_time(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer 408 where an answer takes too long: nearly always, because the body does not come."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await handler(request)
    except TimeoutError:
        late = web.Response(text="the request took too long\n", status=HTTPStatus.REQUEST_TIMEOUT)
        late.force_close()
        return late


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve the application for as long as the context lasts. Yields the port: the one asked for, or for 0 a free one.

    Resource handling: what is under way at the end has `CLOSING_SECONDS`; idle connections are closed at once.

    Error handling: OSError if the address cannot be had. An error in a handler is logged by aiohttp, and answered 500.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSING_SECONDS, lingering_time=CLOSING_SECONDS)
    await runner.setup()
    server = runner.server
    assert server is not None
    try:
        listening = await _listen(lambda: _let_in(server), host, port)
        try:
            bound: int = listening.sockets[0].getsockname()[1]
            yield bound
        finally:
            listening.close()
    finally:
        await runner.cleanup()


async def _listen(let_in: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if host != "::":
        return await loop.create_server(let_in, host, port)
    # asyncio would make this IPv6 only; in Go, and so in manifests written for the reference implementation, it is both.
    dual = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return await loop.create_server(let_in, sock=dual)


def _let_in(server: web.Server) -> asyncio.BaseProtocol:
    """Make a connection's protocol. The library keeps connections in the order in which they came."""
    open_ = [each for each in server.connections if each.transport is not None and not each.transport.is_closing()]
    if len(open_) >= MOST_CONNECTIONS and open_[0].transport is not None:
        open_[0].transport.abort()
    return server()
