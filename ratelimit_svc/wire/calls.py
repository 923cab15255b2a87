"""What a gRPC call is to a method that answers it: messages in, messages out, or an error. No gRPC library, no HTTP/2."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from enum import IntEnum


class GrpcStatus(IntEnum):
    """How a call ends, with gRPC's numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CallError(Exception):
    """A call ends with this instead of OK.

    Args:
        status: anything but OK.
        text: what the caller is told, `grpc-message` once it is percent-encoded.
    """

    def __init__(self, status: GrpcStatus, text: str) -> None:
        self.status, self.text = status, text
        super().__init__(f"{status.name}: {text}")


Method = Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]]
"""One gRPC method: the caller's messages, serialized → the answers, serialized; a unary method yields one.

The caller's messages end when it has half-closed. If it goes, or its deadline passes, the engine cancels the task that
iterates the answers, and closes them. Error handling: CallError, with answers before it or without; anything else that is
raised is a defect, which the engine answers with UNKNOWN.
"""


LARGEST_ONLY = 64 * 1024
"""Bytes of a message that is held until its caller has ended, which may be never: there can be very many of these."""


async def only(requests: AsyncIterator[bytes]) -> bytes:
    """Return the one message of a call whose method takes one.

    Raises:
        CallError: the caller sent none, several, or a large one.
    """
    found = None
    async for message in requests:
        if found is not None:  # gRPC's own status for this, for all that it may mean else
            raise CallError(GrpcStatus.UNIMPLEMENTED, "one message is expected, several were sent")
        if len(message) > LARGEST_ONLY:
            text = f"this method takes a message of {LARGEST_ONLY} bytes, not of {len(message)}"
            raise CallError(GrpcStatus.RESOURCE_EXHAUSTED, text)
        found = message
    if found is None:
        raise CallError(GrpcStatus.UNIMPLEMENTED, "one message is expected, none was sent")
    return found
