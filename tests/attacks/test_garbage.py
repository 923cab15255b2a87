"""What is no HTTP/2, or stops to be."""

import random

import pytest

from ratelimit_svc.wire.http2.frames import PREFACE, ErrorCode, Kind, frame
from tests.attacks.offender import Offender
from tests.http2.client import HELLO, body, head, request

BEFORE = {
    "an HTTP/1 request": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ErrorCode.PROTOCOL_ERROR),
    "a TLS hello to a plaintext port": (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "garbage before the preface": (random.Random(1).randbytes(10_000), ErrorCode.PROTOCOL_ERROR),
    "garbage inside the preface": (PREFACE[:20] + b"garbage" + PREFACE[20:], ErrorCode.PROTOCOL_ERROR),
    "garbage after the preface": (PREFACE + random.Random(2).randbytes(10_000), ErrorCode.FRAME_SIZE_ERROR),
    "a preface twice": (PREFACE * 2, ErrorCode.FRAME_SIZE_ERROR),
    "zeros": (bytes(1_000_000), ErrorCode.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("case", BEFORE)
def test_garbage_at_the_beginning(target, case):
    """The connection ends with what HTTP/2 has to say of it."""
    data, code = BEFORE[case]
    with target.under(case) as figures, Offender(target.port, hello=data) as offender:
        offender.listen(lambda: offender.code is not None)
        figures.note(offender)
    assert offender.code is code


AFTER = {
    "a frame of 16 MB": (b"\xff\xff\xff\0\0\0\0\0\1", ErrorCode.FRAME_SIZE_ERROR),
    "HEADERS interleaved": (head(1, flags=0) + head(3), ErrorCode.PROTOCOL_ERROR),
    "DATA within a header block": (head(1, flags=0) + body(1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "a preface in the middle": (request(1) + PREFACE, ErrorCode.FRAME_SIZE_ERROR),
    "a server's stream": (head(2), ErrorCode.PROTOCOL_ERROR),
    "a PUSH_PROMISE": (frame(Kind.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), ErrorCode.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("case", AFTER)
def test_garbage_in_the_middle(target, case):
    """With the RFC's code; all that was whole before it is not asked for nothing: nobody would hear the answer."""
    data, code = AFTER[case]
    with target.under(case) as figures, Offender(target.port) as offender:
        offender.flood(data, most_bytes=1)
        figures.note(offender)
    assert offender.code is code


def test_random_bytes_behind_a_hello(target):
    """Two hundred connections of them: none hangs, none is left, no code is INTERNAL_ERROR."""
    source = random.Random(3)
    codes = set()
    with target.under("random bytes, 200 connections") as figures:
        for _ in range(200):
            with Offender(target.port) as offender:
                kinds = b"".join(
                    frame(Kind(source.randrange(10)), source.randrange(256), source.randrange(6), source.randbytes(source.randrange(40)))
                    for _ in range(50)
                )  # fmt: skip
                offender.flood(kinds, most_bytes=1, within_s=1)
                codes.add(offender.code)
                figures.note(offender)
    assert ErrorCode.INTERNAL_ERROR not in codes
    assert len(codes) > 2


def test_truncated_requests(target):
    """A request cut at every byte, and the connection closed: nothing is left of any."""
    data = request(1)
    with target.under("requests cut short, a connection each") as figures:
        for at in range(0, len(data), 2):
            with Offender(target.port, hello=HELLO + data[:at]) as offender:
                figures.note(offender)
