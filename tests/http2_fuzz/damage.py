"""What happens to a connection that a client wrote as it should: a little damage, in its frames and in its bytes."""

from collections.abc import Callable

from hypothesis import strategies as st

from ratelimit_svc.wire.http2.frames import PREFACE
from tests.http2_fuzz.wires import Frame, connections, numbers


@st.composite
def wires(draw) -> bytes:
    """A connection's bytes: some as they should be, most with one or two things wrong."""
    frames = draw(connections())
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2)))):
        frames = damaged(draw, frames)
    wire = PREFACE + b"".join(frame.data() for frame in frames)
    match draw(st.integers(0, 19)):
        case 0:
            return wire[: draw(st.integers(0, len(wire)))]
        case 1:
            at = draw(st.integers(0, len(wire) - 1))
            return wire[:at] + bytes((wire[at] ^ draw(st.integers(1, 255)),)) + wire[at + 1 :]
        case _:
            return wire


def damaged(draw, frames: list[Frame]) -> list[Frame]:
    """Return them with one thing changed."""
    at = draw(st.integers(0, len(frames) - 1))
    frame, others = frames[at], [*frames[:at], *frames[at + 1 :]]
    if draw(st.integers(0, 8)) == 0:
        place = draw(st.integers(0, len(others)))
        return [*others[:place], frame, *others[place:]]
    changed = draw(st.sampled_from(DAMAGES))(draw, frame)
    return [*frames[:at], *changed, *frames[at + 1 :]] or [frame]


def payload_cut(draw, frame: Frame) -> list[Frame]:
    """A frame that is shorter, and says so."""
    return [frame._replace(payload=frame.payload[: draw(st.integers(0, len(frame.payload)))])]


def payload_changed(draw, frame: Frame) -> list[Frame]:
    """A frame with a byte that is another."""
    if not frame.payload:
        return [frame._replace(payload=b"\0")]
    place = draw(st.integers(0, len(frame.payload) - 1))
    byte = bytes((draw(st.integers(0, 255)),))
    return [frame._replace(payload=frame.payload[:place] + byte + frame.payload[place + 1 :])]


def length_changed(draw, frame: Frame) -> list[Frame]:
    """A frame that says to be longer or shorter than it is."""
    usual = min(len(frame.payload) + 20, 2**24 - 1)
    return [frame._replace(length=draw(st.integers(0, usual) | st.sampled_from((2**14, 2**14 + 1, 2**24 - 1))))]


DAMAGES: tuple[Callable[..., list[Frame]], ...] = (
    lambda _, __: [],
    lambda _, frame: [frame, frame],
    lambda draw, frame: [frame._replace(flags=frame.flags ^ draw(st.sampled_from((1, 4, 8, 32, 2))))],
    lambda draw, frame: [frame._replace(number=draw(numbers))],
    lambda draw, frame: [frame._replace(kind=draw(st.integers(0, 11)))],
    payload_cut,
    payload_changed,
    length_changed,
)
"""What becomes of one frame."""
