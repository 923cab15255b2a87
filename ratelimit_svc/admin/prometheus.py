"""A page for Prometheus on a port of its own, as the reference implementation has it (PROMETHEUS_ADDR, PROMETHEUS_PATH)."""

import asyncio
import socket
from collections.abc import Callable

from aiohttp import web


def make_app(path: str, render: Callable[[], tuple[bytes, str]]) -> web.Application:
    """Build the application.

    Args:
        path: where the page is.
        render: returns it, and its content type. Called in another thread.
    """

    async def metrics(_: web.Request) -> web.Response:
        body, content_type = await asyncio.to_thread(render)
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_route("*", path, metrics)
    return app


def everywhere() -> str:
    """Return the host that is every address of this machine, IPv6 ones where it has any: what Go makes of an empty one."""
    try:
        with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True):
            return "::"
    except OSError:
        return "0.0.0.0"  # noqa: S104 — all of them are asked for
