"""Loading: what the YAML says → rules, and one bad file per mistake → exactly its findings."""

import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_svc.errors import Finding, RulesError
from ratelimit_svc.model import Entry, Limit, OnStoreFailure, Role, Rule, Unit
from ratelimit_svc.rules.compose import MAX_DEPTH, MAX_NODES
from ratelimit_svc.rules.files import MAX_BYTES
from ratelimit_svc.rules.load import RuleFile, load, read
from ratelimit_svc.rules.match import RuleSet, find
from ratelimit_svc.rules.nodes import MAX_FINDINGS
from ratelimit_svc.rules.tables import TABLES

DATA = Path(__file__).parent / "data"
BAD = sorted(DATA.glob("bad_*.yaml"))
ODD = sorted(DATA.glob("odd_*.yaml"))
CONFIG = sorted((Path(__file__).parent.parent / "config").glob("*.yaml"))


def loaded(text: str | bytes, name: str = "rules.yaml") -> RuleSet:
    return load([RuleFile(name, text.encode() if isinstance(text, str) else text)])


def rule(text: str) -> Rule:
    """The only rule of a `rate_limit` and what else a descriptor has, as flow YAML."""
    (only,) = loaded(f"{{domain: d, descriptors: [{{key: k, {text}}}]}}").rules
    return only


def findings(text: str | bytes) -> list[str]:
    with pytest.raises(RulesError) as raised:
        loaded(text)
    return [str(finding) for finding in raised.value.findings]


# --- mistakes -----------------------------------------------------------------------------------------------------------


def told(file: Path) -> list[str]:
    """What is to be found in a file of tests/data: the comments at its beginning."""
    lines = itertools.takewhile(
        lambda line: line.startswith("# ") and line != "# only a comment", file.read_text().splitlines()
    )
    return [line.removeprefix("# ") for line in lines]


def said(file: Path, findings: Iterable[Finding]) -> list[str]:
    return [str(finding).removeprefix(f"{file.name}:").removeprefix(" ") for finding in findings]


@pytest.mark.parametrize("file", BAD + ODD, ids=lambda file: file.stem)
def test_a_mistake_is_told_exactly(file):
    """Read strictly, each file has the findings that it begins with: line, path, value, rule and what would be right."""
    with pytest.raises(RulesError) as raised:
        load([RuleFile(file.name, file.read_bytes())], strict=True)
    assert said(file, raised.value.findings) == told(file)


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_mistake_is_an_error(file):
    """Also where rules are not read strictly; what is only odd then says why it is an error."""
    with pytest.raises(RulesError) as raised:
        load([RuleFile(file.name, file.read_bytes())])
    assert {one.partition(" (an error, not a warning")[0] for one in said(file, raised.value.findings)} <= set(
        told(file)
    )


@pytest.mark.parametrize("file", ODD, ids=lambda file: file.stem)
def test_what_the_reference_loads_is_a_warning(file):
    """It loads, and the same findings come with the rules."""
    assert said(file, load([RuleFile(file.name, file.read_bytes())]).warnings) == told(file)


@pytest.mark.parametrize("file", ODD, ids=lambda file: file.stem)
def test_a_file_with_a_key_of_ours_is_read_strictly(file):
    """Who uses what only this service has wants to be told, and loses nothing by it."""
    text = file.read_text().replace("\ndomain:", "\ntenant: tenant\ndomain:", 1)
    with pytest.raises(RulesError) as raised:
        load([RuleFile(file.name, text.encode())])
    findings = [finding for finding in raised.value.findings if finding.path != "tenant"]  # no descriptor has it
    assert len(findings) == len(told(file))
    because = "an error, not a warning, because this file uses `tenant`"
    assert all(because in finding.message for finding in findings)


def test_there_is_a_bad_file_for_every_key():
    """A key without a bad file is a key whose mistakes nobody has looked at."""
    text = "".join(file.read_text() for file in BAD + ODD)
    assert [name for table in TABLES.values() for name in table.rows if f"{name}:" not in text] == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "rules.yaml: holds no rules; write at least `domain: name`"),
        (b"domain: a\nx: \xff\n", "rules.yaml:2: not UTF-8: the byte 0xff; save the file as UTF-8"),
        ("domain: a".encode("utf-16"), "rules.yaml:1: not UTF-8: the byte 0xff; save the file as UTF-8"),
        (b"domain: a\n#" + b" " * MAX_BYTES, "rules.yaml: larger than 16 MiB; split it by domain"),
        (b"\0", "rules.yaml:1: not YAML: the character U+0000 is not allowed; remove it"),
        (b'{"domain": "a"', "rules.yaml:1: not YAML: did not find expected ',' or '}' (while parsing a flow mapping)"),
        (b"[" * 3_000_000, f"rules.yaml:1: nested more than {MAX_DEPTH} deep; no rule needs that"),
        (b"- " * 3_000_000, f"rules.yaml:1: nested more than {MAX_DEPTH} deep; no rule needs that"),
        (b"? " * 3_000_000, f"rules.yaml:1: nested more than {MAX_DEPTH} deep; no rule needs that"),
    ],
    ids=["empty", "not-utf-8", "utf-16", "too-large", "nul", "json", "brackets", "dashes", "keys"],
)
def test_bytes_that_no_comment_could_explain(data, message):
    """What is no readable YAML at all is a finding, however large or deep, and at once."""
    (found,) = findings(data)
    assert found.startswith(message)


@pytest.mark.slow
def test_too_many_values_are_a_finding():
    """A file of very many tiny values, small as it is, ends before it fills the memory."""
    assert findings("[" + "1," * MAX_NODES + "]") == [
        f"rules.yaml:1: more than {MAX_NODES} values; split the file by domain"
    ]


def test_long_values_are_cut_in_messages():
    """A message stays readable whatever it quotes, and control characters never reach a terminal."""
    (long,) = findings(f"domain: d\ndescriptors: {'x' * 5_000}\n")
    assert len(long) < 200
    (digits,) = findings(
        f"domain: d\ndescriptors: [{{key: k, rate_limit: {{unit: day, requests_per_unit: {'9' * 5_000}}}}}]\n"
    )
    assert digits.endswith("99…' is out of range; write a whole number from 0 to 4294967295")
    (strange,) = findings('domain: d\ndescriptors: "\\e[2J"\n')
    assert '"\\x1b[2J" stands where a list is expected' in strange


def test_long_paths_count_as_size():
    """A long value above many descriptors would be repeated in each one's id: that is an alias bomb without an alias."""
    below = "".join(f"  - key: k{index}\n" for index in range(2_000))
    found = findings(f"domain: d\ndescriptors:\n- key: k\n  value: {'v' * 100_000}\n  descriptors:\n{below}")
    assert "too large with its aliases expanded" in found[0]


@pytest.mark.parametrize(
    ("first", "again", "times"),
    [
        ("metadata: &a {a: [" + "1, " * 1_000 + "]}", "metadata: *a", 1_001),
        ("rate_limits: &a [" + ", ".join(f"{{per: {i}s, requests_per_unit: 1}}" for i in range(1, 17)) + "]", "rate_limits: *a", 6_000),
    ],
    ids=["metadata", "rate_limits"],
)  # fmt: skip
def test_lists_that_aliases_multiply_count_as_size(first, again, times):
    """Many descriptors that share one long list of whatever kind are a bomb, too."""
    many = "".join(f"- {{key: k{index}, {again}}}\n" for index in range(times))
    found = findings(f"domain: d\ndescriptors:\n- {{key: k, {first}}}\n{many}")
    assert "too large with its aliases expanded" in found[-1]


def test_findings_are_bounded():
    """A file that is wrong everywhere is told so, not repeated."""
    found = findings("domain: d\n" + "".join(f"x{index}: 1\n" for index in range(MAX_FINDINGS + 500)))
    assert len(found) == MAX_FINDINGS + 1
    assert found[-1] == f"rules.yaml: more than {MAX_FINDINGS} findings; the rest is not shown"


def test_very_many_warnings_keep_no_file_out():
    """What the reference implementation loads is loaded, however odd; the warnings are bounded all the same."""
    many = "".join(
        f"- {{key: k{index}, unit: day, rate_limit: {{unlimited: true}}}}\n" for index in range(2 * MAX_FINDINGS)
    )
    ruleset = loaded(f"domain: d\ndescriptors:\n{many}")
    assert len(ruleset.rules) == 2 * MAX_FINDINGS
    assert len(ruleset.warnings) == MAX_FINDINGS


def test_all_findings_of_all_files_come_together():
    """One run tells everything; a good file between bad ones does not help them."""
    files = [
        ("b.yaml", "domain: b\nx: 1"),
        ("good.yaml", "domain: g"),
        ("a.yaml", "domain: [\n"),
        ("c.yaml", "tenant: c"),
    ]
    with pytest.raises(RulesError) as raised:
        load(RuleFile(name, text.encode()) for name, text in files)
    assert [finding.file for finding in raised.value.findings] == ["b.yaml", "a.yaml", "c.yaml"]


def test_a_domain_lives_in_one_file():
    """The same domain in a second file is an error that names the first place."""
    with pytest.raises(RulesError) as raised:
        load([RuleFile("a.yaml", b"# first\ndomain: shop\n"), RuleFile("b.yaml", b"domain: shop\n")])
    assert str(raised.value) == (
        "b.yaml:1: domain: 'shop' is the domain of a.yaml:2 already; put the descriptors of a domain into one file, or "
        "set MERGE_DOMAIN_CONFIG"
    )


# --- what is right ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        ("unit: second, requests_per_unit: 1", Limit(1, Unit.SECOND)),
        ("unit: MiNute, requests_per_unit: 0", Limit(0, Unit.MINUTE)),
        ("unit: HOUR, requests_per_unit: 4294967295", Limit(4294967295, Unit.HOUR)),
        ("unit: day, requests_per_unit: 0x10", Limit(16, Unit.DAY)),
        ("unit: week, requests_per_unit: 010", Limit(8, Unit.WEEK)),
        ("unit: month, requests_per_unit: 1_000", Limit(1_000, Unit.MONTH)),
        ("unit: 'year', requests_per_unit: +0b11", Limit(3, Unit.YEAR)),
        ("unit: day, requests_per_unit: !!int '7'", Limit(7, Unit.DAY)),
        ("unit: day, requests_per_unit: 1, name: 7", Limit(1, Unit.DAY, name="7")),
        ("unit: day, requests_per_unit: 1, slices: 1", Limit(1, Unit.DAY, slices=1)),
        ("unit: day, requests_per_unit: 1, slices: 500, unlimited: no", Limit(1, Unit.DAY, slices=500)),
        ("unit: day, requests_per_unit: 1, name: '', slices: ~, on_store_failure: ''", Limit(1, Unit.DAY)),
        ("unlimited: true", None),
        ("unlimited: Yes, unit: '', requests_per_unit: 0, name: ''", None),  # as generated files write it
        ("unlimited: on, unit: ~, requests_per_unit: ~", None),
    ],
)
def test_limits(written, limit):
    """Units in any case, numbers as YAML 1.1 has them, and empty fields as if not written."""
    assert rule(f"rate_limit: {{{written}}}").limit == limit


@pytest.mark.parametrize("word", ["local", "Allow", "DENY", "error"])
def test_failure_policies(word):
    """A rule's failure policy is one of four words, in any case; `local` is the default."""
    written = rule(f"rate_limit: {{unit: day, requests_per_unit: 1, on_store_failure: {word}}}")
    assert written.on_store_failure is OnStoreFailure[word.upper()]
    assert rule("rate_limit: {unit: day, requests_per_unit: 1}").on_store_failure is OnStoreFailure.LOCAL


def test_roles():
    """A rule enforces unless its descriptor says otherwise."""
    limit = "rate_limit: {unit: day, requests_per_unit: 1}"
    assert rule(f"shadow_mode: true, {limit}").role is Role.SHADOW
    assert rule(f"shadow_mode: off, {limit}").role is Role.GATE
    assert rule(f"shadow_mode: ~, {limit}").role is Role.GATE
    assert rule(f"quota_mode: y, {limit}").role is Role.QUOTA
    assert rule(f"quota_mode: N, {limit}").role is Role.GATE
    assert rule(f"quota_mode: true, shadow_mode: true, {limit}").role is Role.SHADOW


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("123", "123"),
        ("0x10", "0x10"),
        ("true", "true"),
        ("Yes", "Yes"),
        ("1:30", "1:30"),
        ("'1.5'", "1.5"),
        ('"2026-01-31"', "2026-01-31"),
        ("1e3", "1e3"),
        ("'null'", "null"),
        ("=", "="),
        ("<<", "<<"),
        ("!!str 1.5", "1.5"),
        ("2026-01-31", "2026-01-31"),
        ("y", "y"),
        ("' '", " "),
        ("ü", "ü"),
        ('"a\\nb"', "a\nb"),
    ],
)
def test_values_are_taken_as_written(written, value):
    """A value meets the text that stands in the file, not what YAML would make of it."""
    ruleset = loaded(f"domain: d\ndescriptors:\n- key: k\n  value: {written}\n  rate_limit: {{unlimited: true}}\n")
    assert find(ruleset.domains["d"], (Entry("k", value),)) == ruleset.rules
    assert find(ruleset.domains["d"], (Entry("k", "other"),)) == ()


@pytest.mark.parametrize("written", ["", "~", "null", "''", '""'])
def test_an_empty_value_is_no_value(written):
    """A descriptor with an empty value meets any value."""
    ruleset = loaded(f"domain: d\ndescriptors:\n- key: k\n  value: {written}\n  rate_limit: {{unlimited: true}}\n")
    assert ruleset.rules[0].id == "d/k"
    assert find(ruleset.domains["d"], (Entry("k", "anything"),)) == ruleset.rules


def test_envoy_gateways_files_are_strictly_right():
    """It names each file, and repeats a mode at every level, also above the limit that it is for."""
    ruleset = load([RuleFile("gateway.yaml", b"""
name: first-listener
domain: first-listener
descriptors:
- key: route
  value: route
  rate_limit: null
  shadow_mode: true
  descriptors:
  - key: rule-0-match-0
    value: "*"
    rate_limit: {requests_per_unit: 5, unit: SECOND, unlimited: false, name: "", replaces: []}
    descriptors: []
    shadow_mode: true
    detailed_metric: false
""")], strict=True)  # fmt: skip
    assert [(each.id, each.role) for each in ruleset.rules] == [
        ("first-listener/route=route/rule-0-match-0=*", Role.SHADOW)
    ]


def test_generated_files_write_every_field_out():
    """Null and empty fields are as if not written."""
    ruleset = loaded("""
domain: d
tenant: ""
descriptors:
- key: a
  value: ""
  rate_limit: null
  shadow_mode: false
  descriptors:
  - key: b
    value: ""
    rate_limit: {requests_per_unit: 5, unit: HOUR, unlimited: false, name: "", on_store_failure: null}
    descriptors: []
- key: c
  rate_limit:
  descriptors:
""")
    assert ruleset.domains["d"].tenant is None
    assert ruleset.rules == (Rule("d/a/b", Limit(5, Unit.HOUR)),)


def test_rule_ids_are_paths():
    """An id is the domain and the path as configured, patterns included; rules come in the order of the file."""
    ruleset = loaded("""
domain: shop
descriptors:
- key: tenant
  value: a*
  rate_limit: &one {unit: second, requests_per_unit: 1}
  descriptors:
  - key: path
    value: /x
    rate_limit: *one
- key: tenant
  rate_limit: *one
""")
    assert [each.id for each in ruleset.rules] == ["shop/tenant=a*", "shop/tenant=a*/path=/x", "shop/tenant"]
    assert ruleset == loaded(json.dumps({
        "domain": "shop",
        "descriptors": [
            {
                "key": "tenant",
                "value": "a*",
                "rate_limit": {"unit": "SECOND", "requests_per_unit": 1},
                "descriptors": [{"key": "path", "value": "/x", "rate_limit": {"unit": "second", "requests_per_unit": 1}}],
            },
            {"key": "tenant", "rate_limit": {"unit": "second", "requests_per_unit": 1}},
        ],
    }))  # fmt: skip


def test_a_key_with_an_equals_sign_is_no_twin_of_a_pair():
    """Twins are found by key and value, not by how an id is written."""
    assert len(loaded("domain: d\ndescriptors: [{key: a=b}, {key: a, value: b}, {key: a, value: '*'}]").domains) == 1


def test_anchors_and_merge_keys():
    """Aliases share what they name; `<<` adds what is not written: own keys first, then the first merged."""
    ruleset = loaded("""
domain: d
descriptors:
- &base
  key: a
  rate_limit: &limit {unit: second, requests_per_unit: 1, slices: 10}
- <<: *base
  key: b
- key: c
  rate_limit:
    <<: [{name: first}, {name: second, unit: hour}, *limit]
    requests_per_unit: 3
- &base
  key: d
- <<: *base
  value: again
  rate_limit: *limit
""")
    assert [(each.id, each.limit) for each in ruleset.rules] == [
        ("d/a", Limit(1, Unit.SECOND, slices=10)),
        ("d/b", Limit(1, Unit.SECOND, slices=10)),
        ("d/c", Limit(3, Unit.HOUR, name="first", slices=10)),
        ("d/d=again", Limit(1, Unit.SECOND, slices=10)),
    ]


def test_byte_order_mark_and_document_markers():
    """A BOM, a first `---`, a last `...` and empty documents behind are harmless."""
    assert "d" in loaded("\ufeff---\ndomain: d\n...\n---\n# nothing\n---\n").domains


def test_no_files_are_no_rules():
    """Loading is pure: that there must be a file is `read`'s business."""
    assert load([]) == RuleSet({}, ())


# --- any bytes ----------------------------------------------------------------------------------------------------------

SCRAPS = [
    "domain: d\n", "descriptors:\n", "- ", "  ", "key: k", "value: *a", "&a ", "*a", "<<: ", "{", "}", "[", "]", ",", ": ", "\n",
    "rate_limit: ", "unit: second", "requests_per_unit: ", "0x", "1", "-1", "!!int ", "!!map ", "!x ", "'", '"', "|\n", ">-\n",
    "? ", "---\n", "...\n", "%YAML 1.1\n", "#", "\t", "\r", "\x85", "\u2028", "\0", "\ud7ff", "🦊", "unlimited: y", "~", "null",
    "tenant: t\n", "rate_limits: ", "replaces: ", "name: n", "metadata: ", "share_threshold: on", "value: 'a*'", "per: 90s", "shadow_mode: 1",
    "algorithm: token_bucket", "burst: 5", "align: calendar", "quota_mode: y", "unit_multiplier: 4294967295", "key: k, rate_limit: {",
]  # fmt: skip


def strictly(text: str) -> bool:
    """True if it loads where rules are read strictly."""
    try:
        load([RuleFile("rules.yaml", text.encode())], strict=True)
    except RulesError:
        return False
    return True


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(SCRAPS), max_size=30).map("".join))
def test_anything_like_yaml_loads_or_is_a_rules_error(text):
    """Nothing that a document can say ends in any other exception; strictly it loads if there is nothing to warn of."""
    try:
        ruleset = loaded(text)
    except RulesError as error:
        found = error.findings
    else:
        found = ruleset.warnings
        assert strictly(text) == (not found)
        return
    assert found
    assert not strictly(text)
    assert all(finding.message and 0 <= finding.line <= len(text) + 1 for finding in found)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_good_files_with_damage_load_or_are_a_rules_error(data):
    """Bytes lost, doubled or replaced in a good file are rules or findings."""
    good = data.draw(st.sampled_from(CONFIG)).read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(good)))
        end = data.draw(st.integers(start, min(len(good), start + 20)))
        good = good[:start] + data.draw(st.one_of(st.binary(max_size=4), st.just(good[start:end] * 2))) + good[end:]
    try:
        loaded(good)
    except RulesError as error:
        found = error.findings
    else:
        return
    assert found


# --- reading ------------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_order_of_names(tmp_path):
    """All rule files below a folder, whatever the case of their suffix; then strays; nothing hidden, no old versions."""
    for name in [
        "b.yaml",
        "b.yaml~",
        "a/z.yml",
        "a.json",
        "C.YAML",
        ".hidden.yaml",
        "..data/b.yaml",
        "a/.git/x.yaml",
        "a/limits",
        "README.md",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    os.mkfifo(tmp_path / "pipe.yaml")  # reading it would wait forever
    assert read(tmp_path) == (
        *(RuleFile(name, name.encode()) for name in ["C.YAML", "a.json", "a/z.yml", "b.yaml"]),
        *(RuleFile(name, name.encode(), stray=True) for name in ["README.md", "a/limits"]),
        RuleFile("pipe.yaml", b"", stray=True),
    )


def test_a_file_is_read_by_its_name(tmp_path, monkeypatch):
    """A single file needs no suffix, and findings call it what the user called it."""
    (tmp_path / "limits").write_text("domain: d")
    monkeypatch.chdir(tmp_path)
    assert read(Path("limits")) == (RuleFile("limits", b"domain: d"),)


def test_links_are_followed_and_loops_end(tmp_path):
    """A link to a file or folder counts as one; a link to a parent ends; a broken one is told."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.yaml").write_text("a")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "below").symlink_to("../real")
    (tmp_path / "rules" / "b.yaml").symlink_to("../real/a.yaml")
    (tmp_path / "real" / "loop").symlink_to("../rules")
    assert [file.name for file in read(tmp_path / "rules")] == ["b.yaml", "below/a.yaml"]
    (tmp_path / "rules" / "broken.yaml").symlink_to("nowhere")
    (tmp_path / "rules" / "self.yaml").symlink_to("self.yaml")
    with pytest.raises(RulesError) as raised:
        read(tmp_path / "rules")
    assert str(raised.value) == (
        "broken.yaml: cannot be read: No such file or directory\n"
        "self.yaml: cannot be read: Too many levels of symbolic links"
    )


def test_nothing_to_read_is_told(tmp_path):
    """A path that is missing or holds no rule file is an error, with what was there instead."""
    with pytest.raises(
        RulesError, match="nowhere: cannot be read: No such file or directory; give a rule file, or a folder"
    ):
        read(tmp_path / "nowhere")
    with pytest.raises(
        RulesError, match=r"no rule file in this folder; rule files are named \*\.yaml, \*\.yml, \*\.json"
    ):
        read(tmp_path)


STRAY = "not a rule file: ignored; move it away, or begin its name with a dot"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"# Rules\n\nThey are here.\n",
        b"a: b",
        b"- domain: d",
        b"[" * 10_000,
        b"\xff\xd8",
        b"\0",
        b"domain",
        b"a: [\ndomain: d",
    ],
)
def test_a_stray_file_is_ignored_with_a_warning(data):
    """What its name does not call a rule file, nor its content, is none; strictly it does not belong there."""
    files = [RuleFile("a.yaml", b"domain: a\ntenant: t"), RuleFile("NOTES", data, stray=True)]
    assert [str(warning) for warning in load(files).warnings] == [f"NOTES: {STRAY}"]
    with pytest.raises(RulesError) as raised:
        load(files, strict=True)
    assert str(raised.value) == f"NOTES: {STRAY}"


def test_a_stray_file_with_a_domain_is_a_rule_file():
    """The reference implementation loads every file, whatever its name; its mistakes count, too."""
    ruleset = load([RuleFile("rules.conf", b"domain: d", stray=True)], strict=True)
    assert list(ruleset.domains) == ["d"]
    with pytest.raises(RulesError, match="unknown key 'x'"):
        load([RuleFile("rules.conf", b"domain: d\nx: 1", stray=True)])


def test_strays_alone_are_no_rules():
    """A folder in which nothing is a rule file is an error: it would otherwise mean that nothing is limited."""
    with pytest.raises(RulesError, match="NOTES: not a rule file"):
        load([RuleFile("NOTES", b"text", stray=True)])


def test_a_name_that_is_not_utf8_can_be_printed(tmp_path):
    """File names are bytes; findings are text."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml")).write_text("x: 1")
    with pytest.raises(RulesError) as raised:
        load(read(tmp_path))
    str(raised.value).encode()


def test_a_huge_file_is_not_read_whole(tmp_path):
    """One byte more than allowed is enough to know."""
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(1_000 * MAX_BYTES)
    with pytest.raises(RulesError, match=r"huge\.yaml: larger than 16 MiB"):
        load(read(tmp_path))
