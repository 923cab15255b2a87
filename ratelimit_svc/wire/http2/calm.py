"""How much work a peer may make for nothing. Pure.

A peer that asks earns credit, and time gives some; whatever asks nothing, and makes us work, costs. Without credit the
connection ends with ENHANCE_YOUR_CALM. So what is cheap in small numbers, and a weapon in large ones, needs no rule of its own:
SETTINGS, PING, PRIORITY, tiny DATA, CONTINUATION, WINDOW_UPDATE, frames of unknown types; what grows when it is inflated; and
header blocks of very many fields; and streams that are reset by the peer (rapid reset, CVE-2023-44487), reset by us for what the
peer did to them (MadeYouReset, CVE-2025-8671), or refused.
"""

from ratelimit_svc.wire.http2.frames import ConnectionFault, ErrorCode

MOST_FRAMES, FRAMES_A_REQUEST, FRAMES_A_TICK = 10_000, 10, 1000
"""Credit for frames that ask nothing, some 10 ms of work. gRPC's clients send some pings and window updates with each request, of
which thousands may come at once."""
USUAL_FIELDS = 32
"""Of a header block: each further one costs as much as a frame. One byte may be a field, which takes a microsecond to decode."""
FRAMES_A_CALL = 20
"""What a call costs that is not the RateLimitService's: it has a task of its own, and takes longer than several requests. Its
messages earn as requests do: a health check costs as much as it earns, and as much again."""
STREAMS_A_FRAME = 4
"""Streams whose windows SETTINGS change: so many cost as much as a frame."""
MOST_TIMES, INFLATED_A_FRAME = 32, 512
"""Messages may grow to so many times what they were on the way; each further byte costs, so many as much as a frame: of a bomb
that is 4 MiB and was 4 KiB, one passes and the second does not."""
MOST_RESETS, RESETS_A_REQUEST, RESETS_A_TICK = 2500, 1, 100
"""Credit for streams that are reset. Envoy resets what is not answered in 20 ms: after a stall of ours, all that was under way; and
what we answered meanwhile, which costs no more than its request has earned."""


class Calm:
    """One peer's credit."""

    __slots__ = ("frames", "resets")

    def __init__(self) -> None:
        self.frames = MOST_FRAMES
        self.resets = MOST_RESETS

    def earn(self, requests: int) -> None:
        """Note requests that were whole."""
        self.frames = min(self.frames + FRAMES_A_REQUEST * requests, MOST_FRAMES)
        self.resets = min(self.resets + RESETS_A_REQUEST * requests, MOST_RESETS)

    def tick(self) -> None:
        """Note that a second has passed."""
        self.frames = min(self.frames + FRAMES_A_TICK, MOST_FRAMES)
        self.resets = min(self.resets + RESETS_A_TICK, MOST_RESETS)

    def inflated(self, before: int, after: int) -> None:
        """Note how many bytes of a compressed message have become how many.

        Raises:
            ConnectionFault: they are too many.
        """
        self.frame(max(after - MOST_TIMES * before, 0) // INFLATED_A_FRAME)

    def decoded(self, fields: int) -> None:
        """Note how many fields a header block has.

        Raises:
            ConnectionFault: that was once too often.
        """
        if fields > USUAL_FIELDS:
            self.frame(fields - USUAL_FIELDS)

    def call(self) -> None:
        """Note a call that has a task of its own.

        Raises:
            ConnectionFault: it is one too many.
        """
        self.frame(FRAMES_A_CALL)

    def resized(self, streams: int) -> None:
        """Note that the windows of so many streams change.

        Raises:
            ConnectionFault: that was once too often.
        """
        self.frame(streams // STREAMS_A_FRAME)

    def frame(self, cost: int = 1) -> None:
        """Note a frame that asks nothing, or as much work as several are.

        Raises:
            ConnectionFault: it is one too many.
        """
        self.frames -= cost
        if self.frames < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that ask nothing")

    def reset(self, *, asked: bool = False) -> None:
        """Note a stream that is reset or refused; `asked`: it was a whole request, and gives back what it has earned.

        Raises:
            ConnectionFault: it is one too many.
        """
        self.resets -= 1 + RESETS_A_REQUEST * asked
        if self.resets < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams that are reset or refused")
