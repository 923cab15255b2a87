"""Who is the primary: the sentinels are asked, all at once, and most of them decide.

One sentinel alone may be the one that is cut off from the others, and name a primary that is none any more; one that hangs must
not keep us waiting for those that know. So the answer is what a majority says, as soon as it has said so. Where there is none,
because sentinels are away, it is what most of those say that answer in time.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.store.redis import handshake
from ratelimit_svc.store.redis.where import Address, Where


class Said(NamedTuple):
    """What one sentinel says."""

    sentinel: Address
    primary: Address | None
    why: str = ""
    """Why it names none."""

    def __str__(self) -> str:
        return f"{self.sentinel} says {self.primary}" if self.primary else f"{self.sentinel}: {self.why}"


async def primary(where: Where) -> Address:
    """Return where the primary is, within `where.connect_timeout_s`.

    Raises:
        StoreUnavailableError: no sentinel names one; has what each of them said.
    """
    pending = {asyncio.create_task(_ask(where, sentinel)) for sentinel in where.addresses}
    said: list[Said] = []
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            said += [task.result() for task in done]
            named, times = _most_named(said)
            if named is not None and times > len(where.addresses) // 2:
                return named
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    if named is None:
        told = "; ".join(sorted(map(str, said)))
        raise StoreUnavailableError(f"no sentinel names a primary for {where.master!r}: {told}")
    return named


def _most_named(said: Sequence[Said]) -> tuple[Address | None, int]:
    """Return the address that most of them name, and how many do."""
    counted = Counter(one.primary for one in said if one.primary)
    return counted.most_common(1)[0] if counted else (None, 0)


async def _ask(where: Where, sentinel: Address) -> Said:
    """Ask one of them, whatever comes of it."""
    try:
        async with handshake.opened(where, sentinel, where.sentinel_login) as connection:
            named = await handshake.call(connection, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", where.master.encode())
    except Exception as error:  # noqa: BLE001 — of any kind, as when a connection to the primary is opened
        return Said(sentinel, None, handshake.reason(error))
    match named:
        case [bytes() as host, bytes() as port] if port.isdigit():
            return Said(sentinel, Address(host.decode("utf-8", "replace"), int(port)))
        case None:
            return Said(sentinel, None, "it knows no such primary")
        case _:
            return Said(sentinel, None, f"it said {named!r:.50}")
