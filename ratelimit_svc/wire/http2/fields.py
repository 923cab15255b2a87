"""HPACK (RFC 7541): header blocks cut, decoded and written. Pure.

Decoding is the `hpack` library's. A block is cut into its representations first, which needs no table, since where one ends
does not depend on what it means: so that the library never sees a number of a thousand digits or ten thousand fields.
"""

import re
from collections.abc import Iterable

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from ratelimit_svc.wire.http2.frames import ConnectionFault, ErrorCode

LONGEST_LIST = 16 * 1024
"""Bytes of a header list that we take, as RFC 9113 §6.5.2 counts them: names, values, and 32 for each. What a RateLimitRequest has to
say stands in its message."""
LONGEST_DECODED = 4 * LONGEST_LIST
"""Bytes of one that we decode, to refuse no more than its request. Beyond, the table is lost, and with it the connection."""
MOST_IN_A_LIST = 512
"""Representations in a block: each costs us more than its sender."""

NO_TABLE = b"\x20"
"""A new size of the table: 0 (RFC 7541 §6.3)."""

LONGEST_INTEGER = 4
"""Bytes after an integer's prefix: 28 bits, more than the length of any block that we take."""

Field = tuple[bytes, bytes]
"""Name and value."""


def table() -> Decoder:
    """Return what decodes one connection's blocks: its dynamic table."""
    return Decoder(max_header_list_size=LONGEST_DECODED)


def decode(decoder: Decoder, block: bytes) -> list[Field]:
    """Return the fields of a block.

    Raises:
        ConnectionFault: it cannot be decoded; nor can those that follow.
    """
    try:
        return list(decoder.decode(block, raw=True))
    except OversizedHeaderListError:
        text = f"a header list is longer than {LONGEST_DECODED} bytes"
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text) from None
    except HPACKError as error:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"a header block cannot be decoded: {error}") from None


_VALUE = re.compile(rb"(?![ \t])[^\x00\r\n]*(?<![ \t])")


def is_sound_value(value: bytes) -> bool:
    """Return whether a field may have this value (RFC 9113 §8.2.1)."""
    return _VALUE.fullmatch(value) is not None


def size(fields: Iterable[Field]) -> int:
    """Return how long a header list is (RFC 9113 §6.5.2)."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


_LONG_INDEX = frozenset((0x0F, 0x1F, 0x7F))
"""First bytes of literals whose name's index goes on in the bytes that follow."""


def representations(block: bytes) -> list[bytes]:
    """Return the block's representations, in order.

    Raises:
        ConnectionFault: it is not a sequence of whole ones, or one of very many.
    """
    found: list[bytes] = []
    at, end = 0, len(block)
    try:
        while at < end:
            start, first = at, block[at]
            if first >= 0x80:  # indexed, name and value (§6.1)
                at = at + 1 if first != 0xFF else _integer(block, at + 1)[1]
            elif first & 0xE0 == 0x20:  # a new size of the table (§6.3)
                at = at + 1 if first != 0x3F else _integer(block, at + 1)[1]
            else:  # a literal (§6.2)
                if first & (0x3F if first & 0x40 else 0x0F) == 0:
                    at = _past_text(block, at + 1)
                elif first in _LONG_INDEX:
                    at = _integer(block, at + 1)[1]
                else:
                    at += 1
                at = _past_text(block, at)
            found.append(block[start:at])
    except IndexError:
        at = end + 1
    if at > end:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block is cut short")
    if len(found) > MOST_IN_A_LIST:
        text = f"a header block holds more than {MOST_IN_A_LIST} fields"
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text)
    return found


def _past_text(block: bytes, at: int) -> int:
    """Return where a string literal (§5.2) ends."""
    length = block[at] & 0x7F
    if length != 0x7F:
        return at + 1 + length
    more, at = _integer(block, at + 1)
    return at + 0x7F + more


def _integer(block: bytes, at: int) -> tuple[int, int]:
    """Return what an integer (§5.1) has beyond its prefix, and where it ends."""
    value = shift = 0
    for after in range(at + 1, at + 1 + LONGEST_INTEGER):
        byte = block[after - 1]
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, after
        shift += 7
    raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block holds too large a number")


def is_table_size(representation: bytes) -> bool:
    """Return whether it is a new size of the table (§6.3), and no field."""
    return representation[0] & 0xE0 == 0x20


def value_start(representation: bytes) -> int:
    """Return where the value of a literal begins, with its length; 0 for what is no literal, or has a long name."""
    first = representation[0]
    if first >= 0x80 or is_table_size(representation):
        return 0
    if first & (0x3F if first & 0x40 else 0x0F):
        return 1 if first not in _LONG_INDEX else _integer(representation, 1)[1]
    length = representation[1] & 0x7F
    return 2 + length if length != 0x7F else 0


def block(*fields: Field) -> bytes:
    """Return a header block of these fields, for any state of the peer's table: literals that are never put into it (§6.2.2)."""
    return b"".join(_STATIC.get(each) or _literal(*each) for each in fields)


_STATIC = {(b":status", b"200"): b"\x88"}


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    """Return a string literal without Huffman's code (§5.2)."""
    length = len(text)
    if length < 0x7F:
        return bytes((length,)) + text
    head, length = bytearray((0x7F,)), length - 0x7F
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + text
