"""gRPC messages out of a stream's DATA, whole frames or parts of them (gRPC over HTTP2, Length-Prefixed-Message). Pure.

Memory is bounded three times: a message by `most`, what waits in the whole process by `Unfinished`, and what a compressed
message grows to by `most` again. Time, too: what is inflated costs its sender credit (`calm`).
"""

import zlib
from struct import Struct

from ratelimit_svc.wire.calls import CallError, GrpcStatus
from ratelimit_svc.wire.http2.calm import Calm
from ratelimit_svc.wire.http2.heads import GZIP

PREFIX = Struct(">BL")
"""Whether it is compressed, and its length."""
PREFIX_BYTES = 5

MOST_UNFINISHED = 64 * 1024 * 1024
"""Bytes of messages that wait, in the whole process."""


class Unfinished:
    """How many bytes wait, in all streams of all connections: for the rest of their message, for the end of a call that has
    one message, or for the method that reads them.
    """

    __slots__ = ("bytes", "most")

    def __init__(self, most: int = MOST_UNFINISHED) -> None:
        self.bytes = 0
        self.most = most

    def check(self) -> None:
        """Look whether there are too many.

        Raises:
            CallError: there are; whoever brought the last has to go.
        """
        if self.bytes > self.most:
            raise CallError(GrpcStatus.RESOURCE_EXHAUSTED, "too many bytes wait for the rest of their message")


class Messages:
    """One stream's messages.

    Args:
        encoding: how they may be compressed.
        most: bytes of one message.
        unfinished: counted there; `drop` when the stream ends.
        calm: the peer's.
    """

    __slots__ = ("_calm", "_encoding", "_held", "_kept", "_most", "_unfinished")

    def __init__(self, encoding: bytes, most: int, unfinished: Unfinished, calm: Calm) -> None:
        self._encoding = encoding
        self._most = most
        self._unfinished = unfinished
        self._calm = calm
        self._held = bytearray()
        self._kept = 0

    @property
    def partial(self) -> bool:
        """Whether a part of a message is held."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that these bytes complete.

        Raises:
            CallError: a message is too long, or not as it says to be; the stream is of no more use.
            ConnectionFault: the peer has had too much inflated.
        """
        self._held += data
        self._unfinished.bytes += len(data)
        whole = []
        at, held = 0, len(self._held)
        try:
            while held - at >= PREFIX_BYTES:
                compressed, length = PREFIX.unpack_from(self._held, at)
                if length > self._most:
                    raise CallError(GrpcStatus.RESOURCE_EXHAUSTED, self._too_long(length))
                end = at + PREFIX_BYTES + length
                if end > held:
                    break
                whole.append(self._message(compressed, bytes(self._held[at + PREFIX_BYTES : end])))
                at = end
        finally:
            del self._held[:at]
            self._unfinished.bytes -= at
        if self._held:
            self._unfinished.check()
        return whole

    def keep(self, message: bytes) -> None:
        """Count a whole message that waits for the end of its call.

        Raises:
            CallError: too much waits.
        """
        self._kept += len(message)
        self._unfinished.bytes += len(message)
        self._unfinished.check()

    def drop(self) -> None:
        """Forget what is held and kept."""
        self._unfinished.bytes -= len(self._held) + self._kept
        self._kept = 0
        self._held.clear()

    def _message(self, compressed: int, data: bytes) -> bytes:
        if compressed == 0:
            return data
        if compressed != 1 or self._encoding != GZIP:
            raise CallError(GrpcStatus.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
        return self._inflated(data)

    def _inflated(self, data: bytes) -> bytes:
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # gzip's header and trailer
        try:
            found = inflater.decompress(data, self._most + 1)
        except zlib.error as error:
            raise CallError(GrpcStatus.INTERNAL, f"grpc: failed to decompress the received message: {error}") from None
        self._calm.inflated(len(data), len(found))
        if len(found) > self._most:
            raise CallError(GrpcStatus.RESOURCE_EXHAUSTED, self._too_long(len(found), "at least "))
        if not inflater.eof or inflater.unused_data:
            raise CallError(GrpcStatus.INTERNAL, "grpc: failed to decompress the received message: it is cut short")
        return found

    def _too_long(self, length: int, at_least: str = "") -> str:
        return f"grpc: received message larger than max ({at_least}{length} vs. {self._most})"
