"""What the load of the compose file was answered, by ghz's bodies and by the service's own counters."""

from collections import Counter
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from ratelimit_svc.demo.answers import Answers, read
from ratelimit_svc.demo.proof import least
from tests.docker.engine import Project

LIMITS = {"bronze": 10, "silver": 20, "gold": 50, "guest": 5}
"""Of config/demo.yaml, in a second."""
RULES = {
    "bronze": "shop/tenant=bronze",
    "silver": "shop/tenant=silver",
    "gold": "shop/tenant=gold",
    "guest": "shop/tenant",
}
REPLICAS = 2
SECOND_US = 1_000_000
_METRICS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/metrics').read().decode())"

Counts = Counter[tuple[str, str]]
"""By rule and decision, and by `policy` and its name."""


def counters(compose: Project) -> Counts:
    """Return the decisions of all replicas together: of each rule, and of each policy."""
    counts: Counts = Counter()
    for index in range(1, REPLICAS + 1):
        for family in text_string_to_metric_families(compose.python("ratelimit", _METRICS, index=index)):
            for sample in family.samples:
                if sample.name == "ratelimit_svc_rule_decisions_total":
                    counts[sample.labels["rule"], sample.labels["decision"]] += int(sample.value)
                elif sample.name == "ratelimit_svc_policy_decisions_total":
                    counts["policy", sample.labels["policy"]] += int(sample.value)
    return counts


def answers(log: str) -> Mapping[str, Answers]:
    """Return what every tenant was answered; none of them an error, all of them with the limit of the rules."""
    found = read(log.splitlines())
    assert {tenant: (one.errors, one.limits) for tenant, one in found.items()} == {
        tenant: (0, {(limit, "SECOND")}) for tenant, limit in LIMITS.items()
    }
    return found


def most(limit: int, *, local: int) -> int:
    """What a window may hold: the limit; after answers from the replicas' own memory, what README.md promises of outages."""
    return 2 * limit + REPLICAS - 1 if local else limit


def starved(one: Answers, limit: int) -> bool:
    """Say whether a tenant who always asked for more got less than half of its due."""
    span_us = max(hit.answered_us for hit in one.admitted) - min(hit.sent_us for hit in one.admitted)
    return len(one.admitted) < least(span_us, limit=limit, window_us=SECOND_US, slices=60, enough=0.5)
