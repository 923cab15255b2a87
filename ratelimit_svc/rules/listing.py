"""The limits in force, a line each: in the reference implementation's form, and ours behind it where a rule uses what is ours.

shop.tenant_gold.path: unit=SECOND requests_per_unit=5, shadow_mode: false, quota_mode: true
shop.tenant: unit=MINUTE requests_per_unit=3, shadow_mode: false, quota_mode: false, algorithm: token_bucket, burst: 10
"""

from collections.abc import Iterator

from ratelimit_svc.model import DEFAULT_SLICES, Algorithm, Align, Limit, Role, Rule
from ratelimit_svc.rules.match import Node, RuleSet
from ratelimit_svc.rules.words import span


def lines(rules: RuleSet) -> list[str]:
    """Return a line for each limit, sorted by the way to it."""
    found = (pair for domain in rules.domains.values() for pair in _below(domain.root, domain.name))
    return sorted(f"{key}: {_line(rule, rules.algorithm)}" for key, rule in found)


def _below(node: Node, key: str) -> Iterator[tuple[str, Rule]]:
    """Every rule at a node and under it, with the reference's full key. What has a wildcard stands among the others, too."""
    for rule in node.rules:
        yield (key if key.isprintable() else repr(key)[1:-1]), rule
    for entry, child in node.exact.items():
        yield from _below(child, f"{key}.{entry.key}_{entry.value}")
    for name, child in node.keys.items():
        yield from _below(child, f"{key}.{name}")


def _line(rule: Rule, default: Algorithm) -> str:
    limit = rule.limit
    unit = "UNKNOWN" if limit is None or limit.unit is None else limit.unit.name
    requests = 0 if limit is None else limit.requests_per_unit
    shadow, quota = str(rule.role is Role.SHADOW).lower(), str(rule.role is Role.QUOTA).lower()
    line = f"unit={unit} requests_per_unit={requests}, shadow_mode: {shadow}, quota_mode: {quota}"
    return ", ".join([line, *(_ours(limit, default) if limit else ())])


def _ours(limit: Limit, default: Algorithm) -> Iterator[str]:
    """What the reference implementation's rules do not have."""
    if limit.unit is None:
        yield f"per: {span(limit.period_us)}"
    if limit.multiplier != 1:
        yield f"unit_multiplier: {limit.multiplier}"
    if limit.algorithm is not default:
        yield f"algorithm: {limit.algorithm.name.lower()}"
    if limit.burst is not None:
        yield f"burst: {limit.burst}"
    if limit.slices != DEFAULT_SLICES:
        yield f"slices: {limit.slices}"
    if limit.align is not Align.EPOCH:
        yield f"align: {limit.align.value}"
