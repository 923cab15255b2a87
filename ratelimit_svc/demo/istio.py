"""An EnvoyFilter applied to an Envoy's configuration, as Istio would.

Rule 1: what is not understood is an error that names it. Nothing in a document is passed over, but its workload
        selector: which pods it is for is decided by whoever applies it here.
Rule 2: a patch for another kind of proxy is passed over, as Istio does. A patch for this kind that finds no place is an
        error, where Istio says nothing: it is how rate limits come to do nothing.
Rule 3: MERGE is protobuf's: lists grow, messages merge, scalars and map entries are replaced.

Everything is plain YAML and JSON values, with Envoy's field names in snake_case; what they mean is for `envoy.check`.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import yaml

Json = dict[str, Any]

HCM = "envoy.filters.network.http_connection_manager"
_Known = TypeVar("_Known")

_MAPS = ("typed_per_filter_config", "filter_metadata", "typed_filter_metadata")
"""The fields below a virtual host or route that are maps: their entries are replaced, not merged."""


class EnvoyFilterError(Exception):
    """The EnvoyFilter's author must act: this cannot be applied, or not here. The text says which patch and why."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One of the proxies that Istio runs, as far as a patch can match it."""

    context: str
    """`GATEWAY`, `SIDECAR_INBOUND` or `SIDECAR_OUTBOUND`."""
    port: int
    """The listener's port as Istio knows it; the demo listens on another."""
    listener: str
    route_config: str
    virtual_host: str
    route: str
    upstream: str
    """The cluster of the application behind it."""


class Patch(NamedTuple):
    """One entry of `configPatches`."""

    where: str
    """For errors: `ratelimit-gateway configPatches[0]`."""
    apply_to: str
    context: str
    match: Json
    """Flat, without its context: `{"listener.portNumber": 8080}`."""
    operation: str
    value: Json


_BESIDE = "listener.filterChain.filter.subFilter.name"
_VHOST = "routeConfiguration.vhost"
_SUPPORTED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "HTTP_FILTER": (
        ("INSERT_FIRST", "INSERT_BEFORE", "INSERT_AFTER"),
        (
            "listener.name",
            "listener.portNumber",
            "listener.filterChain.filter.name",
            _BESIDE,
        ),
    ),
    "VIRTUAL_HOST": (
        ("MERGE",),
        ("routeConfiguration.name", "routeConfiguration.portNumber", f"{_VHOST}.name"),
    ),
    "HTTP_ROUTE": (
        ("MERGE",),
        ("routeConfiguration.name", "routeConfiguration.portNumber", f"{_VHOST}.name", f"{_VHOST}.route.name"),
    ),
}
"""For each `applyTo`: the operations, and what can be matched."""


def read(text: str) -> list[Patch]:
    """Read the patches of one or more EnvoyFilter documents, in the order in which they apply."""
    documents = [document for document in yaml.safe_load_all(text) if document is not None]
    for document in documents:
        if not isinstance(document, Mapping) or document.get("kind") != "EnvoyFilter":
            raise EnvoyFilterError("not an EnvoyFilter: its kind is another")
    ordered = sorted(documents, key=lambda document: document.get("spec", {}).get("priority", 0))
    return [patch for document in ordered for patch in _patches(document)]


def _patches(document: Json) -> Iterator[Patch]:
    name = document.get("metadata", {}).get("name", "(no name)")
    spec = _only(document.get("spec"), f"{name}: spec", "workloadSelector", "targetRefs", "priority", "configPatches")
    for number, entry in enumerate(spec.get("configPatches", [])):
        where = f"{name}: configPatches[{number}]"
        _only(entry, where, "applyTo", "match", "patch")
        operations, matchable = _one_of(entry.get("applyTo"), f"{where}.applyTo", _SUPPORTED)
        patch = _only(entry.get("patch"), f"{where}.patch", "operation", "value")
        _one_of(patch.get("operation"), f"{where}.patch.operation", dict.fromkeys(operations))
        match = dict(_flat(entry.get("match", {}), ""))
        context = match.pop("context", "ANY")
        if match.pop(f"{_VHOST}.route.action", "ANY") != "ANY":
            raise EnvoyFilterError(f"{where}.match.{_VHOST}.route.action: only ANY is supported here")
        _only(match, f"{where}.match", *matchable)
        yield Patch(where, entry["applyTo"], context, match, patch["operation"], patch.get("value", {}))


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _only(value: Any, where: str, *known: str) -> Json:
    """Return the mapping, which has no key but the known ones."""
    if not isinstance(value, Mapping):
        raise EnvoyFilterError(f"{where}: {value!r} is not a mapping")
    for key in value:
        _one_of(key, where, dict.fromkeys(known))
    return dict(value)


def _one_of(value: Any, where: str, known: Mapping[str, _Known]) -> _Known:
    if value not in known:
        raise EnvoyFilterError(f"{where}: {value!r} is not supported here; known: {', '.join(known)}")
    return known[value]


def apply(bootstrap: Json, patches: list[Patch], proxy: Proxy) -> Json:
    """Return the bootstrap with every patch for this proxy applied; EnvoyFilterError where one has no place, or none is for it."""
    patched = copy.deepcopy(bootstrap)
    mine = [patch for patch in patches if patch.context in ("ANY", proxy.context)]
    if not mine:
        raise EnvoyFilterError(f"no patch is for a proxy of context {proxy.context}")
    for patch in mine:
        find, change = _APPLY[patch.apply_to]
        places = list(find(patched, patch, proxy))
        if not places:
            raise EnvoyFilterError(
                f"{patch.where}: nothing in a proxy of context {proxy.context} matches {patch.match}"
            )
        for place in places:
            change(place, patch)
    return patched


def _matches(patch: Patch, facts: Mapping[str, Any]) -> bool:
    """Say whether all that the patch asks for, of these facts, is so. An empty name matches any, as in Istio."""
    return all(patch.match.get(name, "") in ("", fact) for name, fact in facts.items())


def _connection_managers(bootstrap: Json) -> Iterator[tuple[Json, Json]]:
    """Each HTTP connection manager, with its listener."""
    for listener in bootstrap["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            for network_filter in chain["filters"]:
                if network_filter["name"] == HCM:
                    yield listener, network_filter["typed_config"]


def _filter_lists(bootstrap: Json, patch: Patch, proxy: Proxy) -> Iterator[list[Json]]:
    for listener, manager in _connection_managers(bootstrap):
        facts = {
            "listener.name": listener["name"],
            "listener.portNumber": proxy.port,
            "listener.filterChain.filter.name": HCM,
        }
        present = ["", *(one["name"] for one in manager["http_filters"])]
        if _matches(patch, facts) and patch.match.get(_BESIDE, "") in present:
            yield manager["http_filters"]


def _insert(filters: list[Json], patch: Patch) -> None:
    """Without a filter to be beside, before means first and after means last, as in Istio."""
    beside = patch.match.get(_BESIDE, "")
    at = [one["name"] for one in filters].index(beside) if beside else None
    places = {
        "INSERT_FIRST": 0,
        "INSERT_BEFORE": 0 if at is None else at,
        "INSERT_AFTER": len(filters) if at is None else at + 1,
    }
    filters.insert(places[patch.operation], copy.deepcopy(patch.value))


def _virtual_hosts(bootstrap: Json, patch: Patch, proxy: Proxy) -> Iterator[Json]:
    for _, manager in _connection_managers(bootstrap):
        routes = manager["route_config"]
        for host in routes["virtual_hosts"]:
            facts = {
                "routeConfiguration.name": routes["name"],
                "routeConfiguration.portNumber": proxy.port,
                "routeConfiguration.vhost.name": host["name"],
            }
            if _matches(patch, facts):
                yield host


def _routes(bootstrap: Json, patch: Patch, proxy: Proxy) -> Iterator[Json]:
    for host in _virtual_hosts(bootstrap, patch, proxy):
        yield from (
            one for one in host["routes"] if _matches(patch, {"routeConfiguration.vhost.route.name": one["name"]})
        )


def _merge_patch(target: Json, patch: Patch) -> None:
    merge(target, patch.value, patch.where)


_APPLY: dict[str, tuple[Callable[[Json, Patch, Proxy], Iterator[Any]], Callable[[Any, Patch], None]]] = {
    "HTTP_FILTER": (_filter_lists, _insert),
    "VIRTUAL_HOST": (_virtual_hosts, _merge_patch),
    "HTTP_ROUTE": (_routes, _merge_patch),
}
"""For each `applyTo`: where it goes, and what is done there."""


def merge(into: Json, patch: Json, where: str) -> None:
    """Merge a patch as protobuf does; where that needs the field's type to know, EnvoyFilterError rather than a guess."""
    for key, value in patch.items():
        inside = f"{where}: {key}"
        if re.search("[A-Z]", key):
            raise EnvoyFilterError(f"{inside}: write Envoy's fields in snake_case")
        present = into.get(key)
        if present is None or (isinstance(value, dict) and "@type" in value):
            into[key] = copy.deepcopy(value)
        elif isinstance(value, dict) and isinstance(present, dict):
            if key in _MAPS:
                present.update(copy.deepcopy(value))
            else:
                merge(present, value, inside)
        elif isinstance(value, list) and isinstance(present, list):
            present.extend(copy.deepcopy(value))
        elif isinstance(value, dict | list) or isinstance(present, dict | list):
            raise EnvoyFilterError(f"{inside}: {value!r} cannot be merged into {present!r}")
        elif not value and present:
            # protobuf ignores an unset scalar, and for most fields its default means unset, but not for all
            raise EnvoyFilterError(
                f"{inside}: whether {value!r} replaces {present!r} depends on the field's type: not supported"
            )
        else:
            into[key] = value
