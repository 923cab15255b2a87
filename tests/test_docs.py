"""What the README and the reference page say is so: its commands exist, its settings too, its rules load, its files are there."""

import re
import shlex
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from ratelimit_svc.admin import compare, control, process, recent
from ratelimit_svc.cli import _parser
from ratelimit_svc.limiter.denials import Denial
from ratelimit_svc.metrics import page as metrics_page
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.tables import TABLES
from ratelimit_svc.settings import TABLE
from ratelimit_svc.settings import page as settings_page
from ratelimit_svc.settings.reference import ELSEWHERE, REFERENCE

DEBUG_PORT = next(setting.default for setting in TABLE if setting.variable == "DEBUG_PORT")
DEBUG_PATHS: dict[str, frozenset[str]] = {
    recent.REQUESTS: recent.PARAMETERS,
    compare.COMPARE: compare.PARAMETERS,
    process.RLCONFIG: frozenset(),
    process.STATS: frozenset({"format"}),
    process.STACKS: frozenset(),
    control.LOG_LEVEL: frozenset({"level"}),
    control.RELOAD: frozenset(),
}
"""What may be asked of the debug side, and how."""
PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
RULES = (PROJECT / "docs/rules.md").read_text()
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
PAGES = [*(PROJECT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md")), *sorted(PROJECT.glob("docs/*.md"))]


def blocks(page: str, language: str) -> list[str]:
    """A page's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_every_command_on_the_pages_is_one():
    """Each `ratelimit-svc …` line parses, each `make …` is a target, each `docker compose …` names services that exist, and each
    `curl …` asks what the debug side has.
    """
    targets = re.findall(r"^([a-z0-9-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    lines = [
        line
        for block in (block for page in PAGES for block in blocks(page.read_text(), "sh"))
        for line in block.splitlines()
    ]
    assert len(lines) >= 6
    for line in lines:
        words = [word for word in shlex.split(line) if not re.match(r"^[A-Z_]+=", word)]
        if words[0] == "make":
            assert words[1] in targets, line
        elif words[0] == "curl":
            url = urlsplit(f"http://{words[-1]}")
            assert str(url.port) == DEBUG_PORT, line
            assert parse_qs(url.query, keep_blank_values=True).keys() <= DEBUG_PATHS[url.path], line
        elif words[0] == "docker":
            assert services_of(line) <= COMPOSE["services"].keys(), line
        else:
            assert words[0] == "ratelimit-svc", line
            _parser().parse_args(words[1:])


EXPLAINED = sorted(
    {
        line
        for page in PAGES
        for block in blocks(page.read_text(), "sh")
        for line in block.splitlines()
        if re.match(r"ratelimit-svc (check|explain) ", line)
    }
)


@pytest.mark.parametrize("line", EXPLAINED)
def test_what_is_asked_of_rule_files_on_the_pages_is_answered(line, monkeypatch, capsys):
    """With the files that are there, and without a complaint."""
    monkeypatch.chdir(PROJECT)
    arguments = _parser().parse_args(shlex.split(line)[1:])
    assert arguments.command(arguments) == 0
    assert capsys.readouterr().out


def services_of(line: str) -> set[str]:
    """The services that a pipe of Compose commands is about."""
    named = set()
    for command in line.split(" | "):
        docker, compose, *words = shlex.split(command)
        assert (docker, compose) == ("docker", "compose")
        verb, *rest = [word for word in words if not word.startswith("-") and word != "*"]
        named |= set(rest[:1] if verb == "exec" else rest)
    return named


def test_every_metric_that_is_named_exists():
    """On the pages, and in what is there to be deployed."""
    names = {name for name, _ in metrics_page.TABLE}
    deployed = (path for path in PROJECT.glob("deploy/**/*") if path.suffix in {".yaml", ".json", ".sh"})
    named = [
        (path, name)
        for path in (*PAGES, *deployed)
        for name in re.findall(r"\bratelimit_svc_[a-z_]*[a-z]\b", path.read_text())
    ]
    assert len(named) >= 12
    for path, name in named:
        assert re.sub("_(bucket|sum|count)$", "", name) in names, f"{path}: {name}"


def test_every_make_target_named_in_prose_exists():
    """Also those in the running text, and `make help` says what each is for."""
    makefile = (PROJECT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`make ([a-z0-9-]+)[^`]*`", page.read_text()):
            assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target


def test_every_variable_in_the_readme_is_a_setting_with_that_default():
    """The table's rows are true."""
    settings = {setting.variable: setting for setting in TABLE}
    composed = set(re.findall(r"\$\{(\w+)", (PROJECT / "docker-compose.yml").read_text()))
    rows = re.findall(r"^\| (`[A-Z_`, ]+) \|([^|]*)\|", README, re.MULTILINE)
    assert len(rows) >= 8
    for names, defaults in rows:
        variables = re.findall(r"`([A-Z_]+)`", names)
        shown = [default.strip() for default in defaults.split(",")]
        for variable, default in zip(variables, shown, strict=True):
            assert settings[variable].default == ("" if default.startswith("(") else default), variable
    known = settings.keys() | composed | REFERENCE.keys() | set(ELSEWHERE)
    for page in PAGES:
        for variable in re.findall(r"`([A-Z]+_[A-Z_]+)`", page.read_text()):
            assert variable in known or variable.startswith("OTEL_"), f"{page.name}: {variable}"


def test_the_page_of_settings_is_current():
    """`make docs` has been run, and no setting is missing on it."""
    page = (PROJECT / "docs/settings.md").read_text()
    assert page == settings_page.text()
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)) == {setting.variable for setting in TABLE}


def test_every_rule_key_is_on_the_reference_page_and_every_key_there_is_one():
    """Its tables of keys are the loader's."""
    known = {name for table in TABLES.values() for name in table.rows}
    assert set(re.findall(r"^\| `(\w+)` \|", RULES, re.MULTILINE)) == known


@pytest.mark.parametrize("block", blocks(README, "yaml") + blocks(RULES, "yaml"))
def test_the_rules_on_the_pages_load(block):
    """Whoever copies them has rules that work."""
    assert load([RuleFile("page.md", block.encode())], strict=True).rules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    """Paths of the project in backquotes are there, and so is what links lead to, headings too."""
    for path in re.findall(r"`((?:config|deploy|tests|ratelimit_svc|proto)/[\w./-]*)`", page.read_text()):
        assert (PROJECT / path).exists(), path
    for link, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not heading or heading in headings(target.read_text()), f"{link}#{heading}"


def headings(page: str) -> set[str]:
    """How links name a page's headings."""
    texts = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in texts}


def test_the_page_on_the_debug_side_has_every_path():
    """And every parameter that has one of its own."""
    page = (PROJECT / "docs/debug.md").read_text()
    for path, parameters in DEBUG_PATHS.items():
        assert f"| `{path}" in page, path
        assert path == recent.REQUESTS or all(f"?{name}=" in page for name in parameters), path


def test_the_page_on_why_has_every_parameter_and_every_word_of_the_log():
    """What /debug/requests takes, what a denial's line says, and what the access log is told are on docs/why.md."""
    page = (PROJECT / "docs/why.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == recent.PARAMETERS
    (line,) = re.findall(r" msg=denied (.*)$", page, re.MULTILINE)
    assert set(re.findall(r"(\w+)=", line)) == set(Denial._fields)
    told = set(re.findall(r"ratelimit:(\w+)\)%", page))
    assert {"rule", "tenant", "reset"} <= told <= {"rule", "tenant", "reset", "descriptors", "metadata"}
