"""The reference implementation's programs, run under their names as an operator's scripts run them."""

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.shims import ANSWER_WITHIN_S
from tests.certificates import CLIENT, Files, chain
from tests.contracts.pod import ConfigMap

RULES = """\
domain: shop
descriptors:
  - {key: tenant, value: gold, rate_limit: {unit: day, requests_per_unit: 2, name: gold "plan"}}
  - {key: free, rate_limit: {unlimited: true}}
"""


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as it was installed."""
    command = [str(Path(sys.executable).parent / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def rules(tmp_path) -> Path:
    """A folder with a rule file."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "shop.yaml").write_text(RULES)
    return folder


# ── ratelimit ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ratelimit_takes_no_arguments():
    """Whoever gives some is told where settings come from, instead of running a service that ignores them."""
    told = run("ratelimit", "--port", "80")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith(
        "ratelimit: takes no arguments, but got --port 80. It is told by environment variables;"
    )


# ── ratelimit_client ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ratelimit_client_prints_the_response_as_text(rules, tmp_path):
    """Its flags, then the whole response in one line; status 0 also where it is over the limit, and each call is one hit."""
    async with Replica(tmp_path / "replica", rules=rules) as replica:

        async def told(*arguments: str) -> list[str]:
            asked = ["-dial_string", replica.address, "--domain=shop", *arguments]
            done = await asyncio.to_thread(run, "ratelimit_client", *asked)
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout.splitlines()

        first = await told("-descriptors", "tenant=gold", "-descriptors=free=1", "-oltp-protocol", "grpc")
        second, third = [(await told("-descriptors", "tenant=gold"))[-1] for _ in range(2)]
        unknown = (await told("-descriptors", "tenant=gold,free=1"))[-1]
    assert first[:-1] == [
        'Flag: --descriptors="tenant=gold free=1"',
        f'Flag: --dial_string="{replica.address}"',
        'Flag: --domain="shop"',
        'Flag: --grpc-cert-file=""',
        'Flag: --grpc-key-file=""',
        'Flag: --grpc-server-ca-file=""',
        'Flag: --grpc-use-tls="false"',
        'Flag: --oltp-protocol="grpc"',
    ]
    limit = r'current_limit:{requests_per_unit:2 unit:DAY name:"gold \"plan\""}'
    assert first[-1].startswith(
        f"response: overall_code:OK statuses:{{code:OK {limit} limit_remaining:1 duration_until_"
    )
    assert first[-1].endswith("} statuses:{code:OK limit_remaining:4294967295}")
    assert second.startswith(f"response: overall_code:OK statuses:{{code:OK {limit} duration_until_reset:{{seconds:")
    assert third.startswith(
        f"response: overall_code:OVER_LIMIT statuses:{{code:OVER_LIMIT {limit} duration_until_reset:"
    )
    assert unknown == "response: overall_code:OK statuses:{code:OK}"


async def test_ratelimit_client_tells_errors_as_go_does(rules, tmp_path):
    """On standard output, with status 1: the code in Go's words, and what the service said."""
    async with Replica(tmp_path / "replica", rules=rules) as replica:
        refused = await asyncio.to_thread(
            run, "ratelimit_client", "-dial_string", replica.address, "-descriptors", "a=b"
        )
    gone = run("ratelimit_client", "-dial_string", replica.address, "-domain", "shop", "-descriptors", "a=b")
    assert (refused.returncode, gone.returncode) == (1, 1)
    assert refused.stdout.endswith(
        "request error: rpc error: code = Unknown desc = rate limit domain must not be empty\n"
    )
    assert "request error: rpc error: code = Unavailable desc = " in gone.stdout


async def test_ratelimit_client_asks_over_tls(rules, tmp_path):
    """With a certificate of its own where one is asked for; without one it is refused."""
    root, files = trustme.CA(), Files(tmp_path)
    files.put(root)
    own = root.issue_cert(CLIENT)
    (tmp_path / "own.pem").write_bytes(chain(own))
    (tmp_path / "own.key").write_bytes(own.private_key_pem.bytes())
    env = {
        "GRPC_SERVER_USE_TLS": "true",
        "GRPC_SERVER_TLS_CERT": str(files.cert),
        "GRPC_SERVER_TLS_KEY": str(files.key),
        "GRPC_CLIENT_TLS_CACERT": str(files.ca),
    }
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        asked = ["-dial_string", replica.address, "-domain", "shop", "-descriptors", "tenant=gold"]
        asked += ["-grpc-use-tls", "-grpc-server-ca-file", str(files.ca)]
        ours = ["-grpc-cert-file", str(tmp_path / "own.pem"), "-grpc-key-file", str(tmp_path / "own.key")]
        known = await asyncio.to_thread(run, "ratelimit_client", *asked, *ours)
        unknown = await asyncio.to_thread(run, "ratelimit_client", *asked)
    assert known.returncode == 0
    assert "response: overall_code:OK" in known.stdout
    assert unknown.returncode == 1
    assert "code = Unavailable" in unknown.stdout


@pytest.mark.slow
def test_ratelimit_client_waits_for_ten_seconds():
    """And no longer, for someone who listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = ["-dial_string", f"127.0.0.1:{silent.getsockname()[1]}", "-domain", "shop", "-descriptors", "a=b"]
        begun = time.monotonic()
        told = run("ratelimit_client", *asked)
    assert time.monotonic() - begun >= ANSWER_WITHIN_S == 10
    assert told.returncode == 1
    assert "request error: rpc error: code = " in told.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-descriptors", "a"], 'invalid value "a" for flag -descriptors: invalid descriptor list'),
        (["-descriptors", "a=b=c"], 'invalid value "a=b=c" for flag -descriptors: invalid descriptor list'),
        (["-nope"], "flag provided but not defined: -nope"),
        (["shop"], "unexpected argument: 'shop'"),
    ],
)
def test_ratelimit_client_tells_wrong_flags(arguments, text):
    """Status 2, what is wrong, and the usage."""
    told = run("ratelimit_client", *arguments)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.splitlines()[:2] == [text, "Usage of ratelimit_client:"]


def test_ratelimit_client_needs_files_that_are_there():
    """A certificate that cannot be read is told in one line."""
    told = run("ratelimit_client", "-grpc-use-tls", "-grpc-server-ca-file", "/nowhere/ca.pem", "-descriptors", "a=b")
    assert told.returncode == 1
    assert told.stdout.splitlines()[-1].startswith("error connecting: ")
    assert "/nowhere/ca.pem" in told.stdout
    assert told.stderr == ""


# ── ratelimit_config_check ────────────────────────────────────────────────────────────────────────────────────────────


def test_ratelimit_config_check_says_ok(rules):
    """Each file, and that all are fine."""
    told = run("ratelimit_config_check", "-config_dir", rules)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines() == [
        "checking rate limit configs...",
        f"loading config directory: {rules}",
        f"opening config file: {rules / 'shop.yaml'}",
        "all rate limit configs ok",
    ]


def test_ratelimit_config_check_merges_domains_if_told(rules):
    """As the service does with MERGE_DOMAIN_CONFIG."""
    (rules / "more.yaml").write_text(
        "domain: shop\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1}}]\n"
    )
    apart = run("ratelimit_config_check", "-config_dir", rules)
    merged = run("ratelimit_config_check", "-config_dir", rules, "-merge_domain_configs")
    assert (apart.returncode, merged.returncode) == (1, 0)
    assert f"error loading rate limit configs: {rules}/" in apart.stdout


@pytest.mark.parametrize("text", ["domain: ''\n", "'''", "domain: d\nnope: 1\n"])
def test_ratelimit_config_check_tells_every_mistake_without_a_trace(rules, text):
    """A mistake in meaning, in YAML, or in a key's name: status 1, the file and the line."""
    (rules / "bad.yaml").write_text(text)
    told = run("ratelimit_config_check", "-config_dir", rules)
    assert (told.returncode, told.stderr) == (1, "")
    assert f"\nerror loading rate limit configs: {rules / 'bad.yaml'}:" in told.stdout


@pytest.mark.parametrize("arguments", [[], ["-config_dir", "/nowhere/rules"]])
def test_ratelimit_config_check_needs_a_folder(arguments):
    """Status 1, and the folder's name."""
    told = run("ratelimit_config_check", *arguments)
    assert (told.returncode, told.stderr) == (1, "")
    assert told.stdout.splitlines()[-1].startswith("error opening directory ")


def test_ratelimit_config_check_reads_a_mounted_config_map(tmp_path):
    """Its visible files, and not the folders behind them that a kubelet keeps them in."""
    folder = tmp_path / "mounted"
    ConfigMap(folder, {"shop.yaml": RULES})
    told = run("ratelimit_config_check", "-config_dir", folder)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[2:] == [
        f"opening config file: {folder / 'shop.yaml'}",
        "all rate limit configs ok",
    ]


def test_ratelimit_config_check_wants_rules_in_its_folder(tmp_path):
    """An empty folder is a mistake, most often in its name."""
    told = run("ratelimit_config_check", "-config_dir", tmp_path)
    assert told.returncode == 1
    assert "no rule file in this folder" in told.stdout


def test_help_is_on_standard_error_with_status_0():
    """As Go's programs have it."""
    told = run("ratelimit_config_check", "-help")
    assert (told.returncode, told.stdout) == (0, "")
    assert told.stderr.startswith("Usage of ratelimit_config_check:\n  -config_dir string\n")
