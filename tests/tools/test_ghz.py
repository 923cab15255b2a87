"""`make loadtest` with the real ghz: every profile, quicker and shorter than it is meant, and a judge that can say no."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from ratelimit_svc.demo import shipped
from ratelimit_svc.demo.child import free_port
from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.loadtest.__main__ import FAILED, HELD, NOT_RUN
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "deploy/loadtest/profiles").glob("*.json"))
PATIENT = ["--set", "timeout=5s", "--threshold", "p99_ms=5000", "--threshold", "sent_share=0.5"]
"""A machine that runs tests stalls now and then: here counts are judged, not times."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replica(tmp_path_factory, valkey_server):
    """One replica with the demo's rules, which waits for its store as long as a stall may take."""
    folder = tmp_path_factory.mktemp("replica")
    env = PATIENCE | {"LOG_LEVEL": "error"}
    async with Replica(folder, rules=shipped("demo.yaml"), redis_url=valkey_server.url, env=env) as running:
        yield running


@pytest.fixture
def loadtest(tmp_path, ghz):
    """The command: returns its exit status, what it wrote as JSON, its page, and what it said."""

    async def run(profile, *arguments):
        file = ROOT / f"deploy/loadtest/profiles/{profile}.json"
        command = [sys.executable, "-m", "ratelimit_svc.loadtest", file, "--ghz", ghz, "--out", tmp_path, *arguments]
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT
        )
        said, _ = await process.communicate()
        summary, page = tmp_path / f"{profile}.json", tmp_path / f"{profile}.html"
        found = json.loads(summary.read_text()) if summary.exists() else None
        return process.returncode, found, page.read_text() if page.exists() else "", said.decode()

    return run


def of(replica, *, metrics=True):
    """The arguments that name a replica."""
    return ["--target", replica.address, *(["--metrics", f"{replica.http}/metrics"] if metrics else [])]


def short(profile):
    """A fifth of a profile's rate or number, for two seconds, as settings."""
    settings = json.loads((ROOT / f"deploy/loadtest/profiles/{profile}.json").read_text())
    rates = ("rps", "load-start", "load-step", "load-end", "total")
    fewer = {name: settings[name] // 5 for name in rates if name in settings}
    fewer |= {"duration": "2s"} if "duration" in settings else {}
    fewer |= {name: min(settings[name], 100) for name in ("concurrency", "connections")}
    return [word for name, value in fewer.items() for word in ("--set", f"{name}={value}")]


@pytest.mark.parametrize("profile", PROFILES)
async def test_ghz_and_the_service_count_the_same(loadtest, replica, profile):
    """Every call is an answer, every answer is in the service's counters, and every threshold holds."""
    status, found, page, said = await loadtest(profile, *of(replica), *short(profile), *PATIENT)
    assert status == HELD, said
    counted = found["counters"]
    assert found["codes"] == {"OK": counted["requests"]}
    assert counted["admitted"] + counted["denied"] == counted["requests"] > 20
    assert sum(number for name, number in counted["rules"].items() if name.endswith(" allowed")) == counted["admitted"]
    assert counted["denied"] == sum(number for name, number in counted["rules"].items() if name.endswith(" denied"))
    assert found["planned"] / 2 <= counted["requests"] <= 1.1 * found["planned"]  # at the end it sends a few more
    assert "held</span></h1>" in page


async def test_the_profiles_ask_what_they_are_called_by(loadtest, replica):
    """Unique keys are never denied, a flood of denials nearly always, and Zipf's tenants now and then."""
    admitted = {}
    for profile in ("unique", "denials", "zipf"):
        _, found, _, said = await loadtest(profile, *of(replica), *short(profile), *PATIENT)
        assert found, said
        admitted[profile] = found["counters"]["admitted"] / found["counters"]["requests"]
    assert admitted["unique"] == 1
    assert admitted["denials"] < 0.2 < admitted["zipf"] < 0.98


async def test_an_impossible_threshold_fails(loadtest, replica):
    """The exit status says so, and the page and the JSON name which it was."""
    status, found, page, said = await loadtest(
        "steady", *of(replica), *short("steady"), *PATIENT, "--threshold=p50_ms=0"
    )
    assert status == FAILED, said
    assert [row["name"] for row in found["thresholds"] if row["held"] is False] == ["p50_ms"]
    assert "FAILED p50_ms" in said
    assert "failed</span></h1>" in page


async def test_a_window_that_holds_too_much_fails(tmp_path, loadtest):
    """A service whose rules allow three times of what the thresholds say is found out by its own counters."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(shipped("demo.yaml").read_text().replace("requests_per_unit: 10,", "requests_per_unit: 30,"))
    async with Replica(tmp_path / "generous", rules=rules) as generous:
        status, found, _, said = await loadtest("denials", *of(generous), *short("denials"), *PATIENT)
    assert status == FAILED, said
    (over,) = (row for row in found["thresholds"] if row["held"] is False)
    assert (over["name"], over["bound"]) == ("shop/tenant=bronze", 10)
    assert 10 < over["seen"] <= 30


async def test_a_service_without_our_counters_is_judged_by_the_rest(loadtest, replica):
    """As the reference implementation is: with no counters named they are not known, and fail nobody."""
    status, found, _, said = await loadtest("steady", *of(replica, metrics=False), *short("steady"), *PATIENT)
    assert status == HELD, said
    assert found["counters"] is None
    held = {row["name"]: row["held"] for row in found["thresholds"]}
    assert (held["p99_ms"], held["policy_share"], held["shop/tenant=gold"]) == (True, None, None)


async def test_counters_that_are_somebody_elses_are_an_error(loadtest, replica):
    """A page that is there and has none of them; nothing is judged."""
    wrong = ["--target", replica.address, "--metrics", f"{replica.http}/healthcheck"]
    status, found, _, said = await loadtest("steady", *wrong, *short("steady"))
    assert (status, found) == (NOT_RUN, None)
    assert "leave METRICS empty" in said


async def test_a_service_that_is_not_there_is_an_error(loadtest):
    """ghz says why, and its words are shown."""
    nobody = ["--target", f"127.0.0.1:{free_port()}", "--set", "connect-timeout=300ms"]
    status, found, _, said = await loadtest("steady", *nobody, *short("steady"))
    assert (status, found) == (NOT_RUN, None) or found["codes"].keys() == {"Unavailable"}, said


async def test_the_arguments_of_the_job_work(tmp_path, replica, ghz):
    """With the files of its ConfigMap in one folder, as they are mounted; what it prints is the page and nothing else."""
    _, job = yaml.safe_load_all((ROOT / "deploy/loadtest/job.yaml").read_text())
    (config,) = yaml.safe_load((ROOT / "deploy/loadtest/kustomization.yaml").read_text())["configMapGenerator"]
    for name in config["files"]:
        shutil.copy(ROOT / "deploy/loadtest" / name, tmp_path)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    arguments = [argument.replace("/load/", f"{tmp_path}/") for argument in container["args"]]
    command = [
        sys.executable,
        "-m",
        "ratelimit_svc.loadtest",
        *arguments,
        "--ghz",
        ghz,
        *of(replica),
        *short("surge"),
        *PATIENT,
    ]
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.PIPE, cwd=ROOT)
    page, _ = await process.communicate()
    assert process.returncode == HELD
    assert page.decode().startswith("<!doctype html>")
    assert page.decode().endswith("</main>\n")


async def test_without_a_target_it_starts_a_service_itself(loadtest):
    """With a Valkey, and stops both."""
    began = time.monotonic()
    status, found, _, said = await loadtest("burst", *short("burst"), *PATIENT)
    assert status in (HELD, FAILED), said  # its store timeout is the usual one: a stall may fail it
    assert found["codes"] == {"OK": 1000}
    assert found["counters"]["requests"] == 1000
    assert time.monotonic() - began < 60
