"""Resources as rule files: what a server sends means what its author would have written in YAML."""

from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Resource
from google.protobuf.json_format import ParseDict

from ratelimit_svc.errors import RulesError
from ratelimit_svc.model import Entry, Role, Unit
from ratelimit_svc.pb.ratelimit.config.ratelimit.v3.rls_conf_pb2 import RateLimitConfig
from ratelimit_svc.rules.load import RuleFile, load
from ratelimit_svc.rules.match import RuleSet, find
from ratelimit_svc.xds.resources import TYPE_URL, files, loaded
from tests.xds.ads import config, resource


def rules(*configs: Mapping[str, Any]) -> RuleSet:
    return loaded(files(map(resource, configs)), load)


def findings(*configs: Mapping[str, Any]) -> list[str]:
    with pytest.raises(RulesError) as error:
        rules(*configs)
    return [str(finding) for finding in error.value.findings]


GENERATED: dict[str, Any] = {
    "name": "default/eg/http",
    "domain": "default/eg/http",
    "descriptors": [
        {
            "key": "httproute/default/shop/rule/0/match/0/*",
            "value": "httproute/default/shop/rule/0/match/0/*",
            "rate_limit": None,
            "shadow_mode": False,
            "detailed_metric": False,
            "descriptors": [
                {
                    "key": "rule-0-match-0",
                    "value": "",
                    "rate_limit": {
                        "requests_per_unit": 3,
                        "unit": "HOUR",
                        "unlimited": False,
                        "name": "",
                        "replaces": [],
                    },
                    "descriptors": [],
                    "shadow_mode": False,
                }
            ],
        }
    ],
}
"""As Envoy Gateway generates them: every field is there, empty or not, and keys have a `*` that means itself."""


def test_what_envoy_gateway_generates() -> None:
    """It loads without a warning, and limits what it is to limit: each caller of that route for itself."""
    made = rules(GENERATED)
    assert made.warnings == ()
    (rule,) = made.rules
    assert rule.limit is not None
    assert (rule.limit.requests_per_unit, rule.limit.unit, rule.limit.name) == (3, Unit.HOUR, "")
    route = Entry("httproute/default/shop/rule/0/match/0/*", "httproute/default/shop/rule/0/match/0/*")
    domain = made.domains["default/eg/http"]
    assert find(domain, [route, Entry("rule-0-match-0", "anybody")]) == (rule,)
    assert find(domain, [route]) == ()


def test_every_field_is_taken() -> None:
    """Roles, names, what is replaced, metadata and unlimited rules arrive as they were sent."""
    made = rules(
        {
            "name": "a",
            "domain": "d",
            "descriptors": [
                {
                    "key": "s",
                    "shadow_mode": True,
                    "rate_limit": {"unit": "SECOND", "requests_per_unit": 1, "name": "one"},
                },
                {
                    "key": "q",
                    "value": "v",
                    "quota_mode": True,
                    "detailed_metric": True,
                    "rate_limit": {"unit": "WEEK", "requests_per_unit": 2, "replaces": [{"name": "one"}]},
                    "metadata": {"plan": "gold", "n": 3, "deep": {"on": True, "list": [1.5, None]}},
                },
                {"key": "u", "rate_limit": {"unlimited": True}},
                {"key": "none", "rate_limit": {"unit": "YEAR"}},
            ],
        }
    )
    shadow, quota, unlimited, nothing = made.rules
    assert (shadow.role, quota.role, unlimited.limit) == (Role.SHADOW, Role.QUOTA, None)
    assert (quota.limit and quota.limit.unit, quota.replaces) == (Unit.WEEK, frozenset({"one"}))
    assert quota.metadata == {"plan": "gold", "n": 3, "deep": {"on": True, "list": [1.5, None]}}
    assert shadow.limit is not None
    assert shadow.limit.name == "one"
    assert nothing.limit is not None
    assert (nothing.limit.requests_per_unit, nothing.limit.unit) == (0, Unit.YEAR)


@pytest.mark.parametrize(
    "value",
    ["ä", "\u2028\u0085\x7f\x80", "🦄", "\ufeff", "yes", "1", "null", 'a"b\\', "a: b # c", "\t\n", "*&!%@`", "{}"],
)
def test_any_text_is_taken_as_it_is(value: str) -> None:
    """The text is JSON, read as YAML: nothing in it means anything to either."""
    (rule,) = rules(
        {
            "name": "a",
            "domain": value,
            "descriptors": [{"key": "k", "value": value, "rate_limit": {"unit": "DAY", "requests_per_unit": 1}}],
        }
    ).rules
    domain = rules({"name": "a", "domain": value, "descriptors": []}).domains
    assert list(domain) == [value]
    assert rule.limit is not None


def test_findings_name_the_resource_and_the_place() -> None:
    """There are no lines in what was made up, so none is told; everything wrong in all resources is."""
    broken = {"name": "a", "domain": "d", "descriptors": [{"key": "k", "rate_limit": {"requests_per_unit": 1}}, {}]}
    other = config("b", "e", limit=1)
    other["descriptors"].append(dict(other["descriptors"][0]))
    found = findings(broken, other)
    units = "second, minute, hour, day, week, month, year"
    assert found[0] == f'a: descriptors[0].rate_limit.unit: "UNKNOWN" is not a unit; write one of {units}'
    assert found[1].startswith("a: descriptors[1]")
    assert "`key`" in found[1]
    assert found[2].startswith("b: descriptors[1]: ")
    assert len(found) == 3


def test_a_unit_that_nobody_knows() -> None:
    """A number beyond the enum is named by it."""
    message = ParseDict(config("a", "d", limit=1), RateLimitConfig())
    message.descriptors[0].rate_limit.unit = 99  # type: ignore[assignment]
    packed = Resource()
    packed.Pack(message)
    with pytest.raises(RulesError, match=r'rate_limit\.unit: "99" is not a unit'):
        loaded(files([packed]), load)


def test_warnings_have_no_lines_either() -> None:
    """What loads but does not do what it seems to is told as of a file."""
    odd = config("a", "d", limit=1)
    odd["descriptors"][0]["rate_limit"]["replaces"] = [{"name": "nobody"}]
    (warning,) = rules(odd).warnings
    assert str(warning).startswith("a: descriptors[0].rate_limit.replaces[0].name: ")


def test_strictness_is_that_of_files() -> None:
    """STRICT makes such a warning an error, from a server as from a file."""
    odd = config("a", "d", limit=1)
    odd["descriptors"][0]["rate_limit"]["replaces"] = [{"name": "nobody"}]
    with pytest.raises(RulesError):
        loaded(files([resource(odd)]), lambda made: load(made, strict=True))


def test_resources_with_one_name_are_two_files() -> None:
    """Names need not differ, nor be there: each resource is read for itself."""
    assert sorted(rules(config("a", "d"), config("a", "e"), config("", "f"), config("", "g")).domains) == [*"defg"]
    found = findings(config("", "d"), config("", "d"))
    assert len(found) == 1
    assert found[0].startswith("resource 1: domain: ")


def test_what_an_unlimited_rule_has_beside_is_told() -> None:
    """As of a file: a unit is a mistake; a number, which generators may leave there, is odd."""
    domain = config("a", "shop", limit=5)
    limit = domain["descriptors"][0]["rate_limit"]
    limit["unlimited"] = True
    means_nothing = "a: descriptors[0].rate_limit.{0}: `{0}` means nothing with `unlimited: true`; remove one of them"
    assert findings(domain) == [means_nothing.format("unit")]
    limit["unit"] = 0
    assert [str(warning) for warning in rules(domain).warnings] == [means_nothing.format("requests_per_unit")]


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Resources that are none do not hide each other."""
    wrong = [Resource(type_url="x/y"), Resource(type_url=TYPE_URL, value=b"\xff")]
    with pytest.raises(RulesError) as error:
        files(wrong)
    assert [finding.file for finding in error.value.findings] == ["resource 0", "resource 1"]


def test_a_number_that_is_none_in_metadata() -> None:
    """JSON has no word for it, nor have rules."""
    message = ParseDict(config("a", "d", limit=1), RateLimitConfig())
    message.descriptors[0].metadata.update({"n": float("nan")})
    packed = Resource()
    packed.Pack(message)
    with pytest.raises(RulesError, match="a: has metadata that cannot be written as JSON"):
        files([packed])


def test_no_depth_exhausts_the_stack() -> None:
    """Descriptors as deep as protobuf takes them are rules or a finding; deeper ones are no resource."""
    deep: dict[str, Any] = {"key": "k"}
    for _ in range(90):
        deep = {"key": "k", "descriptors": [deep]}
    assert findings({"name": "a", "domain": "d", "descriptors": [deep]})
    value = b""
    for _ in range(5_000):
        value = b"\x22" + _length(value) + value
    with pytest.raises(RulesError, match="resource 0: is not a RateLimitConfig"):
        files([Resource(type_url=TYPE_URL, value=b"\x1a" + _length(value) + value)])


def _length(data: bytes) -> bytes:
    """A varint."""
    number, written = len(data), bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def test_nothing_is_no_rules() -> None:
    """No resources are a rule set without domains, not an error: the server has taken all away."""
    assert files([]) == ()
    assert dict(rules().domains) == {}


def test_the_text_is_that_of_a_file() -> None:
    """What is made has only what was said."""
    (made,) = files([resource(config("a", "d", limit=3))])
    assert made == RuleFile(
        "a",
        b'{"domain": "d", "descriptors": [{"key": "k", "rate_limit": {"unit": "MINUTE", "requests_per_unit": 3}}]}',
    )
