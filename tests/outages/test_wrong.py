"""What these tests would say of a service that is wrong: one set up so that it breaks what is promised."""

from time import perf_counter

import pytest

from tests.outages.stage import Run, stage, stopped

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


async def test_a_service_that_keeps_no_promise_is_found_out(tmp_path):
    """Each replica takes the whole limit for its share; one does nothing for a while, which no machine took from it; and the store
    is said to be back when it is not.
    """
    async with (
        stage(tmp_path, replicas=3, env={"REPLICAS": "1"}) as staged,
        staged.under_load("wrong", rate=900) as run,
    ):
        await run.load.for_s(1)
        with stopped(staged.replicas[0]):
            await run.load.for_s(0.2)
        for proxy in staged.proxies.values():
            proxy.delay_s = 0.2
        await run.load.for_s(2)
        run.back()
        while not over(run):
            await run.load.for_s(0.1)
        await staged.heal()
    assert {"late", "overfull", "slow"} <= {finding.split(":")[0] for finding in run.findings()}


def over(run: Run) -> bool:
    """Whether a second and all that the machine took have gone by since the store is said to be back."""
    assert run.back_s is not None
    now = perf_counter()
    return all(now - run.back_s > 1.3 + run.took(each.name, run.back_s, now) for each in run.load.replicas)
