"""Envoy's rate-limit messages: bytes ↔ `model`, JSON ↔ bytes, error → gRPC status.

Rule 1: the only module that reads and writes protobuf. Past it, a request is a `model.Request` and an answer a `model.Verdict`.
        What is on every request's way is read and written by hand; protobuf's own library says the same, which tests check.
Rule 2: no I/O and no gRPC library, so that every engine says the same; a status is a number and a text.
Rule 3: whatever a caller sends, `decode` and `request_from_json` return or raise a `BadRequestError`, nothing else.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from ratelimit_svc.errors import BadRequestError, RateLimitError, StoreUnavailableError, UndecodableError
from ratelimit_svc.model import LONGEST_US, MAX_HITS, Code, Descriptor, Entry, Limit, Request, Unit, Verdict
from ratelimit_svc.pb.envoy.config.core.v3.base_pb2 import HeaderValue
from ratelimit_svc.pb.envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_svc.pb.envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit_svc.wire.calls import GrpcStatus

SERVICE = rls_pb2.DESCRIPTOR.services_by_name["RateLimitService"].full_name
METHOD = "ShouldRateLimit"

_JSON_BLANKS = b" \t\r\n"

_UNITS = {int(unit): unit for unit in Unit}
_UNITS_IN_WORDS = ", ".join(f"{number} ({unit.name})" for number, unit in _UNITS.items())


_STATUS_OF: tuple[tuple[type[RateLimitError], GrpcStatus], ...] = (
    (UndecodableError, GrpcStatus.INTERNAL),  # what grpc-go answers by itself, and so the reference implementation
    (BadRequestError, GrpcStatus.UNKNOWN),  # the reference's; INVALID_ARGUMENT would say more, but be a difference
    # The reference says UNKNOWN here. To Envoy's filter all gRPC errors are one (`failure_mode_deny` decides); to other
    # clients, retry policies and dashboards UNAVAILABLE says the truth: nothing is wrong with the request, try again.
    (StoreUnavailableError, GrpcStatus.UNAVAILABLE),
    (RateLimitError, GrpcStatus.UNKNOWN),
)
"""The first that fits decides."""


def decode(data: bytes) -> Request:
    """Read a serialized `RateLimitRequest`. Fields we do not know are skipped.

    Raises:
        UndecodableError: these bytes are no such message.
        BadRequestError: it has no domain or no descriptors.
    """
    return _usual(data) or _any(data)


def _any(data: bytes) -> Request:
    """Read whatever protobuf can read."""
    try:
        message = RateLimitRequest.FromString(data)
    except DecodeError as error:
        raise UndecodableError(f"grpc: error unmarshalling request: {error}") from error
    if not message.domain:
        raise BadRequestError("rate limit domain must not be empty")
    if not message.descriptors:
        raise BadRequestError("rate limit descriptor list must not be empty")
    return Request(message.domain, tuple(_descriptor(each) for each in message.descriptors), message.hits_addend)


def _descriptor(message: RateLimitDescriptor) -> Descriptor:
    return Descriptor(
        entries=tuple(Entry(entry.key, entry.value) for entry in message.entries),
        hits=min(message.hits_addend.value, MAX_HITS) if message.HasField("hits_addend") else None,
        refund=message.is_negative_hits,
        limit=_override(message.limit) if message.HasField("limit") else None,
    )


def _override(message: RateLimitDescriptor.RateLimitOverride) -> Limit:
    """Read a limit that the request brings along."""
    unit = _UNITS.get(int(message.unit))
    if unit is None:
        raise BadRequestError(
            f"rate limit override has the unit {int(message.unit)}; it must be one of {_UNITS_IN_WORDS}"
        )
    limit = Limit(message.requests_per_unit, unit, multiplier=message.unit_multiplier.value or 1)
    if message.HasField("unit_multiplier") and not message.unit_multiplier.value:
        raise BadRequestError("rate limit override has the unit_multiplier 0; it must be at least 1")
    if limit.window_us > LONGEST_US:
        raise BadRequestError(
            f"rate limit override has a period of {limit.multiplier} {unit.name.lower()}s; it must be at most 10 years"
        )
    return limit


# ── the usual request, by hand ────────────────────────────────────────────────────────────────────────────────────────
#
# What Envoy sends again and again is a domain and descriptors of entries: field 1 of the request, then its fields 2, each a
# row of fields 1 with a field 1 and a field 2. That much is read here, in half of protobuf's time. A request that is anything
# else by as much as one byte is left to protobuf.

_FIRST, _SECOND = 0x0A, 0x12
"""Tags of fields 1 and 2 of wire type 2: a length, and so many bytes."""


def _usual(data: bytes) -> Request | None:
    """Read a request that is as requests usually are; None: it is not, or it is broken."""
    try:
        start, end = _field(data, 0, _FIRST)
        domain = data[start:end].decode()
        descriptors = []
        while end < len(data):
            start, end = _field(data, end, _SECOND)
            descriptors.append(Descriptor(_entries(data, start, end)))
    except (IndexError, ValueError):  # it ends too early, is unusual, or is not UTF-8
        return None
    return Request(domain, tuple(descriptors)) if domain and descriptors and end == len(data) else None


def _entries(data: bytes, at: int, end: int) -> tuple[Entry, ...]:
    """Read the entries between these places: a descriptor's."""
    entries = []
    while at < end:
        at, entry_end = _field(data, at, _FIRST)
        start, at = _field(data, at, _FIRST)
        key = data[start:at].decode()
        start, at = _field(data, at, _SECOND)
        if at != entry_end:
            raise ValueError
        entries.append(Entry(key, data[start:at].decode()))
    if at != end:
        raise ValueError
    return tuple(entries)


def _field(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Return where the value of the field at this place begins and ends; the end may lie behind the data's."""
    if data[at] != tag:
        raise ValueError
    size = data[at + 1]
    if size < 0x80:
        return at + 2, at + 2 + size
    more = data[at + 2]
    if more >= 0x80:  # three bytes of length
        raise ValueError
    return at + 3, at + 3 + (size & 0x7F | more << 7)


# ── a verdict, by hand ────────────────────────────────────────────────────────────────────────────────────────────────
#
# The bytes are those that protobuf would write (fields in order, zeros left out), in a third of its time.

_CODES = tuple(b"\x08%c" % code if code else b"" for code in Code)
"""Field 1, of a response and of a status: the code."""
_LAST_SEVEN = tuple(bytes((number,)) for number in range(0x80))
_SEVEN_MORE = tuple(bytes((number | 0x80,)) for number in range(0x80))
"""The bytes of a varint: the last, and one that others follow."""


def encode(verdict: Verdict, later: int = 0, hits: Sequence[int] = ()) -> bytes:
    """Write a verdict as a serialized `RateLimitResponse`.

    Args:
        verdict: what the last of a line's granted requests is told.
        later: how many of the line's grants come after this one: what they take has yet to be taken off what remains.
        hits: what each of them takes, one number per status.
    """
    told = _CODES[verdict.code]
    for place, (code, limit, remaining, reset_s) in enumerate(verdict.statuses):
        status = _CODES[code] + _limit(limit)
        if left := remaining + later * hits[place] if later else remaining:
            status += b"\x18" + _varint(left)
        if reset_s is not None:
            status += _reset(reset_s)
        told += b"\x12" + _varint(len(status)) + status
    for name, number in verdict.headers:
        told += _header(name, number)
    return told if verdict.metadata is None else told + _metadata(verdict.metadata)


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _LAST_SEVEN[number]
    return _SEVEN_MORE[number & 0x7F] + _varint(number >> 7)


@lru_cache(4096)
def _reset(seconds: int) -> bytes:
    """Return a status's `duration_until_reset`."""
    return RateLimitResponse.DescriptorStatus(duration_until_reset=Duration(seconds=seconds)).SerializeToString()


@lru_cache(4096)
def _limit(limit: Limit | None) -> bytes:
    """Return a status's `current_limit`. There are as many as rules, and those that requests bring along."""
    if limit is None:
        return b""
    message = RateLimitResponse.RateLimit(name=limit.name, requests_per_unit=limit.requests_per_unit)
    if limit.unit is not None:
        message.unit = limit.unit  # type: ignore[assignment] # the same numbers, by model.Unit's contract
        if limit.multiplier != 1:
            message.unit_multiplier.value = limit.multiplier
    return RateLimitResponse.DescriptorStatus(current_limit=message).SerializeToString()


@lru_cache(4096)
def _header_name(name: str) -> bytes:
    """Return field 1 of a `HeaderValue`. There are as many as an operator names."""
    return HeaderValue(key=name).SerializeToString()


def _header(name: str, number: int) -> bytes:
    """Return one of a response's `response_headers_to_add`."""
    digits = b"%d" % number
    header = _header_name(name) + b"\x12" + _varint(len(digits)) + digits
    return b"\x1a" + _varint(len(header)) + header


def _metadata(metadata: Mapping[str, Any]) -> bytes:
    """Return a response's `dynamic_metadata`: by protobuf, which is as fast."""
    message = RateLimitResponse()
    message.dynamic_metadata.update(metadata)
    return message.SerializeToString()


def request_from_json(text: bytes) -> bytes:
    """Turn a `RateLimitRequest` in protobuf's JSON, in either spelling of its names, into the serialized one.

    Raises:
        BadRequestError: not JSON, not an object, or a field or value that the message does not have.
    """
    if text.lstrip(_JSON_BLANKS)[:1] != b"{":  # the parser takes [] and "" for an empty message
        raise BadRequestError('a RateLimitRequest as a JSON object is expected: {"domain": …, "descriptors": […]}')
    message = RateLimitRequest()
    try:
        json_format.Parse(text, message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise BadRequestError(" ".join(str(error).split())) from error
    return message.SerializeToString()


def response_to_json(data: bytes) -> tuple[Code, str]:
    """Turn a serialized `RateLimitResponse` of ours into its overall code and its JSON, on one line."""
    message = RateLimitResponse.FromString(data)
    return Code(message.overall_code), json_format.MessageToJson(message, indent=None)


def status_of(error: RateLimitError) -> tuple[GrpcStatus, str]:
    """Return the gRPC status and the text that tell a caller of this error."""
    return next(status for kind, status in _STATUS_OF if isinstance(error, kind)), str(error)
