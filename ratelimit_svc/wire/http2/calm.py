"""How much work a peer may make for nothing. Pure.

A peer that asks earns credit, and time gives some; whatever asks nothing, and makes us work, costs. Without credit the
connection ends with ENHANCE_YOUR_CALM. So what is cheap in small numbers, and a weapon in large ones, needs no rule of its own:
SETTINGS, PING, PRIORITY, tiny DATA, CONTINUATION, WINDOW_UPDATE, frames of unknown types; what grows when it is inflated; and
streams that are reset, by the peer (rapid reset, CVE-2023-44487) or by us for what the peer did to them (MadeYouReset,
CVE-2025-8671).
"""

from ratelimit_svc.wire.http2.frames import ConnectionFault, ErrorCode

MOST_FRAMES, FRAMES_A_REQUEST, FRAMES_A_TICK = 1000, 10, 100
"""Credit for frames that ask nothing: gRPC's clients send some pings and window updates with each request."""
INFLATED_A_FRAME = 4 * 1024
"""Bytes that messages grow to, for which as much is paid as for a frame: a request of the usual size earns more than it costs, and
of those of 4 MiB, a thousand times what they were on the way, one passes and the second does not."""
STREAMS_A_FRAME = 32
"""Streams whose windows SETTINGS change, likewise."""
MOST_RESETS, RESETS_A_REQUEST, RESETS_A_TICK = 2000, 1, 100
"""Credit for streams that are reset. Envoy resets what is not answered in 20 ms: after a stall of ours, all that was under way."""


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

    def inflated(self, size: int) -> None:
        """Note so many bytes of a message that was compressed.

        Raises:
            ConnectionFault: they are too many.
        """
        self.frame(size // INFLATED_A_FRAME)

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

    def reset(self) -> None:
        """Note a stream that is reset.

        Raises:
            ConnectionFault: it is one too many.
        """
        self.resets -= 1
        if self.resets < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams that are reset")
