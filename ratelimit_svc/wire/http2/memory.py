"""Header blocks, remembered by their bytes. Pure.

We tell every peer that its compressor may keep no table (SETTINGS_HEADER_TABLE_SIZE = 0). Once it has acknowledged that, a
block means the same whenever and on whichever connection it comes: a block that was seen before is looked up, and so is
each representation of one that was not (a traced request differs in its `traceparent` only).

Rule 1: only what was decoded without a table is remembered, and nothing that is malformed.
Rule 2: a value that means nothing to us is looked at the first time its name comes. After that, if it is Huffman's code, it is not
        even decoded: that takes longer than all the rest, and nobody would read it.
Rule 3: what is remembered is bounded: two generations, of which the older is dropped when the younger is full. What is
        used stays; a flood of blocks that never come again takes with it only what was not used meanwhile.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

from ratelimit_svc.tracing.traces import Traces
from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.fields import LONGEST_LIST, NO_TABLE, Field
from ratelimit_svc.wire.http2.frames import ConnectionFault, ErrorCode
from ratelimit_svc.wire.http2.heads import MATTERS, Head, Refusal, check, interpret
from ratelimit_svc.wire.http2.shape import LONGEST_VALUE, Shape, shape

MOST_BLOCKS, MOST_PARTS = 4096, 8192
"""Remembered in each generation."""
LONGEST_BLOCK, LONGEST_PART = 1024, 256
"""Bytes of what is remembered; what is longer is decoded each time."""

TOO_LONG = Head("", refusal=Refusal(f"the header list is longer than {LONGEST_LIST} bytes", 431, GrpcStatus.UNKNOWN))

T = TypeVar("T")


class Remembered(Generic[T]):
    """Values by bytes, in two generations."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.young: dict[bytes, T] = {}
        """The first place to look. It stays the same object."""
        self._old: dict[bytes, T] = {}
        self._stale: dict[bytes, T] = {}
        """Forgotten, and let go little by little: all at once they would keep everyone waiting for some ms."""

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
            self._stale, self._old = self._old, self.young.copy()
            self.young.clear()
        elif self._stale:
            self._stale.popitem()
        self.young[key] = value


class Part:
    """What one representation means: a field that was found sound."""

    __slots__ = ("differs", "field", "matter", "size")

    def __init__(self, representation: bytes, field: Field, *, differs: bool = False) -> None:
        self.field = (field[0], b"") if differs else field
        self.matter = representation if field[0] in MATTERS else b""
        """Itself, if it is one of those that a head is made of."""
        self.size = fields.size([field])
        self.differs = differs
        """Its name has come before with another value, and means nothing: the value may still be Huffman's code, and stands nowhere."""


class Blocks:
    """The memory that all connections share.

    Args:
        quick_path: see `heads.interpret`.
        traces: says which requests are sampled; None: nobody asks.
    """

    def __init__(self, quick_path: str, traces: Traces | None = None) -> None:
        self.quick_path, self.traces = quick_path, traces
        self.heads: Remembered[Head] = Remembered(MOST_BLOCKS)
        """By whole blocks."""
        self._once: set[int] = set()
        """Hashes of blocks that came once: one that never comes again would only fill the memory of those that do."""
        self._parts: Remembered[Part] = Remembered(MOST_PARTS)
        self._names: Remembered[bytes] = Remembered(MOST_PARTS)
        """Names that mean nothing, by the bytes of their literals up to the value."""
        self._by_matter: Remembered[Head] = Remembered(MOST_BLOCKS)
        """By the representations that a head is made of, and where the first of the others stands among them."""
        self._decoder = fields.table()
        self._decoder.max_allowed_table_size = 0
        self._decoder.decode(NO_TABLE)

    def head(self, block: bytes, calm: Calm) -> tuple[Head, Shape | None]:
        """Return what a block of a peer without a table means, and the shape of those that will be like it.

        Raises:
            ConnectionFault: it cannot be decoded, or is one too many.
            StreamFault: the request is malformed.
        """
        if (head := self.heads.find(block)) is not None:
            return head, None
        representations = fields.representations(block.lstrip(NO_TABLE))
        calm.decoded(len(representations))
        parts = [self._parts.young.get(each) or self._part(each) for each in representations]
        head = self._of_parts(parts)
        if len(block) > LONGEST_BLOCK:
            return head, None
        found = shape(representations, [part.differs for part in parts], head)
        if found is None or block.startswith(NO_TABLE):
            self._note(block, head)
        return head, found

    def fields(self, block: bytes, calm: Calm) -> list[Field]:
        """Return the fields of another block.

        Raises:
            ConnectionFault: it cannot be decoded, or is one too many.
        """
        calm.decoded(len(fields.representations(block)))
        return fields.decode(self._decoder, block)

    def _part(self, representation: bytes) -> Part:
        if (part := self._parts.find(representation)) is not None:
            return part
        start = fields.value_start(representation)
        name = self._names.find(representation[:start]) if start else None
        if name is not None and (value := _value(representation, start)) is not None:
            return Part(representation, (name, value), differs=True)
        found = fields.decode(self._decoder, representation)
        if not found:  # not a field: another size of the table, or the right one in the wrong place
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block changes the size of the table")
        (field,) = found
        check(field)
        part = Part(representation, field)
        if len(representation) <= LONGEST_PART:
            self._parts.note(representation, part)
            if start and field[0] not in MATTERS and field[0] != b"te":
                self._names.note(representation[:start], field[0])
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


def _value(representation: bytes, start: int) -> bytes | None:
    """Return a literal's value, still encoded if it is Huffman's code; None if it is not as short and sound as usual."""
    length = representation[start] & 0x7F
    value = representation[start + 1 :]
    if length > LONGEST_VALUE or (representation[start] < 0x80 and not fields.is_sound_value(value)):
        return None
    return value
