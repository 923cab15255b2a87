"""What is asked and answered: Request → Plan (its Charges) → Line → Grant → Verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from ratelimit_svc.model.configured import Algorithm, Entry, Limit, OnStoreFailure, Overdraft, Role, Rule

MAX_HITS = 2**32
"""More hits than any limit (2^32 − 1) admits. Larger numbers mean the same, so they are cut to this before they are
added: sums stay far below 2^53, where Lua's numbers stop being exact."""

UNLIMITED_REMAINING = 2**32 - 1
"""What `limit_remaining` says where nothing limits."""


class Code(IntEnum):
    """`RateLimitResponse.Code`, with its numbers. Envoy lets UNKNOWN pass, so it is never sent."""

    UNKNOWN = 0
    OK = 1
    OVER_LIMIT = 2


class Kind(Enum):
    """What a charge does to its window. The value is its number in the script's arguments."""

    POSITIVE = 0
    """Counts its hits."""
    CHECK = 1
    """Has no hits: asks whether anything remains, and counts nothing."""
    LOOK = 2
    """Asks whether its hits would fit, and counts nothing: of a request that is compared, the rules that are not."""
    REFUND = 3
    """Gives its hits back, the oldest first, down to none. Always OK."""
    UNDO = 4
    """Takes back what a charge of the same key counted, whose request was denied elsewhere: just that, and not what came
    before or after it. Always OK."""


class Descriptor(NamedTuple):
    """One `RateLimitDescriptor`, as far as it changes the answer."""

    entries: tuple[Entry, ...]
    hits: int | None = None
    """`hits_addend` of the descriptor; None: the request's. 0 asks without counting (a check)."""
    refund: bool = False
    """`is_negative_hits`."""
    limit: Limit | None = None
    """The limit that the caller brings along, in place of the rule's."""


class Request(NamedTuple):
    """One `RateLimitRequest`."""

    domain: str
    descriptors: tuple[Descriptor, ...]
    hits: int = 0
    """`hits_addend` of the request; 0 counts as 1."""


class Charge(NamedTuple):
    """One thing to count."""

    key: bytes
    """The window's key in the store (`store.keys`)."""
    algorithm: Algorithm
    limit: int
    """How many hits may count at once: `Limit.most`. Of an undo, which needs no limit, the store's time (µs) of the charge that
    it takes back; the `remaining` of its outcome means nothing."""
    window_us: int
    shape: int
    """The algorithm's one more number: `Limit.shape`."""
    hits: int
    """0 … MAX_HITS; 0 for checks, and for refunds that the rule forbids. Of an undo, no more than were charged."""
    role: Role
    """Its rule's, but SHADOW where whatever it meets the request passes: its rule then says in which words it is told."""
    rule: Rule
    kind: Kind = Kind.POSITIVE
    overdraft: Overdraft = Overdraft.NEVER
    tenant: str = ""
    """Whose quota it uses."""
    label: str = ""
    """What metrics call the rule."""


Meaning = tuple[int, ...] | Rule | None
"""What one descriptor of a request means: where in `Plan.charges` its charges are; a rule that is unlimited; None where no
rule matches, or another limit of the request replaces it."""


@dataclass(slots=True, eq=False)
class Plan:
    """What one request means. Compared by identity: the limiter remembers one plan per distinct request.

    Not changed once it is remembered; not frozen, since that takes longer to make than to match a request.
    """

    descriptors: tuple[Meaning, ...]
    """One per descriptor of the request, in its order."""
    charges: tuple[Charge, ...]
    """All charges in the order in which they are looked at: refunds, gates, quotas, shadows."""
    coalesces: bool
    """True if n such requests may be taken as one line: "g of n" says all."""
    on_store_failure: OnStoreFailure
    """The greatest among the gates' and quotas' rules; ALLOW where there are none, for a shadow never denies."""
    request: Request | None = None
    """Kept where the answer repeats parts of it (`dynamic_metadata`)."""
    answer: bytes | None = None
    """What every such request is told, where no window is asked."""
    compared: "Plan | None" = None
    """What it would mean if the rules that are compared counted by their other algorithms: in each place of `charges` the
    charge that would be there. None where no rule is compared."""
    size: int = 0
    """About how many bytes it costs to remember it by its request."""
    counted: tuple[Any, ...] = ()
    """Where its charges are counted under the reference implementation's names, one each; empty where nobody reads these
    (`metrics.reference`)."""


class Line(NamedTuple):
    """The same charges, n times, all or nothing each time. A batch is a list of lines."""

    charges: tuple[Charge, ...]
    n: int


class Outcome(NamedTuple):
    """How one charge of a line stands after the line's grants."""

    remaining: int
    """Hits that still fit. Below 0 only where this very charge was overdrawn: by so many."""
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
    overdrawn: bool = False
    """True if it was charged although a charge did not fit (`Overdraft.AUTO`): that one is told OVER_LIMIT."""
    passing: bool = False
    """True if it may have been denied for hits that are about to be undone: it says nothing of the next moment."""


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
    metadata: Mapping[str, Any] | None = None
    """`dynamic_metadata`, where it is asked for."""
    headers: tuple[tuple[str, int], ...] = ()
    """`response_headers_to_add`, where they are asked for."""
