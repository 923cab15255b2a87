"""One load test, top to bottom: start a service unless there is one, drive it, read what it counted, judge, write it down."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ratelimit_svc.demo import shipped
from ratelimit_svc.demo.parts import Replica, valkey
from ratelimit_svc.loadtest import calls, counters, report, result, thresholds
from ratelimit_svc.loadtest.profile import Profile
from ratelimit_svc.loadtest.result import Result
from ratelimit_svc.loadtest.thresholds import Thresholds
from ratelimit_svc.loadtest.watch import Watch, pages_of


class GhzError(Exception):
    """ghz did not run to its end; the text has its words."""


@dataclass(frozen=True, slots=True)
class Target:
    """A service."""

    address: str
    """`host:port` of its gRPC side, or any other name that gRPC resolves."""
    metrics: Sequence[str]
    """The addresses of its counters: of one replica each, or of a host name that stands for all. None: they are not known."""
    words: str
    """What it is, for the report."""


@asynccontextmanager
async def own_service(folder: Path) -> AsyncIterator[Target]:
    """Start one replica with the demo's rules, and a Valkey."""
    async with (
        valkey(folder / "valkey") as store,
        Replica(folder / "replica", rules=shipped("demo.yaml"), redis_url=store.url) as replica,
    ):
        yield Target(replica.address, [f"{replica.http}/metrics"], "one replica and its Valkey on the machine of ghz")


async def run(profile: Profile, must: Thresholds, target: Target, *, ghz: str) -> Result:
    """Drive a service with ghz and judge what came of it.

    Raises:
        GhzError: ghz is not there, or failed.
        WatchError: the counters cannot be read.
        ValueError: ghz's report, or the counters, cannot be judged.
    """
    pages = [page for url in target.metrics for page in await pages_of(url)]
    watch = Watch(pages)
    started, load_average = datetime.now(UTC), os.getloadavg()[0]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtest-")))
        if pages:
            await stack.enter_async_context(watch)
        seen = calls.read(await driven(profile, target.address, ghz=ghz, folder=folder))
    looks = watch.looks
    counts = looks[-1].counts.since(looks[0].counts) if looks else None
    windows = (must.windows or {}).items() if looks else ()
    fullest = {rule: counters.fullest(looks, rule, round(window.seconds * 1e6)) for rule, window in windows}
    planned = profile.planned()
    return Result(
        profile=profile.name,
        service=target.words,
        started=f"{started:%Y-%m-%d %H:%M} UTC",
        load_average=round(load_average, 1),
        settings=profile.settings,
        planned=planned,
        calls=seen,
        looks=looks,
        counts=counts,
        fullest=fullest,
        verdicts=thresholds.judge(must, seen, planned=planned, counts=counts, fullest=fullest),
    )


async def driven(profile: Profile, address: str, *, ghz: str, folder: Path) -> dict[str, Any]:
    """Run ghz to its end and return its report; GhzError if there is none."""
    if (program := _absolute(ghz)) is None:
        raise GhzError(f"there is no {ghz} here: `make loadtest` builds it, which takes Go")
    config, out = folder / "ghz.json", folder / "report.json"
    config.write_text(json.dumps(profile.settings | _data(profile, folder)))
    argv: list[str | Path] = [program, "--config", config, "--format", "json", "--output", out, address]
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=profile.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode or not out.exists():
        raise GhzError(f"ghz: status {process.returncode}: {said.decode(errors='replace').strip()}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _absolute(program: str) -> Path | None:
    """Where a program is: it is run in the profile's folder, for the files that the profile names."""
    found = shutil.which(program)
    return Path(found).absolute() if found else None


def _data(profile: Profile, folder: Path) -> dict[str, str]:
    """Write the file of requests that a profile asks for, and return ghz's setting for it."""
    if profile.zipf is None:
        return {}
    file = folder / "requests.json"
    file.write_text(json.dumps(list(profile.zipf.drawn())))
    return {"data-file": str(file)}


def write(found: Result, folder: Path) -> tuple[Path, Path]:
    """Write the page and the JSON of a result, named after its profile."""
    folder.mkdir(parents=True, exist_ok=True)
    page, summary = folder / f"{found.profile}.html", folder / f"{found.profile}.json"
    page.write_text(report.page(found))
    summary.write_text(json.dumps(result.as_json(found), indent=2, ensure_ascii=False) + "\n")
    return page, summary
