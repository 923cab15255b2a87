"""The values that everything else speaks. Frozen, and imports nothing of ours.

The flow they tell: Request → Plan (its Charges) → Line → Grant → Verdict. Envoy's words where Envoy has one
(`envoy.service.ratelimit.v3`); all times are integer microseconds (`_us`) unless the name says otherwise.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

MICROSECONDS = 1_000_000

MAX_HITS = 2**32
"""More hits than any limit (2^32 − 1) admits. Larger numbers mean the same, so they are cut to this before they are
added: sums stay far below 2^53, where Lua's numbers stop being exact."""

UNLIMITED_REMAINING = 2**32 - 1
"""What `limit_remaining` says where nothing limits."""

DEFAULT_SLICES = 60
MAX_SLICES = 500


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


class Code(IntEnum):
    """`RateLimitResponse.Code`, with its numbers. Envoy lets UNKNOWN pass, so it is never sent."""

    UNKNOWN = 0
    OK = 1
    OVER_LIMIT = 2


class OnStoreFailure(IntEnum):
    """What a rule says when the store does not answer in time. Ordered: in one request the greatest decides."""

    ALLOW = 0
    LOCAL = 1
    """This replica enforces its share of the limit from its own memory."""
    DENY = 2
    ERROR = 3
    """Answer with a gRPC error, so that Envoy's `failure_mode_deny` decides."""


class Algorithm(Enum):
    """How a window counts. The value is its letter in keys and in the script's arguments."""

    SLIDING_WINDOW = "s"


class Role(Enum):
    """What a charge may do to its request."""

    GATE = 0
    """Must fit, or the request is denied."""
    SHADOW = 1
    """Never denies; charged if it fits, counted as "would deny" if not."""


class Entry(NamedTuple):
    """One `RateLimitDescriptor.Entry`."""

    key: str
    value: str


class Descriptor(NamedTuple):
    """One `RateLimitDescriptor`, as far as it changes the answer."""

    entries: tuple[Entry, ...]
    hits: int | None = None
    """`hits_addend` of the descriptor; None: the request's. 0 asks without counting (a check)."""
    refund: bool = False
    """`is_negative_hits`."""


class Request(NamedTuple):
    """One `RateLimitRequest`."""

    domain: str
    descriptors: tuple[Descriptor, ...]
    hits: int = 0
    """`hits_addend` of the request; 0 counts as 1."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in any interval of one window."""

    requests_per_unit: int
    """0 … 2^32 − 1; 0 denies everything."""
    unit: Unit
    name: str = ""
    """The limit's name for people, from `rate_limit.name`; empty where it has none."""
    slices: int = DEFAULT_SLICES
    """1 … 500: the parts that the window is cut in. Capacity comes back at most one part late."""

    @property
    def window_us(self) -> int:
        """The window's length W."""
        return self.unit.seconds * MICROSECONDS


@dataclass(frozen=True, slots=True)
class Rule:
    """What one descriptor path is told. Without a limit it lets pass: `unlimited`."""

    id: str
    """Stable across reloads: the domain and the path, `shop/tenant=acme/path`."""
    limit: Limit | None
    """None: unlimited."""
    shadow: bool = False
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL


@dataclass(frozen=True, slots=True)
class Charge:
    """One thing to count."""

    key: bytes
    """The window's key in the store (`store.keys`)."""
    algorithm: Algorithm
    limit: int
    window_us: int
    slices: int
    hits: int
    """0 … MAX_HITS; 0 is a check: it passes while anything remains, and counts nothing."""
    role: Role
    rule: Rule


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What one request means. Compared by identity: the limiter remembers one plan per distinct request."""

    descriptors: tuple["Charge | Rule | None", ...]
    """One per descriptor of the request: its charge; a rule where that is unlimited; None where no rule matched."""
    charges: tuple[Charge, ...]
    """The charges among them, in the same order."""
    coalesces: bool
    """True if n such requests may be taken as one line: all charges are gates, on different keys."""
    on_store_failure: OnStoreFailure
    """The greatest among the gates' rules; ALLOW where there are none, for a shadow never denies."""


class Line(NamedTuple):
    """The same charges, n times, all or nothing each time. A batch is a list of lines."""

    charges: tuple[Charge, ...]
    n: int


class Outcome(NamedTuple):
    """How one charge of a line stands after the line's grants."""

    remaining: int
    """Hits that still fit."""
    empty_us: int
    """Time until its window holds nothing."""
    fits_in_us: int
    """Time until one more such request's hits would fit, as stored now; 0 if they fit, or were charged."""


class Grant(NamedTuple):
    """The store's answer for one line."""

    granted: int
    """How many of the line's n requests were charged; BAD_KEY where a key held something else."""
    outcomes: tuple[Outcome, ...]
    """One per charge, in the line's order; empty for BAD_KEY."""


BAD_KEY = -1


class Status(NamedTuple):
    """One `RateLimitResponse.DescriptorStatus`."""

    code: Code
    limit: Limit | None = None
    remaining: int = 0
    reset_s: int | None = None
    """Whole seconds, rounded up: Envoy rounds what it is given down."""


class Verdict(NamedTuple):
    """What one request is told."""

    code: Code
    statuses: tuple[Status, ...]
