"""Histories of takes, generated, and the judges that stand outside the code they judge."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from ratelimit_svc.model import (
    BEGIN_AT_EPOCH,
    BEGIN_AT_FIRST_HIT,
    BEGIN_ON_MONDAY,
    LONGEST_US,
    MAX_HITS,
    Algorithm,
    Charge,
    Grant,
    Kind,
    Line,
    Overdraft,
    Role,
    Rule,
)

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND
START = 1_800_000_000_000_000
"""A present-day time in µs, as large as Redis's own."""

RULE = Rule("test", None)


def charge(
    key: bytes | str,
    limit: int,
    *,
    hits: int = 1,
    window: int = MINUTE,
    slices: int = 60,
    role: Role = Role.GATE,
    algorithm: Algorithm = Algorithm.SLIDING_WINDOW,
    shape: int | None = None,
    kind: Kind | None = None,
    overdraft: Overdraft = Overdraft.NEVER,
) -> Charge:
    """A charge, on a sliding window unless another algorithm is named."""
    return Charge(
        key=key.encode() if isinstance(key, str) else key,
        algorithm=algorithm,
        limit=limit,
        window_us=window,
        shape=slices if shape is None else shape,
        hits=hits,
        role=role,
        rule=RULE,
        kind=kind or (Kind.POSITIVE if hits else Kind.CHECK),
        overdraft=overdraft,
    )


def bucket(key: str, burst: int, rate: int, *, window: int = MINUTE, **others) -> Charge:
    """A charge on a token bucket: so many at once, and so many a window."""
    return charge(key, burst, window=window, algorithm=Algorithm.TOKEN_BUCKET, shape=rate, **others)


def fixed(key: str, limit: int, *, window: int = MINUTE, begin: int = BEGIN_AT_EPOCH, **others) -> Charge:
    """A charge on a fixed window."""
    return charge(key, limit, window=window, algorithm=Algorithm.FIXED_WINDOW, shape=begin, **others)


def shared(limit: int, *, key: str = "shop_a_60s", window: int = MINUTE, **others) -> Charge:
    """A charge on a window that is kept as the reference implementation does."""
    return charge(key, limit, window=window, algorithm=Algorithm.REFERENCE_WINDOW, shape=BEGIN_AT_EPOCH, **others)


@dataclass(frozen=True)
class Step:
    """Some time passes, the store's clock may be set, and a batch is taken."""

    passes: int
    """µs that really pass."""
    stepped: int
    """µs that the store's clock is set forward (or back) at that moment."""
    lines: tuple[Line, ...]
    undoes: tuple[tuple[int, int], ...] = ()
    """What the batch undoes before its lines: which line of those charged till then, and how many of its requests."""


@dataclass
class Charged:
    """Lines that were charged and may still be undone, each once."""

    lines: list[tuple[int, Line]] = field(default_factory=list)
    """(when, line); of a line its gates that count hits."""

    def batch(self, step: Step) -> tuple[Line, ...]:
        """The batch of a step."""
        return (*self._undone(step), *step.lines)

    def _undone(self, step: Step) -> Iterator[Line]:
        for which, many in step.undoes:
            if self.lines:
                when, line = self.lines.pop(which % len(self.lines))
                yield undo(when, line, 1 + many % line.n)

    def note(self, when: int, lines: Iterable[Line], grants: Iterable[Grant]) -> None:
        """Note what a batch charged."""
        for line, grant in zip(lines, grants, strict=True):
            gates = tuple(one for one in line.charges if one.role is Role.GATE and one.kind is Kind.POSITIVE)
            if grant.granted > 0 and gates:
                self.lines.append((when, Line(gates, grant.granted)))


def undo(when: int, line: Line, many: int = 1) -> Line:
    """The line that undoes so many requests of a line that was charged then."""
    return Line(
        tuple(one._replace(kind=Kind.UNDO, limit=when, hits=min(one.hits * many, MAX_HITS)) for one in line.charges), 1
    )


LIMITS = st.one_of(st.integers(0, 12), st.sampled_from([1000, 2**31, 2**32 - 1]))
HITS = st.one_of(st.integers(0, 4), st.integers(0, 12), st.sampled_from([2**31, 2**32 - 1, 2**32]))
SLICES = st.sampled_from([1, 2, 3, 7, 60, 500])
RATES = st.one_of(st.integers(0, 12), st.sampled_from([7, 60_000_007, 2**32 - 1]))

WINDOWS: dict[Algorithm, dict[str, tuple[int, st.SearchStrategy[int]]]] = {
    Algorithm.SLIDING_WINDOW: dict.fromkeys(("a", "b", "c"), (MINUTE, SLICES)),
    Algorithm.FIXED_WINDOW: {
        "fixed": (MINUTE, st.just(BEGIN_AT_EPOCH)),
        "from first hit": (MINUTE, st.just(BEGIN_AT_FIRST_HIT)),
        "realigned": (MINUTE, st.sampled_from([BEGIN_AT_EPOCH, BEGIN_AT_FIRST_HIT])),
        "weeks": (14 * DAY, st.just(BEGIN_ON_MONDAY)),
        "months": (30 * DAY, st.just(1)),
        "years": (365 * DAY, st.just(12)),
    },
    Algorithm.TOKEN_BUCKET: {
        "bucket": (MINUTE, RATES),
        "fast bucket": (10 * SECOND, RATES),  # not faster: the servers let keys expire in real time
        "slow bucket": (LONGEST_US, RATES),
    },
    Algorithm.REFERENCE_WINDOW: {
        "shop_a_60s": (MINUTE, st.just(BEGIN_AT_EPOCH)),
        "shop_b__60s": (MINUTE, st.just(BEGIN_AT_EPOCH)),
    },
}
"""Keys by algorithm, each with its W and what its shape may be: keys name both, so they never change under one."""


def passes(window: int = MINUTE) -> st.SearchStrategy[int]:
    """Times between takes: none, some µs, about a slice, about a window, many windows, months."""
    edges = [window // 60, window // 7, window // 2, window, window + window // 60, 3 * window, 30 * DAY]
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


PLAIN = (Kind.POSITIVE,)
NO_DEBT = (Kind.POSITIVE, Kind.LOOK, Kind.REFUND)


@st.composite
def _charges(draw, key: tuple[Algorithm, str], *, role=Role.GATE, kinds=PLAIN, overdrafts=(Overdraft.NEVER,)) -> Charge:
    """One charge on a key."""
    algorithm, name = key
    window, shapes = WINDOWS[algorithm][name]
    kind, hits = draw(st.sampled_from(kinds)), draw(HITS)
    if kind is not Kind.REFUND and not hits:
        kind = Kind.CHECK
    return charge(
        name,
        draw(LIMITS),
        hits=hits,
        window=window,
        algorithm=algorithm,
        shape=draw(shapes),
        role=role,
        kind=kind,
        overdraft=Overdraft.NEVER if kind is Kind.REFUND else draw(st.sampled_from(overdrafts)),
    )


@st.composite
def batches(
    draw,
    algorithms: tuple[Algorithm, ...] = tuple(Algorithm),
    kinds: tuple[Kind, ...] = NO_DEBT,
    overdrafts: tuple[Overdraft, ...] = tuple(Overdraft),
    roles: tuple[Role, ...] = tuple(Role),
) -> tuple[Line, ...]:
    """Lines of every legal kind: single requests with any charges, or n of plain gates on different keys."""
    keys = st.sampled_from([(algorithm, name) for algorithm in algorithms for name in WINDOWS[algorithm]])
    made = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            chosen = draw(st.lists(keys, min_size=1, max_size=3, unique=True))
            charges = tuple(draw(_charges(key)) for key in chosen)
            made.append(Line(charges, draw(st.integers(1, 6))))
        else:
            chosen = draw(st.lists(keys, min_size=1, max_size=4))
            charges = tuple(
                draw(_charges(key, role=draw(st.sampled_from(roles)), kinds=kinds, overdrafts=overdrafts))
                for key in chosen
            )
            made.append(Line(charges, 1))
    return tuple(made)


def histories(*, clock_is_set: bool = True, undone: bool = False, **options: Any) -> st.SearchStrategy[list[Step]]:
    """Some steps in a row. `options` say what of batches is wanted; all of everything by default, but undos only if told."""
    stepped = steps() if clock_is_set else st.just(0)
    undoes = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=2 * undone).map(tuple)
    return st.lists(st.builds(Step, passes(), stepped, batches(**options), undoes), min_size=1, max_size=25)


SLIDING: dict[str, Any] = {
    "algorithms": (Algorithm.SLIDING_WINDOW,),
    "overdrafts": (Overdraft.NEVER,),
    "roles": (Role.GATE, Role.SHADOW),
}
"""What promise 1 speaks of; with refunds, it holds for what was admitted less what was given back."""


@dataclass
class Log:
    """A brute-force log of admitted hits: (when, key, hits). Judges promise 1 without knowing slices."""

    window: int

    def __post_init__(self) -> None:
        self.hits: list[tuple[int, bytes, int]] = []
        self._there: dict[bytes, list[tuple[int, int]]] = {}
        """By key what may still be there to be given back: (when, hits), the oldest first."""

    def admit(self, when: int, key: bytes, hits: int) -> None:
        """Note hits that were admitted."""
        self.hits.append((when, key, hits))
        self._there.setdefault(key, []).append((when, hits))

    def give_back(self, when: int, key: bytes, hits: int) -> None:
        """Note hits that were given back: the oldest first, and no more than can have been there, which is for two windows."""
        left, kept = hits, []
        for at, there in self._there.get(key, []):
            if at > when - 2 * self.window:
                cut = min(there, left)
                left -= cut
                kept.append((at, there - cut))
        self._there[key] = kept
        self.hits.append((when, key, left - hits))

    def undo(self, charged_at: int, key: bytes, hits: int) -> None:
        """Note hits that ceased to count: no interval that is looked at from now on holds them."""
        self.hits.append((charged_at, key, -hits))
        left, kept = hits, []
        for at, there in self._there.get(key, []):
            cut = min(there, left) if at == charged_at else 0
            left -= cut
            kept.append((at, there - cut))
        self._there[key] = kept

    def within(self, when: int, key: bytes) -> int:
        """Return the key's hits, less refunds and what was undone, in the interval of one window that ends now, its older end excluded."""
        start = when - self.window
        return sum(hits for at, name, hits in self.hits if name == key and start < at <= when)


def admit(log: Log, when: int, lines: Iterable[Line], grants: Iterable[Grant]) -> None:
    """Log what a batch admitted and gave back, and require that no interval of one W holds more than a limit."""
    for line, grant in zip(lines, grants, strict=True):
        for one in line.charges:
            if not grant.granted or not one.hits:
                continue
            if one.kind is Kind.REFUND:
                log.give_back(when, one.key, one.hits)
            if one.kind is Kind.UNDO:
                log.undo(one.limit, one.key, one.hits)
            if one.kind is not Kind.POSITIVE or one.role is not Role.GATE:
                continue
            log.admit(when, one.key, one.hits * grant.granted)
            full = log.within(when, one.key)
            assert full <= one.limit, f"{one.key!r} at {when}: {full} hits within {log.window} µs, limit {one.limit}"
