"""The commands, run as a user runs them."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from ratelimit_svc import __version__
from ratelimit_svc.cli import _parser
from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.settings import TABLE
from tests.certificates import Files

CONFIG = Path(__file__).parents[1] / "config"

GOOD = """\
domain: shop
tenant: tenant
descriptors:
  - key: tenant
    value: gold
    rate_limit: {unit: minute, requests_per_unit: 3, name: gold plan}
  - key: free
    rate_limit: {unlimited: true}
"""


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `ratelimit-svc` and return its status and what it said."""
    command = [sys.executable, "-m", "ratelimit_svc", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


@pytest.fixture
def good(tmp_path) -> Path:
    """A good rule file."""
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def test_help_names_every_command_and_every_setting():
    """`--help` is complete: each setting with its variable and its default."""
    assert __version__ in run("--version").stdout
    for command in ("serve", "demo", "check", "explain", "schema", "settings", "hit"):
        assert command in run("--help").stdout
    wide = run("serve", "--help", env={**os.environ, "COLUMNS": "1000"})  # else lines end within RateLimit-Remaining
    text = " ".join(wide.stdout.split())
    for setting in TABLE:
        if setting.flag:
            assert setting.flag in text
            assert f"[{setting.variable}; default {setting.default or 'empty'}]" in text


def test_check_says_ok_or_every_finding_with_its_place(good, tmp_path):
    """Exit status 0 and a line; or 1 and a line per finding that an editor can jump to, all files together."""
    assert (run("check", good).returncode, run("check", good).stdout) == (0, "ok: 2 rules in 1 domains, 1 files\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "domain: other\ndescriptors:\n  - key: a\n    rate_limit: {unit: fortnight, requests_per_unit: -1}\n"
    )
    told = run("check", good, bad)
    assert told.returncode == 1
    assert told.stdout == ""
    lines = told.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{bad}:4: descriptors[0].rate_limit.") for line in lines)
    copy = tmp_path / "copy.yaml"
    copy.write_text(GOOD)
    assert "shop" in run("check", good, copy).stderr


def test_check_takes_folders_and_names_their_files_with_the_folder(tmp_path):
    """What is printed is a path that exists."""
    assert run("check", CONFIG).returncode == 0
    (tmp_path / "bad.yaml").write_text("domain: ''\n")
    assert run("check", tmp_path).stderr.startswith(f"{tmp_path / 'bad.yaml'}:1: `domain` is missing")
    assert run("check", tmp_path / "none").returncode == 1


def test_explain_says_which_rule_and_why_not_the_others(good):
    """Exit status 0 where a rule limits, 1 where none does, each with its reason."""
    found = run("explain", good, "shop", "tenant=gold")
    assert found.returncode == 0
    assert "shop/tenant=gold" in found.stdout
    assert "3 per minute" in found.stdout
    none = run("explain", good, "shop", "tenant=silver")
    assert none.returncode == 1
    assert "gold" in none.stdout
    assert run("explain", good, "shop", "tenant").returncode == 2
    assert "key=value" in run("explain", good, "shop", "tenant").stderr


def test_explain_takes_a_whole_request(good):
    """A lone + begins another descriptor, and the end says how they act together."""
    found = run("explain", good, "shop", "tenant=gold", "+", "free=1")
    assert found.returncode == 0
    assert "counted on all of these or on none, and all must fit: shop/tenant=gold" in found.stdout
    assert run("explain", good, "shop", "a=1", "+", "b=1").returncode == 1
    assert run("explain", good, "shop", "tenant=gold", "+", "b").returncode == 2


ODD = "domain: odd\ndescriptors: [{key: k, rate_limit: {unit: day}}]\n"


def test_check_is_strict_unless_told_otherwise(tmp_path):
    """What `serve` only warns of is wrong; --lenient shows the warnings, and what would be loaded."""
    odd = tmp_path / "odd.yaml"
    odd.write_text(ODD)
    (tmp_path / "NOTES").write_text("not rules")
    strict, lenient = run("check", tmp_path), run("check", "--lenient", tmp_path)
    assert (strict.returncode, strict.stdout) == (1, "")
    assert (lenient.returncode, lenient.stdout) == (0, "ok: 1 rules in 1 domains, 2 files\n")
    assert strict.stderr.splitlines() == [line.removeprefix("warning: ") for line in lenient.stderr.splitlines()]
    assert strict.stderr.splitlines()[0].startswith(
        f"{odd}:2: descriptors[0].rate_limit: `requests_per_unit` is missing"
    )
    assert strict.stderr.splitlines()[1].startswith(f"{tmp_path / 'NOTES'}: not a rule file: ignored")
    explained = run("explain", odd, "odd", "k=1")
    assert explained.returncode == 0
    assert explained.stderr.startswith(f"warning: {odd}:2")


def test_domains_are_merged_and_algorithms_defaulted_as_the_service_would(tmp_path):
    """`check` and `explain` can be told what the service is told by its settings."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(
            f"domain: d\ndescriptors: [{{key: {name}, rate_limit: {{unit: day, requests_per_unit: 1}}}}]\n"
        )
    assert run("check", tmp_path).returncode == 1
    assert run("check", "--merge-domains", tmp_path).stdout == "ok: 2 rules in 1 domains, 2 files\n"
    found = run("explain", "--merge-domains", "--default-algorithm", "fixed_window", tmp_path, "d", "b=1")
    assert "rule d/b: 1 per day, fixed windows since the epoch" in found.stdout


def test_schema_prints_the_schema_or_the_page():
    """Both are what the repository has."""
    assert run("schema").stdout == (CONFIG.parent / "docs/rules.schema.json").read_text()
    assert run("schema", "--page").stdout == (CONFIG.parent / "docs/rules.md").read_text()


def test_a_switch_may_stand_alone():
    """`--strict` is `--strict true`, and does not take what follows it."""
    parse = _parser().parse_args
    assert parse(["serve", "--strict"]).strict == "true"
    assert parse(["serve", "--strict", "false"]).strict == "false"
    assert parse(["serve", "--strict", "--merge-domain-config"]).merge_domain_config == "true"
    assert parse(["serve"]).strict is None


@pytest.mark.parametrize(
    ("manner", "line"),
    [
        (["--check"], "   shop/tenant=gold: 3 per minute, sliding in 60 slices of 1 s; is only looked at; window "),
        (["--refund"], "   shop/tenant=gold: 3 per minute, sliding in 60 slices of 1 s; is given hits back; window "),
        (
            ["--limit", "5/hour"],
            "   shop/tenant=gold#override: 5 per hour, sliding in 60 slices of 1 min; counts its hits",
        ),
    ],
)
def test_explain_says_what_a_request_does_that_asks_in_another_manner(good, manner, line):
    """A check, a refund, a limit brought along: which rule then counts, how, and in which window."""
    told = run("explain", good, "shop", "tenant=gold", *manner)
    assert told.returncode == 0
    assert told.stdout.splitlines()[-2] == "asked like this:"
    assert told.stdout.splitlines()[-1].startswith(line)


async def test_hit_checks_gives_back_and_brings_limits_along(good, tmp_path):
    """What Envoy can ask, a person can: a check, a refund, a limit in place of the rule's."""
    async with Replica(tmp_path / "replica", rules=good) as replica:

        async def remaining(*arguments: str) -> str:
            told = await asyncio.to_thread(run, "hit", replica.address, "shop", "tenant=gold", *arguments)
            return told.stdout.splitlines()[1].split(", ")[2]

        assert await remaining("--hits", "2") == "1 remaining"
        assert await remaining("--check") == "1 remaining"
        assert await remaining("--refund") == "2 remaining"
        assert await remaining("--limit", "9/minute") == "7 remaining"
        assert await remaining("--check") == "1 remaining"


async def test_hit_asks_a_running_service(good, tmp_path):
    """Status 0 while it passes, 1 once it is over the limit, 2 where there is no answer."""
    async with Replica(tmp_path / "replica", rules=good) as replica:
        first, third, error = await asyncio.gather(
            asyncio.to_thread(run, "hit", replica.address, "shop", "tenant=gold", "+", "free=1", "x=y", "+", "free=2"),
            asyncio.to_thread(run, "hit", replica.address, "shop", "tenant=other"),
            asyncio.to_thread(run, "hit", replica.address, "", "tenant=other"),
        )
        again = await asyncio.to_thread(
            run, "hit", replica.address, "shop", "tenant=gold", "--hits", "2", "--times", "2"
        )
    assert first.returncode == 0
    assert first.stdout.splitlines() == [
        "OK",
        "  OK, limit 3 per minute (gold plan), 2 remaining, reset in 61 s",
        "  OK, no limit asked",
        "  OK, unlimited",
    ]
    assert (third.returncode, third.stdout) == (0, "OK\n  OK, no limit asked\n")
    assert error.returncode == 2
    assert "rate limit domain must not be empty" in error.stderr
    assert again.returncode == 1
    assert again.stdout.splitlines()[0] == "OK"
    assert again.stdout.splitlines()[2] == "OVER_LIMIT"
    nobody = await asyncio.to_thread(run, "hit", replica.address, "shop", "tenant=gold", "--timeout", "0.2")
    assert nobody.returncode == 2
    assert "Traceback" not in nobody.stderr


async def test_hit_speaks_tls(good, tmp_path):
    """With the root's file it gets through, also where the certificate has another name than the address; without, not."""
    files = Files(tmp_path)
    files.put(trustme.CA())
    env = {
        "GRPC_SERVER_USE_TLS": "true",
        "GRPC_SERVER_TLS_CERT": str(files.cert),
        "GRPC_SERVER_TLS_KEY": str(files.key),
    }
    async with Replica(tmp_path / "replica", rules=good, env=env) as replica:
        hit = ["hit", replica.address, "shop", "tenant=gold"]
        private = await asyncio.to_thread(run, *hit, "--tls-ca", files.ca)
        named = await asyncio.to_thread(run, *hit, "--tls-ca", files.ca, "--tls-name", "localhost")
        wrong = await asyncio.to_thread(run, *hit, "--tls-ca", files.ca, "--tls-name", "other.example")
        public = await asyncio.to_thread(run, *hit, "--tls")
    assert [told.returncode for told in (private, named, wrong, public)] == [0, 0, 2, 2]
    assert "UNAVAILABLE" in public.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["serve", "--port", "http"], "--port='http': must be"),
        (["serve", "--redis-url", "nowhere"], "REDIS_URL"),
        (["serve", "--store-timeout", "100"], "--store-timeout='100': must be"),
        (["hit", "127.0.0.1:1", "shop", "tenant"], "an entry is written key=value"),
        (["hit", "127.0.0.1:1", "shop", "a=b", "--hits", "0"], "must be a whole number from 1"),
        (["hit", "127.0.0.1:1", "shop", "a=b", "--limit", "5/fortnight"], "a limit is written like 5/minute"),
        (["hit", "127.0.0.1:1", "shop", "a=b", "--tls-cert", "x"], "--tls-cert and --tls-key go together"),
        (["hit", "127.0.0.1:1", "shop", "a=b", "--tls-ca", "/nowhere/x.pem"], "/nowhere/x.pem"),
        (["nonsense"], "invalid choice"),
    ],
)
def test_a_wrong_argument_is_told_in_one_sentence(arguments, text):
    """Exit status 2, what was given and what would be right; no traceback."""
    told = run(*arguments)
    assert told.returncode == 2
    assert text in told.stderr
    assert "Traceback" not in told.stderr
