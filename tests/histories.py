"""Histories of takes, generated, and the judges that stand outside the code they judge."""

from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import strategies as st

from ratelimit_svc.model import Algorithm, Charge, Grant, Line, Role, Rule

MINUTE = 60_000_000
START = 1_800_000_000_000_000
"""A present-day time in µs, as large as Redis's own."""

RULE = Rule("test", None)


def charge(
    key: bytes | str, limit: int, *, hits: int = 1, window: int = MINUTE, slices: int = 60, role=Role.GATE
) -> Charge:
    """A charge on a sliding window."""
    return Charge(
        key=key.encode() if isinstance(key, str) else key,
        algorithm=Algorithm.SLIDING_WINDOW,
        limit=limit,
        window_us=window,
        slices=slices,
        hits=hits,
        role=role,
        rule=RULE,
    )


@dataclass(frozen=True)
class Step:
    """Some time passes, the store's clock may be set, and a batch is taken."""

    passes: int
    """µs that really pass."""
    stepped: int
    """µs that the store's clock is set forward (or back) at that moment."""
    lines: tuple[Line, ...]


LIMITS = st.one_of(st.integers(0, 12), st.sampled_from([1000, 2**31, 2**32 - 1]))
HITS = st.one_of(st.integers(0, 4), st.integers(0, 12), st.sampled_from([2**31, 2**32 - 1, 2**32]))
SLICES = st.sampled_from([1, 2, 3, 7, 60, 500])


def passes(window: int = MINUTE) -> st.SearchStrategy[int]:
    """Times between takes: none, some µs, about a slice, about a window, many windows."""
    edges = [window // 60, window // 7, window // 2, window, window + window // 60, 3 * window]
    return st.one_of(
        st.just(0),
        st.integers(1, 5000),
        st.integers(0, 2 * window),
        st.builds(lambda edge, off: max(0, edge + off), st.sampled_from(edges), st.integers(-2, 2)),
    )


def steps(window: int = MINUTE) -> st.SearchStrategy[int]:
    """Settings of the clock: mostly none; else forward, back by less than a window, back by more."""
    return st.one_of(
        st.just(0),
        st.just(0),
        st.just(0),
        st.just(0),
        st.integers(-window, window),
        st.integers(-20 * window, 20 * window),
    )


@st.composite
def batches(draw, keys: tuple[str, ...] = ("a", "b", "c")) -> tuple[Line, ...]:
    """Lines of every legal kind: single requests with any charges, or n of gates on different keys."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            chosen = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3, unique=True))
            charges = tuple(charge(key, draw(LIMITS), hits=draw(HITS), slices=draw(SLICES)) for key in chosen)
            made.append(Line(charges, draw(st.integers(1, 6))))
        else:
            chosen = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=4))
            charges = tuple(
                charge(key, draw(LIMITS), hits=draw(HITS), slices=draw(SLICES), role=draw(st.sampled_from(Role)))
                for key in chosen
            )
            made.append(Line(charges, 1))
    return tuple(made)


def histories(*, clock_is_set: bool = True) -> st.SearchStrategy[list[Step]]:
    """Some steps in a row."""
    stepped = steps() if clock_is_set else st.just(0)
    return st.lists(st.builds(Step, passes(), stepped, batches()), min_size=1, max_size=25)


@dataclass
class Log:
    """A brute-force log of admitted hits: (when, key, hits). Judges promise 1 without knowing slices."""

    window: int

    def __post_init__(self) -> None:
        self.hits: list[tuple[int, bytes, int]] = []

    def admit(self, when: int, key: bytes, hits: int) -> None:
        """Note hits that were admitted."""
        self.hits.append((when, key, hits))

    def within(self, when: int, key: bytes) -> int:
        """Return the key's hits in the interval of one window that ends now, its older end excluded."""
        return sum(hits for at, name, hits in self.hits if name == key and when - self.window < at <= when)


def admit(log: Log, when: int, lines: Iterable[Line], grants: Iterable[Grant]) -> None:
    """Log what a batch admitted, and require of each gate that no interval of one window now holds more than its limit."""
    for line, grant in zip(lines, grants, strict=True):
        for one in line.charges:
            if one.role is Role.GATE and grant.granted and one.hits:
                log.admit(when, one.key, one.hits * grant.granted)
                full = log.within(when, one.key)
                assert full <= one.limit, (
                    f"{one.key!r} at {when}: {full} hits within {log.window} µs, limit {one.limit}"
                )
