"""Whatever a peer sends: the same in whatever parts, no worse than h2 sees it, and within bounds."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_svc.wire.http2.frames import ACK, PREFACE, ErrorCode, Kind
from ratelimit_svc.wire.http2.memory import Blocks
from tests.http2_fuzz.damage import wires
from tests.http2_fuzz.judge import judge
from tests.http2_fuzz.ours import QUICK_PATH, Ours
from tests.http2_fuzz.wires import CALL, SOUND, Call, Client, Frame, four, messages


@settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
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


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.RST_STREAM, 0, 2, four(8)),
        Frame(Kind.WINDOW_UPDATE, 0, 2, four(1)),
        Frame(Kind.DATA, 0, 2, b"?"),
        Frame(Kind.PRIORITY, 0, 2, four(2) + b"\x10"),
    ],
    ids=lambda frame: frame.kind.name,
)
def test_streams_of_even_numbers_stay_idle(frame: Frame):
    """We open none, whatever the client has opened since (RFC 9113 §5.1)."""
    ours = Ours(Blocks(QUICK_PATH))
    call = Call((*SOUND, (b":path", QUICK_PATH.encode()), *CALL), messages([b"?"], compressed=False))
    client = Client(obeys=False)
    frames = [one for _ in range(2) for some in client.frames(call) for one in some]
    wire = PREFACE + b"".join(one.data() for one in [Frame(Kind.SETTINGS), *frames])
    assert [number for number, *_ in ours.feed([wire]).asks] == [1, 3]
    assert ours.feed([frame.data()]).over in (ErrorCode.PROTOCOL_ERROR, ErrorCode.STREAM_CLOSED)
