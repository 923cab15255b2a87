"""How much work a peer may make for nothing. Pure.

A peer that asks earns credit, and time gives some; whatever asks nothing, and makes us work, costs. Without credit the
connection ends with ENHANCE_YOUR_CALM. So what is cheap in small numbers, and a weapon in large ones, needs no rule of its own:
SETTINGS, PING, PRIORITY, empty DATA, CONTINUATION, WINDOW_UPDATE, frames of unknown types; and streams that are reset, by the
peer (rapid reset, CVE-2023-44487) or by us for what the peer did to them (MadeYouReset, CVE-2025-8671).
"""

from ratelimit_svc.wire.http2.frames import ConnectionFault, ErrorCode

MOST_FRAMES, FRAMES_A_REQUEST, FRAMES_A_TICK = 10_000, 10, 1000
"""Credit for frames that ask nothing, some 10 ms of work. gRPC's clients send some pings and window updates with each request, of
which thousands may come at once."""
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

    def frame(self) -> None:
        """Note a frame that asks nothing.

        Raises:
            ConnectionFault: it is one too many.
        """
        self.frames -= 1
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
