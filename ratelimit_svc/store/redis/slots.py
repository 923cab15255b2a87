"""Slots: which of a Cluster's 16 384 parts a key is in, and which server has it. Pure.

(Redis Cluster specification, "Key distribution model", "Hash tags" and "Clients first connection and handling of
redirections".)
"""

from binascii import crc_hqx
from collections.abc import Iterator
from typing import NamedTuple

from redis.exceptions import InvalidResponse

from ratelimit_svc.store.redis.where import Address

SLOTS = 16_384


class Range(NamedTuple):
    """Slots next to each other that one server has."""

    first: int
    last: int
    """The last one is among them."""
    owner: Address
    """Their master; replicas take no writes."""


def slot_of(key: bytes) -> int:
    """Return a key's slot."""
    return crc_hqx(tag_of(key), 0) % SLOTS


def tag_of(key: bytes) -> bytes:
    """Return what of a key decides on its slot: what stands in its first pair of braces, or all of it if nothing does."""
    opens = key.find(b"{") + 1
    if opens:
        closes = key.find(b"}", opens)
        if closes > opens:
            return key[opens:closes]
    return key


def ranges(reply: object, asked: Address) -> list[Range]:
    """Return who has which slots, as a reply to CLUSTER SLOTS says.

    Args:
        reply: of a server; it may be one that has no slots itself.
        asked: where that server is: it may not know what it is called, and leave out its own host.

    Raises:
        InvalidResponse: it is no such reply.
    """
    try:
        return list(_ranges(reply, asked))
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidResponse(f"CLUSTER SLOTS was answered with {reply!r:.50}") from error


def _ranges(reply: object, asked: Address) -> Iterator[Range]:
    if not isinstance(reply, list):
        raise TypeError
    for first, last, master, *_ in reply:
        if not 0 <= first <= last < SLOTS:
            raise ValueError
        yield Range(first, last, _address(master[0], master[1], asked))


def _address(host: bytes | str | None, port: int | str, asked: Address) -> Address:
    """Return an address as a Cluster gives it; without a host (or `?`, one that is not known) it is the one that was asked."""
    name = host.decode() if isinstance(host, bytes) else host
    return Address(name if name and name != "?" else asked.host, int(port))


class Redirect(NamedTuple):
    """What a server says that does not have the slot: who does."""

    slot: int
    to: Address
    once: bool
    """ASK: for this command only, which has to be announced by ASKING. Else MOVED: from now on."""


def redirect(said: str, asked: Address) -> Redirect | None:
    """Return where a refused command belongs, as the refusal says; None if it says nothing of the kind.

    Args:
        said: `MOVED 3999 host:port` or `ASK 3999 host:port`; the host may be empty, as in `ranges`.
        asked: who said it.
    """
    word, _, rest = said.partition(" ")
    if word not in ("MOVED", "ASK"):
        return None
    slot, _, address = rest.partition(" ")
    host, _, port = address.rpartition(":")
    if not (slot.isdecimal() and port.isdecimal() and int(slot) < SLOTS):
        return None
    return Redirect(int(slot), _address(host, port, asked), once=word == "ASK")
