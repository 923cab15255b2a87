"""Whatever a peer sends: the same in whatever parts, no worse than h2 sees it, and within bounds."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http2_fuzz.damage import wires
from tests.http2_fuzz.judge import judge


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(wires(), st.integers(0, 2**32 - 1))
def test_any_connection(wire: bytes, seed: int):
    judge(wire, seed)
