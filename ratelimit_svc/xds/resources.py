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
from typing import Any

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
        document = _written(domain=config.domain, descriptors=[*map(_descriptor, config.descriptors)])
    except (SerializeToJsonError, ValueError) as error:  # NaN, infinity
        raise RulesError([Finding(name, 0, "", f"has metadata that cannot be written as JSON: {error}")]) from None
    text = _BEYOND_ASCII.sub(_escaped, json.dumps(document, ensure_ascii=False))
    return RuleFile(name, text.encode())


def _descriptor(descriptor: RateLimitDescriptor) -> dict[str, Any]:
    return _written(
        key=descriptor.key,
        value=descriptor.value,
        rate_limit=_limit(descriptor.rate_limit) if descriptor.HasField("rate_limit") else None,
        descriptors=[*map(_descriptor, descriptor.descriptors)],
        shadow_mode=descriptor.shadow_mode,
        detailed_metric=descriptor.detailed_metric,
        quota_mode=descriptor.quota_mode,
        metadata=MessageToDict(descriptor.metadata) if descriptor.HasField("metadata") else None,
    )


def _limit(limit: RateLimitPolicy) -> dict[str, Any]:
    written = _written(
        unlimited=limit.unlimited,
        name=limit.name,
        replaces=[{"name": replaced.name} for replaced in limit.replaces],
    )
    if limit.unit or not limit.unlimited:
        written["unit"] = _unit(limit.unit)
    if limit.requests_per_unit or not limit.unlimited:
        written["requests_per_unit"] = limit.requests_per_unit
    return written


def _unit(number: int) -> str:
    """Return the unit's name; of one that nobody knows, its number, which the loader refuses."""
    named = RateLimitUnit.DESCRIPTOR.values_by_number.get(number)
    return named.name if named else str(number)


def _written(**fields: object) -> dict[str, Any]:
    """Return the fields that hold something."""
    return {name: value for name, value in fields.items() if value}


def _escaped(character: re.Match[str]) -> str:
    return f"\\U{ord(character[0]):08x}"
