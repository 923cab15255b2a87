"""Messages: however their bytes are split, the same come out, and what is held is counted to the byte."""

import gzip
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_svc.wire.calls import CallError, GrpcStatus
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.heads import GZIP, IDENTITY
from ratelimit_svc.wire.http2.messages import Messages, Unfinished

MOST = 2000

plain = st.one_of(st.binary(max_size=30), st.integers(0, 2500).map(bytes))
framed = st.tuples(plain, st.booleans())


def frame(message: bytes, *, compressed: bool) -> bytes:
    """Return a message in gRPC's frame."""
    data = gzip.compress(message, mtime=0) if compressed else message
    return bytes((compressed,)) + len(data).to_bytes(4, "big") + data


def fed(stream: bytes, parts, unfinished: Unfinished, encoding: bytes = GZIP) -> tuple[list[bytes], GrpcStatus | None]:
    """Return the messages that come out, and the status if that is an end."""
    messages = Messages(encoding, MOST, unfinished, Calm())
    found: list[bytes] = []
    try:
        for part in parts(stream):
            found += messages.feed(part)
            assert unfinished.bytes >= 0
            assert messages.partial == (unfinished.bytes > 0)
    except CallError as error:
        return found, error.status
    finally:
        messages.drop()
        assert unfinished.bytes == 0
    return found, None


def cut(stream: bytes, seed: int) -> list[bytes]:
    """Return it in parts, some of them empty."""
    random = Random(seed)
    ends = sorted(random.randint(0, len(stream)) for _ in range(random.randint(0, 12)))
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


@settings(max_examples=400, deadline=None)
@given(st.lists(framed, max_size=5), st.integers(0, 2**32))
def test_sound_messages(some, seed):
    """All come out whole, up to the first that is longer than allowed, as it is or when it is inflated."""
    stream = b"".join(frame(message, compressed=compressed) for message, compressed in some)
    fine = next((place for place, (message, _) in enumerate(some) if len(message) > MOST), len(some))
    status = GrpcStatus.RESOURCE_EXHAUSTED if fine < len(some) else None
    expected = [message for message, _ in some[:fine]], status
    assert fed(stream, lambda data: (data[at : at + 1] for at in range(len(data))), Unfinished()) == expected
    found, ended = fed(stream, lambda data: cut(data, seed), Unfinished())
    assert ended == status
    assert found == expected[0][: len(found)]  # those that came in one part with a fault are lost with their call
    assert status is not None or found == expected[0]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(framed, max_size=3),
    st.binary(max_size=12),
    st.integers(0, 200),
    st.sampled_from((IDENTITY, GZIP)),
    st.integers(0, 2**32),
)
def test_any_bytes(some, odd, at, encoding, seed):
    """Whatever stands in it: the same end, and the same messages before it."""
    stream = b"".join(frame(message, compressed=compressed) for message, compressed in some)
    stream = stream[:at] + odd + stream[at + len(odd) // 2 :]
    one_by_one, status = fed(
        stream, lambda data: (data[at : at + 1] for at in range(len(data))), Unfinished(), encoding
    )
    found, ended = fed(stream, lambda data: cut(data, seed), Unfinished(), encoding)
    assert ended == status
    assert found == one_by_one[: len(found)]
    assert status is not None or found == one_by_one


def test_many_streams_share_a_bound():
    """The one that goes beyond is ended, and when all are dropped nothing is counted any more."""
    unfinished = Unfinished(most=100)
    streams = [Messages(IDENTITY, MOST, unfinished, Calm()) for _ in range(4)]
    for stream in streams[:3]:
        stream.feed(frame(bytes(60), compressed=False)[:33])
    with pytest.raises(CallError) as caught:
        streams[3].feed(frame(bytes(60), compressed=False)[:33])
    assert caught.value.status is GrpcStatus.RESOURCE_EXHAUSTED
    for stream in streams:
        stream.drop()
    assert unfinished.bytes == 0
