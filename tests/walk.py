"""A walk: windows of the Python twins in a dict, and a clock that is moved by hand."""

from ratelimit_svc.model import Charge, Grant, Line
from ratelimit_svc.windows import batch
from tests.histories import START


class Walk:
    """Takes on a dict of windows."""

    def __init__(self, now: int = START) -> None:
        self.now = now
        self.windows: dict[bytes, batch.Window] = {}
        self.saves = 0

    def save(self, key: bytes, window: batch.Window) -> None:
        self.saves += 1
        self.windows[key] = window

    def take(self, *lines: Line) -> list[Grant]:
        """Take a batch."""
        return batch.take(lines, self.now, self.windows.get, self.save)

    def ask(self, *charges: Charge, n: int = 1) -> Grant:
        """Take one line."""
        (grant,) = self.take(Line(charges, n))
        return grant

    def passes(self, *charges: Charge) -> bool:
        """Ask once, and return whether it is granted."""
        return self.ask(*charges).granted == 1
