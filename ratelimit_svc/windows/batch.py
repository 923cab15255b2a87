"""Take a batch: lines of charges, each line n times the same request, all or nothing each time. Twin of `batch.lua`.

Rules:
1. A request is granted if all its gates fit; then they are charged, and so is each shadow that fits. Else nothing is.
2. A line of n > 1 holds gates on different keys only, so that "g of n" says all: the result is that of taking the n
   requests one after another.
3. The same key twice in one request is checked on the running sum.
4. Every key is read before any is written. A window that nothing was charged to is not written, unless its clock was wrong
   (`must_save`).
"""

from collections.abc import Callable, Sequence

from ratelimit_svc.model import Algorithm, Charge, Grant, Line, Outcome, Role
from ratelimit_svc.windows.sliding_window import SlidingWindow

Window = SlidingWindow
"""One key's state, of any algorithm."""

OPEN = {Algorithm.SLIDING_WINDOW: SlidingWindow.open}
"""How each algorithm brings a stored window to now."""


def take(
    lines: Sequence[Line],
    now: int,
    load: Callable[[bytes], Window | None],
    save: Callable[[bytes, Window], None],
) -> list[Grant]:
    """Charge what fits and return one grant per line, in order.

    Args:
        lines: what to charge; see the rules above.
        now: the store's time in µs.
        load: the stored window of a key, or None.
        save: called once for each key that changed, after all are decided.
    """
    opened: dict[bytes, Window] = {}
    changed: dict[bytes, Window] = {}
    grants = []
    for line in lines:
        windows = []
        for charge in line.charges:
            window = opened.get(charge.key)
            if window is None:
                window = OPEN[charge.algorithm](load(charge.key), now, charge.window_us, charge.slices)
                opened[charge.key] = window
                if window.must_save:
                    changed[charge.key] = window
            windows.append(window)
        granted = _how_many(line, windows)
        grants.append(Grant(granted, _charge(line, windows, granted, now, changed)))
    for key, window in changed.items():
        window.must_save = False
        save(key, window)
    return grants


def _how_many(line: Line, windows: Sequence[Window]) -> int:
    """Return how many of the line's n requests fit through all its gates."""
    for window in windows:
        window.asked = 0
    granted = line.n
    for charge, window in zip(line.charges, windows, strict=True):
        if charge.role is Role.GATE:
            room = window.room(charge.limit) - window.asked
            if room < max(charge.hits, 1):
                granted = 0
            elif charge.hits > 0:
                granted = min(granted, room // charge.hits)
            window.asked += charge.hits
    return granted


def _charge(
    line: Line, windows: Sequence[Window], granted: int, now: int, changed: dict[bytes, Window]
) -> tuple[Outcome, ...]:
    """Charge the granted requests and return how each charge stands then."""
    for window in windows:
        window.asked = 0
    outcomes = []
    for charge, window in zip(line.charges, windows, strict=True):
        charged = granted > 0 and (charge.role is Role.GATE or _fits(charge, window))
        if charged and charge.hits > 0:
            window.add(granted * charge.hits)
            changed[charge.key] = window
        fits_in = 0
        if granted < line.n or not charged:
            fits_in = window.until_fits(now, charge.limit, window.asked + max(charge.hits, 1))
            window.asked += charge.hits
        outcomes.append(Outcome(max(window.room(charge.limit), 0), window.until_empty(now), fits_in))
    return tuple(outcomes)


def _fits(charge: Charge, window: Window) -> bool:
    """Return whether the charge alone fits now; a check passes while anything remains."""
    return window.room(charge.limit) >= max(charge.hits, 1)
