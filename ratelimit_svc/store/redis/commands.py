"""Commands on the wire: a batch as one command, and the reply to it as what was taken. `batch.lua` is the other end and has the fields.

A batch is one string of arguments and its reply is one string: what is packed costs both sides less than a number each.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from redis.exceptions import InvalidResponse

from ratelimit_svc.model import BAD_KEY, Grant, Line, Outcome
from ratelimit_svc.store.redis.script import SCRIPT, SHA

HEADER = struct.Struct("<ddd")
"""Now in µs, or 0; the time after which it is too late, or 0; the batch's number."""
LINE = struct.Struct("<IB")
"""n, and how many charges follow."""
CHARGE = struct.Struct("<BBBBdddd")
"""Algorithm (its letter), role, kind, overdraft; limit, window in µs, shape, hits."""

NOW = struct.Struct("<q")
"""A reply that is only this came too late."""
ONE_OVERDRAWN = -2
"""What the script says instead of "1 granted", where that one is overdrawn."""

_BY_HASH = b"$7\r\nEVALSHA\r\n$%d\r\n%b\r\n" % (len(SHA), SHA)
_WHOLE = b"$4\r\nEVAL\r\n$%d\r\n%b\r\n" % (len(SCRIPT), SCRIPT)


def of(*words: bytes) -> bytes:
    """Return a command as it is written."""
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


class Taken(NamedTuple):
    """What the script says of a batch."""

    now: int
    """The store's time in µs."""
    grants: list[Grant] | None
    """One per line; None: it was too late, and nothing was charged."""


def take(lines: Sequence[Line], *, receipt: bytes, number: int = 0, now: int = 0, not_after: int = 0) -> bytes:
    """Return the command that takes a batch. Each line has one charge or more.

    Args:
        lines: the batch.
        receipt: the key that keeps the number of the last batch that changed anything.
        number: this batch's; 0: no receipt is kept.
        now: the time in µs; 0: Redis's own.
        not_after: the store's time in µs after which nothing is charged any more; 0: never too late.
    """
    keys = []
    for line in lines:
        for charge in line.charges:
            key = charge.key
            keys.append(b"$%d\r\n%b\r\n" % (len(key), key))
    keys.append(b"$%d\r\n%b\r\n" % (len(receipt), receipt))
    packed = pack(lines, number=number, now=now, not_after=not_after)
    head = b"*%d\r\n%b" % (len(keys) + 4, _BY_HASH)
    many = b"%d" % len(keys)
    return b"%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n" % (head, len(many), many, b"".join(keys), len(packed), packed)


def bring_script(take: bytes) -> bytes | None:
    """Return the same take with the script itself in place of its hash; None if it has it already, or is no take."""
    whole = take.replace(_BY_HASH, _WHOLE, 1)
    return None if whole == take else whole


def pack(lines: Sequence[Line], *, number: int = 0, now: int = 0, not_after: int = 0) -> bytes:
    """Return the script's one argument; see `take`."""
    packed = [HEADER.pack(now, not_after, number)]
    for line in lines:
        packed.append(LINE.pack(line.n, len(line.charges)))
        packed += [
            CHARGE.pack(
                ord(charge.algorithm._value_),  # `value` of an enum takes as long as all of the packing
                charge.role._value_,
                charge.kind._value_,
                charge.overdraft._value_,
                charge.limit,
                charge.window_us,
                charge.shape,
                charge.hits,
            )
            for charge in line.charges
        ]
    return b"".join(packed)


def taken(reply: object, lines: Sequence[Line]) -> Taken:
    """Return what the script's reply says.

    Raises:
        InvalidResponse: it is not a reply to these lines.
    """
    numbers = 1 + sum([1 + 3 * len(line.charges) for line in lines])
    if isinstance(reply, bytes) and len(reply) == NOW.size:
        return Taken(NOW.unpack(reply)[0], None)
    if not isinstance(reply, bytes) or len(reply) != 8 * numbers:
        raise InvalidResponse(f"a take was answered with {reply!r:.50}")
    told = struct.unpack(f"<{numbers}q", reply)
    found, at = [], 1
    for line in lines:
        granted = told[at]
        at += 1
        outcomes = []
        for _ in line.charges:
            outcomes.append(Outcome(told[at], told[at + 1], told[at + 2]))
            at += 3
        if granted >= 0:
            found.append(Grant(granted, tuple(outcomes)))
        elif granted == ONE_OVERDRAWN:
            found.append(Grant(1, tuple(outcomes), overdrawn=True))
        else:
            found.append(Grant(BAD_KEY, ()))
    return Taken(told[0], found)
