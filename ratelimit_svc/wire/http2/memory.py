"""Header blocks, remembered by their bytes. Pure.

We tell every peer that its compressor may keep no table (SETTINGS_HEADER_TABLE_SIZE = 0). Once it has acknowledged that, a
block means the same whenever and on whichever connection it comes: a block that was seen before is looked up, and so is
each representation of one that was not (a traced request differs in its `traceparent` only).

Rule 1: only what was decoded without a table is remembered, and nothing that is malformed.
Rule 2: what is remembered is bounded: two generations, of which the older is dropped when the younger is full. What is
        used stays; a flood of blocks that never come again takes with it only what was not used meanwhile.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.fields import LONGEST_LIST, Field
from ratelimit_svc.wire.http2.frames import ConnectionFault, ErrorCode
from ratelimit_svc.wire.http2.heads import MATTERS, Head, Refusal, check, interpret

MOST_BLOCKS, MOST_PARTS = 4096, 16_384
"""Remembered in each generation."""
LONGEST_BLOCK, LONGEST_PART = 1024, 256
"""Bytes of what is remembered; what is longer is decoded each time."""

NO_TABLE = b"\x20"
"""A new size of the table: 0. The first block after the acknowledgement begins with it (RFC 7541 §4.2)."""

TOO_LONG = Head("", refusal=Refusal(f"the header list is longer than {LONGEST_LIST} bytes", 431, GrpcStatus.UNKNOWN))

T = TypeVar("T")


class Remembered(Generic[T]):
    """Values by bytes, in two generations."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.young: dict[bytes, T] = {}
        """The first place to look. It stays the same object."""
        self._old: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def find(self, key: bytes) -> T | None:
        """Return what is remembered."""
        found = self.young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.note(key, found)
        return found

    def note(self, key: bytes, value: T) -> None:
        """Remember it."""
        if len(self.young) >= self._most:
            self._old = self.young.copy()
            self.young.clear()
        self.young[key] = value


class Part:
    """What one representation means: a field that was found sound."""

    __slots__ = ("field", "matter", "size")

    def __init__(self, representation: bytes, field: Field) -> None:
        self.field = field
        self.matter = representation if field[0] in MATTERS else b""
        """Itself, if it is one of those that a head is made of."""
        self.size = fields.size([field])


class Blocks:
    """The memory that all connections share.

    Args:
        quick_path: see `heads.interpret`.
    """

    def __init__(self, quick_path: str) -> None:
        self.quick_path = quick_path
        self.heads: Remembered[Head] = Remembered(MOST_BLOCKS)
        """By whole blocks."""
        self._once: set[int] = set()
        """Hashes of blocks that came once: one that never comes again would only fill the memory of those that do."""
        self._parts: Remembered[Part] = Remembered(MOST_PARTS)
        self._by_matter: Remembered[Head] = Remembered(MOST_BLOCKS)
        """By the representations that a head is made of, and where the first of the others stands among them."""
        self._decoder = fields.table()
        self._decoder.max_allowed_table_size = 0
        self._decoder.decode(NO_TABLE)

    def head(self, block: bytes) -> Head:
        """Return what a block of a peer without a table means.

        Raises:
            ConnectionFault: it cannot be decoded.
            StreamFault: the request is malformed.
        """
        if (head := self.heads.find(block)) is not None:
            return head
        head = self._of_parts(self.parts(block))
        if len(block) <= LONGEST_BLOCK:
            self._note(block, head)
        return head

    def parts(self, block: bytes) -> list[Part]:
        """Return what each representation means.

        Raises:
            As `head`.
        """
        known = self._parts.young
        return [known.get(each) or self._part(each) for each in fields.representations(block.lstrip(NO_TABLE))]

    def _part(self, representation: bytes) -> Part:
        if (part := self._parts.find(representation)) is not None:
            return part
        found = fields.decode(self._decoder, representation)
        if not found:  # not a field: another size of the table, or the right one in the wrong place
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block changes the size of the table")
        check(found[0])
        part = Part(representation, found[0])
        if len(representation) <= LONGEST_PART:
            self._parts.note(representation, part)
        return part

    def _of_parts(self, parts: Sequence[Part]) -> Head:
        matters = []
        others = False
        size = 0
        for part in parts:
            size += part.size
            if part.matter:
                matters.append(part.matter)
            elif not others:
                others = True
                matters.append(NO_TABLE)  # anything that is no field
        if size > LONGEST_LIST:
            return TOO_LONG
        matter = b"".join(matters)
        head = self._by_matter.find(matter)
        if head is None:
            head = interpret([part.field for part in parts], self.quick_path)
            if len(matter) <= LONGEST_BLOCK:
                self._by_matter.note(matter, head)
        return head

    def _note(self, block: bytes, head: Head) -> None:
        """Remember a block that comes the second time."""
        seen = hash(block)
        if seen in self._once:
            self.heads.note(block, head)
            return
        if len(self._once) >= MOST_BLOCKS:
            self._once.clear()
        self._once.add(seen)
