"""What must hold on our side whatever comes: windows, the order of frames, bounds; and a client that accepts all we say."""

from collections import defaultdict

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from ratelimit_svc.wire.http2.frames import (
    ACK,
    END_STREAM,
    FIRST_WINDOW,
    HEAD_BYTES,
    LARGEST_FRAME,
    Kind,
    Setting,
    settings_in,
)
from tests.http2_fuzz.ours import Ours
from tests.http2_fuzz.pieces import ACTS, Piece, frames_of

MOST_OUT_A_FRAME = 512
"""Bytes that we may say about one frame of the peer's, answers that had waited for room aside."""
MOST_STREAMS = 1024


class Ledger:
    """One connection's accounts."""

    def __init__(self, ours: Ours) -> None:
        self._ours = ours
        self._first_window = self._granted = FIRST_WINDOW
        self._on_stream: dict[int, int] = defaultdict(int)
        self._sent: dict[int, int] = defaultdict(int)
        self._ended: set[int] = set()
        self.out = bytearray()

    def check(self, piece: Piece) -> None:
        """Look at what came of a piece."""
        self._grants(piece)
        out = self._ours.out
        for frame in frames_of(out):
            self._frame(frame)
        if piece.kind not in ACTS:
            assert len(out) <= MOST_OUT_A_FRAME + self._freed(out), "much said about little"
        assert 0 <= self._ours.unfinished.bytes <= self._ours.unfinished.most + LARGEST_FRAME
        assert len(self._ours.connection.streams.open) <= MOST_STREAMS
        self.out += out

    def _grants(self, piece: Piece) -> None:
        if piece.kind == Kind.SETTINGS and not piece.has(ACK):
            for name, value in settings_in(piece.payload[: len(piece.payload) // 6 * 6]):
                if name == Setting.INITIAL_WINDOW_SIZE:
                    self._first_window = value
        elif piece.kind == Kind.WINDOW_UPDATE and len(piece.payload) == 4:
            increment = int.from_bytes(piece.payload, "big") & 0x7FFFFFFF
            if piece.number:
                self._on_stream[piece.number] += increment
            else:
                self._granted += increment

    def _frame(self, frame: Piece) -> None:
        number = frame.number
        assert len(frame.payload) <= LARGEST_FRAME
        if frame.kind in (Kind.DATA, Kind.HEADERS):
            assert number % 2 == 1
            assert number not in self._ended, "something after the end"
        if frame.kind == Kind.DATA and frame.payload:
            self._sent[number] += len(frame.payload)
            assert self._sent[number] <= self._first_window + self._on_stream[number], "beyond the stream's window"
            assert sum(self._sent.values()) <= self._granted, "beyond the connection's window"
        if frame.kind == Kind.RST_STREAM or (frame.kind in (Kind.DATA, Kind.HEADERS) and frame.has(END_STREAM)):
            self._ended.add(number)

    @staticmethod
    def _freed(out: bytes) -> int:
        """Return how much of it had waited for room: answers."""
        return sum(HEAD_BYTES + len(frame.payload) for frame in frames_of(out) if frame.kind == Kind.DATA)

    def close(self) -> None:
        """Look at the whole: a client accepts it, and nothing is left when the connection is lost."""
        a_client_accepts(bytes(self.out), self._first_window)
        connection = self._ours.connection
        connection.drop()
        assert connection.over
        assert not connection.streams.open
        assert self._ours.unfinished.bytes == 0
        assert connection.receive(b"anything") == ([], [])


def a_client_accepts(out: bytes, first_window: int) -> None:
    """Feed it all to a client that has opened the streams that it is about."""
    client = H2Connection(H2Configuration(header_encoding=None))
    client.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 2**31 - 1
    client.local_settings.acknowledge()
    client.initiate_connection()
    client.increment_flow_control_window(2**31 - 1 - FIRST_WINDOW)
    frames = list(frames_of(out))
    for frame in frames[:1]:
        assert frame.kind in (Kind.SETTINGS, Kind.GOAWAY)
        client.receive_data(frame.data)
    for number in sorted({frame.number for frame in frames if frame.number}):
        head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
        client.send_headers(number, head)
    for frame in frames[1:]:
        if frame.kind != Kind.GOAWAY:  # h2's client hears no more after one; drains say more
            client.receive_data(frame.data)
