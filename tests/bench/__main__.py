"""`make bench`: run every contender under every workload, in turn, and say what it cost. See docs/bench.md."""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import uvloop

from tests.bench import report
from tests.bench.arguments import add_store, count, in_words, new_file, seconds
from tests.bench.cell import Bench, cores, measure, on_core
from tests.bench.servers import DEFAULT_ENGINE, Contender, engine, engine_with_cluster, peer
from tests.bench.workloads import WORKLOADS
from tests.engines import ENGINES


def main() -> None:
    """Read the arguments, run, print."""
    arguments = _parser().parse_args()
    peers = arguments.peer or []
    contenders = [*peers, *(engine(name) for name in arguments.engine or [DEFAULT_ENGINE])]
    if arguments.cluster:
        contenders.append(engine_with_cluster())
    if len({one.name for one in contenders}) < len(contenders):
        raise SystemExit("two contenders have one name")
    first = contenders[0].name
    core, others = cores()
    with in_words(), tempfile.TemporaryDirectory(prefix="bench-") as folder, on_core(others):
        bench = Bench(Path(folder), arguments.seconds, arguments.warm_up, core, others, arguments.store)
        rounds = uvloop.run(run(bench, contenders, arguments.workload or list(WORKLOADS), arguments.rounds))
    print(report.table(rounds, first))
    if arguments.markdown:
        print(f"\n{report.markdown(rounds, first)}")
    about = {"seconds": bench.seconds, "store": bench.store, "commands": {one.name: one.shown for one in contenders}}
    arguments.json.write_text(json.dumps(report.as_json(rounds, **about), indent=1) + "\n")
    print(f"\nall figures: {arguments.json}")


async def run(bench: Bench, contenders: list[Contender], workloads: list[str], rounds: int) -> report.Rounds:
    """Run all cells: for each workload, each round, each contender in turn, so that all meet the same noise.

    Error handling: what goes wrong with one contender ends the run and says which: a table with holes is read as if it had none.
    """
    done = defaultdict(list)
    for workload in workloads:
        for number in range(1, rounds + 1):
            for contender in contenders:
                cell = await measure(bench, contender, WORKLOADS[workload])
                done[workload, contender.name].append(cell)
                shown = f"{cell.requests_per_s:,.0f} req/s, {cell.server_us:.1f} µs"
                print(f"{workload} {number}/{rounds} {contender.name}: {shown}", file=sys.stderr, flush=True)
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description="Servers side by side under the same load.")
    parser.add_argument(
        "--engine",
        action="append",
        choices=ENGINES,
        help=f"an engine of ours, as ENGINE names it; repeatable [{DEFAULT_ENGINE}]",
    )
    parser.add_argument(
        "--peer",
        action="append",
        type=peer,
        metavar="NAME=COMMAND",
        help="any server that takes the reference implementation's variables; repeatable. Ratios are against the first",
    )
    parser.add_argument(
        "--cluster",
        action="store_true",
        help="also the service with a Cluster of three primaries and three replicas in place of one Redis",
    )
    parser.add_argument(
        "--workload", action="append", choices=WORKLOADS, help="only these; repeatable [all]", metavar="NAME"
    )
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="medians are of so many [3]")
    parser.add_argument("--seconds", type=seconds, default=5.0, metavar="S", help="length of each measurement [5]")
    parser.add_argument("--warm-up", type=seconds, default=2.0, metavar="S", help="load before it, not measured [2]")
    add_store(parser)
    parser.add_argument("--markdown", action="store_true", help="also print a table for the README")
    parser.add_argument(
        "--json", type=new_file, default=Path("bench.json"), metavar="FILE", help="all figures [bench.json]"
    )
    return parser


if __name__ == "__main__":
    main()
