"""The debug side: what people ask who wonder why something is limited, or why nothing is. On loopback unless opened.

    GET  /                       what there is
    GET  /debug/compare          how the algorithms of compared rules differ (`admin.compare`)
    GET  /debug/requests         the recent distinct requests, the rule each met or why none, its windows now and when they free
         ?limit=50 &domain=shop &entry=tenant=acme &unmatched

It shows what callers sent (descriptor values), so it has a port of its own. Nothing here changes anything.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from ratelimit_svc.admin import compare

REQUESTS = "/debug/requests"
PARAMETERS = frozenset({"limit", "domain", "entry", "unmatched"})
"""What may be said of the requests that are wanted."""


def make_app(*, recent: Callable[[int, str, str, bool], Awaitable[Mapping[str, Any]]], most: int) -> web.Application:
    """Build the application.

    Args:
        recent: how many, of which domain, with which entry, only those that no rule limits → what is known of them.
        most: how many may be asked for at once.
    """

    async def requests(request: web.Request) -> web.Response:
        query = request.query
        limit = query.get("limit", "50")
        if not limit.isdecimal() or len(limit) > len(str(most)) or not 1 <= int(limit) <= most:
            return web.Response(
                text=f"limit={limit}: must be a whole number from 1 to {most}\n", status=HTTPStatus.BAD_REQUEST
            )
        if unknown := query.keys() - PARAMETERS:
            return web.Response(
                text=f"{min(unknown)}: unknown; there are limit, domain, entry and unmatched\n",
                status=HTTPStatus.BAD_REQUEST,
            )
        entry, unmatched = query.get("entry", ""), query.get("unmatched", "false").lower()
        if entry and "=" not in entry:
            return web.Response(text=f"entry={entry}: must be key=value\n", status=HTTPStatus.BAD_REQUEST)
        if unmatched not in ("", "true", "false"):
            return web.Response(text=f"unmatched={unmatched}: must be true or false\n", status=HTTPStatus.BAD_REQUEST)
        found = await recent(int(limit), query.get("domain", ""), entry, unmatched != "false")
        text = await asyncio.to_thread(json.dumps, found, indent=2, ensure_ascii=False)
        return web.Response(text=text, content_type="application/json")

    async def index(_: web.Request) -> web.Response:
        return web.Response(
            text=f"{REQUESTS}: recent distinct requests, their rules and windows\n"
            f"{compare.COMPARE}: how the two algorithms of compared rules differ\n"
        )

    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_get(REQUESTS, requests)
    return app
