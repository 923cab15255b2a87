"""A mapping file of Prometheus's statsd_exporter → mapping rules, or all that is wrong with it (PROMETHEUS_MAPPER_YAML).

The reference implementation's operators have such files, and Envoy Gateway writes one. What they may say is in `_RULE` and
`_DEFAULTS`; what statsd_exporter knows beside that is refused rather than ignored: a dashboard would miss it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ratelimit_svc.errors import Finding, RulesError
from ratelimit_svc.metrics.mapping import BUCKETS, COUNTER, GAUGE, OBSERVER, MappingRule, glob
from ratelimit_svc.rules import nodes
from ratelimit_svc.rules.compose import compose
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.nodes import At, Document, Scalar, shown

_GLOB = re.compile(r"(\*|[a-zA-Z_][a-zA-Z0-9_-]*)(\.(\*|[a-zA-Z0-9_][a-zA-Z0-9_-]*))*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TEMPLATE = re.compile(r"([a-zA-Z_]|\$\{?\w+\}?)([a-zA-Z0-9_]|\$\{?\w+\}?)*", re.ASCII)
_UNSUPPORTED = [
    "summary_options",
    "quantiles",
    "ttl",
    "max_age",
    "age_buckets",
    "buf_cap",
    "native_histogram_bucket_factor",
    "native_histogram_max_buckets",
]


class _Wrong(Exception):  # noqa: N818 — not an error of the program: its text becomes a finding
    """This value breaks its rule."""


def load(file: RuleFile) -> tuple[MappingRule, ...]:
    """Return the rules of a mapping file.

    Raises:
        RulesError: with everything that is wrong, each with its line.
    """
    document = Document(file.name)
    try:
        root = compose(document, file)
        rules = () if root is None else _read(document, At(root, ""))
    except nodes.GaveUp:
        rules = ()
    if findings := document.errors():
        raise RulesError(findings)
    if not rules:
        raise RulesError([Finding(file.name, 0, "", "holds no `mappings`; write one for each name, or unset it")])
    return rules


def _read(document: Document, root: At) -> tuple[MappingRule, ...]:
    said = _fields(document, root, {"mappings": _list, "defaults": _mapping})
    defaults = _fields(document, said["defaults"], _DEFAULTS) if "defaults" in said else {}
    found = (_rule(document, at, defaults) for at in said.get("mappings", ()))
    return tuple(rule for rule in found if rule is not None)


def _rule(document: Document, at: At, defaults: Mapping[str, Any]) -> MappingRule | None:
    said = _fields(document, at, _RULE)
    for name in ("match", "name"):
        if name not in said:
            if not isinstance(at.node, nodes.Mapping) or name not in document.entries(at):
                document.wrong(at, f"`{name}` is missing; every mapping has one")
            return None
    pattern, is_glob = said["match"], said.get("match_type", defaults.get("match_type", True))
    match = _compiled(document, at, pattern, is_glob=is_glob)
    if match is None:
        return None
    return MappingRule(
        match,
        is_glob=is_glob,
        name=said["name"],
        labels=_labels(document, said["labels"]) if "labels" in said else {},
        kind=said.get("match_metric_type"),
        drop=said.get("action", False),
        buckets=_bounds(document, said) or _bounds(document, defaults) or BUCKETS,
        scale=said.get("scale", 1.0),
        help=said.get("help", ""),
    )


def _bounds(document: Document, said: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the buckets that a mapping or the defaults name; empty: none."""
    options = _fields(document, said["histogram_options"], _HISTOGRAM) if "histogram_options" in said else {}
    return options.get("buckets") or said.get("buckets") or ()


def _compiled(document: Document, at: At, pattern: str, *, is_glob: bool) -> re.Pattern[str] | None:
    if is_glob:
        if not _GLOB.fullmatch(pattern):
            document.wrong(
                at, f"`match` {pattern!r} is no glob: each part between dots is `*`, or letters, digits, _ and -"
            )
            return None
        return glob(pattern)
    try:
        return re.compile(pattern)
    except re.error as error:
        document.wrong(at, f"`match` {pattern!r} is no regular expression: {error}")
        return None


def _labels(document: Document, at: At) -> dict[str, str]:
    labels = {}
    for name, (key, node) in document.entries(at).items():
        if not _LABEL.fullmatch(name):
            document.wrong(At(key, at.path), f"{name!r} is no label; write letters, digits and _")
        elif not isinstance(node, Scalar):
            document.wrong(at.key(name, node), f"{shown(node)} stands where text is expected")
        else:
            labels[name] = node.text
    return labels


def _fields(document: Document, at: At, table: Mapping[str, Callable[[At], Any]]) -> dict[str, Any]:
    """Read one YAML mapping by its table; what is wrong is noted and left out."""
    if not isinstance(at.node, nodes.Mapping):
        document.wrong(at, f"{shown(at.node)} stands where a mapping is expected")
        return {}
    values = {}
    for name, (key, node) in document.entries(at).items():
        place = at.key(name, node)
        if name not in table:
            what = "is not supported here" if name in _UNSUPPORTED else "is no key of a mapping file"
            document.wrong(At(key, place.path), f"`{name}` {what}; there are {', '.join(table)}")
            continue
        try:
            values[name] = table[name](place)
        except _Wrong as wrong:
            document.wrong(place, str(wrong))
    return values


def _list(at: At) -> list[At]:
    if not isinstance(at.node, nodes.Sequence):
        raise _Wrong(f"{shown(at.node)} stands where a list is expected")
    return list(at.items())


def _mapping(at: At) -> At:
    if not isinstance(at.node, nodes.Mapping):
        raise _Wrong(f"{shown(at.node)} stands where a mapping is expected")
    return at


def _text(at: At) -> str:
    if not isinstance(at.node, Scalar):
        raise _Wrong(f"{shown(at.node)} stands where text is expected")
    return at.node.text


def _name(at: At) -> str:
    text = _text(at)
    if not _TEMPLATE.fullmatch(text):
        raise _Wrong(f"{text!r} is no name of a metric; write letters, digits, _ and $1, $2 …")
    return text


def _number(at: At) -> float:
    try:
        return float(_text(at))
    except ValueError:
        raise _Wrong(f"{shown(at.node)} is no number") from None


def _buckets(at: At) -> tuple[float, ...]:
    bounds = tuple(_number(each) for each in _list(at))
    if list(bounds) != sorted(set(bounds)):
        raise _Wrong("the buckets' bounds must rise")
    return bounds


def _word(words: Mapping[str, Any]) -> Callable[[At], Any]:
    def read(at: At) -> Any:
        text = _text(at)
        if text not in words:
            raise _Wrong(f"{shown(at.node)} is not supported; write one of {', '.join(filter(None, words))}")
        return words[text]

    return read


_MATCH_TYPE = _word({"glob": True, "regex": False, "": True})
_HISTOGRAM_ONLY = _word({"histogram": True, "": True})
_SWITCH = _word({"true": True, "false": False})

_RULE: Mapping[str, Callable[[At], Any]] = {
    "match": _text,
    "name": _name,
    "labels": _mapping,
    "match_type": _MATCH_TYPE,
    "match_metric_type": _word({COUNTER: COUNTER, GAUGE: GAUGE, OBSERVER: OBSERVER, "timer": OBSERVER, "": None}),
    "action": _word({"map": False, "drop": True, "": False}),
    "observer_type": _HISTOGRAM_ONLY,
    "timer_type": _HISTOGRAM_ONLY,
    "histogram_options": _mapping,
    "buckets": _buckets,
    "scale": _number,
    "help": _text,
    "honor_labels": _SWITCH,
}
_DEFAULTS: Mapping[str, Callable[[At], Any]] = {
    "match_type": _MATCH_TYPE,
    "observer_type": _HISTOGRAM_ONLY,
    "timer_type": _HISTOGRAM_ONLY,
    "histogram_options": _mapping,
    "buckets": _buckets,
    "glob_disable_ordering": _word({"false": False}),
}
_HISTOGRAM: Mapping[str, Callable[[At], Any]] = {"buckets": _buckets}
