"""One store and two replicas for all scenarios that leave them as they were."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.outages.stage import Stage, stage


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared(tmp_path_factory) -> AsyncIterator[Stage]:
    """Two replicas at one store, for all scenarios in turn."""
    async with stage(tmp_path_factory.mktemp("single")) as staged:
        async with staged.under_load("warm") as run:  # memories fill once: before any is weighed
            await run.load.for_s(1)
        yield staged


@pytest_asyncio.fixture(loop_scope="session")
async def staged(shared: Stage) -> Stage:
    """The stage, in order."""
    await shared.heal()
    await shared.at_store()
    return shared
