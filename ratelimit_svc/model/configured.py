"""What rule files say: rules and their limits. All times are integer microseconds (`_us`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum, StrEnum
from functools import cached_property
from typing import Any, NamedTuple

MICROSECONDS = 1_000_000

DEFAULT_SLICES = 60
MAX_SLICES = 500

SHORTEST_US = 1_000
"""The shortest period of a limit: nothing that crosses a network can tell less from nothing."""
LONGEST_US = 10 * 365 * 86_400 * MICROSECONDS
"""The longest period of a limit, and the longest time that is ever told: ten years. Below 2^49, so that the arithmetic of
all algorithms stays below 2^53."""


class Unit(IntEnum):
    """`envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit`, with its numbers."""

    SECOND = 1
    MINUTE = 2
    HOUR = 3
    DAY = 4
    MONTH = 5
    YEAR = 6
    WEEK = 7

    @property
    def seconds(self) -> int:
        """The unit's length; a month is 30 days and a year 365, as in the reference implementation."""
        return _SECONDS[self]


_SECONDS = {
    Unit.SECOND: 1,
    Unit.MINUTE: 60,
    Unit.HOUR: 3_600,
    Unit.DAY: 86_400,
    Unit.WEEK: 604_800,
    Unit.MONTH: 30 * 86_400,
    Unit.YEAR: 365 * 86_400,
}


def unit_of(period_us: int) -> tuple[Unit | None, int]:
    """Return the largest unit that measures a period, and how many of them it is; (None, 1) below whole seconds."""
    for unit in sorted(Unit, key=lambda unit: -unit.seconds):
        number, rest = divmod(period_us, unit.seconds * MICROSECONDS)
        if number and not rest:
            return unit, number
    return None, 1


class Algorithm(StrEnum):
    """How a window counts. The value is its letter in keys and in the script's arguments."""

    SLIDING_WINDOW = "s"
    """Never more than the limit in any interval of one window. The default."""
    FIXED_WINDOW = "f"
    """Counts from boundary to boundary, as the reference implementation does: up to twice the limit around one."""
    TOKEN_BUCKET = "t"  # noqa: S105 — a bucket of tokens, not a secret one
    """So many at once (`burst`), and then as they come back, evenly (GCRA)."""
    REFERENCE_WINDOW = "r"
    """A fixed window as the reference implementation keeps it. No rule names it: REDIS_KEY_FORMAT makes charges of fixed windows so."""


RULE_ALGORITHMS = (Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW, Algorithm.TOKEN_BUCKET)
"""Those that a rule may name."""


class Align(Enum):
    """Where fixed windows begin."""

    EPOCH = "epoch"
    """At multiples of W since 1970-01-01 00:00 UTC, as in the reference implementation: weeks begin on a Thursday."""
    CALENDAR = "calendar"
    """With the calendar's own weeks (on Monday), months and years, in UTC."""
    FIRST_HIT = "first_hit"
    """With the first hit after the last window's end."""


class OnStoreFailure(IntEnum):
    """What a rule says when the store does not answer in time. Ordered: in one request the greatest decides."""

    ALLOW = 0
    LOCAL = 1
    """This replica enforces its share of the limit from its own memory."""
    DENY = 2
    ERROR = 3
    """Answer with a gRPC error, so that Envoy's `failure_mode_deny` decides."""


class Role(Enum):
    """What a charge may do to its request. The value is its number in the script's arguments."""

    GATE = 0
    """Must fit, or the request is denied."""
    SHADOW = 1
    """Never denies; charged if it fits, counted as "would deny" if not."""
    QUOTA = 2
    """`quota_mode`: a request that has quotas passes if one of them fits. Those that fit are charged."""


class Overdraft(Enum):
    """Whether hits that do not fit are counted all the same: for costs that are known only afterwards. The value is its
    number in the script's arguments.
    """

    NEVER = 0
    AUTO = 1
    """If the key is a budget (it has been asked by a check) and anything was left; answered OVER_LIMIT."""
    ALWAYS = 2
    """Every time, and answered OK: only checks deny."""


class Entry(NamedTuple):
    """One `RateLimitDescriptor.Entry`."""

    key: str
    value: str


@dataclass(frozen=True)
class Limit:
    """So many requests a period, counted by an algorithm.

    There are as many as rules, and each plan and each answer asks for the same few numbers: they are found once.
    """

    requests_per_unit: int
    """0 … 2^32 − 1; 0 denies everything."""
    unit: Unit | None
    """None: the period is no whole number of seconds, see `period_us`."""
    name: str = ""
    """The limit's name for people, from `rate_limit.name`; empty where it has none."""
    slices: int = DEFAULT_SLICES
    """1 … 500: the parts that a sliding window is cut in. Capacity comes back at most one part late."""
    multiplier: int = 1
    """The period is so many units."""
    period_us: int = 0
    """The period where no unit measures it; else 0."""
    algorithm: Algorithm = Algorithm.SLIDING_WINDOW
    burst: int | None = None
    """How many hits a token bucket takes at once; None: `requests_per_unit`."""
    align: Align = Align.EPOCH
    """Where a fixed window begins."""

    @cached_property
    def window_us(self) -> int:
        """The period's length W."""
        return self.period_us if self.unit is None else self.unit.seconds * self.multiplier * MICROSECONDS

    @cached_property
    def most(self) -> int:
        """How many hits may count at once: the burst of a token bucket, else the limit itself."""
        if self.algorithm is Algorithm.TOKEN_BUCKET and self.burst is not None:
            return self.burst
        return self.requests_per_unit

    @cached_property
    def shape(self) -> int:
        """The one number that the algorithm needs beside W: slices, the fixed window's beginning, or the bucket's rate."""
        if self.algorithm is Algorithm.SLIDING_WINDOW:
            return self.slices
        if self.algorithm is Algorithm.TOKEN_BUCKET:
            return self.requests_per_unit
        return _beginning(self)

    def counted_by(self, other: Algorithm | None) -> "Limit | None":
        """Return the same limit counted by another algorithm; None where there is none, or it is this one."""
        return None if other in (None, self.algorithm) else replace(self, algorithm=other)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.requests_per_unit, self.unit, self.multiplier, self.period_us, self.algorithm, self.name))


BEGIN_AT_EPOCH, BEGIN_AT_FIRST_HIT, BEGIN_ON_MONDAY = 0, -1, -2
"""The shape of a fixed window; a positive one is a number of calendar months."""

_MONTHS = {Unit.MONTH: 1, Unit.YEAR: 12}


def _beginning(limit: Limit) -> int:
    if limit.align is Align.FIRST_HIT:
        return BEGIN_AT_FIRST_HIT
    if limit.align is Align.CALENDAR and limit.unit in _MONTHS:
        return _MONTHS[limit.unit] * limit.multiplier
    if limit.align is Align.CALENDAR and limit.unit is Unit.WEEK:
        return BEGIN_ON_MONDAY
    return BEGIN_AT_EPOCH


@dataclass(frozen=True, slots=True)
class Rule:
    """What one descriptor path is told. Without a limit it lets pass: `unlimited`."""

    id: str
    """Stable across reloads: the domain and the path, `shop/tenant=acme/path`; `#` and the limit's name or number where
    the path has several limits."""
    limit: Limit | None
    """None: unlimited."""
    role: Role = Role.GATE
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL
    compared: Limit | None = None
    """The limit counted by another algorithm, if it is wanted to know what that would answer (`compare`)."""
    overdraft: Overdraft = Overdraft.AUTO
    refunds: bool = True
    """False: what would be given back is not."""
    replaces: frozenset[str] = frozenset()
    """Names of limits that do not count in a request that meets this rule."""
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)
    """What the rule's author wants to be told with a request that passes it (`metadata`)."""
    shared: tuple[Entry | None, ...] = ()
    """`share_threshold`: for each entry the configured pattern that stands in the key instead of the request's own
    key and value, or None. Empty where nothing is shared."""
    levels: tuple[str, ...] = field(default=(), compare=False)
    """What the reference implementation's metrics call each level of the path: `key_value`, or `key` where no value is configured;
    the last ends in what tells one of several limits from the others (`_name`)."""
    label: tuple[str | None, ...] = ()
    """`value_to_metric`, `detailed_metric`: for each entry what metrics call it, None for the request's own key and value; behind
    them what distinguishes one of several limits (`#name`). Empty: metrics call the rule by its id."""
