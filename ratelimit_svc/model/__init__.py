"""The values that everything else speaks. Frozen, and imports nothing of ours.

    configured   what rule files say: Rule, its Limit, and the words of both
    flow         what is asked and answered: Request → Plan (its Charges) → Line → Grant → Verdict

Envoy's words where Envoy has one (`envoy.service.ratelimit.v3`); all times are integer microseconds (`_us`) unless the name
says otherwise.
"""

from ratelimit_svc.model.configured import (
    BEGIN_AT_EPOCH,
    BEGIN_AT_FIRST_HIT,
    BEGIN_ON_MONDAY,
    DEFAULT_SLICES,
    LONGEST_US,
    MAX_SLICES,
    MICROSECONDS,
    RULE_ALGORITHMS,
    SHORTEST_US,
    Algorithm,
    Align,
    Entry,
    Limit,
    OnStoreFailure,
    Overdraft,
    Role,
    Rule,
    Unit,
    unit_of,
)
from ratelimit_svc.model.flow import (
    BAD_KEY,
    MAX_HITS,
    UNLIMITED_REMAINING,
    Charge,
    Code,
    Descriptor,
    Grant,
    Kind,
    Line,
    Meaning,
    Outcome,
    Plan,
    Request,
    Status,
    Verdict,
)

__all__ = [
    "BAD_KEY",
    "BEGIN_AT_EPOCH",
    "BEGIN_AT_FIRST_HIT",
    "BEGIN_ON_MONDAY",
    "DEFAULT_SLICES",
    "LONGEST_US",
    "MAX_HITS",
    "MAX_SLICES",
    "MICROSECONDS",
    "RULE_ALGORITHMS",
    "SHORTEST_US",
    "UNLIMITED_REMAINING",
    "Algorithm",
    "Align",
    "Charge",
    "Code",
    "Descriptor",
    "Entry",
    "Grant",
    "Kind",
    "Limit",
    "Line",
    "Meaning",
    "OnStoreFailure",
    "Outcome",
    "Overdraft",
    "Plan",
    "Request",
    "Role",
    "Rule",
    "Status",
    "Unit",
    "Verdict",
    "unit_of",
]
