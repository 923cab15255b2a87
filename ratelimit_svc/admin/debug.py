"""The debug side: what people ask who wonder why something is limited, or why nothing is. On loopback unless opened.

    GET  /                       what there is, a line each: `path: help`
    GET  path                    shows something; any method but POST does, where there is something to change, else any at all
    POST path                    changes something, for those who have the token

It shows what callers sent (descriptor values), so it has a port of its own. What there is, is told to `make_app`: `recent`,
`process` and `control` have it.

Rule 1: nothing is changed but by POST with the token (`token`), so that no page in anybody's browser can.
Rule 2: bodies are not read: what is to be changed stands in the query.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import web

from ratelimit_svc.admin.http import in_time, missing
from ratelimit_svc.admin.token import Token

Query = Mapping[str, str]


class Endpoint(NamedTuple):
    """One path, and what is there. It shows something, changes something, or both."""

    path: str
    """With a `/` at its end, all below it as well."""
    help: str
    """A line of the index."""
    show: Callable[[Query], Awaitable[web.Response]] | None = None
    change: Callable[[Query], str] | None = None
    """Returns what to say. Raises ValueError, with what to say, for a query that makes no sense."""


def text(lines: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return lines as an answer; each ends in a newline."""
    return web.Response(text=lines, status=status)


def make_app(endpoints: Iterable[Endpoint], token: Token) -> web.Application:
    """Build the application.

    Args:
        endpoints: what there is.
        token: who may change something.
    """
    each = sorted(endpoints)
    lines = "".join(f"{endpoint.path}: {endpoint.help}\n" for endpoint in each)

    async def index(_: web.Request) -> web.Response:
        return text(lines)

    app = web.Application(middlewares=[in_time])
    app.router.add_route("*", "/", index)
    for endpoint in each:
        answer = _answering(endpoint, token)
        app.router.add_route("*", endpoint.path, answer)
        if endpoint.path.endswith("/"):
            app.router.add_route("*", endpoint.path + "{below:.+}", answer)
    app.router.add_route("*", "/{path:.*}", missing)
    return app


def _answering(endpoint: Endpoint, token: Token) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        if endpoint.change is not None and request.method == "POST":
            refusal = await asyncio.to_thread(token.refuses, request.headers.get("Authorization", ""))
            if refusal is None:
                return _changed(endpoint.change, request.query)
            refused = text(f"{refusal.text}\n", refusal.status)
            if refusal.status is HTTPStatus.UNAUTHORIZED:
                refused.headers["WWW-Authenticate"] = "Bearer"
            return refused
        if endpoint.show is not None:
            return await endpoint.show(request.query)
        refused = text(f"{endpoint.path}: {endpoint.help}\n", HTTPStatus.METHOD_NOT_ALLOWED)
        refused.headers["Allow"] = "POST"
        return refused

    return answer


def _changed(change: Callable[[Query], str], query: Query) -> web.Response:
    try:
        return text(f"{change(query)}\n")
    except ValueError as error:
        return text(f"{error}\n", HTTPStatus.BAD_REQUEST)
