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

ONE = struct.Struct("<dddIBBBBBdddd")
"""All of these: the argument of a batch of one line with one charge. In a Cluster nearly every call is that."""

NOW = struct.Struct("<q")
"""A reply that is only this came too late."""
ONE_TOLD = struct.Struct("<5q")
"""The reply to a batch of one line with one charge."""
ONE_OVERDRAWN = -2
"""What the script says instead of "1 granted", where that one is overdrawn."""

_BY_HASH = b"$7\r\nEVALSHA\r\n$%d\r\n%b\r\n" % (len(SHA), SHA)
_ONE = b"*6\r\n%b$1\r\n2\r\n" % _BY_HASH
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
    if len(lines) == 1 and len(lines[0].charges) == 1:
        return _take_one(lines[0], receipt, number, now, not_after)
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


def _take_one(line: Line, receipt: bytes, number: int, now: int, not_after: int) -> bytes:
    """Return the same for one line with one charge, in half the time."""
    charges, n = line
    key, algorithm, limit, window_us, shape, hits, role, _, kind, overdraft, _, _ = charges[0]
    packed = ONE.pack(
        now,
        not_after,
        number,
        n,
        1,
        ord(algorithm._value_),
        role._value_,
        kind._value_,
        overdraft._value_,
        limit,
        window_us,
        shape,
        hits,
    )
    return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        _ONE,
        len(key),
        key,
        len(receipt),
        receipt,
        ONE.size,
        packed,
    )


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
    if len(lines) == 1 and len(lines[0].charges) == 1 and isinstance(reply, bytes) and len(reply) == ONE_TOLD.size:
        now, granted, remaining, empty_us, fits_in_us = ONE_TOLD.unpack(reply)
        if granted >= 0:
            return Taken(now, [Grant(granted, (Outcome(remaining, empty_us, fits_in_us),))])
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
