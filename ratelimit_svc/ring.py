"""A ring of counts: what happened in the last second or so, column by column. Pure; the clock is handed in.

Time is cut in slots, as a window is in slices: the oldest slot leaves whole, so a ring of 10 slots of 0.1 s counts over the last
0.9 to 1 s. There is no timer: slots leave when somebody adds or asks. What the columns mean is their owner's business.
"""


class Ring:
    """Counts per column over a short sliding window.

    Args:
        columns: how many things are counted.
        slots: in how many parts the window moves.
        slot_s: how long each of them is, in seconds.

    Times are seconds of any clock that begins at 0 or later and does not go back. One that does is harmless: until it is where it
    was, what is added counts as of then.
    """

    __slots__ = ("_head", "_present", "_slot_s", "_slots", "_sums")

    def __init__(self, columns: int, *, slots: int = 10, slot_s: float = 0.1) -> None:
        self._slots = [[0] * columns for _ in range(slots)]
        self._slot_s = slot_s
        self._sums = [0] * columns
        self._head = 0
        """The number of the present slot, counted from time 0."""
        self._present = self._slots[0]

    def __repr__(self) -> str:
        return f"<Ring: {self._sums} in {len(self._slots)} slots of {self._slot_s:g} s>"

    @property
    def window_s(self) -> float:
        """The longest that something is counted, in seconds."""
        return len(self._slots) * self._slot_s

    def add(self, now: float, column: int, n: int = 1) -> None:
        """Count n more."""
        if (slot := now // self._slot_s) > self._head:
            self._move(int(slot))
        self._present[column] += n
        self._sums[column] += n

    def totals(self, now: float) -> list[int]:
        """Return the sum of each column over the window that ends now."""
        if (slot := now // self._slot_s) > self._head:
            self._move(int(slot))
        return self._sums.copy()

    def slots(self, now: float) -> list[list[int]]:
        """Return each slot's columns, the oldest first; the last is the present one. Moves nothing: any thread may ask."""
        head = max(int(now // self._slot_s), self._head)
        many = len(self._slots)
        nothing = [0] * len(self._sums)
        return [
            (self._slots[number % many] if number <= self._head else nothing).copy()
            for number in range(head - many + 1, head + 1)
        ]

    def _move(self, head: int) -> None:
        """Let the slots leave that are too old, each once, however far the clock has gone."""
        slots, sums = self._slots, self._sums
        for number in range(max(self._head + 1, head - len(slots) + 1), head + 1):
            slot = slots[number % len(slots)]
            for column, count in enumerate(slot):
                if count:
                    sums[column] -= count
                    slot[column] = 0
        self._head = head
        self._present = slots[head % len(slots)]
