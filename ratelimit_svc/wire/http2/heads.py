"""Heads: what a request's header list means to us. Pure.

Rule 1: what RFC 9113 §8 calls malformed raises; what is a sound HTTP request but no gRPC call is a head with a refusal.
Rule 2: a field that gRPC does not ask for is looked at once, whether it is sound, and then means nothing.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ratelimit_svc.tracing.traces import Trace
from ratelimit_svc.wire.calls import GrpcStatus
from ratelimit_svc.wire.http2.fields import Field, is_sound_value
from ratelimit_svc.wire.http2.frames import ErrorCode, StreamFault

LONGEST_PATH = 1024

IDENTITY, GZIP = b"identity", b"gzip"
ENCODINGS = (IDENTITY, GZIP)

CONTENT_TYPES = re.compile(rb"application/grpc(\+proto)?( *;.*)?")


class Refusal(NamedTuple):
    """Why a sound request is no call of ours, in HTTP's words or in gRPC's."""

    text: str
    http_status: int = 200
    grpc_status: GrpcStatus = GrpcStatus.UNKNOWN


class Head(NamedTuple):
    """One request, without its messages."""

    path: str
    """/package.Service/Method"""
    timeout_s: float | None = None
    """What the caller grants (`grpc-timeout`); None: for ever."""
    encoding: bytes = IDENTITY
    """How its messages may be compressed (`grpc-encoding`)."""
    content_length: int | None = None
    refusal: Refusal | None = None
    unary: bool = False
    """A call of the RateLimitService: one message."""
    quick: bool = False
    """And its message is not compressed."""
    trace: Trace | None = None
    """If the request is sampled (`traced`)."""


def malformed(text: str) -> StreamFault:
    """Return the fault of a malformed request (§8.1.1)."""
    return StreamFault(ErrorCode.PROTOCOL_ERROR, text)


PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_OF_A_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")

MATTERS = PSEUDO | {b"content-type", b"content-length", b"grpc-timeout", b"grpc-encoding"}
"""Fields that a head is made of."""


def check(field: Field) -> None:
    """Look at a field by itself (§8.2).

    Raises:
        StreamFault: it is malformed, whatever stands beside it.
    """
    name, value = field
    if name.startswith(b":"):
        if name not in PSEUDO:
            raise malformed(f"the pseudo-header {name!r:.60} is not for requests")
    elif not _TOKEN.fullmatch(name):
        raise malformed(f"{name!r:.60} is no name of a field in lower case")
    elif name in _OF_A_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
        raise malformed(f"the field {name.decode()} is not for HTTP/2")
    if not is_sound_value(value):
        raise malformed(f"the field {name!r:.60} has a value with characters that are not allowed")


def check_trailers(fields: Sequence[Field]) -> None:
    """Look at the fields after a request's messages; they mean nothing to us.

    Raises:
        StreamFault: one is malformed, or a pseudo-header.
    """
    for field in fields:
        check(field)
        if field[0].startswith(b":"):
            raise malformed("pseudo-headers are not for trailers")


def interpret(fields: Sequence[Field], quick_path: str) -> Head:
    """Return what a header list means.

    Args:
        fields: the whole list, in its order.
        quick_path: the path of the RateLimitService's one method.

    Raises:
        StreamFault: the request is malformed.
    """
    known: dict[bytes, bytes] = {}
    regular = False
    for field in fields:
        check(field)
        name, value = field
        pseudo = name.startswith(b":")
        if pseudo and (regular or name in known):
            raise malformed(f"the pseudo-header {name.decode()} comes twice or too late")
        regular = regular or not pseudo
        if name in MATTERS and known.setdefault(name, value) != value:
            raise malformed(f"the field {name.decode()} is given twice")
    if not all(known.get(name) for name in (b":method", b":scheme", b":path")):
        raise malformed("a request has :method, :scheme and :path")
    return _head(known, quick_path)


def _head(known: dict[bytes, bytes], quick_path: str) -> Head:
    length = known.get(b"content-length")
    if length is not None and not re.fullmatch(rb"[0-9]{1,18}", length):
        raise malformed("content-length is no number")
    content_length = None if length is None else int(length)
    path = known[b":path"].decode("latin-1")
    head = Head(path[:LONGEST_PATH], content_length=content_length)
    if (refusal := _no_grpc(known)) is not None:
        return head._replace(refusal=refusal)
    encoding = known.get(b"grpc-encoding", IDENTITY)
    if encoding not in ENCODINGS:
        text = f"grpc: Decompressor is not installed for grpc-encoding {encoding.decode('latin-1')!r:.60}"
        return head._replace(refusal=Refusal(text, grpc_status=GrpcStatus.UNIMPLEMENTED))
    try:
        timeout_s = timeout(known[b"grpc-timeout"]) if b"grpc-timeout" in known else None
    except ValueError as error:
        return head._replace(refusal=Refusal(str(error), grpc_status=GrpcStatus.INTERNAL))
    unary = path == quick_path
    return Head(path, timeout_s, encoding, content_length, None, unary, unary and encoding == IDENTITY)


def _no_grpc(known: dict[bytes, bytes]) -> Refusal | None:
    if known[b":method"] == b"HEAD":  # whose answers have no content
        return Refusal("", 405)
    if known[b":method"] != b"POST":
        return Refusal("this port speaks gRPC: the method must be POST\n", 405)
    if not CONTENT_TYPES.fullmatch(known.get(b"content-type", b"")):
        return Refusal("this port speaks gRPC: the content-type must be application/grpc\n", 415)
    return None


_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def timeout(text: bytes) -> float:
    """Return a `grpc-timeout` in seconds (gRPC over HTTP2: at most 8 digits and a unit).

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(rb"[0-9]{1,8}[HMSmun]", text):
        raise ValueError(f"malformed grpc-timeout: {text.decode('latin-1')!r:.60}")
    return int(text[:-1]) * _UNITS_S[text[-1:]]
