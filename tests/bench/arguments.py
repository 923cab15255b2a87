"""What the bench's commands are told, and how they say that they cannot do it: in a sentence, before anything is started."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratelimit_svc.demo.child import ChildError
from tests.bench.cell import STORES
from tests.bench.servers import DEFAULT_ENGINE, Contender, engine, peer
from tests.engines import ENGINES

NOT_RUN = 2
"""Exit status: nothing was measured. argparse's own, too; 1 is a finding's."""


def count(text: str) -> int:
    """Read how many."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    """Read how long."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds, more than 0")
    return number


def new_file(text: str) -> Path:
    """Read where to write, before minutes have gone."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: must be a file in a folder that exists")
    return path


def add_store(parser: argparse.ArgumentParser) -> None:
    """Let a command choose what windows are kept in."""
    parser.add_argument("--store", choices=STORES, default="valkey", help="what windows are kept in [valkey]")


def add_contender(parser: argparse.ArgumentParser) -> None:
    """Let a command take one server: an engine of ours, or a peer."""
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--engine", default=DEFAULT_ENGINE, choices=ENGINES, help=f"of ours [{DEFAULT_ENGINE}]")
    one.add_argument("--peer", type=peer, metavar="NAME=COMMAND", help="a server in its place")


def chosen(arguments: argparse.Namespace) -> Contender:
    """Return that server."""
    found: Contender = arguments.peer or engine(arguments.engine)
    return found


@contextmanager
def in_words() -> Iterator[None]:
    """End with a sentence and `NOT_RUN` where a server does not start."""
    try:
        yield
    except ChildError as why:
        print(why, file=sys.stderr)
        sys.exit(NOT_RUN)
