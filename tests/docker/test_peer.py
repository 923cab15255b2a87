"""The reference implementation under the same limits and the same load.

Its image is not made here: PEER_IMAGE names one that this machine has, or that a registry has.
"""

import os

import pytest

from ratelimit_svc.demo.answers import report
from ratelimit_svc.demo.proof import fullest
from tests.docker.engine import has_image, pulled
from tests.docker.images import DEFAULTS
from tests.docker.load import LIMITS, SECOND_US, answers, counters, most

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="session")
def image():
    """The peer's image, which must be here or in a registry: asked for first, before anything is started."""
    name = os.environ.get("PEER_IMAGE") or DEFAULTS["PEER_IMAGE"]
    if not has_image(name) and not pulled(name):
        pytest.fail(f"PEER_IMAGE: {name} is neither here nor to be pulled; it is the peer's own, and is not built here")
    return name


def test_the_peer_answers_the_same_load(image, compose):
    """Both name the same limits. Ours holds them in every window; the peer's windows are fixed, and may hold twice as much."""
    before = counters(compose)
    ours = answers(compose.to_the_end("load")["load"])
    local = (counters(compose) - before)["policy", "local"]
    theirs = answers(compose.to_the_end("peer-load")["peer-load"])
    print(f"\nratelimit-svc\n{report(ours)}\n\npeer\n{report(theirs)}")
    for tenant, limit in LIMITS.items():
        assert fullest(ours[tenant].admitted, SECOND_US) <= most(limit, local=local)
        assert fullest(theirs[tenant].admitted, SECOND_US) <= 2 * limit
        assert min(ours[tenant].denied, theirs[tenant].denied) > 0
        assert fullest_second(theirs[tenant]) <= limit


def fullest_second(one):
    """The most that were surely admitted within one second of the clock, as fixed windows count."""
    seconds = [
        hit.sent_us // SECOND_US for hit in one.admitted if hit.sent_us // SECOND_US == hit.answered_us // SECOND_US
    ]
    return max(seconds.count(second) for second in set(seconds))
