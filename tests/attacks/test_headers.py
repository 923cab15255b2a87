"""Header blocks made to be dear: little on the way, much when decoded."""

import pytest
from hpack import Encoder

from ratelimit_svc.wire.http2 import fields
from ratelimit_svc.wire.http2.frames import ErrorCode
from tests.attacks.offender import Offender
from tests.http2.client import SETTINGS_ACK, block, body, head, message, request

ENTRY = b"\x40\x01x" + fields._text(b"v" * 4000)
"""Fills the table with one field."""

MANY, UNSOUND = ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.COMPRESSION_ERROR

BOMBS = {
    "HPACK bomb: 4 kB by one byte, 500 times": (head(1, block() + ENTRY) + head(3, block() + b"\xbe" * 500), MANY),
    "HPACK: 16,000 fields of one byte": (head(1, b"\x82" * 16_000), MANY),
    "HPACK: an integer of 16,000 bytes": (head(1, b"\xff" + b"\x80" * 16_000), UNSOUND),
    "HPACK: a length of 16,000 bytes": (head(1, b"\x00\x7f" + b"\xff" * 16_000), UNSOUND),
    "HPACK: a table of 4 GB": (head(1, b"\x3f\xff\xff\xff\xff\x0f"), UNSOUND),
    "HPACK: Huffman's code cut short": (head(1, block() + b"\x00\x01x\xff\x81\x7e" + b"\xff" * 255), UNSOUND),
}


@pytest.mark.parametrize("case", BOMBS)
def test_blocks_that_cannot_be_taken(target, case):
    """With the first block the connection ends, before much is made of it."""
    data, code = BOMBS[case]
    with target.under(case) as figures, Offender(target.port) as offender:
        offender.flood(data, most_bytes=1)
        figures.note(offender)
    assert offender.code is code
    assert figures.cpu_s < 0.2


AMPLIFIED = {
    "header lists of 60 kB in 15 bytes": block() + b"\xbe" * 14,
    "header lists of 500 fields": block() + b"\x90" * 490,
    "header lists of 20 kB": block({"x": "y" * 16_100}),
}


@pytest.mark.parametrize("case", AMPLIFIED)
def test_lists_that_are_too_long(target, case):
    """Each is told 431, or is malformed; whoever has sent some thousands, or twenty of very many fields, is closed."""
    with target.under(case) as figures, Offender(target.port) as offender:
        offender.send(head(1, block() + ENTRY, end=True))
        for start in range(3, 10_000, 100):
            numbers = range(start, start + 100, 2)
            if not offender.send(b"".join(head(number, AMPLIFIED[case], end=True) for number in numbers)):
                break
        offender.listen(lambda: offender.code is not None)
        figures.note(offender)
    assert offender.code is ErrorCode.ENHANCE_YOUR_CALM


def test_blocks_that_never_come_again(target):
    """Each differs in a field's name, and would be remembered: the memory of blocks is bounded, the usual ones stay in it."""
    encoder = Encoder()
    encoder.header_table_size = 0
    with target.under("blocks that never come again") as figures, Offender(target.port) as offender:
        offender.send(request(1) + SETTINGS_ACK * 2)
        sent = 0
        for start in range(3, 20_000, 200):
            pieces = [
                head(number, b"\x20" + block({f"x-{number:x}-{'y' * 150}": "z" * 60})) + body(number, message(b""))
                for number in range(start, start + 200, 2)
            ]
            sent += len(pieces)
            offender.send(b"".join(pieces))
            offender.listen(lambda sent=sent: offender.heard["DATA"] + offender.heard["HEADERS"] >= sent)
        figures.note(offender)
        figures.frames = sent
    assert not offender.closed
    assert offender.code is None
