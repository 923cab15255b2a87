"""What Envoy's access log may carry of an answer: its `dynamic_metadata`, as plain values. Pure.

    %DYNAMIC_METADATA(envoy.filters.http.ratelimit:rule)%   the rule that decided, by its id
    …:tenant …:reset                                        whose quota, and the seconds until it fits (or is empty) again
    …:descriptors                                           the same for each descriptor, with its entries

`domain`, `descriptors` with `entries`, `limit` and `hitsAddend`, `hitsAddend` and `metadata` are the reference
implementation's; `rule`, `tenant`, `code`, `remaining`, `reset` are ours.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ratelimit_svc.model import Charge, Code, Descriptor, Limit, Meaning, Plan, Request, Role, Rule, Status, Verdict

Told = dict[str, Any]


def describe(plan: Plan, request: Request, verdict: Verdict) -> Told:
    """Return what is told of one answer."""
    charges = [
        _charge(plan, meaning, status) for meaning, status in zip(plan.descriptors, verdict.statuses, strict=True)
    ]
    descriptors = [
        _descriptor(descriptor, meaning, charge, status)
        for descriptor, meaning, charge, status in zip(
            request.descriptors, plan.descriptors, charges, verdict.statuses, strict=True
        )
    ]
    told: Told = {"domain": request.domain, "descriptors": descriptors}
    if request.hits:
        told["hitsAddend"] = request.hits
    if passed := _merged(plan, verdict):
        told["metadata"] = passed
    return told | _decision(descriptors, charges, verdict.code)


def _charge(plan: Plan, meaning: Meaning, status: Status) -> Charge | None:
    """Return which of a descriptor's charges its status tells of; None where no window was asked."""
    places = meaning if isinstance(meaning, tuple) else ()
    return next((plan.charges[at] for at in places if plan.charges[at].rule.limit is status.limit), None)


def _descriptor(descriptor: Descriptor, meaning: Meaning, charge: Charge | None, status: Status) -> Told:
    told: Told = {"entries": [f"{entry.key}={entry.value}" for entry in descriptor.entries]}
    if descriptor.limit is not None:
        told["limit"] = _as_text(descriptor.limit)
    if descriptor.hits is not None:
        told["hitsAddend"] = descriptor.hits
    if not isinstance(meaning, tuple):
        return told | ({} if meaning is None else {"rule": meaning.id, "code": status.code.name})
    if charge is not None:
        told |= {"rule": charge.rule.id, "tenant": charge.tenant, "remaining": status.remaining}
        told["reset"] = status.reset_s or 0
    return told | {"code": status.code.name}


def _decision(descriptors: list[Told], charges: list[Charge | None], code: Code) -> Told:
    """Return which rule decided: of those that deny the one that does so longest, else the one with least left.

    Where a gate denies, no quota does for sure: another one may have had room.
    """
    counted = [(told, charge.role) for told, charge in zip(descriptors, charges, strict=True) if charge is not None]
    over = [(told, role) for told, role in counted if told["code"] == Code.OVER_LIMIT.name]
    gates = [told for told, role in over if role is Role.GATE]
    if code is Code.OVER_LIMIT and over:
        decided = max(gates or [told for told, _ in over], key=lambda told: told["reset"])
    elif counted:
        decided = min((told for told, _ in counted), key=lambda told: told["remaining"])
    else:
        return {}
    return {name: decided[name] for name in ("rule", "tenant", "reset")}


def _merged(plan: Plan, verdict: Verdict) -> Told:
    """Return the rules' own metadata of the descriptors that passed: the first to name a thing has it."""
    merged: Told = {}
    for meaning, status in zip(plan.descriptors, verdict.statuses, strict=True):
        if status.code is Code.OK:
            for rule in _rules(plan, meaning):
                _merge(merged, rule.metadata or {})
    return merged


def _rules(plan: Plan, meaning: Meaning) -> Iterator[Rule]:
    if isinstance(meaning, Rule):
        yield meaning
    elif meaning is not None:
        seen: list[Any] = []
        for rule in (plan.charges[at].rule for at in meaning):
            if rule.metadata not in seen:  # several limits of one descriptor share what it says
                seen.append(rule.metadata)
                yield rule


def _merge(into: Told, more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if key not in into:
            into[key] = _copied(value)
        elif isinstance(into[key], dict) and isinstance(value, Mapping):
            _merge(into[key], value)


def _copied(value: Any) -> Any:
    """Return a value whose mappings may be merged into: the rules' own are never changed."""
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


def _as_text(limit: Limit) -> str:
    """As protobuf writes messages as text: what is 0 is left out."""
    number = f"requests_per_unit:{limit.requests_per_unit} " if limit.requests_per_unit else ""
    unit = limit.unit.name if limit.unit is not None else "UNKNOWN"
    several = f" unit_multiplier:{{value:{limit.multiplier}}}" if limit.multiplier != 1 else ""
    return f"{number}unit:{unit}{several}"
