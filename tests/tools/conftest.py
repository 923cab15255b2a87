"""The programs, and a service for them. Without a program nothing here is skipped: the run fails and says so."""

import sys
from pathlib import Path

import pytest

TOOLS = Path(sys.prefix, "tools")
"""Where `make test-tools` builds them."""


def pytest_sessionstart(session):
    """End the run where a program is missing."""
    if missing := [name for name in ("ghz", "h2spec") if not (TOOLS / name).exists()]:
        pytest.exit(f"`make test-tools` builds {' and '.join(missing)} first, and that takes Go", returncode=1)


@pytest.fixture(scope="session")
def ghz():
    """The program."""
    return TOOLS / "ghz"


@pytest.fixture(scope="session")
def h2spec():
    """The program."""
    return TOOLS / "h2spec"
