"""Words: a limit, and whatever else a rule says, as people say it."""

from collections.abc import Iterator, Sequence

from ratelimit_svc.model import MICROSECONDS, Algorithm, Align, Entry, Limit, Overdraft, Role, Rule, Unit
from ratelimit_svc.rules.match import label

SHOWN = 8
"""Names in a list before it ends in "and n more"."""

_UNITS = {
    Unit.SECOND: "s",
    Unit.MINUTE: "min",
    Unit.HOUR: "h",
    Unit.DAY: "days",
    Unit.WEEK: "weeks",
    Unit.MONTH: "months",
    Unit.YEAR: "years",
}
_BEGINNINGS = {
    Align.EPOCH: "fixed windows since the epoch",
    Align.CALENDAR: "fixed windows of the calendar (UTC)",
    Align.FIRST_HIT: "fixed windows from the first hit",
}
_SPANS = (
    (86_400 * MICROSECONDS, "d"),
    (3_600 * MICROSECONDS, "h"),
    (60 * MICROSECONDS, "min"),
    (MICROSECONDS, "s"),
    (1_000, "ms"),
    (1, "µs"),
)
_ROLES = {
    Role.SHADOW: "in shadow mode: counted and reported, never denied",
    Role.QUOTA: "a quota: of the quotas that a request meets, one that fits is enough",
}
_OVERDRAFTS = {
    Overdraft.ALWAYS: "overdraft always: every hit is counted and passes, and only checks with 0 hits are denied",
    Overdraft.NEVER: "overdraft never: hits that do not fit are not counted",
}


def in_words(limit: Limit | None) -> str:
    """A limit: `100 per minute, sliding in 60 slices of 1 s`."""
    if limit is None:
        return "unlimited"
    nothing = ", which denies everything" if limit.requests_per_unit == 0 else ""
    return f"{limit.requests_per_unit} per {_period(limit)}{nothing}, {_how(limit)}"


def _period(limit: Limit) -> str:
    if limit.unit is None:
        return span(limit.period_us)
    return limit.unit.name.lower() if limit.multiplier == 1 else f"{limit.multiplier} {_UNITS[limit.unit]}"


def _how(limit: Limit) -> str:
    if limit.algorithm is Algorithm.TOKEN_BUCKET:
        return f"at once up to {limit.most} (token bucket)"
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        return _BEGINNINGS[limit.align]
    width = span(-(-limit.window_us // limit.slices))
    return f"sliding in {limit.slices} slices of {width}" if limit.slices > 1 else f"sliding in 1 slice of {width}"


def span(time_us: int) -> str:
    """A time: `16.667 ms`."""
    unit_us, name = next(row for row in _SPANS if time_us >= row[0])
    return f"{time_us / unit_us:.6g} {name}"


def details(rule: Rule, domain: str, entries: Sequence[Entry]) -> Iterator[str]:
    """What a rule says beside its limit, a line each; the entries are those that met it."""
    if rule.limit is not None:
        yield f"if the store does not answer: {rule.on_store_failure.name.lower()}"
        if rule.role in _ROLES:
            yield _ROLES[rule.role]
        if rule.overdraft in _OVERDRAFTS:
            yield _OVERDRAFTS[rule.overdraft]
        if not rule.refunds:
            yield "refunds give nothing back"
        if any(rule.shared):
            yield f"one counter for all of {listed([name(*pattern) for pattern in rule.shared if pattern])}"
        if rule.label:
            yield f"in metrics: {name(label(rule, domain, entries), None)}"
    if rule.replaces:
        yield f"replaces the limits named {listed(sorted(rule.replaces))}"
    if rule.metadata:
        yield f"with metadata: {listed([name(key, None) for key in rule.metadata])}"


def name(key: str, value: str | None) -> str:
    """A descriptor as rule ids have it; what a terminal would act on is escaped."""
    written = key if value is None else f"{key}={value}"
    return written if written.isprintable() else repr(written)[1:-1]


def listed(names: Sequence[str]) -> str:
    """Some names, not all of very many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
