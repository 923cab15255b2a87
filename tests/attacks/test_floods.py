"""Floods: much of what asks nothing, on one connection, as fast as it goes."""

import pytest

from ratelimit_svc.wire.http2.calm import MOST_FRAMES, MOST_RESETS, RESETS_A_TICK
from ratelimit_svc.wire.http2.frames import ACK, END_HEADERS, ErrorCode, Kind, frame
from tests.attacks.offender import Offender
from tests.http2.client import OTHER, block, body, head, ping, request, reset, setting, settings, window

UNENDED = head(1) + body(1, b"\0\0\x3f\xff\xff", end=False)
"""A request whose message of 4 MB has just begun."""

FRAMES = {
    "PING": (b"", ping()),
    "SETTINGS": (b"", frame(Kind.SETTINGS, 0, 0)),
    "PRIORITY": (b"", frame(Kind.PRIORITY, 0, 9, b"\0\0\0\0\1")),
    "empty DATA": (UNENDED, body(1, b"", end=False)),
    "DATA of one byte": (UNENDED, body(1, b"\0", end=False)),
    "unknown frames": (b"", b"\0\0\0\x77\0\0\0\0\0"),
    "WINDOW_UPDATE": (b"", window(0, 1)),
    "CONTINUATION, empty": (head(1, flags=0), frame(Kind.CONTINUATION, 0, 1)),
    "CONTINUATION, one byte": (head(1, b"", flags=0), frame(Kind.CONTINUATION, 0, 1, b"\0")),
    "PING answers": (b"", ping(flags=ACK)),
}


@pytest.mark.parametrize("case", FRAMES)
def test_frames_that_ask_nothing(target, case):
    """Whoever sends more than some thousands is closed with ENHANCE_YOUR_CALM."""
    first, flood = FRAMES[case]
    with target.under(f"{case} flood") as figures, Offender(target.port) as offender:
        offender.send(first)
        offender.flood(flood * 1000)
        figures.note(offender, frame_bytes=len(flood))
    assert offender.code is ErrorCode.ENHANCE_YOUR_CALM
    assert offender.heard.total() < MOST_FRAMES + 10


def test_continuations_that_end(target):
    """Header blocks in many pieces, one after another: no block is long, and all is well-formed."""
    with target.under("CONTINUATION flood, ended") as figures, Offender(target.port) as offender:
        for number in range(1, 100_000, 2):
            pieces = frame(Kind.CONTINUATION, 0, number) * 500
            if not offender.send(head(number, flags=0) + pieces + frame(Kind.CONTINUATION, END_HEADERS, number)):
                break
        offender.listen(lambda: offender.code is not None)
        figures.note(offender, frame_bytes=9)
    assert offender.code is ErrorCode.ENHANCE_YOUR_CALM


def test_a_block_that_never_ends(target):
    """CONTINUATIONs of 16 kB (VU#421644): 16 KiB in all is the end."""
    with target.under("CONTINUATION flood, 16 kB each") as figures, Offender(target.port) as offender:
        offender.send(head(1, b"\0" * 16_000, flags=0))
        offender.flood(frame(Kind.CONTINUATION, 0, 1, b"\0" * 16_000))
        figures.note(offender)
    assert offender.code is ErrorCode.ENHANCE_YOUR_CALM


STREAMS = {
    # CVE-2023-44487: the peer resets
    "rapid reset of health checks": lambda number: (
        head(number, block({":path": "/grpc.health.v1.Health/Check"})) + reset(number)
    ),
    "rapid reset of whole requests": lambda number: request(number) + reset(number),
    "rapid reset of unknown methods": lambda number: head(number, block({":path": OTHER})) + reset(number),
    # CVE-2025-8671: the peer makes us reset
    "MadeYouReset: WINDOW_UPDATE by 0": lambda number: request(number) + window(number, 0),
    "MadeYouReset: WINDOW_UPDATE overflows": lambda number: request(number) + window(number, 2**31 - 1),
    "MadeYouReset: DATA after the end": lambda number: request(number) + body(number, b"x"),
    "MadeYouReset: HEADERS after the end": lambda number: request(number) + head(number, b"", end=True),
    "MadeYouReset: PRIORITY on itself": lambda number: (
        request(number) + frame(Kind.PRIORITY, 0, number, number.to_bytes(4, "big") + b"\0")
    ),
    "MadeYouReset: PRIORITY of 4 bytes": lambda number: request(number) + frame(Kind.PRIORITY, 0, number, b"\0" * 4),
    "MadeYouReset: content-length": lambda number: head(number, block(content_length=1)) + body(number, b"xyz"),
    "MadeYouReset: malformed": lambda number: head(number, block({"X": "1"})),
}


@pytest.mark.parametrize("case", STREAMS)
def test_streams_that_are_reset(target, case):
    """By either side: some thousands, then the connection ends."""
    with target.under(case) as figures, Offender(target.port) as offender:
        number, frames = 1, 0
        while offender.code is None and not offender.closed and number < 200_000:
            pieces = [STREAMS[case](each) for each in range(number, number + 200, 2)]
            number += 200
            offender.send(b"".join(pieces))
            frames += 100
        offender.listen(lambda: offender.code is not None)
        figures.note(offender)
        figures.frames = frames
    # what comes after the end meets a stream that waits for its answer, which is reset; or one that is over (RFC 9113 §5.1)
    assert offender.code is ErrorCode.ENHANCE_YOUR_CALM or (
        offender.code is ErrorCode.STREAM_CLOSED and "after the end" in case
    )
    assert offender.heard["RST_STREAM"] <= MOST_RESETS + 10 * RESETS_A_TICK


def test_windows_that_are_toggled(target):
    """1000 answers wait for windows that are opened and closed, by SETTINGS of one value and of 2730."""
    waiting = b"".join(request(number) for number in range(1, 2000, 2))
    many = frame(Kind.SETTINGS, 0, 0, (setting(4, 0) + setting(4, 1)) * 1365)
    one = settings(INITIAL_WINDOW_SIZE=1) + settings(INITIAL_WINDOW_SIZE=0)
    for name, flood in (("windows toggled, 2730 a frame", many), ("windows toggled", one)):
        with target.under(name) as figures, Offender(target.port) as offender:
            offender.send(settings(INITIAL_WINDOW_SIZE=0) + waiting)
            offender.listen(lambda: offender.heard["HEADERS"] >= 1000)
            offender.flood(flood)
            figures.note(offender, frame_bytes=len(flood) // (2 if flood is one else 1))
        assert offender.code is ErrorCode.ENHANCE_YOUR_CALM


def test_drops_of_window_for_many_answers(target):
    """1000 answers wait, and each WINDOW_UPDATE lets out one byte."""
    waiting = b"".join(request(number) for number in range(1, 2000, 2))
    with target.under("windows of one byte") as figures, Offender(target.port) as offender:
        offender.send(settings(INITIAL_WINDOW_SIZE=0) + waiting)
        offender.listen(lambda: offender.heard["HEADERS"] >= 1000)
        offender.flood(b"".join(window(number, 1) for number in range(1, 2000, 2)))
        figures.note(offender, frame_bytes=13)
    assert offender.code is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("increment", "code"), [(0, ErrorCode.PROTOCOL_ERROR), (2**31 - 1, ErrorCode.FLOW_CONTROL_ERROR)]
)
@pytest.mark.parametrize("number", [0, 1])
def test_windows_that_are_none(target, number, increment, code):
    """By nothing, and by too much: the connection's end, or the stream's."""
    data = window(number, increment)
    with target.under(f"WINDOW_UPDATE {data[5:].hex()}") as figures, Offender(target.port) as offender:
        offender.send(head(1) + data)
        offender.listen(lambda: bool(offender.code or offender.reset_codes))
        figures.note(offender)
    assert (offender.code, offender.reset_codes) == ((None, {code.name: 1}) if number else (code, {}))
