"""The debug side of a real process: what it shows, to whom, and what is logged of denials."""

import asyncio
import io
import json

import aiohttp
import pytest

from ratelimit_svc.admin import debug, http, process, recent
from ratelimit_svc.admin.token import Token
from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.model import Entry
from ratelimit_svc.settings import Settings
from ratelimit_svc.wire.client import Client, request
from tests.logged import log_of, logged

RULES = """
domain: shop
tenant: tenant
descriptors:
  - {key: tenant, rate_limit: {unit: hour, requests_per_unit: 2}}
"""


@pytest.fixture
def rules(tmp_path):
    """A rule file of one rule, two an hour."""
    path = tmp_path / "shop.yaml"
    path.write_text(RULES)
    return path


def ask(replica: Replica, *descriptors: Entry, times: int = 1) -> None:
    with Client(replica.address, timeout_s=5) as client:
        for _ in range(times):
            client.ask(request("shop", [[one] for one in descriptors]))


async def page(replica: Replica, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(replica.debug + path) as answer:
        return answer.status, await answer.text()


async def test_recent_requests_are_shown(tmp_path, rules):
    """A replica shows what it was asked, by which rule it was limited, and what no rule limits."""
    async with Replica(tmp_path / "replica", rules=rules) as replica:
        ask(replica, Entry("tenant", "acme"), times=3)
        ask(replica, Entry("path", "/"))
        status, text = await page(replica, "/debug/requests")
        newest, oldest = json.loads(text)["requests"]
        assert status == 200
        assert newest["descriptors"][0]["why"] == "no descriptor fits path=/: this level has tenant"
        assert oldest["descriptors"][0]["limits"][0]["used"] == 2
        assert oldest["descriptors"][0]["limits"][0]["frees_in_s"] > 3000
        unmatched = json.loads((await page(replica, "/debug/requests?unmatched"))[1])["requests"]
        assert unmatched == [newest]
        assert "\n/debug/requests: " in (await page(replica, "/"))[1]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("limit=0", "limit=0: must be a whole number from 1 to 500\n"),
        ("limit=501", "limit=501: must be a whole number from 1 to 500\n"),
        ("limit=many", "limit=many: must be a whole number from 1 to 500\n"),
        ("limit=" + "9" * 5000, "limit=" + "9" * 5000 + ": must be a whole number from 1 to 500\n"),
        ("entry=t", "entry=t: must be key=value\n"),
        ("unmatched=perhaps", "unmatched=perhaps: must be true or false\n"),
        ("tenant=acme", "tenant: unknown; there are limit, domain, entry and unmatched\n"),
    ],
)
async def test_a_wrong_query_is_told(query, why):
    """What is not understood is refused with what would be."""

    async def never(*_):
        raise AssertionError

    async with (
        http.serving(debug.make_app([recent.requests(recent=never, most=500)], Token()), "127.0.0.1", 0) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/debug/requests?{query}") as answer,
    ):
        assert (answer.status, await answer.text()) == (400, why)


def test_it_listens_on_loopback_unless_opened():
    """It shows what callers sent: nobody else gets to see that by default."""
    assert Settings.from_environment({}).debug_host == "127.0.0.1"


async def test_denials_are_logged_but_not_all_of_them(tmp_path, rules):
    """The first says rule, tenant, window and reset; those that follow within the interval are only counted."""
    env = {"LOG_FORMAT": "json", "DENIAL_LOG_INTERVAL": "1h"}
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        ask(replica, Entry("tenant", "acme"), times=20)
        (one,) = logged(replica, "denied")
    assert 3540 <= one.pop("reset_s") <= 3660
    assert {name: one[name] for name in ("rule", "tenant", "limit", "window", "hits", "remaining", "others")} == {
        "rule": "shop/tenant",
        "tenant": "acme",
        "limit": "2 per hour, sliding in 60 slices of 1 min",
        "window": "{acme}shop/tenant=acme:s3600000000",
        "hits": 1,
        "remaining": 0,
        "others": 0,
    }


async def test_denials_need_not_be_logged(tmp_path, rules):
    """An interval of 0 logs none."""
    env = {"LOG_FORMAT": "json", "DENIAL_LOG_INTERVAL": "0s"}
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        ask(replica, Entry("tenant", "acme"), times=5)
        assert "denied" not in replica.log.read_text()


async def test_warnings_of_rules_are_logged_once(tmp_path, rules):
    """What does not do what it seems to is told when it is loaded, and not again with each reload that still has it."""
    odd = "domain: shop\nunit: hour\ndescriptors: [{key: a, rate_limit: {unit: hour, requests_per_unit: %d}}]\n"
    rules.write_text(odd % 1)
    async with Replica(tmp_path / "replica", rules=rules, env={"LOG_FORMAT": "json"}) as replica:
        rules.write_text(odd % 2)

        async def reloaded() -> bool:
            return await replica.metric("ratelimit_svc_rules_loads_total", result="ok") >= 2

        await until(reloaded, "the new rules are loaded")
        told = [line["finding"] for line in logged(replica, "rules: this does not")]
        assert told == [finding for finding in told if "`unit`" in finding or "'unit'" in finding]
        assert len(told) == 1
        async with aiohttp.ClientSession() as session, session.get(f"{replica.http}/healthcheck?verbose") as answer:
            assert (await answer.json())["rules"]["warnings"] == told


@pytest.mark.parametrize("setting", [{"STRICT": "true"}])
async def test_strict_rules_are_refused_for_what_is_odd(tmp_path, rules, setting):
    """With STRICT the same warnings keep the rules from being loaded."""
    rules.write_text("domain: shop\nunit: hour\n")
    replica = Replica(tmp_path / "replica", rules=rules, env={"LOG_FORMAT": "json", **setting})
    starting = asyncio.create_task(replica.start())

    async def refused() -> bool:
        return replica.log.exists() and "Error loading new configuration: " in replica.log.read_text()

    try:
        await until(refused, "the rules are refused")
    finally:
        starting.cancel()
        await asyncio.wait([starting])
        await replica.stop()


async def test_the_settings_reach_the_loader(tmp_path):
    """MERGE_DOMAIN_CONFIG puts two files together, DEFAULT_ALGORITHM counts where they do not say how."""
    folder = tmp_path / "rules"
    folder.mkdir()
    for key in ("a", "b"):
        (folder / f"{key}.yaml").write_text(
            f"domain: shop\ndescriptors: [{{key: {key}, rate_limit: {{unit: hour, requests_per_unit: 2}}}}]\n"
        )
    env = {"MERGE_DOMAIN_CONFIG": "true", "DEFAULT_ALGORITHM": "fixed_window"}
    async with Replica(tmp_path / "replica", rules=folder, env=env) as replica:
        ask(replica, Entry("a", "1"), Entry("b", "1"))
        (seen,) = json.loads((await page(replica, "/debug/requests"))[1])["requests"]
        limits = [limit for each in seen["descriptors"] for limit in each["limits"]]
        assert [limit["limit"] for limit in limits] == ["2 per hour, fixed windows since the epoch"] * 2


async def test_a_password_in_a_flag_does_not_show():
    """/stats has the command line as far as its first flag."""
    endpoints = process.endpoints(
        limits=list,
        render_metrics=lambda: (b"# HELP a b\na 1.0\nb NaN\n", "text/plain"),
        command_line=["python", "-m", "ratelimit_svc", "serve", "--redis-url", "redis://:pw@a:1"],
    )
    async with (
        http.serving(debug.make_app(endpoints, Token()), "127.0.0.1", 0) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/stats") as answer,
    ):
        lines = (await answer.text()).splitlines()
    assert lines[0] == 'cmdline: ["python", "-m", "ratelimit_svc", "serve"]'
    assert lines[2:] == ["a: 1"]


# ── what changes something ────────────────────────────────────────────────────────────────────────────────────────────


async def change(replica: Replica, path: str, token: str | None = None, **options) -> tuple[int, str]:
    """POST, with the token if there is one."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(replica.debug + path, headers=headers, **options) as answer,
    ):
        return answer.status, await answer.text()


def says(replica: Replica) -> list[str]:
    return [line["@message"] for line in log_of(replica)]


async def test_the_log_level_is_changed_by_who_has_the_token(tmp_path, rules):
    """It acts at once and in both directions, and the log has it; everybody may see what it is."""
    env = {"LOG_FORMAT": "json", "LOG_LEVEL": "error", "DEBUG_TOKEN": "sesame", "DENIAL_LOG_INTERVAL": "1us"}
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        assert await page(replica, "/debug/log-level") == (200, "error\n")
        ask(replica, Entry("tenant", "acme"), times=3)
        answer = await change(replica, "/debug/log-level?level=INFO", "sesame")
        assert answer == (200, "info, until the process ends; it was error\n")
        ask(replica, Entry("tenant", "acme"))
        assert await page(replica, "/debug/log-level") == (200, "info\n")
        assert (await change(replica, "/debug/log-level?level=fatal", "sesame"))[0] == 200
        ask(replica, Entry("tenant", "acme"))
        assert says(replica) == [CHANGED, "denied", CHANGED]
        for query in ("", "?level=loud", "?level=" + "x" * 5000):
            status, text = await change(replica, "/debug/log-level" + query, "sesame")
            assert status == 400
            assert "must be one of trace, debug, info, warn, warning, error, fatal, panic\n" in text
        assert await page(replica, "/debug/log-level") == (200, "fatal\n")


CHANGED = "LOG_LEVEL is changed by the debug side"


async def test_the_rules_are_looked_at_when_it_is_told(tmp_path, rules):
    """As by SIGHUP; the token may be in a file, which may change."""
    token = tmp_path / "token"
    token.write_text("old\n")
    env = {"DEBUG_TOKEN_FILE": str(token), "LOG_FORMAT": "json"}
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        token.write_text("new\n")
        assert (await change(replica, "/debug/rules/reload", "old"))[0] == 401
        rules.write_text(RULES.replace("hour", "day"))
        assert (await change(replica, "/debug/rules/reload", "new"))[0] == 200

        async def reloaded() -> bool:
            return "unit=DAY" in (await page(replica, "/rlconfig"))[1]

        await until(reloaded, "the new rules are listed")


@pytest.mark.parametrize("path", ["/debug/log-level?level=debug", "/debug/rules/reload"])
async def test_nobody_else_changes_anything(tmp_path, rules, path):
    """No token, a wrong one, a large body: refused, and clearly. By GET and the like nothing changes, with the token or without."""
    env = {"DEBUG_TOKEN": "sesame", "LOG_FORMAT": "json"}
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        assert await change(replica, path) == (401, "this needs the token: send `Authorization: Bearer` with it\n")
        assert await change(replica, path, "simsalabim") == (401, "this is not the token\n")
        assert await change(replica, path, "simsalabim", data=io.BytesIO(b"x" * 3_000_000)) == (
            401,
            "this is not the token\n",
        )
        before = says(replica)
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer sesame"}) as session:
            for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
                async with session.request(method, replica.debug + path) as answer:
                    assert answer.status == (405 if "reload" in path else 200)
                    assert answer.headers.get("Allow") == ("POST" if "reload" in path else None)
        assert await page(replica, "/debug/log-level") == (200, "info\n")
        assert says(replica) == before


async def test_without_a_token_nobody_changes_anything(tmp_path, rules):
    """And whoever tries is told how it is enabled."""
    async with Replica(tmp_path / "replica", rules=rules) as replica:
        for token in (None, "", "sesame"):
            status, text = await change(replica, "/debug/log-level?level=debug", token)
            assert (status, "set DEBUG_TOKEN, or DEBUG_TOKEN_FILE" in text) == (403, True)
        assert await page(replica, "/debug/log-level") == (200, "info\n")
