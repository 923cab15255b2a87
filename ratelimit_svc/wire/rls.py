"""Envoy's rate-limit messages: bytes ↔ `model`, JSON ↔ bytes, error → gRPC status.

Rule 1: the only module that reads and writes protobuf. Past it, a request is a `model.Request` and an answer a `model.Verdict`.
Rule 2: no I/O and no gRPC library, so that every engine says the same; a status is a number and a text.
Rule 3: whatever a caller sends, `decode` and `request_from_json` return or raise a `BadRequestError`, nothing else.
"""

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from ratelimit_svc.errors import BadRequestError, RateLimitError, StoreUnavailableError, UndecodableError
from ratelimit_svc.model import LONGEST_US, MAX_HITS, Code, Descriptor, Entry, Limit, Request, Status, Unit, Verdict
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


def encode(verdict: Verdict) -> bytes:
    """Write a verdict as a serialized `RateLimitResponse`."""
    message = RateLimitResponse()
    message.overall_code = verdict.code  # type: ignore[assignment] # the same numbers, by model.Code's contract
    for status in verdict.statuses:
        _write_status(status, message.statuses.add())
    if verdict.metadata is not None:
        message.dynamic_metadata.update(verdict.metadata)
    return message.SerializeToString()


def _write_status(status: Status, message: RateLimitResponse.DescriptorStatus) -> None:
    # Filled field by field: half the time of keyword arguments, and this runs for every request.
    message.code = status.code  # type: ignore[assignment] # as above
    message.limit_remaining = status.remaining
    if status.limit is not None:
        _write_limit(status.limit, message.current_limit)
    if status.reset_s is not None:
        message.duration_until_reset.seconds = status.reset_s


def _write_limit(limit: Limit, message: RateLimitResponse.RateLimit) -> None:
    message.requests_per_unit = limit.requests_per_unit
    if limit.unit is not None:
        message.unit = limit.unit  # type: ignore[assignment] # as above, by model.Unit's
        if limit.multiplier != 1:
            message.unit_multiplier.value = limit.multiplier
    message.name = limit.name


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
