"""One connection's bytes, judged: the same in whatever parts they come, no worse than h2, and within bounds."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from random import Random

from ratelimit_svc.wire.http2.frames import Kind
from ratelimit_svc.wire.http2.memory import Blocks
from tests.http2_fuzz.allowed import Case, find
from tests.http2_fuzz.ledger import Ledger
from tests.http2_fuzz.ours import QUICK_PATH, Ours, Step
from tests.http2_fuzz.pieces import ACTS, ON_CALLS, Piece, cut
from tests.http2_fuzz.second import Second


def judge(wire: bytes, seed: int = 0) -> list[str]:
    """Look at all of it. Return the names of the differences from h2 that were met, and allowed.

    Args:
        wire: what the peer sends, and our acts among it.
        seed: of how it is cut in parts.
    """
    pieces = list(cut(wire))
    blocks = Blocks(QUICK_PATH)
    met = compare(pieces, blocks)
    splits_do_not_matter(pieces, blocks, Random(seed))
    return met


# ── a second opinion ──────────────────────────────────────────────────────────────────────────────────────────────────


def compare(pieces: Sequence[Piece], blocks: Blocks) -> list[str]:
    """Feed both, piece by piece. All that is ours is looked at; h2 is followed until it may differ in what matters later on."""
    ours, second = Ours(blocks), Second()
    ledger = Ledger(ours)
    comparing = True
    met = []
    for piece in pieces:
        step = ours.act(piece) if piece.kind in ACTS else ours.feed([piece.data])
        ledger.check(piece)
        if comparing and is_sound_goaway(piece):  # h2 would hear no more; a peer that leaves still has calls (§6.8)
            comparing = step == Step()  # else it came too early, or within a header block
        elif comparing and (piece.kind not in ACTS or piece.kind in ON_CALLS):
            theirs = second.act(piece) if piece.kind in ACTS else second.feed(piece.data)
            if step != theirs:
                allowed = find(Case(piece, step, theirs, ours.connection))
                assert allowed is not None, f"{piece}\n ours   {step}\n theirs {theirs}"
                met.append(allowed.name)
                comparing = False
        if ours.connection.over:
            break
        comparing = comparing and piece.kind not in ACTS - ON_CALLS
    ledger.close()
    return met


def is_sound_goaway(piece: Piece) -> bool:
    """Return whether this is one that a peer may send, outside of a header block."""
    return piece.kind == Kind.GOAWAY and piece.number == 0 and len(piece.payload) >= 8


# ── parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def splits_do_not_matter(pieces: Sequence[Piece], blocks: Blocks, random: Random) -> None:
    """Feed the same at once, in parts, and byte by byte."""
    at_once = run(pieces, blocks, lambda data: [data])
    for parts in (lambda data: random_parts(data, random), bytewise):
        assert run(pieces, blocks, parts) == at_once


def run(pieces: Sequence[Piece], blocks: Blocks, parts) -> list[tuple[Step, bytes]]:
    """Return what came of all that lies between two acts, and of these."""
    ours = Ours(blocks)
    steps = []
    for is_act, some in groupby(pieces, lambda piece: piece.kind in ACTS):
        if is_act:
            steps += [(ours.act(act), ours.out) for act in some]
        else:
            step = ours.feed(parts(b"".join(piece.data for piece in some)))
            if ours.connection.over:
                step.asks.clear()  # those of the last part are not even handed over
            steps.append((step, ours.out))
    return steps


def random_parts(data: bytes, random: Random) -> Iterator[bytes]:
    """Yield it in parts, of which many are short."""
    at = 0
    while at < len(data):
        length = random.choice((1, 3, 9, 10, 30, 100, 1000))
        yield data[at : at + length]
        at += length


def bytewise(data: bytes) -> Iterator[bytes]:
    """Yield each byte."""
    return (bytes((byte,)) for byte in data)
