"""Take a batch: lines of charges, each line n times the same request, all or nothing each time. Twin of `batch.lua`.

Rules:
1. Charges are looked at in the line's order, each on the running sum of those before it, so that the same key twice in one
   request is right. (`plans` puts them in the order refunds, gates, quotas, shadows.)
2. A request is granted if all its gates fit and, where it has quotas, one of them does. Then every gate is charged, and each
   quota and shadow that fits. Else nothing is.
3. A check fits while something remains (`CHECK_NEEDS`), and counts nothing; a granted one with `Overdraft.AUTO` makes its key
   a budget. A look fits where its hits would, and counts nothing. A refund fits always, and so does an undo, whose room only
   later lines see.
4. Overdraft: ALWAYS fits; AUTO, on a budget in which anything is left, or was before this request, is charged as if it
   fitted, and the grant says that it was overdrawn. So no part is lost of a cost that comes in several charges.
5. A line of n > 1 holds gates on different keys only, without overdraft, looks, refunds or undos, so that "g of n" says all:
   the result is that of taking the n requests one after another.
6. A plain line, of gates only that count hits on different keys and cannot overdraw, says the same by a shorter way: most are. (A
   single hit cannot: it fits where anything is left.)
7. Every key is read before any is written. A window that nothing was charged to is not written, unless its clock was wrong
   (`must_save`) or it became a budget.
"""

from collections.abc import Callable, Sequence

from ratelimit_svc.model import Algorithm, Charge, Grant, Kind, Line, Outcome, Overdraft, Role
from ratelimit_svc.windows.fixed_window import FixedWindow
from ratelimit_svc.windows.reference_window import ReferenceWindow, place_of
from ratelimit_svc.windows.sliding_window import SlidingWindow
from ratelimit_svc.windows.token_bucket import TokenBucket

Window = SlidingWindow | FixedWindow | TokenBucket | ReferenceWindow
"""One key's state, of any algorithm."""

GIVING = (Kind.REFUND, Kind.UNDO)
"""Kinds that take hits off."""
NOT_ADDING = (Kind.LOOK, *GIVING)
"""Kinds whose hits are not added."""


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
                window = _open(charge, load, now, opened)
                opened[charge.key] = window
                if window.must_save:
                    changed[charge.key] = window
            windows.append(window)
        grants.append(_take(line, windows, now, changed))
    for key, window in changed.items():
        save(window.place if isinstance(window, ReferenceWindow) else key, window)
        window.must_save, window.unmoved = False, True
    return grants


def _open(charge: Charge, load: Callable[[bytes], Window | None], now: int, opened: dict[bytes, Window]) -> Window:
    """Bring a stored window to now. A key names its algorithm, so what is stored is of it."""
    if charge.algorithm is Algorithm.REFERENCE_WINDOW:
        return _open_reference(charge, load, now, opened)
    stored = load(charge.key)
    if charge.algorithm is Algorithm.SLIDING_WINDOW:
        assert stored is None or isinstance(stored, SlidingWindow)
        return SlidingWindow.open(stored, now, charge.window_us, charge.shape)
    if charge.algorithm is Algorithm.FIXED_WINDOW:
        assert stored is None or isinstance(stored, FixedWindow)
        return FixedWindow.open(stored, now, charge.window_us, charge.shape)
    assert stored is None or isinstance(stored, TokenBucket)
    return TokenBucket.open(stored, now, charge.window_us, charge.shape)


def _open_reference(
    charge: Charge, load: Callable[[bytes], Window | None], now: int, opened: dict[bytes, Window]
) -> ReferenceWindow:
    """Likewise, of a window whose key has its start: it may be open under another charge's key."""
    place = place_of(charge.key, now, charge.window_us)
    window = opened.get(place)
    if window is not None:
        assert isinstance(window, ReferenceWindow)
        window.share(charge.window_us)
        return window
    stored = load(place)
    assert stored is None or isinstance(stored, ReferenceWindow)
    opened[place] = made = ReferenceWindow.open(stored, now, charge.window_us, place)
    return made


def _take(line: Line, windows: Sequence[Window], now: int, changed: dict[bytes, Window]) -> Grant:
    """Decide on a line, charge what is granted, and return how each charge stands then."""
    take = _take_plain if _plain(line, windows) else _take_mixed
    return take(line, windows, now, changed)


def _plain(line: Line, windows: Sequence[Window]) -> bool:
    """Return whether a line is plain."""
    different = set()
    for charge, window in zip(line.charges, windows, strict=True):
        if charge.role is not Role.GATE or charge.kind in NOT_ADDING or charge.hits == 0:
            return False
        if charge.overdraft is Overdraft.ALWAYS or (
            charge.overdraft is Overdraft.AUTO and charge.hits > 1 and window.budget
        ):
            return False
        different.add(id(window))  # two keys may have one (`ReferenceWindow`)
    return len(different) == len(windows)


def _take_plain(line: Line, windows: Sequence[Window], now: int, changed: dict[bytes, Window]) -> Grant:
    """Take a plain line: as many as fit into the fullest window."""
    rooms = [window.room(charge.limit) for charge, window in zip(line.charges, windows, strict=True)]
    granted = line.n
    for charge, room in zip(line.charges, rooms, strict=True):
        granted = max(min(granted, room // charge.hits), 0)
    outcomes = []
    for charge, window, room in zip(line.charges, windows, rooms, strict=True):
        if granted > 0:
            window.add(granted * charge.hits)
            changed[charge.key] = window
        fits_in = window.until_fits(now, charge.limit, charge.hits) if granted < line.n else 0
        outcomes.append(Outcome(max(room - granted * charge.hits, 0), window.until_empty(now), fits_in))
    return Grant(granted, tuple(outcomes))


NOT, FITS, OVERDRAWN = 0, 1, 2
"""How a charge fits."""


def _take_mixed(line: Line, windows: Sequence[Window], now: int, changed: dict[bytes, Window]) -> Grant:
    """Take a line of any kind."""
    granted, fits = _how_many(line, windows)
    overdrawn = False
    for window in windows:
        window.asked = 0
    outcomes = []
    for charge, window, fit in zip(line.charges, windows, fits, strict=True):
        charged = granted > 0 and fit != NOT
        if charged and _apply(charge, window, granted):
            changed[charge.key] = window
        fits_in = 0
        if not _always(charge) and (not charged or granted < line.n or fit == OVERDRAWN):
            fits_in = window.until_fits(now, charge.limit, window.asked + (charge.hits or window.CHECK_NEEDS))
        if charged and fit == OVERDRAWN and charge.role is not Role.SHADOW:
            overdrawn = True
        counted = charged and granted == line.n and charge.kind is not Kind.LOOK
        if charge.kind not in GIVING and not counted:
            window.asked += charge.hits
        room = window.room(charge.limit)
        remaining = room if charged and fit == OVERDRAWN else max(room, 0)
        outcomes.append(Outcome(remaining, window.until_empty(now), fits_in))
    return Grant(granted, tuple(outcomes), overdrawn)


def _how_many(line: Line, windows: Sequence[Window]) -> tuple[int, list[int]]:
    """Return how many of the line's n requests are granted, and how each charge fits."""
    for window in windows:
        window.asked = 0
    granted, fits = line.n, []
    quotas = quotas_that_fit = 0
    for charge, window in zip(line.charges, windows, strict=True):
        if charge.kind in GIVING:
            if charge.kind is Kind.REFUND:
                window.asked -= min(charge.hits, window.total + window.asked)
            fits.append(FITS)
            continue
        room = window.room(charge.limit) - window.asked
        fit = _fit(charge, window, room)
        fits.append(fit)
        if fit != NOT:
            window.asked += charge.hits
        if fit == FITS and charge.hits > 0 and line.n > 1:
            granted = min(granted, room // charge.hits)
        if charge.role is Role.QUOTA:
            quotas += 1
            quotas_that_fit += fit != NOT
        elif charge.role is Role.GATE and fit == NOT:
            granted = 0
    if quotas > 0 and quotas_that_fit == 0:
        granted = 0
    return granted, fits


def _fit(charge: Charge, window: Window, room: int) -> int:
    """Return how a charge fits into the room that is left."""
    if _always(charge) or room >= (charge.hits or window.CHECK_NEEDS):
        return FITS
    if charge.hits > 0 and charge.overdraft is Overdraft.AUTO and window.budget:
        return OVERDRAWN if max(room, window.room(charge.limit)) > 0 else NOT
    return NOT


def _always(charge: Charge) -> bool:
    """Return whether a charge fits whatever the window holds."""
    return charge.kind in GIVING or (charge.hits > 0 and charge.overdraft is Overdraft.ALWAYS)


def _apply(charge: Charge, window: Window, granted: int) -> bool:
    """Charge what was granted, and return whether the window has to be stored."""
    if charge.kind in GIVING:
        return window.give_back(charge.hits, charge.limit if charge.kind is Kind.UNDO else None)
    if charge.kind is Kind.LOOK:
        return False
    if charge.hits > 0:
        window.add(granted * charge.hits)
        return True
    return charge.overdraft is Overdraft.AUTO and window.mark()
