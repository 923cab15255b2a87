"""One replica for all attacks, and its honest client."""

import sys
from collections.abc import Iterator

import pytest

from ratelimit_svc.demo.parts import Replica
from tests.attacks.target import HEADING, RULES, Target
from tests.waiting import for_the_session


@pytest.fixture(scope="session")
def replica(tmp_path_factory) -> Iterator[Replica]:
    """A replica as users run it."""
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "rules.yaml").write_text(RULES)
    with for_the_session(Replica(folder / "replica", rules=folder / "rules.yaml")) as started:
        yield started


@pytest.fixture(scope="session")
def attacked(replica, tmp_path_factory):
    """What is attacked, by all tests in turn. Prints the report at the end (`-s` shows it)."""
    if sys.platform != "linux":
        pytest.skip("figures are read from /proc")
    target = Target(replica, tmp_path_factory.mktemp("honest") / "log")
    yield target
    target.close()
    print("", HEADING, *(figures.row() for figures in target.figures), sep="\n")


@pytest.fixture
def target(attacked):
    """What is attacked. When the offenders have gone, nothing of them is left."""
    yield attacked
    attacked.until_alone()
