"""Shapes: header blocks that differ only in values that mean nothing to us, as a traced request's do in its `traceparent`. Pure.

Looking at a block by its shape takes a tenth of the time of cutting it. Only for peers without a table (`memory`).
"""

from typing import NamedTuple

from ratelimit_svc.wire.http2.fields import is_sound_value, value_start
from ratelimit_svc.wire.http2.heads import Head

MOST_VALUES = 4
"""Values that differ: `traceparent`, `tracestate`, `x-request-id` and one more."""

LONGEST_VALUE = 126
"""Bytes, as far as one byte says (RFC 7541 §5.1)."""


class Shape(NamedTuple):
    """What such blocks have in common."""

    constant: tuple[bytes, ...]
    """What stands before, between and after the values; each but the last ends with a name."""
    head: Head
    """What they mean."""

    def match(self, block: bytes) -> Head | None:
        """Return what a block means; None if it has another shape."""
        *before, after = self.constant
        at = 0
        for constant in before:
            if not block.startswith(constant, at):
                return None
            at += len(constant)
            if at >= len(block) or (length := block[at] & 0x7F) > LONGEST_VALUE:
                return None
            if block[at] < 0x80 and not is_sound_value(block[at + 1 : at + 1 + length]):
                return None
            at += 1 + length
        return self.head if block[at:] == after and at + len(after) == len(block) else None


def shape(representations: list[bytes], differ: list[bool], head: Head) -> Shape | None:
    """Return the shape of a block, of which some representations differ each time.

    Args:
        representations: the block's.
        differ: for each, whether it is a literal whose name means nothing and whose value may be another.
        head: what the block means.
    """
    if not 0 < sum(differ) <= MOST_VALUES:
        return None
    constant, piece = [], b""
    for each, other in zip(representations, differ, strict=True):
        if other:
            constant.append(piece + each[: value_start(each)])
            piece = b""
        else:
            piece += each
    return Shape((*constant, piece), head)
