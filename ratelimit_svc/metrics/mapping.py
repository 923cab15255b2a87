"""Mapping: a name as statsd has it → what Prometheus calls it, and its labels. Pure.

The rules are those of Prometheus's statsd_exporter, whose files operators of the reference implementation write:

    glob     `*` stands for one part of the name between dots. The first that fits, in the order of the file
    regex    anywhere in the name. Only where no glob fits; the first in the order of the file
    neither  the name itself, with `_` for what Prometheus does not allow

`$1` and `${1}` in a name or label stand for what the first `*` or group stood for.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of a histogram whose rule has none: those of Prometheus's Go library."""

MOST_MAPPED = 131_072
"""Names that are remembered as mapped, so that each page is made of what is known already."""

COUNTER, GAUGE, OBSERVER = "counter", "gauge", "observer"
"""Kinds of number; an observer is a timer."""


@dataclass(frozen=True, slots=True)
class MappingRule:
    """One rule."""

    match: re.Pattern[str]
    is_glob: bool
    name: str
    """A template."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Templates, by the labels' names."""
    kind: str | None = None
    """Of which kind the number must be; None: of any."""
    drop: bool = False
    """True: what it fits is not told."""
    buckets: tuple[float, ...] = BUCKETS
    """Upper bounds of a histogram's buckets, rising, in the unit that `scale` gives."""
    scale: float = 1.0
    """What times in ms are multiplied by; 0.001 makes seconds of them."""
    help: str = ""
    """What Prometheus is told about the name; empty: where it comes from."""

    def fits(self, name: str) -> re.Match[str] | None:
        return self.match.fullmatch(name) if self.is_glob else self.match.search(name)


class Mapped(NamedTuple):
    """What Prometheus is told of a name."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    """In the order of their names."""
    buckets: tuple[float, ...] = BUCKETS
    """This, `scale` and `help`: as the rule has them."""
    scale: float = 1.0
    help: str = ""


class Mapper:
    """Maps names, and remembers how.

    Args:
        rules: in the order of the file.
        tags: labels that all have (EXTRA_TAGS).
    """

    def __init__(self, rules: Sequence[MappingRule], tags: Mapping[str, str] | None = None) -> None:
        self._rules = [rule for rule in rules if rule.is_glob] + [rule for rule in rules if not rule.is_glob]
        self._tags = dict(tags or {})
        self.of = lru_cache(MOST_MAPPED)(self._of)

    def _of(self, name: str, kind: str) -> Mapped | None:
        """Return what Prometheus is told of a name; None: nothing."""
        for rule in self._rules:
            if rule.kind not in (None, kind) or (found := rule.fits(name)) is None:
                continue
            if rule.drop:
                return None
            labels = {label: expand(value, found) for label, value in rule.labels.items()} | self._tags
            return Mapped(
                escaped(expand(rule.name, found)), tuple(sorted(labels.items())), rule.buckets, rule.scale, rule.help
            )
        return Mapped(escaped(name), tuple(sorted(self._tags.items())))


_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


def expand(template: str, found: re.Match[str]) -> str:
    """Fill a template; what it names that is not there is empty."""

    def value(reference: re.Match[str]) -> str:
        group: str = reference[1] or reference[2]
        try:
            return found[int(group) if group.isdecimal() else group] or ""
        except IndexError:
            return ""

    return _REFERENCE.sub(value, template)


def escaped(name: str) -> str:
    """Return a name as Prometheus allows it."""
    allowed = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{allowed}" if allowed[:1].isdecimal() else allowed


def glob(pattern: str) -> re.Pattern[str]:
    """Return what a pattern with `*` fits."""
    return re.compile(r"\.".join("([^.]*)" if part == "*" else re.escape(part) for part in pattern.split(".")))


_HITS = ("near_limit", "over_limit", "total_hits", "within_limit", "shadow_mode")
_KEYS = "ratelimit.service.rate_limit"


def usual(*, milliseconds: bool = False) -> tuple[MappingRule, ...]:
    """Return the rules where no file has any. Of a key two levels are told: what lies deeper is summed.

    Args:
        milliseconds: tell response times so (PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS), under the same name.
    """
    one_level = [_rule(f"{_KEYS}.*.*.{each}", f"{escaped(_KEYS)}_{each}", "domain", "key1") for each in _HITS]
    deeper = [
        MappingRule(
            re.compile(re.escape(f"{_KEYS}.") + r"([^.]*)\.([^.]*)\.([^.]*)(?:\..*)?\." + each + "$"),
            is_glob=False,
            name=f"{escaped(_KEYS)}_{each}",
            labels={"domain": "$1", "key1": "$2", "key2": "$3"},
        )
        for each in _HITS
    ]
    call, server = "ratelimit.service.call.should_rate_limit", "ratelimit_server"
    return (
        *one_level,
        *deeper,
        _rule(f"{call}.*", "ratelimit_service_should_rate_limit_error", "err_type", kind=COUNTER),
        _rule(f"{server}.*.total_requests", "ratelimit_service_total_requests", "grpc_method", kind=COUNTER),
        _rule(
            f"{server}.*.response_time",
            "ratelimit_service_response_time_seconds",
            "grpc_method",
            scale=1.0 if milliseconds else 0.001,
        ),
        _rule("ratelimit.service.config_load_success", "ratelimit_service_config_load_success", kind=COUNTER),
        _rule("ratelimit.service.config_load_error", "ratelimit_service_config_load_error", kind=COUNTER),
    )


def _rule(pattern: str, name: str, *labels: str, kind: str | None = None, scale: float = 1.0) -> MappingRule:
    """Return a rule whose labels are what the stars stand for."""
    values = {label: f"${number}" for number, label in enumerate(labels, 1)}
    return MappingRule(glob(pattern), is_glob=True, name=name, labels=values, kind=kind, scale=scale)
