"""atheris: the same judge on connections that coverage guides. `make fuzz SECONDS=60`.

What is damaged is a connection, not a string of bytes: frames are dropped, doubled, moved, and have their parts changed, and what is
left is framed anew. Half of the time the bytes are damaged as they are.

    python -m tests.http2_fuzz.target [FOLDER …] [libFuzzer's options]
    python -m tests.http2_fuzz.target FILE     judge one that failed
"""

import sys
from random import Random
from zlib import crc32

try:
    import atheris
except ImportError:
    sys.exit(
        "atheris has no wheel for this Python or this system; install it with `make venv EXTRAS=dev,fuzz` on Linux"
    )

with atheris.instrument_imports(include=["ratelimit_svc.wire.http2", "hpack"]):
    from ratelimit_svc.wire.http2 import connection  # noqa: F401 — imported here, it is the one that is instrumented
    from ratelimit_svc.wire.http2.frames import FRAME, PREFACE
    from tests.http2_fuzz.judge import judge
    from tests.http2_fuzz.pieces import REST_KIND, Act, Piece, cut

LONGEST = 8192
KINDS = (*range(11), 0x42, *Act)


def one(wire: bytes) -> None:
    """Judge one connection. What does not begin as one is tried as if it did."""
    judge(wire, crc32(wire))


def damage(wire: bytes, longest: int, seed: int) -> bytes:
    """Return another connection: libFuzzer's way to make one of one."""
    random = Random(seed)
    pieces = list(cut(wire))
    frames = [piece.data for piece in pieces if piece.kind >= 0]
    if random.random() < 0.3 or not frames:
        return bytes(atheris.Mutate(wire, longest))
    at = random.randrange(len(frames))
    match random.randrange(8):
        case 0:
            del frames[at]
        case 1:
            frames.insert(random.randrange(len(frames) + 1), frames[at])
        case 2:
            frames.insert(random.randrange(len(frames)), frames.pop(at))
        case _:
            frames[at] = changed(next(piece for piece in pieces if piece.data is frames[at]), random)
    rest = b"".join(piece.data for piece in pieces if piece.kind == REST_KIND)
    return (PREFACE + b"".join(frames) + rest)[:longest]


def changed(frame: Piece, random: Random) -> bytes:
    """Return a frame with one part changed, and the length that it has now."""
    kind, flags, number, payload = frame.kind, frame.flags, frame.number, frame.payload
    match random.randrange(6):
        case 0:
            kind = random.choice(KINDS)
        case 1:
            flags ^= 1 << random.randrange(8)
        case 2:
            number = random.choice((0, 1, 3, 5, number + 2, number ^ 1))
        case _:
            payload = bytes(atheris.Mutate(payload or b"\0", len(payload) + 32))
    length = len(payload)
    return FRAME.pack(length >> 8, length & 0xFF, kind, flags, number & 0xFFFFFFFF) + payload


if __name__ == "__main__":
    atheris.Setup([*sys.argv, f"-max_len={LONGEST}"], one, custom_mutator=damage)
    atheris.Fuzz()
