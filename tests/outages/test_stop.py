"""A replica that is told to stop, under load: nothing that it was asked is dropped."""

import asyncio

import pytest

from tests.outages.stage import stage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


async def test_sigterm_under_load_drops_nothing(tmp_path):
    """Its callers go to the other; what it has accepted it answers, in time."""
    async with stage(tmp_path, env={"DRAIN_DELAY": "500ms"}) as staged, staged.under_load("stop") as run:
        await run.load.for_s(1.5)
        leaving, staying = staged.replicas
        stopping = asyncio.create_task(leaving.stop())
        await run.load.for_s(2)
        await stopping
        before = len(run.load.calls)
        await run.load.for_s(0.5)
    assert run.findings() == []
    assert {call.replica for call in run.load.calls[:before]} == {leaving.name, staying.name}
    assert {call.replica for call in run.load.calls[before:]} == {staying.name}
    assert "Traceback" not in leaving.log.read_text()
