"""Plans: which charges a request means, with which keys, and what limits brought along or replaced make of them."""

import pytest

from ratelimit_svc.errors import BadRequestError
from ratelimit_svc.limiter.plans import LONGEST_LABEL, STALE_AT_ONCE, PlanMemory, Planner
from ratelimit_svc.limiter.policy import local_share
from ratelimit_svc.model import (
    MAX_HITS,
    Algorithm,
    Align,
    Descriptor,
    Entry,
    Kind,
    Limit,
    OnStoreFailure,
    Overdraft,
    Plan,
    Request,
    Role,
    Rule,
    Unit,
)
from ratelimit_svc.rules.match import Domain, Node, RuleSet
from ratelimit_svc.store import MAX_CHARGES
from tests.limiting import rules_of

FIVE = Limit(5, Unit.MINUTE)


def rule(limit: Limit | None = FIVE, *, id_: str = "shop/d0", **others) -> Rule:
    return Rule(id_, limit, **others)


def plan(*rules: Rule, limit: Limit | None = None, hits: int | None = None, refund: bool = False, **others) -> Plan:
    """The plan of a request that meets these rules with one descriptor, `d0=x`."""
    asked = Descriptor((Entry("d0", "x"),), hits, refund, limit)
    return Planner(rules_of(rules, **others)).plan(Request("shop", (asked,)))


# ── hits and kinds ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("of_request", "of_descriptor", "refund", "expected"),
    [
        (0, None, False, (1, Kind.POSITIVE)),
        (7, None, False, (7, Kind.POSITIVE)),
        (7, 3, False, (3, Kind.POSITIVE)),
        (7, 0, False, (0, Kind.CHECK)),
        (0, 2**64 - 1, False, (MAX_HITS, Kind.POSITIVE)),
        (0, None, True, (1, Kind.REFUND)),
        (0, 0, True, (0, Kind.REFUND)),
        (0, 2**64 - 1, True, (MAX_HITS, Kind.REFUND)),
    ],
)
def test_hits_and_kind(of_request, of_descriptor, refund, expected):
    """The descriptor's own hits, else the request's, else one; its own 0 is a check; beyond every limit all are the same."""
    asked = Descriptor((Entry("d0", "x"),), of_descriptor, refund)
    (charge,) = Planner(rules_of((rule(),))).plan(Request("shop", (asked,), of_request)).charges
    assert (charge.hits, charge.kind) == expected


def test_a_refund_never_overdraws_and_may_be_forbidden():
    """What gives back counts nothing; where the rule forbids it, it gives nothing."""
    (charge,) = plan(rule(overdraft=Overdraft.ALWAYS), hits=3, refund=True).charges
    assert (charge.overdraft, charge.hits) == (Overdraft.NEVER, 3)
    assert plan(rule(refunds=False), hits=3, refund=True).charges[0].hits == 0


def test_charges_stand_in_the_order_in_which_they_are_looked_at():
    """Refunds, gates, quotas, shadows; each descriptor knows where its own are."""
    rules = rules_of(
        (rule(role=Role.SHADOW),), (rule(role=Role.QUOTA), rule(Limit(9, Unit.HOUR))), (), (rule(None),), (rule(),)
    )
    asked = [Descriptor((Entry(f"d{place}", "x"),), refund=place == 4) for place in range(5)]
    made = Planner(rules).plan(Request("shop", tuple(asked)))
    assert [(one.role, one.kind) for one in made.charges] == [
        (Role.GATE, Kind.REFUND),
        (Role.GATE, Kind.POSITIVE),
        (Role.QUOTA, Kind.POSITIVE),
        (Role.SHADOW, Kind.POSITIVE),
    ]
    assert made.descriptors == ((3,), (1, 2), None, rules.rules[-2], (0,))


def test_planning_is_pure():
    """The same request means the same again, and rules are as they were."""
    rules = rules_of((rule(replaces=frozenset({"a"})), rule(Limit(9, Unit.HOUR, name="b"))))
    before = repr(rules.rules)
    request = Request(
        "shop", (Descriptor((Entry("d0", "x"),), limit=Limit(3, Unit.MINUTE)), Descriptor((Entry("d0", "y"),)))
    )
    one, other = (Planner(rules).plan(request) for _ in range(2))
    assert (one.charges, one.descriptors, one.coalesces) == (other.charges, other.descriptors, other.coalesces)
    assert repr(rules.rules) == before


def test_a_request_is_kept_only_for_those_who_tell_it():
    """A plan holds its request if answers repeat parts of it, and else not."""
    request = Request("shop", (Descriptor((Entry("d0", "x"),)),))
    assert Planner(rules_of((rule(),))).plan(request).request is None
    assert Planner(rules_of((rule(),)), keep_requests=True).plan(request).request is request


def test_more_limits_than_one_batch_may_hold_are_refused():
    """Few descriptors may meet many limits: it is the limits that are counted."""
    several = [rule(Limit(5, Unit.SECOND, multiplier=number + 1)) for number in range(3)]
    planner = Planner(rules_of(several))
    asked = [Descriptor((Entry("d0", str(number)),)) for number in range(MAX_CHARGES // 3 + 1)]
    assert len(planner.plan(Request("shop", tuple(asked[:-1]))).charges) == MAX_CHARGES // 3 * 3
    with pytest.raises(BadRequestError, match="129 limits; at most 128"):
        planner.plan(Request("shop", tuple(asked)))


# ── limits brought along ──────────────────────────────────────────────────────────────────────────────────────────────

FIXED = Limit(5, Unit.MINUTE, name="n", slices=7, algorithm=Algorithm.FIXED_WINDOW, align=Align.CALENDAR)
BUCKET = Limit(5, Unit.MINUTE, algorithm=Algorithm.TOKEN_BUCKET, burst=50)
ODD = Limit(5, None, period_us=60_000_000)
BROUGHT = Limit(3, Unit.MINUTE)


@pytest.mark.parametrize("limit", [FIVE, FIXED, BUCKET, ODD], ids=["sliding", "fixed", "bucket", "odd period"])
def test_a_limit_brought_along_counts_in_the_rules_window(limit):
    """Same algorithm, same period: the same key; its own number, and of a bucket its own burst."""
    (own,), (brought,) = plan(rule(limit)).charges, plan(rule(limit), limit=BROUGHT).charges
    assert brought.key == own.key
    assert (brought.limit, brought.algorithm, brought.window_us) == (3, limit.algorithm, 60_000_000)
    assert brought.rule.limit is not None
    assert (brought.rule.limit.name, brought.rule.limit.align) == ("", limit.align)


def test_a_limit_brought_along_with_another_period_has_a_window_of_its_own():
    """As in the reference implementation, whose keys hold the window too."""
    (own,), (brought,) = plan(rule()).charges, plan(rule(), limit=Limit(5, Unit.MINUTE, multiplier=2)).charges
    assert brought.key != own.key
    assert brought.window_us == 2 * own.window_us


def test_a_limit_brought_along_is_enforced_whatever_the_rule_says():
    """The rule's role, name, replacing, sharing and label do not apply; its overdraft, refunds and failure policy do."""
    model = rule(
        Limit(5, Unit.MINUTE, name="n"),
        role=Role.SHADOW,
        on_store_failure=OnStoreFailure.DENY,
        overdraft=Overdraft.NEVER,
        refunds=False,
        replaces=frozenset({"other"}),
        shared=(Entry("d0", "*"),),
        label=("d0",),
    )
    (charge,) = plan(model, limit=BROUGHT).charges
    made = charge.rule
    assert (made.id, made.role, made.replaces, made.shared, charge.label) == (
        "shop/d0#override",
        Role.GATE,
        frozenset(),
        (),
        "shop/d0#override",
    )
    assert (made.on_store_failure, made.overdraft, made.refunds) == (OnStoreFailure.DENY, Overdraft.NEVER, False)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("rules", [(), (rule(None),)], ids=["no rule", "unlimited"])
def test_a_limit_brought_along_to_no_limit_counts_by_the_default_algorithm(algorithm, rules):
    """The domain has to exist; a rule with a limit need not."""
    (charge,) = plan(*rules, limit=BROUGHT, algorithm=algorithm).charges
    assert (charge.algorithm, charge.limit, charge.rule.id) == (algorithm, 3, "shop#override")


def test_a_limit_brought_along_to_an_unknown_domain_is_ignored():
    """Nothing is configured there, so nothing is limited."""
    asked = Descriptor((Entry("d0", "x"),), limit=BROUGHT)
    assert Planner(rules_of((rule(),))).plan(Request("elsewhere", (asked,))).descriptors == (None,)


def test_of_several_limits_the_first_is_the_model():
    """A limit brought along stands for all of them."""
    (charge,) = plan(rule(FIXED), rule(Limit(9, Unit.HOUR)), limit=BROUGHT).charges
    assert charge.algorithm is Algorithm.FIXED_WINDOW


# ── shared counters, labels, tenants, replaced ────────────────────────────────────────────────────────────────────────


def nested(*rules: Rule, tenant: str | None = None) -> RuleSet:
    """Rules for `tenant=…` with `path=/api/*` below."""
    below = Node.of([("path", "/api/*", Node(rules=rules))])
    return RuleSet({"shop": Domain("shop", tenant, Node.of([("tenant", None, below)]))}, rules)


def keys_of(rules: RuleSet, *paths: str, tenant: str = "acme") -> set[bytes]:
    asked = (Descriptor((Entry("tenant", tenant), Entry("path", path))) for path in paths)
    return {charge.key for one in asked for charge in Planner(rules).plan(Request("shop", (one,))).charges}


@pytest.mark.parametrize("tenant", [None, "tenant"])
def test_a_shared_counter_has_the_pattern_in_its_key(tenant):
    """`share_threshold`: all values that the pattern covers count in one window; other entries stay apart."""
    shared = nested(rule(shared=(None, Entry("path", "/api/*"))), tenant=tenant)
    (key,) = keys_of(shared, "/api/a", "/api/b")
    assert b"path=%2Fapi%2F%2A" in key
    assert keys_of(shared, "/api/a", tenant="other") != {key}
    assert len(keys_of(nested(rule(), tenant=tenant), "/api/a", "/api/b")) == 2


def label_of(*steps: str | None, path: str = "/api/a") -> str:
    rules = nested(rule(id_="shop/tenant/path=/api/*", label=steps))
    asked = Descriptor((Entry("tenant", "acme"), Entry("path", path)))
    return Planner(rules).plan(Request("shop", (asked,))).charges[0].label


def test_labels():
    """Metrics call a rule by its id, or with the request's own values where the rule says so; not if that grows too long."""
    assert label_of() == "shop/tenant/path=/api/*"
    assert label_of("tenant", None) == "shop/tenant/path=%2Fapi%2Fa"
    assert label_of(None, "path") == "shop/tenant=acme/path"
    assert label_of(None, None, "#hourly") == "shop/tenant=acme/path=%2Fapi%2Fa#hourly"
    assert label_of("tenant", None, path="/api/" + "x" * LONGEST_LABEL) == "shop/tenant/path=/api/*"


def test_a_replaced_limit_is_not_planned():
    """By whichever descriptor the one that replaces it is met, and only in requests that meet it."""
    rules = rules_of((rule(Limit(5, Unit.MINUTE, name="a")),), (rule(replaces=frozenset({"a"})),))
    first, second = (Descriptor((Entry(f"d{place}", "x"),)) for place in range(2))
    both = Planner(rules).plan(Request("shop", (first, second)))
    assert [one.rule for one in both.charges] == [rules.rules[1]]
    assert both.descriptors == (None, (0,))
    assert len(Planner(rules).plan(Request("shop", (first,))).charges) == 1


# ── coalescing, policy, shares ────────────────────────────────────────────────────────────────────────────────────────

COALESCES = [
    (rule(), 1, True),
    (rule(), 0, True),
    (rule(), 2, False),
    (rule(overdraft=Overdraft.NEVER), 2, True),
    (rule(overdraft=Overdraft.ALWAYS), 1, False),
    (rule(overdraft=Overdraft.ALWAYS), 0, True),
    (rule(role=Role.SHADOW), 1, False),
    (rule(role=Role.QUOTA), 1, False),
]


@pytest.mark.parametrize(("one", "hits", "expected"), COALESCES)
def test_what_coalesces(one, hits, expected):
    """Only what "g of n" says all of: test_batch proves it of those."""
    assert plan(one, hits=hits).coalesces == expected


def test_refunds_and_the_same_key_twice_do_not_coalesce():
    """They go one by one."""
    assert not plan(rule(), refund=True).coalesces
    twice = (Descriptor((Entry("d0", "x"),)),) * 2
    assert not Planner(rules_of((rule(),))).plan(Request("shop", twice)).coalesces


def test_the_strongest_policy_of_gates_and_quotas():
    """Shadows have no say; where nothing may deny, nothing is denied."""
    shadow = rule(role=Role.SHADOW, on_store_failure=OnStoreFailure.ERROR)
    quota = rule(Limit(9, Unit.HOUR), role=Role.QUOTA, on_store_failure=OnStoreFailure.DENY)
    assert plan(rule(), shadow, quota).on_store_failure is OnStoreFailure.DENY
    assert plan(shadow).on_store_failure is OnStoreFailure.ALLOW


def test_a_local_share_of_each_algorithm():
    """ceil(limit / replicas); of a bucket both its burst and its rate; of a window not its slices or its beginning."""
    monthly = Limit(5, Unit.MONTH, algorithm=Algorithm.FIXED_WINDOW, align=Align.CALENDAR)
    shared = local_share(plan(rule(Limit(5, Unit.HOUR, slices=7)), rule(monthly), rule(BUCKET)), 3)
    assert [(one.limit, one.shape) for one in shared.charges] == [(2, 7), (2, 1), (17, 2)]
    none = local_share(plan(rule(Limit(0, Unit.MINUTE, algorithm=Algorithm.TOKEN_BUCKET))), 3)
    assert [(one.limit, one.shape) for one in none.charges] == [(0, 0)]


def test_plans_of_replaced_rules_are_let_go_a_few_with_each_request():
    """So that nobody waits for all of them; and they do go, however often rules are replaced."""
    memory = PlanMemory(
        lambda data: Plan((), (), coalesces=True, on_store_failure=OnStoreFailure.ALLOW), most_bytes=2**20
    )
    for number in range(10 * STALE_AT_ONCE):
        memory.get(b"%d" % number)
    memory.clear()
    assert (len(memory), memory.bytes) == (0, 0)
    for left in range(9, 0, -1):
        memory.get(b"again")
        assert sum(map(len, memory._stale)) == left * STALE_AT_ONCE
    memory.clear()
    for _ in range(3):
        memory.get(b"again")
    assert not memory._stale
    assert len(memory) == 1
