"""Warm: what a fresh connection is asked before calls go to it.

It takes nothing, by the script: that shows that it may be used and answers in time, and what the server's time is. And it is
asked for the receipts of calls whose answers the last connection has lost.
"""

from collections.abc import Iterable, Mapping
from time import monotonic

from hiredis import ReplyError

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Grant
from ratelimit_svc.store.redis import commands, handshake
from ratelimit_svc.store.redis.calls import ELSEWHERE, Lost, Tally, in_words
from ratelimit_svc.store.redis.clock import StoreClock
from ratelimit_svc.store.redis.commands import Taken
from ratelimit_svc.store.redis.connection import Connection


async def warm(connection: Connection, tally: Tally, key: bytes) -> None:
    """Make a connection ready for calls, or close it.

    Args:
        connection: a fresh one.
        tally: has what is lost, and is told the server's time.
        key: any; nothing is written there.

    Raises:
        StoreUnavailableError: why it is not ready.
    """
    lost, tally.lost = tally.lost, []
    receipts = list(dict.fromkeys(take.receipt for take, _ in lost if take.number))
    sent_s = monotonic()
    try:
        nothing, *read = await connection.call(
            commands.take([], receipt=key), *(commands.of(b"GET", receipt) for receipt in receipts)
        )
        check(nothing)
        now = 0 if isinstance(nothing, ReplyError) else commands.taken(nothing, []).now
    except BaseException as error:
        tally.lost = lost
        connection.close("it was not ready")
        if isinstance(error, Exception) and not isinstance(error, StoreUnavailableError):
            raise StoreUnavailableError(handshake.reason(error)) from None
        raise
    _settle(lost, dict(zip(receipts, read, strict=True)))
    tally.clock = StoreClock()
    if now and tally.knows_time:
        tally.clock.note(now, sent_s, connection.heard_s)
    tally.breaker.note(connection.heard_s - sent_s)


def check(reply: object) -> None:
    """Let pass what is an answer, as that of a node of a Cluster that is well but not the right one.

    Raises:
        StoreUnavailableError: it is a refusal.
    """
    if isinstance(reply, ReplyError) and not str(reply).startswith(ELSEWHERE):
        raise StoreUnavailableError(in_words(str(reply)))


def _settle(lost: Iterable[Lost], receipts: Mapping[bytes, object]) -> None:
    """Tell what became of lost calls, by what was read of their receipts."""
    for (lines, receipt, number), outcome in lost:
        said = receipts.get(receipt)
        last = int(said) if isinstance(said, bytes) and said.isdigit() else 0
        if not outcome.done():
            was_taken = 0 < number <= last
            outcome.set_result(Taken(0, [Grant(line.n, ()) for line in lines]) if was_taken else None)
