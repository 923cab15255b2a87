"""What can be changed while the process runs: how much is logged, and that it looks at its rules."""

from collections.abc import Callable, Iterator, Sequence

from aiohttp import web

from ratelimit_svc.admin.debug import Endpoint, Query, text

LOG_LEVEL, RELOAD = "/debug/log-level", "/debug/rules/reload"


def endpoints(
    *, levels: Sequence[str], level: Callable[[], str], set_level: Callable[[str], None], look: Callable[[], None]
) -> Iterator[Endpoint]:
    """Return the endpoints.

    Args:
        levels: what LOG_LEVEL may be.
        level: what it is now.
        set_level: makes it another.
        look: has the rules looked at, soon.
    """

    async def show(_: Query) -> web.Response:
        return text(f"{level()}\n")

    def change(query: Query) -> str:
        wanted = query.get("level", "").lower()
        if wanted not in levels:
            raise ValueError(f"level={wanted}: must be one of {', '.join(levels)}")
        before = level()
        set_level(wanted)
        return f"{wanted}, until the process ends; it was {before}"

    def reload(_: Query) -> str:
        look()
        return "the rules are looked at; /healthcheck?verbose and the log say what is wrong with them, if anything is"

    yield Endpoint(LOG_LEVEL, "LOG_LEVEL; POST ?level=debug with the token changes it", show, change)
    yield Endpoint(RELOAD, "POST with the token: look at the rules now, as SIGHUP does", change=reload)
