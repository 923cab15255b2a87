"""`/debug/compare`: how often the two algorithms of each compared rule differ, which way, and when.

?rule=shop/tenant &limit=50: of that rule only; of so many, those that differ most often first.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from ratelimit_svc.admin.debug import Endpoint, Query, text

COMPARE = "/debug/compare"
RESET = f"{COMPARE}/reset"
PARAMETERS = frozenset({"rule", "limit"})
MOST = 1_000
"""Rules on one page."""


def endpoints(*, describe: Callable[..., Mapping[str, Any]], reset: Callable[[], None]) -> Iterator[Endpoint]:
    """Return the endpoints.

    Args:
        describe: `rule`, of which (empty: of all), and `most`, of how many → what is known. Called in a thread: they may be many.
        reset: forgets it.
    """

    async def show(query: Query) -> web.Response:
        limit = query.get("limit", "50")
        if not limit.isdecimal() or len(limit) > len(str(MOST)) or not 1 <= int(limit) <= MOST:
            return text(f"limit={limit}: must be a whole number from 1 to {MOST}\n", HTTPStatus.BAD_REQUEST)
        if unknown := query.keys() - PARAMETERS:
            return text(f"{min(unknown)}: unknown; there are rule and limit\n", HTTPStatus.BAD_REQUEST)

        def page() -> str:
            found = describe(rule=query.get("rule", ""), most=int(limit))
            return json.dumps(found, indent=2, ensure_ascii=False) + "\n"

        return web.Response(text=await asyncio.to_thread(page), content_type="application/json")

    def forget(_: Query) -> str:
        reset()
        return "the comparison begins anew; the counters of metrics go on"

    yield Endpoint(COMPARE, "how the two algorithms of compared rules differ, and when", show)
    yield Endpoint(RESET, "POST with the token: compare from now on", change=forget)
