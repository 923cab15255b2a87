"""Whatever a peer sends: the same in whatever parts, no worse than h2 sees it, and within bounds."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_svc.wire.http2.frames import ACK, PREFACE, Kind
from tests.http2_fuzz.damage import wires
from tests.http2_fuzz.judge import judge
from tests.http2_fuzz.ours import QUICK_PATH
from tests.http2_fuzz.wires import CALL, SOUND, Call, Client, Frame, four, messages


@settings(max_examples=1200, deadline=None, suppress_health_check=list(HealthCheck))
@given(wires(), st.integers(0, 2**32 - 1))
def test_any_connection(wire: bytes, seed: int):
    judge(wire, seed)


def test_credit_does_not_depend_on_parts():
    """Requests with as many other frames as they earn credit for, more than there is credit for without: also in one read."""
    client = Client(obeys=True)
    frames = [Frame(Kind.SETTINGS), Frame(Kind.SETTINGS, ACK)]
    for _ in range(120):
        for some in client.frames(
            Call((*SOUND, (b":path", QUICK_PATH.encode()), *CALL), messages([b"?"], compressed=False))
        ):
            frames += some
        frames += [Frame(Kind.WINDOW_UPDATE, 0, 0, four(1))] * 9
    assert judge(PREFACE + b"".join(frame.data() for frame in frames)) == []
