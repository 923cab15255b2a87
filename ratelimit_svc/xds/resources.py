"""Resources: what an xDS server sends → rule files, which `rules.load` reads like any other. Pure.

Rule 1: nothing is judged here but whether it is a resource of ours. Each becomes the text that its author would have written in
        a file, so that errors, warnings and strictness are those of files.
Rule 2: a field that holds nothing is left out: servers write every one of them, and what is sent does not tell "empty" from
        "absent" anyway.
Rule 3: a text that was made up has no lines: findings name the resource and the place in it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from google.protobuf.any_pb2 import Any as Resource
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import DecodeError

from ratelimit_svc.errors import Finding, RulesError
from ratelimit_svc.pb.ratelimit.config.ratelimit.v3.rls_conf_pb2 import (
    RateLimitConfig,
    RateLimitDescriptor,
    RateLimitPolicy,
    RateLimitUnit,
)
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.match import RuleSet

TYPE_URL = f"type.googleapis.com/{RateLimitConfig.DESCRIPTOR.full_name}"

_BEYOND_ASCII = re.compile(r"[^\x00-\x7e]")
"""Of JSON text, so inside of strings only. YAML means other things than JSON by some of these, and by JSON's `\\ud83d\\ude00`."""


def files(resources: Iterable[Resource]) -> tuple[RuleFile, ...]:
    """Return a rule file for each resource, named as it is, in their order.

    Raises:
        RulesError: some are not of our type, or cannot be decoded; all of them are told.
    """
    made: dict[str, RuleFile] = {}
    findings: list[Finding] = []
    for place, resource in enumerate(resources):
        numbered = f"resource {place}"
        try:
            file = _file(resource, numbered)
        except RulesError as error:
            findings.extend(error.findings)
            continue
        if file.name in made:  # the loader would take both for one file
            file = replace(file, name=f"{file.name} ({numbered})")
        made[file.name] = file
    if findings:
        raise RulesError(findings)
    return tuple(made.values())


def loaded(files: tuple[RuleFile, ...], loader: Callable[[Iterable[RuleFile]], RuleSet]) -> RuleSet:
    """Compile the files of resources.

    Raises:
        RulesError: with everything that is wrong in all of them.
    """
    try:
        rules = loader(files)
    except RulesError as error:
        raise RulesError(tuple(_without_lines(error.findings))) from None
    return replace(rules, warnings=tuple(_without_lines(rules.warnings)))


def _without_lines(findings: Iterable[Finding]) -> Iterator[Finding]:
    return (replace(finding, line=0) for finding in findings)


def _file(resource: Resource, nameless: str) -> RuleFile:
    if resource.type_url != TYPE_URL:
        raise RulesError(
            [Finding(nameless, 0, "", f"is a {resource.type_url!r}; this service takes {TYPE_URL!r} only")]
        )
    config = RateLimitConfig()
    try:
        config.ParseFromString(resource.value)
    except DecodeError as error:
        raise RulesError([Finding(nameless, 0, "", f"is not a RateLimitConfig: {error}")]) from None
    name = config.name or nameless
    try:
        text = _object(domain=_text(config.domain), descriptors=_list(map(_descriptor, config.descriptors)))
    except (SerializeToJsonError, ValueError) as error:  # NaN, infinity
        raise RulesError([Finding(name, 0, "", f"has metadata that cannot be written as JSON: {error}")]) from None
    return RuleFile(name, text.encode())


def _descriptor(descriptor: RateLimitDescriptor) -> str:
    return _object(
        key=_text(descriptor.key),
        value=_text(descriptor.value),
        rate_limit=_limit(descriptor.rate_limit) if descriptor.HasField("rate_limit") else "",
        descriptors=_list(map(_descriptor, descriptor.descriptors)),
        shadow_mode=_switch(on=descriptor.shadow_mode),
        detailed_metric=_switch(on=descriptor.detailed_metric),
        quota_mode=_switch(on=descriptor.quota_mode),
        metadata=_json(MessageToDict(descriptor.metadata)) if descriptor.HasField("metadata") else "",
    )


def _limit(limit: RateLimitPolicy) -> str:
    counted = not limit.unlimited
    return _object(
        unit=_text(_unit(limit.unit)) if limit.unit or counted else "",
        requests_per_unit=str(limit.requests_per_unit) if limit.requests_per_unit or counted else "",
        unlimited=_switch(on=limit.unlimited),
        name=_text(limit.name),
        replaces=_list(_object(name=_text(replaced.name)) for replaced in limit.replaces),
    )


def _unit(number: int) -> str:
    """Return the unit's name; of one that nobody knows, its number, which the loader refuses."""
    named = RateLimitUnit.DESCRIPTOR.values_by_number.get(number)
    return named.name if named else str(number)


# What follows writes JSON piece by piece, each field empty that holds nothing: written as a whole, a large resource would keep
# the interpreter, and so the event loop, for tens of milliseconds.


def _object(**fields: str) -> str:
    return "{" + ", ".join(f'"{name}": {text}' for name, text in fields.items() if text) + "}"


def _list(items: Iterable[str]) -> str:
    text = ", ".join(items)
    return f"[{text}]" if text else ""


def _switch(*, on: bool) -> str:
    return "true" if on else ""


def _text(value: str) -> str:
    return _json(value) if value else ""


def _json(value: object) -> str:
    return _BEYOND_ASCII.sub(_escaped, json.dumps(value, ensure_ascii=False))


def _escaped(character: re.Match[str]) -> str:
    return f"\\U{ord(character[0]):08x}"
