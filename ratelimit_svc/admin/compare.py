"""The comparison of algorithms on the debug side: how often a rule's two algorithms differ, which way, and when.

    GET  /debug/compare           all compared rules, those that differ most first
         ?rule=shop/tenant &limit=50
    POST /debug/compare/reset     begin anew

What is shown is made and written by a thread: there may be many rules.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

COMPARE = "/debug/compare"
RESET = f"{COMPARE}/reset"
PARAMETERS = frozenset({"rule", "limit"})
MOST = 1_000
"""Rules on one page."""


def add_to(app: web.Application, describe: Callable[..., Mapping[str, Any]]) -> None:
    """Let the debug side answer GET.

    Args:
        app: the debug side.
        describe: `rule`, of which (empty: of all), and `most`, of how many → what is known. Called in a thread.
    """

    async def compare(request: web.Request) -> web.Response:
        query = request.query
        limit = query.get("limit", "50")
        if not limit.isdecimal() or len(limit) > len(str(MOST)) or not 1 <= int(limit) <= MOST:
            return _refused(f"limit={limit}: must be a whole number from 1 to {MOST}")
        if unknown := query.keys() - PARAMETERS:
            return _refused(f"{min(unknown)}: unknown; there are rule and limit")

        def text() -> str:
            found = describe(rule=query.get("rule", ""), most=int(limit))
            return json.dumps(found, indent=2, ensure_ascii=False) + "\n"

        return web.Response(text=await asyncio.to_thread(text), content_type="application/json")

    app.router.add_get(COMPARE, compare)


def _refused(why: str) -> web.Response:
    return web.Response(text=f"{why}\n", status=HTTPStatus.BAD_REQUEST)


def resetter(reset: Callable[[], None]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return what answers POST, for whom whoever routes to it has allowed to change anything."""

    async def forget(_: web.Request) -> web.Response:
        reset()
        return web.Response(text="the comparison begins anew\n")

    return forget
