"""What became of the lines of a take."""

from collections.abc import Awaitable, Sequence

from ratelimit_svc.model import Grant
from ratelimit_svc.store import Untaken


async def granted(take: Awaitable[Sequence[Grant | Untaken]]) -> list[Grant]:
    """The grants of a take all of whose lines are taken."""
    found: list[Grant] = []
    for said in await take:
        assert isinstance(said, Grant), said
        found.append(said)
    return found


async def untaken(take: Awaitable[Sequence[Grant | Untaken]]) -> list[Untaken]:
    """What is said of a take none of whose lines is taken."""
    found: list[Untaken] = []
    for said in await take:
        assert isinstance(said, Untaken), said
        found.append(said)
    return found


async def why_not(take: Awaitable[Sequence[Grant | Untaken]]) -> str:
    """Why a take of one line is not taken."""
    (said,) = await untaken(take)
    return str(said.error)
