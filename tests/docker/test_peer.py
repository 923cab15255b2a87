"""The reference implementation under the same limits and the same load.

Its image is not made here: PEER_IMAGE names one that this machine has, or that a registry has.
"""

import os

import pytest

from ratelimit_svc.demo.answers import report
from ratelimit_svc.demo.proof import fullest
from tests.docker.engine import has_image, pulled
from tests.docker.images import DEFAULTS
from tests.docker.load import LIMITS, SECOND_US, answers

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def peer(compose):
    """The project, if the peer's image can be had."""
    image = os.environ.get("PEER_IMAGE", DEFAULTS["PEER_IMAGE"])
    if not has_image(image) and not pulled(image):
        pytest.fail(f"PEER_IMAGE: {image} is neither here nor to be pulled; it is the peer's own, and not built here")
    return compose


def test_the_peer_answers_the_same_load(peer):
    """Both name the same limits. Ours holds them in every window; the peer's windows are fixed, and may hold twice as much."""
    ours = answers(peer.to_the_end("load")["load"])
    theirs = answers(peer.to_the_end("peer-load")["peer-load"])
    print(f"\nratelimit-svc\n{report(ours)}\n\npeer\n{report(theirs)}")
    for tenant, limit in LIMITS.items():
        assert fullest(ours[tenant].admitted, SECOND_US) <= limit
        assert fullest(theirs[tenant].admitted, SECOND_US) <= 2 * limit
        assert min(ours[tenant].denied, theirs[tenant].denied) > 0
        assert fullest_second(theirs[tenant]) <= limit


def fullest_second(one):
    """The most that were surely admitted within one second of the clock, as fixed windows count."""
    seconds = [
        hit.sent_us // SECOND_US for hit in one.admitted if hit.sent_us // SECOND_US == hit.answered_us // SECOND_US
    ]
    return max(seconds.count(second) for second in set(seconds))
