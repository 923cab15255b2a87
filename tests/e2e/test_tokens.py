"""Budgets of tokens through a real Envoy, two replicas and a real Valkey: the tables of docs/llm-tokens.md are what happens here."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
import pytest_asyncio

from ratelimit_svc.demo import shipped
from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.stage import Scene, stage
from ratelimit_svc.demo.traffic import LIMITED, PASSED, Answer, call
from ratelimit_svc.model import Entry
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2_grpc
from ratelimit_svc.wire.client import request
from tests.e2e.tokens import Asked, Model, Tap

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/llm-tokens.md").read_text()
BUDGET = 100

LIMITS = {
    "fixed": (
        "algorithm: fixed_window, align: first_hit",
        "algorithm: fixed_window, align: first_hit, overdraft: never",
    ),
    "auto": ("overdraft: auto", "overdraft: auto"),
    "always": ("overdraft: always", "overdraft: never"),
    "never": ("overdraft: never", "overdraft: never"),
    "exact": ("overdraft: auto", "overdraft: never"),
    "exact-fixed": ("algorithm: fixed_window, align: first_hit", "overdraft: never"),
    "kept": ("refunds: false", "refunds: false, overdraft: never"),
    **dict.fromkeys(("json", "stream", "hung-up", "silent", "late"), ("name: mine", "overdraft: never")),
}
"""What the tenants' rules say beside a hundred tokens a minute: of the budget, and of the reserved one."""

RULES = (ROOT / "config/llm-budget.yaml").read_text() + "".join(
    f"""
  - key: tenant
    value: {tenant}
    rate_limit: {{ unit: minute, requests_per_unit: {BUDGET}, {says} }}
    descriptors:
      - key: budget
        value: reserved
        rate_limit: {{ unit: minute, requests_per_unit: {BUDGET}, {says_of_reserved} }}
"""
    for tenant, (says, says_of_reserved) in LIMITS.items()
)
BRIEF = """
  - key: tenant
    value: brief
    rate_limit: { unit: second, unit_multiplier: 2, requests_per_unit: 100 }
"""


class Budgets:
    """Sends requests through the scene's Envoy, and knows what it asked and what is left."""

    def __init__(self, scene: Scene, model: Model, tap: Tap, session: aiohttp.ClientSession, *, reserved: bool) -> None:
        self.scene = scene
        self.model = model
        self.tap = tap
        self.session = session
        self._reserved = reserved

    async def call(self, tenant: str, path: str) -> Answer:
        """One request of a tenant."""
        return await call(self.session, f"{self.scene.envoy.url}/{path}", {"x-tenant": tenant})

    async def spend(self, tenant: str, path: str, *, asks: int = 2) -> tuple[Answer, list[Asked]]:
        """One request, and what Envoy asked about it until its end."""
        before = len(self.tap.log)
        answer = await self.call(tenant, path)
        return answer, (await self.tap.asked(before + asks))[before:]

    async def left(self, tenant: str) -> int:
        """What is left of a budget, asked with 0 hits as Envoy does, of a replica."""
        entries = [Entry("tenant", tenant)] + [Entry("budget", "reserved")] * self._reserved
        message = request("llm", [entries])
        message.descriptors[0].hits_addend.value = 0
        async with grpc.aio.insecure_channel(self.scene.replicas[0].address) as channel:
            response = await rls_pb2_grpc.RateLimitServiceStub(channel).ShouldRateLimit(message)
        return response.statuses[0].limit_remaining

    async def counted(self, tenant: str) -> int:
        """What the window holds, also beyond the limit: what is left of a limit that is raised for the question."""
        rules, raised = self.scene.rules.read_text(), 10 * BUDGET
        await self.scene.edit_rules(rules.replace(f"requests_per_unit: {BUDGET},", f"requests_per_unit: {raised},"))
        held = raised - await self.left(tenant)
        await self.scene.edit_rules(rules)
        return held

    async def row(self, tenant: str, path: str, *, asks: int = 2) -> list[str]:
        """One request as a row of the page's tables."""
        answer, asked = await self.spend(tenant, path, asks=asks)
        before, *after = asked
        left = before.response.statuses[0].limit_remaining
        return [
            path.partition("/")[2],
            before.hits,
            before.answer + f", {left} left" * (before.answer == "OK"),
            str(answer.status),
            after[0].hits if after else "nothing",
            after[0].answer if after else "",
            str(await self.left(tenant)),
        ]


async def _budgets(folder: Path, envoy_filter: str, engine: str, *, reserved: bool) -> AsyncIterator[Budgets]:
    rules = folder / "rules.yaml"
    rules.write_text(RULES + BRIEF)
    envoy_filter += "---\n" + shipped("istio/envoyfilter-tokens-body.yaml").read_text()
    # a refund may go to the other replica than the denial before it: the tables show what the store says
    model, tap, env = Model(), Tap(), {"ENGINE": engine, "DENIAL_MEMORY_KEYS": "0"}
    async with (
        stage(folder, rules=rules, envoy_filter=envoy_filter, env=env, upstream=model, through=tap.ports) as scene,
        tap,
        aiohttp.ClientSession() as session,
    ):
        yield Budgets(scene, model, tap, session, reserved=reserved)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def checked(tmp_path_factory: pytest.TempPathFactory, engine: str) -> AsyncIterator[Budgets]:
    """A check before each request, its cost at the end."""
    text = shipped("istio/envoyfilter-tokens.yaml").read_text()
    async for budgets in _budgets(tmp_path_factory.mktemp("checked"), text, engine, reserved=False):
        yield budgets


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reserved(tmp_path_factory: pytest.TempPathFactory, engine: str) -> AsyncIterator[Budgets]:
    """Fifty tokens before each request, the rest of them back at the end."""
    text = shipped("istio/envoyfilter-tokens-reserved.yaml").read_text()
    async for budgets in _budgets(tmp_path_factory.mktemp("reserved"), text, engine, reserved=True):
        yield budgets


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wrong(tmp_path_factory: pytest.TempPathFactory, engine: str) -> AsyncIterator[Budgets]:
    """The page's wrong refund in place of the right one."""
    text = shipped("istio/envoyfilter-tokens-reserved.yaml").read_text()
    right = text[text.index("                - actions: *budget\n") :]
    async for budgets in _budgets(
        tmp_path_factory.mktemp("wrong"), text.replace(right, snippet("wrong")), engine, reserved=True
    ):
        yield budgets


def snippet(name: str) -> str:
    """The YAML on the page below `<!-- name -->`, as deep as it stands in the file."""
    found = re.search(rf"^<!-- {name} -->\n+```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, name
    return "".join(f"{' ' * 16}{line}" for line in found[1].splitlines(keepends=True))


def table(name: str) -> list[list[str]]:
    """The rows of the page's table below `<!-- name -->`."""
    found = re.search(rf"^<!-- {name} -->\n+((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found, name
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in found[1].splitlines()[2:]]


# ── a check before, the cost at the end ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tenant", ["trial", "fixed"])
async def test_the_cost_is_charged_at_the_end(checked, tenant):
    """As in the page's first table: what overspends passes and is counted, the next request is denied. Both algorithms."""
    rows = [await checked.row(tenant, "header/60"), await checked.row(tenant, "header/60")]
    rows.append(await checked.row(tenant, "header/60", asks=1))
    assert rows == table("checked")
    assert checked.model.arrived[tenant] == 2
    assert await checked.counted(tenant) == 120


@pytest.mark.parametrize(("tenant", "status"), [("exact", LIMITED), ("exact-fixed", PASSED)])
async def test_when_exactly_nothing_is_left(checked, tenant, status):
    """A check is denied; with fixed windows it passes, as in the reference implementation."""
    await checked.spend(tenant, "header/100")
    assert await checked.left(tenant) == 0
    assert (await checked.spend(tenant, "silent", asks=1))[0].status == status


async def test_what_callers_see(checked):
    """The headers tell what was left when the request came; a denied one when to try again."""
    passed, _ = await checked.spend("late", "header/120")
    assert passed.status == PASSED
    assert passed.headers["x-ratelimit-limit"] == '100, 100;w=60;name="mine"'
    assert passed.headers["x-ratelimit-remaining"] == "100"
    denied, _ = await checked.spend("late", "header/120", asks=1)
    assert denied.status == LIMITED
    assert denied.headers["x-ratelimit-remaining"] == "0"
    assert 50 < int(denied.headers["retry-after"]) <= 61


@pytest.mark.parametrize("how", ["json", "stream"])
async def test_the_cost_may_be_in_the_body(checked, how):
    """An application that says in its JSON, or in the last event of its stream, what an answer cost need not change."""
    answer, (before, after) = await checked.spend(how, f"{how}/60")
    assert (answer.status, before.hits, after.hits, await checked.left(how)) == (PASSED, "0", "60", 40)


@pytest.mark.parametrize("path", ["silent", "silent/many", "silent/-5", "silent/1000000001"])
async def test_a_stream_without_a_cost_costs_nothing(checked, path):
    """Without a number in the answer, or one Envoy does not take, it asks nothing at the end."""
    await checked.spend("silent", path, asks=1)
    await checked.spend("silent", "silent/1")  # all before it have ended by now
    before = len(checked.tap.log)
    await checked.spend("silent", path, asks=1)
    assert len(checked.tap.log) == before + 1


async def test_who_hangs_up_before_the_last_event_pays_nothing(checked):
    """A stream's cost that is said in its end is not known if there is none."""
    before = len(checked.tap.log)
    async with checked.session.get(f"{checked.scene.envoy.url}/hung-up", headers={"x-tenant": "hung-up"}) as answer:
        await answer.content.readany()
        answer.close()
    await asyncio.wait_for(checked.model.gone.wait(), timeout=5)
    await checked.spend("hung-up", "header/10")
    assert [one.hits for one in checked.tap.log[before:]] == ["0", "0", "10"]
    assert await checked.left("hung-up") == 90


async def test_the_budget_is_free_again_when_the_window_has_passed(checked):
    """What was overspent leaves the window as anything does."""
    _, (_, after) = await checked.spend("brief", "header/120")
    assert after.answer == "OVER_LIMIT"

    async def free() -> bool:
        return await checked.left("brief") == BUDGET

    await until(free, "all tokens are there again", within=5)
    assert (await checked.spend("brief", "header/1"))[0].status == PASSED


async def test_streams_at_once_may_each_overspend(checked):
    """As in the page's table of overdrafts: three streams pass before one has ended; what is then counted is the rule's choice."""
    rows = []
    for tenant in ("auto", "always", "never"):
        before = len(checked.tap.log)
        checked.model.let_go.clear()
        streams = asyncio.gather(*(checked.call(tenant, "held/60") for _ in range(3)))

        async def all_there() -> bool:
            return checked.model.waiting == 3

        await until(all_there, "three streams are open")
        checked.model.let_go.set()
        assert [one.status for one in await streams] == [PASSED] * 3
        asked = await checked.tap.asked(before + 6)
        answers = sorted(one.answer for one in asked[before + 3 :])
        after = await checked.call(tenant, "header")
        counted = await checked.counted(tenant)
        rows.append([f"`{tenant}`", ", ".join(answers), str(counted), str(after.status)])
    assert [row[:4] for row in table("overdraft")] == rows


# ── reserved before, the rest given back at the end ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tenant", ["trial", "fixed"])
async def test_what_was_reserved_and_not_used_is_given_back(reserved, tenant):
    """As in the page's second table: the cost is what stays counted, and a denied request gives nothing back."""
    rows = [await reserved.row(tenant, "header/20"), await reserved.row(tenant, "header/70")]
    rows.append(await reserved.row(tenant, "header/20", asks=1))
    assert rows == table("reserved")


async def test_a_reservation_without_a_cost_stays(reserved):
    """Who hangs up, or whose answer has no cost, has used what was reserved."""
    await reserved.spend("silent", "silent", asks=1)
    assert await reserved.left("silent") == 50


async def test_a_cost_as_reserved_changes_nothing(reserved):
    """Then Envoy gives 0 back and asks with 0 hits; neither counts, nor makes the limit a budget."""
    _, (_, after) = await reserved.spend("json", "header/50")
    assert (after.hits, await reserved.left("json")) == ("−0 and 0", 50)
    await reserved.spend("json", "header/10")
    assert await reserved.left("json") == 40
    answer, _ = await reserved.spend("json", "header/10", asks=1)
    assert (answer.status, await reserved.left("json")) == (LIMITED, 40)


async def test_a_check_beside_reservations_makes_them_count_when_denied(reserved):
    """Why the rule says `overdraft: never`: under `auto`, a limit asked with 0 hits counts a reservation that it denies."""
    await reserved.spend("auto", "header/60")
    assert await reserved.left("auto") == 40  # asked with 0 hits
    answer, _ = await reserved.spend("auto", "header/60", asks=1)
    assert (answer.status, await reserved.left("auto"), await reserved.counted("auto")) == (LIMITED, 0, 110)


# ── when a refund is wrong ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_refund_by_number_empties_the_window_of_who_is_denied(wrong):
    """As in the page's third table: Envoy gives back for a denied request, too, what that has never taken."""
    rows = [await wrong.row("trial", "header/60") for _ in range(4)]
    assert rows == table("wrong")
    assert wrong.model.arrived["trial"] == 2


async def test_refunds_can_be_forbidden(wrong):
    """`refunds: false` closes the hole: what is denied changes nothing. Nothing is given back to anyone else either."""
    lefts = [(await wrong.row("kept", "header/10"))[-1] for _ in range(3)]
    assert lefts == ["40", "40", "40"]
