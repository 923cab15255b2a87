"""Tables: every key that a rule file may hold, where, of which kind, whose it is and what it means.

The loader reads by these tables, and the JSON Schema and the reference page are made from them: a new key is a row here, and
a line where its value is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from ratelimit_svc.model import DEFAULT_SLICES, MAX_SLICES, RULE_ALGORITHMS, Align, OnStoreFailure, Overdraft, Unit
from ratelimit_svc.rules.kinds import BOOLEAN, MAPPING, SEQUENCE, TEXT, Kind, choice, duration, integer

MOST = 2**32 - 1
"""The greatest number that the protocol has room for."""
SHORTEST, LONGEST = "1ms", "3650d"
"""`model.SHORTEST_US` and `LONGEST_US`, as one writes them."""

UNITS = {unit.name.lower(): unit for unit in sorted(Unit, key=lambda unit: unit.seconds)}
ALGORITHMS = {algorithm.name.lower(): algorithm for algorithm in RULE_ALGORITHMS}
ALIGNS = {align.value: align for align in Align}
OVERDRAFTS = {overdraft.name.lower(): overdraft for overdraft in Overdraft}
POLICIES = {policy.name.lower(): policy for policy in OnStoreFailure}


@dataclass(frozen=True, slots=True)
class Row:
    """One key."""

    kind: Kind[Any]
    doc: str
    """What it is for, in whole sentences."""
    own: bool = False
    """True: the reference implementation does not have it, at least not here."""
    default: str | int | bool | None = None
    """What stands for it where it is not written; None: nothing does."""
    of: str = ""
    """The table of its mapping, or of its list's items."""
    required: bool = False


class Table(NamedTuple):
    """The keys that one kind of mapping takes."""

    name: str
    place: str
    """What people call such a mapping."""
    rows: Mapping[str, Row]


def _table(name: str, place: str, rows: dict[str, Row]) -> Table:
    return Table(name, place, MappingProxyType(rows))


ROOT = _table(
    "root",
    "the root of the file",
    {
        "domain": Row(TEXT, "Whose rules these are: the `domain` of Envoy's rate limit filter.", required=True),
        "tenant": Row(
            TEXT,
            "The descriptor key whose value names the tenant, that is, whose quota it is. All windows of one tenant share "
            "one Redis Cluster slot. Without it, each window stands alone, and the domain is the tenant.",
            own=True,
        ),
        "name": Row(TEXT, "What generators call the file, as Envoy Gateway does; it means nothing here."),
        "descriptors": Row(SEQUENCE, "What a request's first entry may be.", of="descriptor"),
    },
)
DESCRIPTOR = _table(
    "descriptor",
    "a descriptor",
    {
        "key": Row(TEXT, "The entry's key; `*` stands for any run of characters, none included.", required=True),
        "value": Row(
            TEXT,
            "The entry's value; `*` stands for any run of characters. Without it any value fits, and each has a window of "
            "its own.",
        ),
        "rate_limit": Row(
            MAPPING,
            "The limit of requests whose last entry this is. Without one, what is matched passes.",
            of="rate_limit",
        ),
        "rate_limits": Row(
            SEQUENCE,
            "Several limits at once, in place of `rate_limit`: a request is counted on all of them or on none.",
            own=True,
            of="item",
        ),
        "shadow_mode": Row(
            BOOLEAN,
            "The limit is counted and reported, and denies nothing: to try a limit out.",
            default=False,
        ),
        "quota_mode": Row(
            BOOLEAN,
            "The limit is a quota: a request that meets quotas passes if at least one of them fits, and those that fit are "
            "charged. Its other limits must fit all the same.",
            default=False,
        ),
        "share_threshold": Row(
            BOOLEAN,
            "Everything that the `*` here stands for is counted in one window, for this limit and those below.",
            default=False,
        ),
        "value_to_metric": Row(
            BOOLEAN,
            "Metrics of this limit and those below have the request's own value here, where the descriptor has none or a "
            "`*`.",
            default=False,
        ),
        "detailed_metric": Row(
            BOOLEAN,
            "Metrics of this limit have the request's own keys and values at every level.",
            default=False,
        ),
        "metadata": Row(
            MAPPING,
            "What is sent back with a request that passes this limit, if dynamic metadata is asked for: any mapping.",
        ),
        "descriptors": Row(SEQUENCE, "What the next entry may be.", of="descriptor"),
    },
)
RATE_LIMIT = _table(
    "rate_limit",
    "rate_limit",
    {
        "requests_per_unit": Row(
            integer(0, MOST), "How many in one period; 0 denies everything. Needed, unless `unlimited` is true."
        ),
        "unit": Row(
            choice(UNITS, "a unit"),
            "The period, in any case of letters; a month is 30 days, a year 365. Needed, unless `per` or `unlimited` is "
            "written.",
        ),
        "unlimited": Row(
            BOOLEAN, "No limit, whatever a more general descriptor says: it is matched, and passes.", default=False
        ),
        "name": Row(
            TEXT,
            "The limit's name: sent to callers with it, ends the rule's id in `rate_limits`, and is what `replaces` means.",
        ),
        "replaces": Row(
            SEQUENCE,
            "Limits that do not count in a request that meets this one, by their names.",
            of="replaced",
        ),
        "unit_multiplier": Row(
            integer(1, MOST), f"The period is so many units; at most {LONGEST}.", own=True, default=1
        ),
        "per": Row(
            duration(SHORTEST, LONGEST),
            "The period as a duration, `90s`, `1h30m` or `7d`, in place of `unit` and `unit_multiplier`.",
            own=True,
        ),
        "algorithm": Row(
            choice(ALGORITHMS, "an algorithm"),
            "How it is counted. `sliding_window`: never more than the limit in any interval of one period. `fixed_window`: "
            "from boundary to boundary, as the reference implementation does, so up to twice the limit around one. "
            "`token_bucket`: so many at once (`burst`), and then as they come back, evenly. The default is DEFAULT_ALGORITHM's.",
            own=True,
            default="sliding_window",
        ),
        "compare": Row(
            choice(ALGORITHMS, "an algorithm"),
            "Another algorithm, which is asked beside `algorithm` about each request and decides nothing: metrics and "
            "`/debug/compare` tell how often the two differ, which way, and when. `slices`, `burst` and `align` may be those of "
            "either. For all limits that do not say, COMPARE's.",
            own=True,
        ),
        "slices": Row(
            integer(1, MAX_SLICES),
            "`sliding_window` only: the parts of the window. Capacity comes back at most one part late; more parts cost "
            "Redis more.",
            own=True,
            default=DEFAULT_SLICES,
        ),
        "burst": Row(
            integer(1, MOST),
            "`token_bucket` only: how many may pass at once after a pause. Without it, as many as in one period.",
            own=True,
        ),
        "align": Row(
            choice(ALIGNS, "an alignment"),
            "`fixed_window` only: where windows begin. `epoch`: at multiples of the period since 1970, as in the reference "
            "implementation. `calendar`: with weeks (on Monday), months and years in UTC; several of them are counted from the year 0, so take 2, 3, 4 or 6 months. `first_hit`: with the first hit "
            "after the last window's end.",
            own=True,
            default="epoch",
        ),
        "overdraft": Row(
            choice(OVERDRAFTS, "an overdraft"),
            "Whether hits that do not fit are counted all the same, for costs that are known only afterwards. `auto`: if "
            "the window has been asked with 0 hits before and anything was left, and answered OVER_LIMIT. `always`: every "
            "time, and answered OK, so that only checks with 0 hits deny. `never`: not.",
            own=True,
            default="auto",
        ),
        "refunds": Row(
            BOOLEAN,
            "Whether a caller may give hits back (`is_negative_hits`). If not, such hits are answered OK and change nothing.",
            own=True,
            default=True,
        ),
        "on_store_failure": Row(
            choice(POLICIES, "a failure policy"),
            "What is answered when Redis does not answer in time. `local`: each replica enforces its share of the limit. "
            "`allow`, `deny`: everything, nothing passes. `error`: Envoy's `failure_mode_deny` decides.",
            own=True,
            default="local",
        ),
    },
)
ITEM = _table(
    "item",
    "an item of rate_limits",
    {
        **RATE_LIMIT.rows,
        "shadow_mode": Row(BOOLEAN, "As on the descriptor, for this limit alone; goes before it.", own=True),
        "quota_mode": Row(BOOLEAN, "As on the descriptor, for this limit alone; goes before it.", own=True),
    },
)
REPLACED = _table(
    "replaced", "an item of replaces", {"name": Row(TEXT, "The name of the limit that does not count.", required=True)}
)
TABLES = {table.name: table for table in (ROOT, DESCRIPTOR, RATE_LIMIT, ITEM, REPLACED)}

REFERENCE = frozenset(name for table in TABLES.values() for name, row in table.rows.items() if not row.own)
"""The reference implementation's keys. It takes each of them in any mapping, and ignores it where it means nothing."""
