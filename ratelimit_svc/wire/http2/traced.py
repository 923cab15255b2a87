"""Traced requests: what stands in the way of a request only where spans are asked for.

A block of headers that is looked up is not decoded (`memory`), so the few fields that tell of a trace are looked for in its bytes. A
peer that keeps no table names each field in full, either plainly or in Huffman's code: there are two ways to write each name.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

from hpack import Decoder, Encoder

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.waiting import Answer, Waiting
from ratelimit_svc.tracing.context import NAMES
from ratelimit_svc.tracing.traces import Trace, Traces
from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.fields import LONGEST_LIST, NO_TABLE, Field
from ratelimit_svc.wire.http2.frames import ConnectionFault
from ratelimit_svc.wire.http2.heads import Head
from ratelimit_svc.wire.http2.memory import Blocks
from ratelimit_svc.wire.http2.shape import LONGEST_VALUE
from ratelimit_svc.wire.http2.table import Table

if TYPE_CHECKING:
    from ratelimit_svc.wire.http2.streams import Stream


def _written(name: str) -> tuple[bytes, bytes]:
    """Return both ways to write a name: its length, and itself."""
    plain, short = (Encoder().encode([(name, "")], huffman=huffman)[1:-1] for huffman in (False, True))
    return plain, short


_WRITTEN: Mapping[str, tuple[bytes, bytes]] = {name: _written(name) for name in NAMES}

_B3 = (*_WRITTEN["b3"], *_WRITTEN["x-b3-traceid"])

_decoder = Decoder(max_header_list_size=LONGEST_LIST)
_decoder.max_allowed_table_size = 0
_decoder.decode(NO_TABLE)


def value_in(block: bytes, name: str) -> str | None:
    """Return the value of a field in a block whose peer has no table; None: it is not there, or long."""
    for written in _WRITTEN[name]:
        at = block.find(written) + len(written)
        if at < len(written) or at >= len(block) or (length := block[at] & 0x7F) > LONGEST_VALUE:
            continue
        try:
            [(_, value)] = fields.decode(_decoder, b"\x00" + written + block[at : at + 1 + length])
        except ConnectionFault:
            return None
        return value.decode("latin-1")
    return None


_DASH_00 = 0b010110_00000_00000
"""`-00` in Huffman's code (RFC 7541, appendix B). Ones follow, up to the end of a byte."""


def is_unsampled(block: bytes) -> bool:
    """Tell, without decoding, whether the block of a peer without a table says that its request is not sampled: by a `traceparent`
    that ends in `-00`, and no B3 beside it. So do most requests of a mesh that traces. False: perhaps.
    """
    plain, short = _WRITTEN["traceparent"]
    if (at := block.find(short)) >= 0:
        at += len(short)
    elif (at := block.find(plain)) >= 0:
        at += len(plain)
    else:
        return False
    first = block[at] if at < len(block) else 0
    end = at + 1 + (first & 0x7F)
    if end > len(block) or any(written in block for written in _B3):
        return False
    tail = block[end - 3 : end]
    if first < 0x80:
        return tail == b"-00"
    bits = int.from_bytes(tail)
    padding = (bits ^ (bits + 1)).bit_length() - 1
    return bits >> padding & 0xFFFF == _DASH_00


def table(blocks: Blocks, calm: Calm) -> Table:
    """Return a new peer's table: one that looks for traces only if somebody asks."""
    return Table(blocks, calm) if blocks.traces is None else TracedTable(blocks, calm, blocks.traces)


class TracedTable(Table):
    """A peer's table of header fields; the heads that come out of it say whether their request is sampled.

    Args:
        blocks: as of each table.
        calm: likewise.
        traces: says it.
    """

    __slots__ = ("_fields", "_traces")

    def __init__(self, blocks: Blocks, calm: Calm, traces: Traces) -> None:
        super().__init__(blocks, calm)
        self._traces = traces
        self._fields: dict[bytes, bytes] = {}
        """Of a block that is decoded with a table."""

    def quick(self, block: bytes) -> Head | None:
        head = super().quick(block)
        if head is None or is_unsampled(block):
            return head
        return self._with_trace(head, partial(value_in, block))

    def head(self, block: bytes) -> Head:
        has_table = self._decoder is not None
        head = self._with_trace(super().head(block), self._value if has_table else partial(value_in, block))
        self._fields = {}
        return head

    def _decode(self, decoder: Decoder, block: bytes) -> list[Field]:
        found = super()._decode(decoder, block)
        self._fields = dict(found)
        return found

    def _value(self, name: str) -> str | None:
        found = self._fields.get(name.encode())
        return None if found is None else found.decode("latin-1")

    def _with_trace(self, head: Head, field: Callable[[str], str | None]) -> Head:
        trace = self._traces.begun(field) if head.unary else None
        return head if trace is None else head._replace(trace=trace)


class TracedLimiter:
    """The limiter, as connections ask it: sampled requests are told of once they are answered."""

    def __init__(self, limiter: Limiter, traces: Traces) -> None:
        self._limiter, self._traces = limiter, traces

    def submit(self, data: bytes, answer: Answer, *, timeout_s: float | None = None) -> Waiting | None:
        """Answer a request; see `Limiter.submit`. `answer` is a peer's: a partial, of which the first argument is the stream."""
        stream: Stream = cast("partial[None]", answer).args[0]
        trace = stream.head.trace
        if trace is not None:
            answer = partial(self._answered, trace, data, answer)
        return self._limiter.submit(data, answer, timeout_s=timeout_s)

    def _answered(self, trace: Trace, data: bytes, answer: Answer, result: bytes | RateLimitError) -> None:
        answer(result)
        self._traces.answered(trace, data, result)
