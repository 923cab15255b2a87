"""A real Envoy with each shipped EnvoyFilter, two real replicas and a real Valkey: what callers see.

Limits are per minute where a test counts: no window moves on while it does.
"""

import asyncio

import pytest

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.traffic import LIMITED, PASSED

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

IN_TIME_US = 1_000_000
"""Far more than any answer takes, far less than a service that hangs."""


async def edit(scene, old, new):
    """Edit a part of the rules and wait until every replica has the new ones in force."""
    text = scene.rules.read_text()
    assert old in text
    await scene.edit_rules(text.replace(old, new))


# ── the gateway ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_exactly_the_limit_passes(gateway):
    """Of more requests than the limit, one after the other, the first L pass and no other reaches the application."""
    assert await gateway.statuses(15, "one-by-one") == [PASSED] * 10 + [LIMITED] * 5
    assert gateway.scene.upstream.arrived["one-by-one"] == 10


async def test_exactly_the_limit_passes_at_once(gateway):
    """Of more requests than the limit, all at once over both replicas, L pass."""
    answers = await asyncio.gather(*(gateway.call("at-once") for _ in range(40)))
    assert sorted(answer.status for answer in answers) == [PASSED] * 10 + [LIMITED] * 30
    assert gateway.scene.upstream.arrived["at-once"] == 10


async def test_headers_say_limit_remaining_and_reset(gateway):
    """Each answer carries the limit, what remains, and when the window is empty; a denial when to try again."""
    answers = [await gateway.call("named") for _ in range(8)]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {'7, 7;w=3600;name="for-people"'}
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == list("65432100")
    # the window is empty one slice (a minute) after an hour at the latest; a denied one fits when the first slice leaves
    assert all(3540 <= int(answer.headers["x-ratelimit-reset"]) <= 3660 for answer in answers)
    assert ["retry-after" in answer.headers for answer in answers] == [False] * 7 + [True]
    assert answers[-1].headers["retry-after"] == answers[-1].headers["x-ratelimit-reset"]


async def test_callers_see_the_headers_that_the_service_adds(gateway):
    """On what passes and on what is denied, beside those that Envoy makes (LIMIT_RESPONSE_HEADERS_ENABLED)."""
    for tenant, status, limit, remaining in (("headed", 200, "4", "3"), ("none", 429, "0", "0")):
        answer = await gateway.call(tenant)
        assert answer.status == status
        assert (answer.headers["ratelimit-limit"], answer.headers["ratelimit-remaining"]) == (limit, remaining)
        assert 0 < int(answer.headers["ratelimit-reset"]) <= 3660


async def test_who_waits_as_told_passes(gateway):
    """Retry-After is never shorter than the real wait, and at most the window and a slice, rounded up."""
    for _ in range(3):
        answers = await asyncio.gather(*(gateway.call("fast") for _ in range(12)))
        waits = {int(answer.headers["retry-after"]) for answer in answers if answer.status == LIMITED}
        assert waits
        assert waits <= {1, 2}
        await asyncio.sleep(min(waits))
        assert (await gateway.call("fast")).status == PASSED


async def test_a_limit_of_zero_lets_nothing_pass(gateway):
    """A limit of 0 denies, and says to come back after a whole window."""
    answer = await gateway.call("none")
    assert (answer.status, answer.headers["x-ratelimit-limit"], answer.headers["retry-after"]) == (
        LIMITED,
        "0, 0;w=60",
        "60",
    )


async def test_shadow_mode_lets_pass_and_counts(gateway):
    """A rule in shadow mode denies nothing; what enforcing it would deny is counted."""
    assert await gateway.statuses(5, "watched") == [PASSED] * 5
    name = "ratelimit_svc_rule_decisions_total"
    decisions = {
        decision: sum(await gateway.scene.metrics(name, rule="shop/tenant=watched", decision=decision))
        for decision in ("allowed", "denied", "would_deny")
    }
    assert decisions == {"allowed": 2, "denied": 0, "would_deny": 3}


@pytest.mark.parametrize("tenant", ["", "stranger", "free"])
async def test_who_has_no_limit_passes(gateway, tenant):
    """Without a tenant, without a rule, or with `unlimited`, everything passes."""
    assert await gateway.statuses(20, tenant) == [PASSED] * 20


async def test_nobody_is_asked_about_a_request_without_a_tenant(gateway):
    """A request that yields no descriptor costs no call."""
    before = await gateway.scene.metrics("ratelimit_svc_requests_total")
    await gateway.statuses(5)
    assert await gateway.scene.metrics("ratelimit_svc_requests_total") == before


async def test_both_replicas_are_asked(gateway):
    """Envoy spreads requests over both replicas, so what is exact is exact between them."""
    await gateway.statuses(20, "free")
    assert all(count > 0 for count in await gateway.scene.metrics("ratelimit_svc_requests_total"))


async def test_changed_rules_act_without_losing_counts(gateway):
    """A raised limit gives what it adds, and not more: what was counted stays counted. Lowering it again denies at once."""
    growing = "growing, rate_limit: {unit: minute, requests_per_unit:"
    assert await gateway.statuses(5, "growing") == [PASSED] * 3 + [LIMITED] * 2
    await edit(gateway.scene, f"{growing} 3", f"{growing} 5")
    assert await gateway.statuses(5, "growing") == [PASSED] * 2 + [LIMITED] * 3
    await edit(gateway.scene, f"{growing} 5", f"{growing} 4")
    answer = await gateway.call("growing")
    assert (answer.status, answer.headers["x-ratelimit-limit"]) == (LIMITED, "4, 4;w=60")


async def test_bad_rules_change_nothing(gateway):
    """A rule file with a mistake is refused by every replica, and the rules before it stay in force."""
    scene, good = gateway.scene, gateway.scene.rules.read_text()
    scene.rules.write_text(good.replace("unit: minute", "unit: fortnight"))

    async def refused():
        return all(await scene.metrics("ratelimit_svc_rules_loads_total", result="failed"))

    await until(refused, "every replica has refused the bad rules")
    assert await gateway.statuses(1, "one-by-one") == [LIMITED]
    await edit(scene, "unit: fortnight", "unit: minute")


async def test_redis_down_and_up(gateway):
    """With Valkey killed, answers come in time and each replica gives its share; with it back, limits are exact again."""
    scene = gateway.scene
    assert await gateway.statuses(3, "unlucky") == [PASSED] * 3

    await scene.store.kill()
    answers = [await gateway.call("unlucky") for _ in range(60)]
    passed = sum(answer.status == PASSED for answer in answers)
    assert {answer.status for answer in answers} == {PASSED, LIMITED}
    assert passed == 8  # two replicas, half of 8 each
    assert max(answer.answered_us - answer.sent_us for answer in answers) < IN_TIME_US
    assert all(await scene.metrics("ratelimit_svc_policy_decisions_total", policy="local"))
    assert [await replica.ready() for replica in scene.replicas] == [True, True]

    await scene.restart_store()
    assert await gateway.statuses(10, "afterwards") == [PASSED] * 6 + [LIMITED] * 4
    assert await gateway.statuses(1, "one-by-one") == [LIMITED]  # what was counted before the kill
    later = (await gateway.statuses(10, "unlucky")).count(PASSED)
    assert 3 + passed + later <= 2 * 8 + 2 - 1


async def test_envoy_never_waited_in_vain(gateway):
    """In all of the above, outage included, Envoy had every answer within its timeout."""
    stats = await gateway.scene.envoy.rate_limit_stats()
    assert (stats.get("error", 0), stats.get("failure_mode_allowed", 0)) == (0, 0)
    assert stats["ok"] > 0
    assert stats["over_limit"] > 0


# ── the sidecar ───────────────────────────────────────────────────────────────────────────────────────────────────────

CHECKOUT = {"path": "/checkout/basket?id=1", "method": "POST"}


async def test_several_descriptors_are_all_or_nothing(sidecar):
    """A request denied by one of its limits consumes nothing of the other, whichever it is."""
    assert (
        await sidecar.statuses(6, "ann", **CHECKOUT) == [PASSED] * 3 + [LIMITED] * 3
    )  # her own limit; 1 of all's 4 is left
    assert (
        await sidecar.statuses(3, "bob", **CHECKOUT) == [PASSED] + [LIMITED] * 2
    )  # all's limit; 2 of his own 3 are left
    await edit(sidecar.scene, "requests_per_unit: 4", "requests_per_unit: 100")
    assert await sidecar.statuses(4, "bob", **CHECKOUT) == [PASSED] * 2 + [LIMITED] * 2
    assert await sidecar.statuses(1, "ann", **CHECKOUT) == [LIMITED]


async def test_only_what_is_matched_is_asked_about(sidecar):
    """Other methods and paths of the application are not limited, and cost no call."""
    before = await sidecar.scene.metrics("ratelimit_svc_requests_total")
    assert await sidecar.statuses(5, "ann", path="/checkout") == [PASSED] * 5
    assert await sidecar.statuses(5, "ann", path="/", method="POST") == [PASSED] * 5
    assert await sidecar.scene.metrics("ratelimit_svc_requests_total") == before


async def test_the_tightest_limit_is_shown(sidecar):
    """Of several descriptors, the headers tell of the one with the least remaining, and of each one's limit."""
    answer = await sidecar.call("eve", **CHECKOUT)
    assert answer.headers["x-ratelimit-remaining"] == "2"
    assert answer.headers["x-ratelimit-limit"] == "3, 100;w=60, 3;w=60"
