"""Two replicas whose rules differ for a while, as during any roll-out: counts are kept, and no window exceeds the larger limit."""

import pytest

from ratelimit_svc.demo.parts import redis
from tests.outages import judges
from tests.outages.stage import rules, stage, write_rules

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

SMALL, LARGE, WINDOW_S = 10, 20, 1
FEW, MANY = 10, 60


async def test_limits_and_slices_differ(tmp_path):
    """10 against 20 hits, 60 against 10 slices: first one, then the other, then both alike again."""
    async with stage(tmp_path, limit=SMALL, window_s=WINDOW_S, make_store=redis) as staged:
        staged.limit = LARGE  # what findings are held to
        ahead = staged.replicas[1]
        async with staged.under_load("differ", rate=400) as run:
            await run.load.for_s(WINDOW_S)
            for limit, slices in ((LARGE, MANY), (LARGE, FEW), (SMALL, FEW), (SMALL, MANY)):
                write_rules(ahead.folder, rules(limit, window_s=WINDOW_S, slices=slices))
                await run.load.for_s(1.2)
            alike_s = run.load.began_s + run.load.seconds
            await run.load.for_s(2.5 * WINDOW_S)
        assert await ahead.metric("ratelimit_svc_rules_loads_total", result="ok") == 5
    assert run.findings() == []
    busiest = [call for call in run.load.calls if call.tenant == run.load.tenant(0)]
    assert judges.fullest(busiest, WINDOW_S)[run.load.tenant(0)] > SMALL
    later = [call for span in run.by_store for call in judges.within(busiest, span) if call.sent_s > alike_s + WINDOW_S]
    assert judges.overfull(later, window_s=WINDOW_S, bound=SMALL) == []
