"""`/debug/requests`: the recent distinct requests, the rule each met or why none, its windows now and when they free.

?limit=50 &domain=shop &entry=tenant=acme &unmatched
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from ratelimit_svc.admin.debug import Endpoint, Query, text

REQUESTS = "/debug/requests"
PARAMETERS = frozenset({"limit", "domain", "entry", "unmatched"})
"""What may be said of the requests that are wanted."""


def requests(*, recent: Callable[[int, str, str, bool], Awaitable[Mapping[str, Any]]], most: int) -> Endpoint:
    """Return the endpoint.

    Args:
        recent: how many, of which domain, with which entry, only those that no rule limits → what is known of them.
        most: how many may be asked for at once.
    """

    async def show(query: Query) -> web.Response:
        if mistake := _mistake(query, most):
            return text(f"{mistake}\n", HTTPStatus.BAD_REQUEST)
        unmatched = "unmatched" in query and query["unmatched"].lower() != "false"
        found = await recent(int(query.get("limit", "50")), query.get("domain", ""), query.get("entry", ""), unmatched)
        page = await asyncio.to_thread(json.dumps, found, indent=2, ensure_ascii=False)
        return web.Response(text=page, content_type="application/json")

    return Endpoint(REQUESTS, "recent distinct requests, their rules and windows", show)


def _mistake(query: Query, most: int) -> str:
    """Return what is wrong with a query; empty: nothing."""
    limit, entry = query.get("limit", "50"), query.get("entry", "")
    if not limit.isdecimal() or len(limit) > len(str(most)) or not 1 <= int(limit) <= most:
        return f"limit={limit}: must be a whole number from 1 to {most}"
    if unknown := query.keys() - PARAMETERS:
        return f"{min(unknown)}: unknown; there are limit, domain, entry and unmatched"
    if entry and "=" not in entry:
        return f"entry={entry}: must be key=value"
    if query.get("unmatched", "").lower() not in ("", "true", "false"):
        return f"unmatched={query['unmatched'].lower()}: must be true or false"
    return ""
