"""What became of a take whose answer was lost: it is charged once, whether it ran or not."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.outages.calls import Call, Caller, block, connect, message
from tests.outages.proxy import Way
from tests.outages.stage import Stage, stage
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

TIMEOUT_S = 0.05


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def staged(tmp_path_factory) -> AsyncIterator[Stage]:
    """One replica, whose share is the whole limit; windows that outlast a test."""
    async with stage(tmp_path_factory.mktemp("once"), replicas=1, limit=100, window_s=600) as started:
        yield started


async def asked(caller: Caller, tenant: str) -> Call:
    """Ask once, and return what came of it."""
    call = Call(tenant, "", TIMEOUT_S)
    caller.ask(call, block(TIMEOUT_S), message(tenant))
    await until(lambda: call.answered_s is not None)
    assert call.admitted, call
    return call


async def of_the_store(staged: Stage, caller: Caller, tenant: str) -> Call:
    """Ask until an answer is the store's; each is charged."""
    while True:
        before = await decided_alone(staged)
        call = await asked(caller, tenant)
        if await decided_alone(staged) == before:
            return call


async def decided_alone(staged: Stage) -> float:
    """How many requests were decided without the store."""
    return await staged.replicas[0].metric("ratelimit_svc_policy_decisions_total")


@pytest.mark.parametrize("fate", [Way.LOSE, Way.HOLD])
@pytest.mark.parametrize("way", ["questions", "answers"])
async def test_a_take_without_an_answer_in_time_is_charged_exactly_once(staged, way, fate):
    """Lost or late, before the store (it did not run) or behind it (it did): its caller has passed each time, so it counts, once."""
    (proxy,) = staged.proxies.values()
    caller = await connect(staged.replicas[0])
    tenant = f"{fate.name}-{way}"
    assert (await of_the_store(staged, caller, tenant)).remaining == 99
    lost_before = await decided_alone(staged)
    setattr(proxy, way, fate)
    await asked(caller, tenant)
    assert await decided_alone(staged) == lost_before + 1
    for number in range(
        4
    ):  # until later than STORE_TIMEOUT, and sooner than the connection is given up for its silence
        await asked(caller, f"{tenant}-{number}")
    await proxy.heal()
    await staged.at_store()
    passed, others = 2, await decided_alone(staged)
    last = await of_the_store(staged, caller, tenant)
    passed += 1 + int(await decided_alone(staged) - others)
    caller.close()
    assert last.remaining == 100 - passed


async def test_what_the_share_let_pass_in_an_outage_is_charged_when_it_is_over(staged):
    """Ten hits without the store: they are on the store's window with the next take."""
    (proxy,) = staged.proxies.values()
    caller = await connect(staged.replicas[0])
    assert (await of_the_store(staged, caller, "owed")).remaining == 99
    proxy.cut()
    before = await decided_alone(staged)
    for _ in range(10):
        await asked(caller, "owed")
    assert await decided_alone(staged) == before + 10
    await proxy.heal()
    await staged.at_store()
    before = await decided_alone(staged)
    last = await of_the_store(staged, caller, "owed")
    passed = 12 + int(await decided_alone(staged) - before)
    caller.close()
    assert last.remaining == 100 - passed
