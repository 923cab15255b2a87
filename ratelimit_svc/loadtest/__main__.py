"""The command: `make loadtest`, or `python -m ratelimit_svc.loadtest deploy/loadtest/profiles/surge.json …`."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ratelimit_svc.demo.child import ChildError
from ratelimit_svc.loadtest import profile, thresholds
from ratelimit_svc.loadtest.report import page
from ratelimit_svc.loadtest.result import Result
from ratelimit_svc.loadtest.run import GhzError, Target, own_service, run, write
from ratelimit_svc.loadtest.watch import WatchError

HELD, FAILED, NOT_RUN = 0, 1, 2
"""Exit statuses: every threshold held; one did not; there is nothing to judge."""

STDOUT = Path("-")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one load test, say what came of it, and return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        load = profile.read(arguments.profile, arguments.set)
        limits = arguments.thresholds or arguments.profile.parents[1] / "thresholds.json"
        must = thresholds.read(limits, load.name, arguments.threshold)
        found = asyncio.run(_run(arguments, load, must))
    except (ValueError, KeyError, OSError, GhzError, WatchError, ChildError) as why:
        print(f"loadtest: {why}", file=sys.stderr)
        return NOT_RUN
    if arguments.out == STDOUT:
        print(page(found), end="")
    else:
        print(text(found), *map(str, write(found, arguments.out)), sep="\n")
    return HELD if found.held else FAILED


async def _run(arguments: argparse.Namespace, load: profile.Profile, must: thresholds.Thresholds) -> Result:
    if arguments.target:
        target = Target(arguments.target, arguments.metrics.replace(",", " ").split(), arguments.name)
        return await run(load, must, target, ghz=arguments.ghz)
    with tempfile.TemporaryDirectory(prefix="ratelimit-svc-") as folder:
        async with own_service(Path(folder)) as target:
            return await run(load, must, target, ghz=arguments.ghz)


def text(found: Result) -> str:
    """Return what people read on a terminal."""
    codes = ", ".join(f"{number} {code}" for code, number in found.calls.codes.items())
    lines = [f"{found.profile}: {found.calls.count} calls: {codes}"]
    if found.counts:
        counts = found.counts
        lines.append(
            f"{counts.admitted} admitted, {counts.denied} denied; {counts.by_policy} of them without the store"
        )
    for verdict in found.verdicts:
        word = {True: "held  ", False: "FAILED", None: "?     "}[verdict.held]
        seen = "not known" if verdict.seen is None else f"{verdict.seen:.6g}"
        lines.append(f"{word} {verdict.name}: {seen}, {'at least' if verdict.least else 'at most'} {verdict.bound:g}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="loadtest", description="Drive a rate-limit service with ghz, and judge it.")
    parser.add_argument("profile", type=Path, help="what to send: a configuration file of ghz")
    parser.add_argument(
        "--target", default="", help="the service's gRPC side, host:port; without it one is started here"
    )
    parser.add_argument("--metrics", default="", help="its counters: URLs of /metrics; without them they are not known")
    parser.add_argument("--name", default="a service elsewhere", help="what the service is, for the report")
    parser.add_argument("--thresholds", type=Path, help="default: thresholds.json beside the profile's folder")
    parser.add_argument("--threshold", action="append", default=[], metavar="NAME=NUMBER", help="another bound")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of ghz")
    where = "the folder of the report, as HTML and JSON: %(default)s; `-`: print the HTML"
    parser.add_argument("--out", type=Path, default=Path("dist/loadtest"), help=where)
    parser.add_argument("--ghz", default="ghz", help="the program: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
