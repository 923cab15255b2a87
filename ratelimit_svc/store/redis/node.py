"""Stub until the real one is here."""

import asyncio
from typing import NamedTuple

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.store.redis.commands import Taken


class Refused(NamedTuple):
    """A call that Redis refused, and so did not run."""

    said: str


class Unknown(NamedTuple):
    """A call without an answer."""

    error: StoreUnavailableError
    outcome: asyncio.Future[Taken | None] | None = None


Call = Taken | Refused | Unknown
