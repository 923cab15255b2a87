"""One peer's header blocks: decoded with its table until it keeps none, then looked up (`memory`). Pure."""

from hpack import Decoder

from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.fields import Field
from ratelimit_svc.wire.http2.heads import Head, interpret
from ratelimit_svc.wire.http2.memory import TOO_LONG, Blocks


class Table:
    """The peer's table of header fields, for as long as it has one.

    Args:
        blocks: the memory for when it has none.
    """

    __slots__ = ("_blocks", "_decoder", "acknowledged", "known")

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._decoder: Decoder | None = fields.table()
        self.acknowledged = False
        """The peer knows that it may keep none."""
        self.known: dict[bytes, Head] = {}
        """Blocks that need no decoding: none while the peer has a table."""

    def acknowledge(self) -> None:
        """Note that the peer knows. Its next block has to begin with the new size (RFC 7541 §4.2)."""
        self.acknowledged = True
        if self._decoder is not None:
            self._decoder.max_allowed_table_size = 0

    def head(self, block: bytes) -> Head:
        """Return what a request's block means.

        Raises:
            ConnectionFault: it cannot be decoded.
            StreamFault: the request is malformed.
        """
        if self._decoder is None:
            return self._blocks.head(block)
        found = self._decode(self._decoder, block)
        return TOO_LONG if fields.size(found) > fields.LONGEST_LIST else interpret(found, self._blocks.quick_path)

    def fields(self, block: bytes) -> list[Field]:
        """Return the fields of another block.

        Raises:
            ConnectionFault: it cannot be decoded.
        """
        if self._decoder is None:
            return [part.field for part in self._blocks.parts(block)]
        return self._decode(self._decoder, block)

    def _decode(self, decoder: Decoder, block: bytes) -> list[Field]:
        fields.representations(block)  # within bounds, that is
        found = fields.decode(decoder, block)
        if self.acknowledged and decoder.header_table_size == 0:
            self._decoder, self.known = None, self._blocks.heads.young
        return found
