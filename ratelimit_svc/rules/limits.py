"""Limits: a `rate_limit` mapping → a Limit, or what is wrong with it."""

from typing import Any

from ratelimit_svc.model import DEFAULT_SLICES, LONGEST_US, MICROSECONDS, Algorithm, Align, Limit, Unit, unit_of
from ratelimit_svc.rules.fields import Fields
from ratelimit_svc.rules.kinds import NoChoice
from ratelimit_svc.rules.tables import LONGEST, UNITS

_ONLY_OF = {"slices": Algorithm.SLIDING_WINDOW, "burst": Algorithm.TOKEN_BUCKET, "align": Algorithm.FIXED_WINDOW}
"""Keys that mean something to one algorithm → that one."""
_NOT_OF_UNLIMITED = (
    "unit_multiplier",
    "per",
    "algorithm",
    "compare",
    *_ONLY_OF,
    "overdraft",
    "refunds",
    "on_store_failure",
)
"""Keys of ours that mean nothing where nothing is counted."""


def limit_of(fields: Fields, default: Algorithm, compare: Algorithm | None) -> Limit | None:
    """Return what a `rate_limit` says; None where it is unlimited, or wrong.

    Args:
        fields: the mapping, read; its mistakes are noted here.
        default: how to count where it does not say.
        compare: what it is compared with where it does not say.
    """
    if fields.on("unlimited"):
        _note_unlimited(fields)
        return None
    fields.note_mistakes()
    _note_missing(fields)
    compared = fields.values.get("compare", compare)
    _note_strangers(fields, default, compared)
    unit, multiplier, period_us = _period(fields)
    values = fields.values
    limit = Limit(
        requests_per_unit=values.get("requests_per_unit", 0),
        unit=unit,
        name=values.get("name", ""),
        slices=values.get("slices", DEFAULT_SLICES),
        multiplier=multiplier,
        period_us=period_us,
        algorithm=values.get("algorithm", default),
        burst=values.get("burst"),
        align=values.get("align", Align.EPOCH),
    )
    _note_burst(fields, limit, compared)
    return limit


def compared_of(fields: Fields, limit: Limit | None, default: Algorithm | None) -> Limit | None:
    """Return the limit as the algorithm counts that it is compared with; None where it is compared with none.

    A limit that would be compared with its own algorithm is compared with none. That is no mistake where the algorithm comes from
    DEFAULT_ALGORITHM: an operator may change that to what files compare with.

    Args:
        fields: the mapping that the limit was made of.
        limit: it.
        default: what it is compared with where it does not say.
    """
    return None if limit is None else limit.counted_by(fields.values.get("compare", default))


def _note_unlimited(fields: Fields) -> None:
    """What counts means nothing here. The reference implementation refuses a unit that is one, and takes any other text."""
    unit = fields.mistakes.get("unit")
    if isinstance(unit, NoChoice):
        del fields.mistakes["unit"]
        fields.odd("unit", f"means nothing with `unlimited: true`, and is no unit: {unit}")
    fields.note_mistakes()
    for name in ("unit", *_NOT_OF_UNLIMITED):
        if name in fields.values:
            fields.wrong(name, f"`{name}` means nothing with `unlimited: true`; remove one of them")
    if fields.values.get("requests_per_unit"):  # generated files write `requests_per_unit: 0` beside `unlimited: true`
        fields.odd("requests_per_unit", "`requests_per_unit` means nothing with `unlimited: true`; remove one of them")


def _note_missing(fields: Fields) -> None:
    if "unlimited" in fields.mistakes:  # what it was meant to say is not known
        return
    if "unit" not in fields.places and "per" not in fields.places:
        fields.wrong("unit", f"`unit` is missing; write one of {', '.join(UNITS)}")
    if "requests_per_unit" not in fields.places:
        message = "`requests_per_unit` is missing, and so denies everything; write a whole number, or `unlimited: true`"
        fields.odd("requests_per_unit", message)


def _note_strangers(fields: Fields, default: Algorithm, compared: Algorithm | None) -> None:
    """Keys that mean nothing to the algorithm, or beside each other."""
    algorithm: Algorithm = fields.values.get("algorithm", default)
    if "algorithm" in fields.values and fields.values.get("compare") is algorithm:
        message = f"`compare: {algorithm.name.lower()}` is the limit's own algorithm; write another, or remove it"
        fields.wrong("compare", message)
    for name, only in _ONLY_OF.items():
        known = only in (algorithm, compared) or fields.mistakes.keys() & {"algorithm", "compare"}
        if name in fields.values and not known:
            message = f"`{name}` means nothing to a {_name(algorithm)}, only to a {_name(only)}"
            fields.wrong(name, f"{message}; write `algorithm: {only.name.lower()}`, or remove it")
    if "per" not in fields.places:
        return
    for name in ("unit", "unit_multiplier"):
        if name in fields.places:
            fields.wrong(name, f"`{name}` stands beside `per`, and each of them says the period; remove one of them")
    if fields.values.get("align") is Align.CALENDAR:
        fields.wrong("align", "`align: calendar` needs a `unit`, for the calendar knows no other periods; not `per`")


def _period(fields: Fields) -> tuple[Unit | None, int, int]:
    """Return unit, multiplier and `Limit.period_us`."""
    values: dict[str, Any] = fields.values
    if "per" in values:
        unit, multiplier = unit_of(values["per"])
        return unit, multiplier, 0 if unit else values["per"]
    unit, multiplier = values.get("unit", Unit.SECOND), values.get("unit_multiplier", 1)
    if unit.seconds * multiplier * MICROSECONDS > LONGEST_US:
        most = LONGEST_US // (unit.seconds * MICROSECONDS)
        message = f"'{multiplier}' {unit.name.lower()}s are longer than {LONGEST}; write at most {most}"
        fields.wrong("unit_multiplier", message)
    return unit, multiplier, 0


def _note_burst(fields: Fields, limit: Limit, compared: Algorithm | None) -> None:
    bucket = Algorithm.TOKEN_BUCKET in (limit.algorithm, compared)
    if limit.burst is None or not bucket or "requests_per_unit" not in fields.values:
        return
    if limit.requests_per_unit == 0:
        fields.wrong("burst", "`burst` needs a requests_per_unit of at least 1; with 0, nothing of it ever comes back")
    elif limit.burst * limit.window_us > LONGEST_US * limit.requests_per_unit:
        most = LONGEST_US * limit.requests_per_unit // limit.window_us
        message = f"'{limit.burst}' takes longer than {LONGEST} to come back; write at most {most}, or a faster limit"
        fields.wrong("burst", message)


def _name(algorithm: Algorithm) -> str:
    return algorithm.name.lower().replace("_", " ")
