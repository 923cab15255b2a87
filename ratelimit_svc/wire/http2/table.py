"""One peer's header blocks: decoded with its table until it keeps none, then looked up (`memory`). Pure."""

from typing import TYPE_CHECKING

from hpack import Decoder

from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.fields import Field
from ratelimit_svc.wire.http2.frames import ConnectionFault, ErrorCode
from ratelimit_svc.wire.http2.heads import Head, interpret
from ratelimit_svc.wire.http2.memory import TOO_LONG, Blocks

if TYPE_CHECKING:
    from ratelimit_svc.wire.http2.shape import Shape


class Table:
    """The peer's table of header fields, for as long as it has one.

    Args:
        blocks: the memory for when it has none.
        calm: told how much there is to decode.
    """

    __slots__ = ("_blocks", "_calm", "_decoder", "_shape", "acknowledged", "known")

    def __init__(self, blocks: Blocks, calm: Calm) -> None:
        self._blocks, self._calm = blocks, calm
        self._decoder: Decoder | None = fields.table()
        self._shape: Shape | None = None
        """Of the last block that had one."""
        self.acknowledged = False
        """The peer knows that it may keep none. It has to say that it keeps none (RFC 7541 §4.2), at the head of a block; of one that
        never does, all blocks are decoded."""
        self.known: dict[bytes, Head] = {}
        """Blocks that need no decoding: none while the peer has a table."""

    def quick(self, block: bytes) -> Head | None:
        """Return what a block means if that can be told without decoding: it, or one of its shape, has come before."""
        head = self.known.get(block)
        return head if head is not None or self._shape is None else self._shape.match(block)

    def head(self, block: bytes) -> Head:
        """Return what a request's block means.

        Raises:
            ConnectionFault: it cannot be decoded.
            StreamFault: the request is malformed.
        """
        if self._decoder is None:
            head, shape = self._blocks.head(block, self._calm)
            self._shape = shape or self._shape
            return head
        found = self._decode(self._decoder, block)
        return TOO_LONG if fields.size(found) > fields.LONGEST_LIST else interpret(found, self._blocks.quick_path)

    def fields(self, block: bytes) -> list[Field]:
        """Return the fields of another block.

        Raises:
            ConnectionFault: it cannot be decoded.
        """
        if self._decoder is None:
            return self._blocks.fields(block, self._calm)
        return self._decode(self._decoder, block)

    def _decode(self, decoder: Decoder, block: bytes) -> list[Field]:
        representations = fields.representations(block)
        self._calm.decoded(len(representations))
        if self.acknowledged and any(
            fields.is_table_size(each) and each != fields.NO_TABLE for each in representations
        ):
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block asks for a table, and there is none")
        found = fields.decode(decoder, block)
        if self.acknowledged and decoder.header_table_size == 0:
            self._decoder, self.known = None, self._blocks.heads.young
        return found
