"""What requests are told, as by the reference implementation: codes, statuses, roles, limits brought along, response headers.

Each table is one history on empty windows, one request a line (`asking`). With `DEFAULT_ALGORITHM=fixed_window`, and without a
request that was denied before (what that consumes is the great difference), both implementations say the same.
"""

import pytest

from ratelimit_svc.errors import BadRequestError, SettingsError
from ratelimit_svc.settings import Settings
from tests.reference.asking import as_written, ask, asked, limiter_of, tell

HEADERS = "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"

SAME = {
    "a limit counts down": """
        day=x                       → OK: OK 4/5 day
        day=x                       → OK: OK 3/5 day
        day=y                       → OK: OK 4/5 day
        day=                        → OK: OK 4/5 day
        hour=x                      → OK: OK 2/3 hour "hourly"
    """,
    "what no rule limits passes": """
        unknown=x                   → OK: OK
        -                           → OK: OK
        =                           → OK: OK
        @other day=x; day=x         → OK: OK; OK
        @other day=x own 0 day      → OK: OK
        white=list                  → OK: OK
        free=x                      → OK: OK no end
        free=x hits 100             → OK: OK no end
        free=x; day=x               → OK: OK no end; OK 4/5 day
    """,
    "every unit": """
        minute=x                    → OK: OK 4/5 minute
        week=x                      → OK: OK 4/5 week
        month=x                     → OK: OK 4/5 month
        year=x                      → OK: OK 4/5 year
    """,
    "the request's hits are those of each descriptor without its own": """
        hits 2: day=x; year=x       → OK: OK 3/5 day; OK 3/5 year
        hits 2: day=x; year=x hits 1  → OK: OK 1/5 day; OK 2/5 year
        hits 0: day=x               → OK: OK 0/5 day
    """,
    "no hits ask, and pass at the limit": """
        day=x hits 0                → OK: OK 5/5 day
        hits 7: day=x hits 0        → OK: OK 5/5 day
        day=x hits 5                → OK: OK 0/5 day
        day=x hits 0                → OK: OK 0/5 day
        none=x hits 0               → OK: OK 0/0 hour
    """,
    "a limit of nothing denies": """
        none=x                      → OVER_LIMIT: OVER_LIMIT 0/0 hour
        day=x own 0 day             → OVER_LIMIT: OVER_LIMIT 0/0 day
    """,
    "the largest limit": """
        most=x                      → OK: OK 4294967294/4294967295 hour
        most=x hits 4294967294      → OK: OK 0/4294967295 hour
        most=x                      → OVER_LIMIT: OVER_LIMIT 0/4294967295 hour
    """,
    "one that is over is enough": """
        day=x hits 5                → OK: OK 0/5 day
        day=x; free=x; unknown=x    → OVER_LIMIT: OVER_LIMIT 0/5 day; OK no end; OK
    """,
    "the same descriptor twice counts twice": """
        day=x; day=x                → OK: OK 4/5 day; OK 3/5 day
        day=x; day=x hits 2         → OK: OK 2/5 day; OK 0/5 day
    """,
    "a limit brought along counts in its rule's window": """
        day=x own 9 day             → OK: OK 8/9 day
        day=x                       → OK: OK 3/5 day
        day=x own 2 day             → OVER_LIMIT: OVER_LIMIT 0/2 day
    """,
    "a limit brought along needs no rule": """
        unknown=x own 2 week        → OK: OK 1/2 week
        free=x own 2 month          → OK: OK 1/2 month
        white=list own 2 year       → OK: OK 1/2 year
        - own 2 hour                → OK: OK 1/2 hour
    """,
    "a limit brought along is enforced": """
        shadow=x hits 2             → OK: OK 0/2 day
        shadow=x own 2 day          → OVER_LIMIT: OVER_LIMIT 0/2 day
    """,
    "a limit brought along replaces nothing, and is not replaced": """
        named=x; replacer=x own 5 day       → OK: OK 2/3 day "a"; OK 4/5 day
        named=x own 5 day; replacer=x       → OK: OK 3/5 day; OK 4/6 day "b"
    """,
    "what a rule replaces does not count": """
        named=x hits 3              → OK: OK 0/3 day "a"
        named=x; replacer=x         → OK: OK; OK 5/6 day "b"
        hour=x; free-replacer=x     → OK: OK; OK no end
        hour=x                      → OK: OK 2/3 hour "hourly"
    """,
    "a name is one in the whole request, wherever its rule stands": """
        up=x > named=y; replacer=x  → OK: OK; OK 5/6 day "b"
        up=x > named=y; named=x     → OK: OK 6/7 day "a"; OK 2/3 day "a"
    """,
    "two that replace each other both do not count": """
        one=x; two=x                → OK: OK; OK
        one=x hits 9; two=x hits 9  → OK: OK; OK
        one=x                       → OK: OK 2/3 day "one"
        two=x own 9 day; one=x      → OK: OK 8/9 day; OK 1/3 day "one"
    """,
    "a shadow is told OK": """
        shadow=x hits 2             → OK: OK 0/2 day
        shadow=x                    → OK: OK 0/2 day
        shadow=x; day=x             → OK: OK 0/2 day; OK 4/5 day
    """,
    "of quotas one must have room": """
        quota=x hits 2              → OK: OK 0/2 day
        quota=x; quota2=x           → OK: OVER_LIMIT 0/2 day; OK 2/3 hour
        quota=x; quota2=x; day=x    → OK: OVER_LIMIT 0/2 day; OK 1/3 hour; OK 4/5 day
        quota=x                     → OVER_LIMIT: OVER_LIMIT 0/2 day
    """,
    "a gate beside a quota": """
        quota=x hits 2; day=x       → OK: OK 0/2 day; OK 4/5 day
        quota=x; unknown=x          → OVER_LIMIT: OVER_LIMIT 0/2 day; OK
        quota=x; free=x             → OVER_LIMIT: OVER_LIMIT 0/2 day; OK no end
        quota=x; none=x             → OVER_LIMIT: OVER_LIMIT 0/2 day; OVER_LIMIT 0/0 hour
    """,
    "what is refused": """
        @ day=x                     → UNKNOWN: rate limit domain must not be empty
        @shop                       → UNKNOWN: rate limit descriptor list must not be empty
    """,
}


@pytest.mark.parametrize("table", SAME.values(), ids=SAME)
async def test_answers_are_the_references(table):
    """Line by line."""
    await as_written(limiter_of(), table)


QUOTA_MODE = {
    "every limit is a quota": """
        day=x hits 5                → OK: OK 0/5 day
        day=x; week=x               → OK: OVER_LIMIT 0/5 day; OK 4/5 week
        week=x hits 4               → OK: OK 0/5 week
        day=x; week=x               → OVER_LIMIT: OVER_LIMIT 0/5 day; OVER_LIMIT 0/5 week
        day=x                       → OVER_LIMIT: OVER_LIMIT 0/5 day
    """,
    "a descriptor without a limit is one that has room, an unlimited one is none": """
        none=x                      → OVER_LIMIT: OVER_LIMIT 0/0 hour
        none=x; free=x              → OVER_LIMIT: OVER_LIMIT 0/0 hour; OK no end
        none=x; unknown=x           → OK: OVER_LIMIT 0/0 hour; OK
        none=x; white=list          → OK: OVER_LIMIT 0/0 hour; OK
        none=x; unknown=x; day=x    → OK: OVER_LIMIT 0/0 hour; OK; OK 4/5 day
        none=x; -                   → OK: OVER_LIMIT 0/0 hour; OK
    """,
    "so is one whose limit is replaced": """
        none=x; hour=x; free-replacer=x     → OK: OVER_LIMIT 0/0 hour; OK; OK no end
    """,
    "and a shadow, whether it has room or not": """
        none=x; shadow=x hits 2     → OK: OVER_LIMIT 0/0 hour; OK 0/2 day
        none=x; shadow=x            → OK: OVER_LIMIT 0/0 hour; OK 0/2 day
        none=x; both=x              → OK: OVER_LIMIT 0/0 hour; OK 1/2 hour
    """,
    "a limit brought along is a quota, too": """
        day=x own 0 day             → OVER_LIMIT: OVER_LIMIT 0/0 day
        day=x own 0 day; week=x     → OK: OVER_LIMIT 0/0 day; OK 4/5 week
        unknown=x own 0 day; week=x → OK: OVER_LIMIT 0/0 day; OK 3/5 week
    """,
}


@pytest.mark.parametrize("table", QUOTA_MODE.values(), ids=QUOTA_MODE)
async def test_with_quota_mode(table):
    """QUOTA_MODE makes a quota of every limit, and of what has none."""
    await as_written(limiter_of(quota_mode=True), table)


SHADOW_MODE = {
    "every request passes, and statuses say what enforcing would do": """
        day=x hits 5                → OK: OK 0/5 day
        day=x                       → OK: OVER_LIMIT 0/5 day
        none=x; free=x              → OK: OVER_LIMIT 0/0 hour; OK no end
        day=x own 0 day             → OK: OVER_LIMIT 0/0 day
        shadow=x hits 2             → OK: OK 0/2 day
        shadow=x                    → OK: OK 0/2 day
    """,
}


@pytest.mark.parametrize("table", SHADOW_MODE.values(), ids=SHADOW_MODE)
async def test_with_shadow_mode(table):
    """SHADOW_MODE changes the overall code only."""
    await as_written(limiter_of(shadow_mode=True), table)


RESPONSE_HEADERS = {
    "the descriptor with least left is shown, the first of equals": """
        day=x                       → OK: OK 4/5 day [5 4]
        day=x; hour=x               → OK: OK 3/5 day; OK 2/3 hour "hourly" [3 2]
        year=x hits 3; hour=x hits 0  → OK: OK 2/5 year; OK 2/3 hour "hourly" [5 2]
        day=x; free=x; unknown=x    → OK: OK 2/5 day; OK no end; OK [5 2]
        most=x hits 0; year=x       → OK: OK 4294967295/4294967295 hour; OK 1/5 year [5 1]
    """,
    "without a limit there are none": """
        free=x; unknown=x; white=list       → OK: OK no end; OK; OK
        hour=x; free-replacer=x     → OK: OK; OK no end
        most=x hits 0               → OK: OK 4294967295/4294967295 hour
    """,
    "the last that denies goes before": """
        day=x own 0 day; none=x; hour=x own 0 week; year=x hits 0 → OVER_LIMIT: OVER_LIMIT 0/0 day; OVER_LIMIT 0/0 hour; OVER_LIMIT 0/0 week; OK 5/5 year [0 0]
        none=x; unknown=x own 0 day → OVER_LIMIT: OVER_LIMIT 0/0 hour; OVER_LIMIT 0/0 day [0 0]
        most=x hits 4294967295      → OK: OK 0/4294967295 hour [4294967295 0]
        none=x; most=x              → OVER_LIMIT: OVER_LIMIT 0/0 hour; OVER_LIMIT 0/4294967295 hour [4294967295 0]
        most=x; none=x              → OVER_LIMIT: OVER_LIMIT 0/4294967295 hour; OVER_LIMIT 0/0 hour [0 0]
    """,
    "a quota that is over has nothing left": """
        quota=x hits 2              → OK: OK 0/2 day [2 0]
        day=x; quota=x; quota2=x    → OK: OK 4/5 day; OVER_LIMIT 0/2 day; OK 2/3 hour [2 0]
        year=x hits 5; quota=x; quota2=x    → OK: OK 0/5 year; OVER_LIMIT 0/2 day; OK 1/3 hour [5 0]
        none=x; quota=x             → OVER_LIMIT: OVER_LIMIT 0/0 hour; OVER_LIMIT 0/2 day [0 0]
    """,
    "a shadow without room has nothing left": """
        shadow=x hits 2             → OK: OK 0/2 day [2 0]
        day=x; shadow=x             → OK: OK 4/5 day; OK 0/2 day [2 0]
    """,
}


@pytest.mark.parametrize("table", RESPONSE_HEADERS.values(), ids=RESPONSE_HEADERS)
async def test_response_headers_show_the_descriptor_that_the_reference_shows(table):
    """LIMIT_RESPONSE_HEADERS_ENABLED: of several descriptors one is shown."""
    await as_written(limiter_of(header_names=HEADERS), table)


async def test_response_headers_under_the_modes_of_the_process():
    """SHADOW_MODE lets pass what denies, and shows it; with QUOTA_MODE nothing denies alone, and least left goes before."""
    table = "none=x; day=x hits 0; hour=x own 0 week → {}: OVER_LIMIT 0/0 hour; OK 5/5 day; OVER_LIMIT 0/0 week [0 0]"
    await as_written(limiter_of(header_names=HEADERS), table.format("OVER_LIMIT"))
    await as_written(limiter_of(header_names=HEADERS, shadow_mode=True), table.format("OK"))
    table = "day=x own 0 day; year=x own 1 week → OK: OVER_LIMIT 0/0 day; OK 0/1 week [0 0]"
    await as_written(limiter_of(header_names=HEADERS, quota_mode=True), table)
    table = "year=x own 1 week; day=x own 0 day → OK: OK 0/1 week; OVER_LIMIT 0/0 day [1 0]"
    await as_written(limiter_of(header_names=HEADERS, quota_mode=True), table)


async def test_response_headers_have_these_names_and_values_in_this_order():
    """The limit without a policy, what is left, the seconds that the status says, too."""
    answer = await ask(limiter_of(header_names=("L", "rem", "x-reset")), asked("day=x"))
    assert answer["responseHeadersToAdd"] == [
        {"key": "L", "value": "5"},
        {"key": "rem", "value": "4"},
        {"key": "x-reset", "value": "57600"},
    ]
    assert answer["statuses"][0]["durationUntilReset"] == "57600s"


async def test_there_are_no_response_headers_unless_they_are_asked_for():
    """As by default."""
    assert "responseHeadersToAdd" not in await ask(limiter_of(), asked("day=x"))


# ── what differs ──────────────────────────────────────────────────────────────────────────────────────────────────────

DENIED = """
    day=x hits 4                → OK: OK 1/5 day
    day=x hits 100              → OVER_LIMIT: OVER_LIMIT 1/5 day
    day=x                       → OK: OK 0/5 day
    day=y; none=x               → OVER_LIMIT: OK 5/5 day; OVER_LIMIT 0/0 hour
    day=y                       → OK: OK 4/5 day
    quota=x own 0 day; quota=y  → OVER_LIMIT: OVER_LIMIT 0/0 day; OK 2/2 day
"""


async def test_a_denied_request_consumes_nothing():
    """Not on the limit that denies it, and not on those beside it; what is left is told, too."""
    await as_written(limiter_of(), DENIED)


async def test_response_headers_say_what_is_left_where_more_was_asked():
    """The reference says 0 of every denial."""
    await as_written(limiter_of(header_names=HEADERS), "day=x hits 7 → OVER_LIMIT: OVER_LIMIT 5/5 day [5 5]")


async def test_in_shadow_mode_a_denied_request_consumes_nothing_either():
    """SHADOW_MODE counts exactly as enforcing would."""
    table = """
        day=x; none=x               → OK: OK 5/5 day; OVER_LIMIT 0/0 hour
        day=x                       → OK: OK 4/5 day
    """
    await as_written(limiter_of(shadow_mode=True), table)


async def test_hits_that_do_not_fit_do_not_count_for_the_next_descriptor():
    """Of a request that passes all the same: here a shadow's, and a quota's."""
    table = """
        shadow=x hits 3; shadow=x   → OK: OK 0/2 day; OK 1/2 day
        quota=x hits 3; quota=x     → OK: OVER_LIMIT 2/2 day; OK 1/2 day
    """
    await as_written(limiter_of(), table)


async def test_a_shadow_without_room_keeps_nothing_else_from_counting():
    """With STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT it does there."""
    table = """
        shadow=x hits 2             → OK: OK 0/2 day
        shadow=x; day=x             → OK: OK 0/2 day; OK 4/5 day
        shadow=x; day=x             → OK: OK 0/2 day; OK 3/5 day
    """
    await as_written(limiter_of(), table)


async def test_a_rule_that_is_a_shadow_and_a_quota_is_a_shadow():
    """It lets nobody pass for whom other quotas have no room. The loader warns of such a rule."""
    table = """
        quota=x hits 2              → OK: OK 0/2 day
        quota=x; both=x             → OVER_LIMIT: OVER_LIMIT 0/2 day; OK 2/2 hour
    """
    await as_written(limiter_of(), table)


@pytest.mark.parametrize("domain", ["shop", "other"])
@pytest.mark.parametrize("unit", [0, 8, 2**31 - 1])
async def test_an_unknown_unit_of_a_limit_brought_along_is_told(unit, domain):
    """The reference implementation's process dies of it, if it has rules for the domain."""
    request = {
        "domain": domain,
        "descriptors": [{"entries": [{"key": "day", "value": "x"}], "limit": {"requestsPerUnit": 1, "unit": unit}}],
    }
    limiter = limiter_of()
    with pytest.raises(BadRequestError, match=f"rate limit override has the unit {unit}; it must be one of"):
        await ask(limiter, request)
    assert await tell(limiter, "day=x") == "OK: OK 4/5 day"


async def test_many_hits_are_many():
    """From 2^63 on the reference implementation takes them for negative, and gives them back."""
    table = f"""
        day=x hits {2**63}          → OVER_LIMIT: OVER_LIMIT 5/5 day
        day=x hits {2**64 - 3}      → OVER_LIMIT: OVER_LIMIT 5/5 day
        day=x                       → OK: OK 4/5 day
    """
    await as_written(limiter_of(), table)


async def test_dynamic_metadata_names_the_week():
    """And leaves out what is 0, as protobuf's text does."""
    limiter = limiter_of(dynamic_metadata=True)
    answers = [await ask(limiter, asked(text)) for text in ("day=x own 7 week", "day=x own 0 week")]
    limits = [answer["dynamicMetadata"]["descriptors"][0]["limit"] for answer in answers]
    assert limits == ["requests_per_unit:7 unit:WEEK", "unit:WEEK"]


async def test_metadata_is_told_whatever_the_rule_is_called_in_metrics():
    """The reference loses it with `detailed_metric`, and with a `value_to_metric` that changes the name."""
    rules = "domain: shop\ndescriptors:\n" + "".join(
        f"  - {{key: {key}, {key}: true, rate_limit: {{unit: day, requests_per_unit: 3}}, metadata: {{who: {key}}}}}\n"
        for key in ("detailed_metric", "value_to_metric")
    )
    limiter = limiter_of(rules=rules, dynamic_metadata=True)
    for key in ("detailed_metric", "value_to_metric"):
        answer = await ask(limiter, asked(f"{key}=x"))
        assert answer["dynamicMetadata"]["metadata"] == {"who": key}


@pytest.mark.parametrize("text", ["RateLimit Limit", "RateLimit:", "Grenze\n", "größe"])
def test_a_response_header_has_a_name(text):
    """Of those signs that HTTP allows."""
    with pytest.raises(SettingsError, match=r"LIMIT_RESET_HEADER=.*: must be a header's name"):
        Settings.from_environment({"LIMIT_RESET_HEADER": text})


def test_response_headers_are_set_by_four_variables():
    """An empty name is the default."""
    names = {"LIMIT_LIMIT_HEADER": "X-Limit", "LIMIT_REMAINING_HEADER": "", "LIMIT_RESET_HEADER": "x-reset"}
    assert Settings.from_environment(names).header_names == ()
    on = Settings.from_environment({**names, "LIMIT_RESPONSE_HEADERS_ENABLED": "T"})
    assert on.header_names == ("X-Limit", "RateLimit-Remaining", "x-reset")
