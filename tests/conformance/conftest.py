"""Each engine in turn."""

from collections.abc import AsyncIterator

import pytest

from tests.conformance.served import Served, serving
from tests.engines import ENGINES


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    """What ENGINE is."""
    return str(request.param)


@pytest.fixture
async def served(engine, clock) -> AsyncIterator[Served]:
    """An engine on loopback, and a client of it."""
    async with serving(engine, clock) as one:
        yield one
