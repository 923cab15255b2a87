"""`make chaos`: run it, judge it, write docs/outages.md and its picture. Status 1 if an invariant is broken."""

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.outages import report
from tests.outages.chaos import chaos

SEED, SECONDS = 4, 120


def main() -> None:
    """Read the arguments, run, write."""
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the schedule and the load [{SEED}]")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"length of the run [{SECONDS}]")
    parser.add_argument("--folder", type=Path, default=Path("docs"), help="where outages.md and outages.svg go [docs]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        outcome = uvloop.run(chaos(Path(folder), seed=arguments.seed, seconds=arguments.seconds))
    (arguments.folder / "outages.md").write_text(report.page(outcome))
    (arguments.folder / "outages.svg").write_text(report.picture(outcome))
    verdicts = outcome.verdicts()
    print(report.table(verdicts), report.faults(outcome.happened), sep="\n\n")
    print(f"\n{arguments.folder}/outages.md and outages.svg have it all")
    sys.exit(any(one.findings for one in verdicts))


if __name__ == "__main__":
    main()
