"""The wire: our messages against an independent codec, `decode` and `encode` against the model, and whatever else may come."""

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_svc.errors import BadRequestError, RateLimitError, RulesError, StoreUnavailableError, UndecodableError
from ratelimit_svc.limiter.verdicts import earlier
from ratelimit_svc.model import (
    MAX_HITS,
    UNLIMITED_REMAINING,
    Code,
    Descriptor,
    Entry,
    Limit,
    Request,
    Status,
    Unit,
    Verdict,
)
from ratelimit_svc.pb.envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from ratelimit_svc.pb.envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.client import request as ask

with warnings.catch_warnings():  # it declares its oneofs in a way that the installed pydantic calls old
    warnings.filterwarnings("ignore", message="Using `@model_validator`", category=DeprecationWarning)
    from envoy_data_plane.envoy.config.core.v3 import HeaderValue
    from envoy_data_plane.envoy.extensions.common.ratelimit import v3 as theirs_common
    from envoy_data_plane.envoy.service.ratelimit import v3 as theirs
    from envoy_data_plane.envoy.type.v3 import RateLimitUnit
    from envoy_data_plane.google.protobuf import ListValue, NullValue, Struct, Value

# ---------------------------------------------------------------------------------------------------------------------
# Messages of the independent codec, with every field it has

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
texts = st.text(max_size=12)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive
spans = st.timedeltas(timedelta(0), timedelta(days=366))

entries = st.builds(theirs_common.RateLimitDescriptorEntry, key=texts, value=texts)
overrides = st.builds(
    theirs_common.RateLimitDescriptorRateLimitOverride, requests_per_unit=uint32, unit=st.sampled_from(RateLimitUnit)
)
descriptors = st.builds(
    theirs_common.RateLimitDescriptor,
    entries=st.lists(entries, max_size=3),
    limit=st.none() | overrides,
    hits_addend=st.none() | uint64,
    is_negative_hits=st.booleans(),
)
requests = st.builds(
    theirs.RateLimitRequest, domain=texts, descriptors=st.lists(descriptors, max_size=3), hits_addend=uint32
)
quotas = st.builds(theirs.RateLimitResponseQuota, requests=uint32, valid_until=st.none() | moments, id=texts)
limits = st.builds(
    theirs.RateLimitResponseRateLimit,
    name=texts,
    requests_per_unit=uint32,
    unit=st.sampled_from(theirs.RateLimitResponseRateLimitUnit),
)
statuses = st.builds(
    theirs.RateLimitResponseDescriptorStatus,
    code=st.sampled_from(theirs.RateLimitResponseCode),
    current_limit=st.none() | limits,
    limit_remaining=uint32,
    duration_until_reset=st.none() | spans,
    quota=st.none() | quotas,
)
headers = st.builds(HeaderValue, key=texts, value=texts, raw_value=st.binary(max_size=8))
values: st.SearchStrategy[Value] = st.recursive(
    st.builds(Value, string_value=texts)
    | st.builds(Value, number_value=st.floats(allow_nan=False, allow_infinity=False))
    | st.builds(Value, bool_value=st.booleans())
    | st.just(Value(null_value=NullValue.NULL_VALUE)),
    lambda inner: (
        st.builds(Value, list_value=st.builds(ListValue, values=st.lists(inner, max_size=2)))
        | st.builds(Value, struct_value=st.builds(Struct, fields=st.dictionaries(texts, inner, max_size=2)))
    ),
    max_leaves=4,
)
responses = st.builds(
    theirs.RateLimitResponse,
    overall_code=st.sampled_from(theirs.RateLimitResponseCode),
    statuses=st.lists(statuses, max_size=3),
    response_headers_to_add=st.lists(headers, max_size=2),
    request_headers_to_add=st.lists(headers, max_size=2),
    raw_body=st.binary(max_size=16),
    dynamic_metadata=st.none() | st.builds(Struct, fields=st.dictionaries(texts, values, max_size=2)),
    quota=st.none() | quotas,
)


@given(requests)
def test_request_agrees_with_an_independent_codec(message: theirs.RateLimitRequest) -> None:
    """A request means the same to both codecs, by number and by name, whichever of them wrote it."""
    by_number = RateLimitRequest.FromString(bytes(message))
    by_name = ParseDict(message.to_dict(), RateLimitRequest())
    assert by_number == by_name
    assert theirs.RateLimitRequest.parse(by_name.SerializeToString()) == message


@given(responses)
def test_response_agrees_with_an_independent_codec(message: theirs.RateLimitResponse) -> None:
    """A response means the same to both codecs, by number and by name, whichever of them wrote it."""
    by_number = RateLimitResponse.FromString(bytes(message))
    by_name = ParseDict(message.to_dict(), RateLimitResponse())
    assert by_number == by_name
    assert theirs.RateLimitResponse.parse(by_name.SerializeToString()) == message


# ---------------------------------------------------------------------------------------------------------------------
# What the independent codec lacks, as bytes written by hand: tag = number << 3 | wire type, 2 for a message, 0 for a number


def test_unit_multiplier_of_an_override() -> None:
    """`RateLimitOverride.unit_multiplier` is field 3, a wrapped number."""
    message = RateLimitDescriptor.FromString(b"\x12\x08" + b"\x08\x05" + b"\x10\x01" + b"\x1a\x02\x08\x1e")
    assert (message.limit.requests_per_unit, message.limit.unit, message.limit.unit_multiplier.value) == (5, 1, 30)


def test_unit_multiplier_of_a_status() -> None:
    """`RateLimit.unit_multiplier` is field 4, a wrapped number."""
    message = RateLimitResponse.RateLimit.FromString(b"\x08\x05" + b"\x10\x01" + b"\x22\x02\x08\x1e")
    assert (message.requests_per_unit, message.unit, message.unit_multiplier.value) == (5, 1, 30)


def test_override_of_a_week() -> None:
    """A unit without a constant arrives as its number."""
    assert RateLimitDescriptor.FromString(b"\x12\x02\x10\x07").limit.unit == 7


NEWER = b"\xa2\x06\x02hi" + b"\xa8\x06\x07"
"""Field 100 as text and field 101 as a number: an Envoy newer than our contracts."""


def test_newer_fields_are_skipped() -> None:
    """What we do not know, at any depth, does not change what we do know."""
    entry = b"\x0a\x01k\x12\x01v" + NEWER
    descriptor = b"\x0a" + bytes([len(entry)]) + entry + NEWER
    data = NEWER + b"\x0a\x01d" + b"\x12" + bytes([len(descriptor)]) + descriptor + NEWER
    assert rls.decode(data) == Request("d", (Descriptor((Entry("k", "v"),)),))


# ---------------------------------------------------------------------------------------------------------------------
# decode


def request(*, domain: str = "d", hits: int = 0, descriptor_hits: int | None = None) -> bytes:
    """Serialize a request of one descriptor, by the independent codec."""
    entry = theirs_common.RateLimitDescriptorEntry(key="k", value="v")
    descriptor = theirs_common.RateLimitDescriptor(entries=[entry], hits_addend=descriptor_hits)
    return bytes(theirs.RateLimitRequest(domain=domain, descriptors=[descriptor], hits_addend=hits))


def decodable(message: theirs.RateLimitRequest) -> bool:
    """Whether it has a domain, descriptors, and no override of an unknown unit."""
    limits = [each.limit for each in message.descriptors if each.limit is not None]
    return bool(message.domain and message.descriptors and all(limit.unit for limit in limits))


@given(requests.filter(decodable))
def test_decode_reads_every_field(message: theirs.RateLimitRequest) -> None:
    """Each field of a request arrives where the model has it; hits are cut to what no limit admits."""
    assert rls.decode(bytes(message)) == Request(
        message.domain,
        tuple(
            Descriptor(
                entries=tuple(Entry(entry.key, entry.value) for entry in each.entries),
                hits=None if each.hits_addend is None else min(each.hits_addend, MAX_HITS),
                refund=each.is_negative_hits,
                limit=None if each.limit is None else Limit(each.limit.requests_per_unit, Unit(each.limit.unit)),
            )
            for each in message.descriptors
        ),
        message.hits_addend,
    )


MANY = [MAX_HITS, MAX_HITS + 1, 2**63, 2**64 - 1]


@pytest.mark.parametrize(("sent", "read"), [(None, None), (0, 0), (1, 1), *((many, MAX_HITS) for many in MANY)])
def test_hits_of_a_descriptor(sent: int | None, read: int | None) -> None:
    """Absent and 0 are told apart, and nothing overflows: 2^63 hits are many, not negative."""
    assert rls.decode(request(descriptor_hits=sent)).descriptors[0].hits == read


@pytest.mark.parametrize("hits", [0, 1, 2**32 - 1])
def test_hits_of_a_request(hits: int) -> None:
    """The request's own hits arrive as they are."""
    assert rls.decode(request(hits=hits)).hits == hits


def test_empty_domain() -> None:
    """A request without a domain is refused in the reference implementation's words."""
    with pytest.raises(BadRequestError, match=r"^rate limit domain must not be empty$"):
        rls.decode(request(domain=""))


def test_no_descriptors() -> None:
    """A request without descriptors is refused in the reference implementation's words."""
    with pytest.raises(BadRequestError, match=r"^rate limit descriptor list must not be empty$"):
        rls.decode(bytes(theirs.RateLimitRequest(domain="d")))


def test_descriptor_without_entries() -> None:
    """A descriptor may have no entries: it then matches nothing."""
    message = theirs.RateLimitRequest(domain="d", descriptors=[theirs_common.RateLimitDescriptor()])
    assert rls.decode(bytes(message)) == Request("d", (Descriptor(()),))


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05d", b"\x0a\x01\xff", b"\x12\x02\x0a\x09", b"GET / HTTP/1.1"])
def test_undecodable(data: bytes) -> None:
    """Bytes that are no request, broken UTF-8 among them, are told so as grpc-go would."""
    with pytest.raises(UndecodableError, match=r"^grpc: error unmarshalling request: "):
        rls.decode(data)


def decode_or_refuse(data: bytes) -> None:
    """Pass if the caller would get an answer or a refusal; any other error comes out."""
    with suppress(BadRequestError):
        assert rls.decode(data).domain


@given(st.binary(max_size=64))
@example(b"")
@example(b"\x0b" * 1000)  # groups in groups: deeper than the runtime follows
def test_random_bytes_never_crash(data: bytes) -> None:
    """Whatever arrives is a request or a refusal."""
    decode_or_refuse(data)


@given(requests, st.integers(0, 200), st.integers(0, 200), st.binary(max_size=4))
def test_broken_requests_never_crash(message: theirs.RateLimitRequest, start: int, end: int, patch: bytes) -> None:
    """A request with some bytes replaced is a request or a refusal."""
    data = bytes(message)
    decode_or_refuse(data[:start] + patch + data[end:])


# ── by hand or by protobuf ────────────────────────────────────────────────────────────────────────────────────────────

pieces: st.SearchStrategy[bytes] = st.deferred(
    lambda: (
        st.sampled_from(
            [b"", b"\x0a\x01d", b"\x0a\x00", b"\x18\x05", b"\x12\x02\x0a\x00", b"\x0a\x81\x00d", b"\x8a\x00\x01d"]
        )
        | st.sampled_from(
            [b"\x0b\x0c", b"\x0a\x02\xc3\xa9", b"\x0a\x01\xff", b"\x0a\x03\xed\xa0\x80", b"\x22\x02\x08\x03", NEWER]
        )
        | st.text(max_size=3).map(lambda text: b"\x0a%c%b" % (len(text.encode()), text.encode()))
        | st.tuples(st.sampled_from([0x0A, 0x12, 0x1A]), st.lists(pieces, max_size=3).map(b"".join)).map(
            lambda field: bytes([field[0]]) + _length(len(field[1])) + field[1]
        )
    )
)
"""Fields of all kinds and depths: repeated, empty, unknown, in groups, overlong, broken."""


def _length(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80, number >> 7])


def read(reader: Callable[[bytes], Request | None], data: bytes) -> Request | str | None:
    """What a reader makes of these bytes: a request, or what the caller is told."""
    try:
        return reader(data)
    except BadRequestError as error:
        return str(error)


@given(st.lists(pieces, max_size=5).map(b"".join))
def test_what_is_read_by_hand_is_what_protobuf_reads(data: bytes) -> None:
    """Whatever the bytes: where the hand has an answer, it is protobuf's."""
    assert read(rls.decode, data) == read(rls._any, data)


@given(requests, st.integers(0, 200), st.integers(0, 200), st.binary(max_size=4))
def test_a_broken_request_is_read_by_hand_as_protobuf_reads_it(
    message: theirs.RateLimitRequest, start: int, end: int, patch: bytes
) -> None:
    """Requests with some bytes replaced, which may by chance be requests again."""
    data = bytes(message)
    data = data[:start] + patch + data[end:]
    assert read(rls.decode, data) == read(rls._any, data)


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 129, 300, 16_383 - 40, 16_384, 70_000])
def test_values_of_any_length(length: int) -> None:
    """Lengths of one byte, two and three."""
    entry = theirs_common.RateLimitDescriptorEntry(key="k", value="v" * length)
    data = bytes(theirs.RateLimitRequest(domain="d", descriptors=[theirs_common.RateLimitDescriptor(entries=[entry])]))
    assert rls.decode(data) == Request("d", (Descriptor((Entry("k", "v" * length),)),))
    if 0 < length < 16_000:
        assert rls._usual(data) is not None


def test_what_envoy_sends_is_read_by_hand() -> None:
    """Else this would be slow, and no other test would tell."""
    entries_ = [Entry("tenant", "acme"), Entry("path", "/é")]
    assert rls._usual(ask("shop", [entries_, entries_[:1]]).SerializeToString()) is not None


def override(unit: int = Unit.MINUTE, multiplier: int | None = None, requests_per_unit: int = 3) -> bytes:
    """Serialize a request of one descriptor that brings a limit along."""
    message = RateLimitRequest(domain="d")
    limit = message.descriptors.add().limit
    limit.requests_per_unit = requests_per_unit
    limit.unit = unit  # type: ignore[assignment] # any number that the wire can carry
    if multiplier is not None:
        limit.unit_multiplier.value = multiplier
    return message.SerializeToString()


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("multiplier", [None, 1, 3])
def test_a_limit_that_is_brought_along(unit: Unit, multiplier: int | None) -> None:
    """Every unit, and so many of them; an absent multiplier is 1."""
    expected = Limit(3, unit, multiplier=multiplier or 1)
    assert rls.decode(override(unit, multiplier)).descriptors[0].limit == expected


@pytest.mark.parametrize("requests_per_unit", [0, 2**32 - 1])
def test_a_limit_that_is_brought_along_may_be_any_number(requests_per_unit: int) -> None:
    """0 denies everything, and is not the absence of a limit."""
    limit = rls.decode(override(requests_per_unit=requests_per_unit)).descriptors[0].limit
    assert limit == Limit(requests_per_unit, Unit.MINUTE)


@pytest.mark.parametrize(
    ("unit", "multiplier", "reason"),
    [
        (0, None, r"has the unit 0; it must be one of 1 \(SECOND\), .*, 7 \(WEEK\)$"),
        (8, None, "has the unit 8; it must be one of"),
        (2**31 - 1, 5, "has the unit 2147483647; it must be one of"),
        (Unit.MINUTE, 0, "unit_multiplier 0; it must be at least 1"),
        (Unit.YEAR, 11, "a period of 11 years; it must be at most 10 years"),
        (Unit.MONTH, 122, "a period of 122 months; it must be at most 10 years"),
        (Unit.SECOND, 2**32 - 1, "a period of 4294967295 seconds; it must be at most 10 years"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(unit: int, multiplier: int | None, reason: str) -> None:
    """The reference implementation dies of an unknown unit; here the caller is told what is wrong."""
    with pytest.raises(BadRequestError, match=reason):
        rls.decode(override(unit, multiplier))


@pytest.mark.parametrize(("unit", "multiplier"), [(Unit.YEAR, 10), (Unit.MONTH, 121), (Unit.SECOND, 315_360_000)])
def test_the_longest_period_is_ten_years(unit: Unit, multiplier: int) -> None:
    """In whichever unit it is written."""
    limit = rls.decode(override(unit, multiplier)).descriptors[0].limit
    assert limit is not None
    assert limit.window_us <= 10 * 365 * 86_400_000_000


# ---------------------------------------------------------------------------------------------------------------------
# encode


def by_protobuf(verdict: Verdict) -> bytes:
    """Write a verdict by protobuf's own library."""
    message = RateLimitResponse()
    message.overall_code = verdict.code  # type: ignore[assignment] # the same numbers, by model.Code's contract
    for told in verdict.statuses:
        status = message.statuses.add()
        status.code = told.code  # type: ignore[assignment] # as above
        status.limit_remaining = told.remaining
        if told.limit is not None:
            status.current_limit.requests_per_unit = told.limit.requests_per_unit
            status.current_limit.name = told.limit.name
            if told.limit.unit is not None:
                status.current_limit.unit = told.limit.unit  # type: ignore[assignment] # as above, by model.Unit's
                if told.limit.multiplier != 1:
                    status.current_limit.unit_multiplier.value = told.limit.multiplier
        if told.reset_s is not None:
            status.duration_until_reset.seconds = told.reset_s
    for name, number in verdict.headers:
        message.response_headers_to_add.add(key=name, value=str(number))
    if verdict.metadata is not None:
        message.dynamic_metadata.update(verdict.metadata)
    return message.SerializeToString()


told_limits = st.builds(
    Limit, uint32, st.none() | st.sampled_from(Unit), st.text(max_size=200), multiplier=st.integers(1, 2**32 - 1)
)
told_statuses = st.builds(
    Status, st.sampled_from(Code), st.none() | told_limits, uint32, st.none() | st.integers(0, 315_360_000)
)
plain_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
"""What JSON can say."""
verdicts_ = st.builds(
    Verdict,
    st.sampled_from(Code),
    st.lists(told_statuses, max_size=4).map(tuple),
    st.none() | st.dictionaries(texts, plain_values, max_size=2),
    st.lists(st.tuples(texts, uint32), max_size=3).map(tuple),
)


@given(verdicts_)
def test_what_is_written_by_hand_is_what_protobuf_writes(verdict: Verdict) -> None:
    """To the byte."""
    if verdict.metadata:  # a map's entries have no order
        read_back = RateLimitResponse.FromString
        assert read_back(rls.encode(verdict)) == read_back(by_protobuf(verdict))
    else:
        assert rls.encode(verdict) == by_protobuf(verdict)


@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 9)), max_size=4), st.integers(1, 2000))
def test_who_was_granted_earlier_is_told_that_more_is_left(each: list[tuple[int, int]], later: int) -> None:
    """As `verdicts.earlier` says it."""
    verdict = Verdict(Code.OK, tuple(Status(Code.OK, None, left, 1) for left, _ in each))
    hits = [taken for _, taken in each]
    assert rls.encode(verdict, later, hits) == by_protobuf(earlier(verdict, later, hits))


def parsed(verdict: Verdict) -> theirs.RateLimitResponse:
    """Encode by us, read by the independent codec."""
    return theirs.RateLimitResponse.parse(rls.encode(verdict))


def test_status_of_a_limit() -> None:
    """A limited descriptor is told its limit, what remains and when the window is empty."""
    limit = Limit(100, Unit.MINUTE, name="per tenant")
    (status,) = parsed(Verdict(Code.OK, (Status(Code.OK, limit, 42, 7),))).statuses
    assert status == theirs.RateLimitResponseDescriptorStatus(
        code=theirs.RateLimitResponseCode.OK,
        current_limit=theirs.RateLimitResponseRateLimit(
            requests_per_unit=100, unit=theirs.RateLimitResponseRateLimitUnit.MINUTE, name="per tenant"
        ),
        limit_remaining=42,
        duration_until_reset=timedelta(seconds=7),
    )


def test_status_without_a_rule() -> None:
    """A descriptor that no rule matches is told its code, and nothing else: on the wire 2 bytes."""
    assert rls.encode(Verdict(Code.OK, (Status(Code.OK),))) == b"\x08\x01" + b"\x12\x02\x08\x01"


def test_status_of_an_unlimited_rule() -> None:
    """Without a limit, everything remains and no limit is told."""
    (status,) = parsed(Verdict(Code.OK, (Status(Code.OK, remaining=UNLIMITED_REMAINING),))).statuses
    assert (status.current_limit, status.limit_remaining) == (None, 4294967295)
    assert status.duration_until_reset is None


def test_reset_of_zero_is_told() -> None:
    """A window that is empty now says 0 seconds; that is not the same as saying nothing."""
    (status,) = parsed(Verdict(Code.OK, (Status(Code.OK, Limit(1, Unit.SECOND), 1, 0),))).statuses
    assert status.duration_until_reset == timedelta(0)


@pytest.mark.parametrize("unit", Unit)
def test_units_have_envoys_numbers(unit: Unit) -> None:
    """Each unit of the model is the unit of that name on the wire."""
    (status,) = parsed(Verdict(Code.OK, (Status(Code.OK, Limit(1, unit)),))).statuses
    assert status.current_limit is not None
    assert status.current_limit.unit.name == unit.name


def current_limit(limit: Limit) -> RateLimitResponse.RateLimit:
    """What a status says of its limit; read by ours, as the independent codec knows no multiplier."""
    message = RateLimitResponse.FromString(rls.encode(Verdict(Code.OK, (Status(Code.OK, limit),))))
    return message.statuses[0].current_limit


def test_several_units_are_told_as_a_multiplier() -> None:
    """`unit_multiplier` says of how many units the period is, and is absent for one."""
    ninety = current_limit(Limit(5, Unit.SECOND, multiplier=90))
    assert (int(ninety.unit), ninety.unit_multiplier.value) == (Unit.SECOND, 90)
    assert not current_limit(Limit(5, Unit.SECOND)).HasField("unit_multiplier")


def test_a_period_that_no_unit_measures_is_told_as_unknown() -> None:
    """The number is told all the same, and no period that is not true."""
    odd = current_limit(Limit(5, None, name="odd", period_us=1_500_000))
    assert (odd.requests_per_unit, odd.unit, odd.name) == (5, 0, "odd")
    assert not odd.HasField("unit_multiplier")


def test_dynamic_metadata_is_a_struct() -> None:
    """Values of every kind arrive as they are; without any the field is absent, which is not the same as empty."""
    told = {
        "domain": "d",
        "descriptors": [{"entries": ["k=v"], "hitsAddend": 2}],
        "flag": True,
        "nothing": None,
        "reset": 1.5,
    }
    message = RateLimitResponse.FromString(rls.encode(Verdict(Code.OK, (), told)))
    assert MessageToDict(message.dynamic_metadata) == told
    assert not RateLimitResponse.FromString(rls.encode(Verdict(Code.OK, ()))).HasField("dynamic_metadata")


def test_denial() -> None:
    """A denial keeps one status per descriptor, in their order."""
    limit = Limit(2**32 - 1, Unit.YEAR)
    verdict = Verdict(Code.OVER_LIMIT, (Status(Code.OK, limit, 1, 1), Status(Code.OVER_LIMIT, limit, 0, 31_536_000)))
    response = parsed(verdict)
    assert response.overall_code is theirs.RateLimitResponseCode.OVER_LIMIT
    assert [status.code.name for status in response.statuses] == ["OK", "OVER_LIMIT"]
    assert response.statuses[1].duration_until_reset == timedelta(days=365)


# ---------------------------------------------------------------------------------------------------------------------
# JSON


@pytest.mark.parametrize("hits", ["hits_addend", "hitsAddend"])
def test_json_request_in_either_spelling(hits: str) -> None:
    """Names may be spelled as in the contract or as protobuf's JSON spells them."""
    entries = [{"key": "k", "value": "v"}]
    text = json.dumps({"domain": "d", hits: 3, "descriptors": [{"entries": entries, hits: "5"}]})
    assert rls.decode(rls.request_from_json(text.encode())) == Request("d", (Descriptor((Entry("k", "v"),), 5),), 3)


@given(requests)
def test_json_request_agrees_with_an_independent_codec(message: theirs.RateLimitRequest) -> None:
    """A request in the other codec's JSON becomes that codec's bytes."""
    assert theirs.RateLimitRequest.parse(rls.request_from_json(message.to_json().encode())) == message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "JSON object is expected"),
        (b"[]", "JSON object is expected"),
        (b'""', "JSON object is expected"),
        (b"null", "JSON object is expected"),
        (b"{", "Failed to load JSON"),
        (b'{"domain": "\xff"}', "can't decode byte 0xff"),
        (b'{"domian": "d"}', 'no field named "domian"'),
        (b'{"domain": "a", "domain": "b"}', "duplicate key domain"),
        (b'{"hitsAddend": -1}', "out of range"),
        (b'{"hitsAddend": 1e400}', "parse integer"),
        (b'{"descriptors": [{"limit": {"unit": "FORTNIGHT"}}]}', "Invalid enum value FORTNIGHT"),
        (b'{"a":' * 10_000, "Failed to load JSON"),  # deeper than the parser follows
    ],
)
def test_json_request_refused(text: bytes, reason: str) -> None:
    """What is not a request in JSON is refused on one line that says why."""
    with pytest.raises(BadRequestError, match=reason) as refused:
        rls.request_from_json(text)
    assert "\n" not in str(refused.value)


json_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["domain", "descriptors", "entries", "limit", "unit", "key", "hitsAddend"]), inner
        )
    ),
    max_leaves=8,
)


@given(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=32))
def test_random_json_never_crashes(text: bytes) -> None:
    """Whatever is posted is a request or a refusal."""
    with suppress(BadRequestError):
        decode_or_refuse(rls.request_from_json(text))


def test_json_response() -> None:
    """A response in JSON reads as the reference implementation's: names in camel case, enums by name, seconds with an s."""
    verdict = Verdict(Code.OVER_LIMIT, (Status(Code.OVER_LIMIT, Limit(3, Unit.MINUTE), 0, 58), Status(Code.OK)))
    code, text = rls.response_to_json(rls.encode(verdict))
    assert code is Code.OVER_LIMIT
    assert "\n" not in text
    assert json.loads(text) == {
        "overallCode": "OVER_LIMIT",
        "statuses": [
            {
                "code": "OVER_LIMIT",
                "currentLimit": {"requestsPerUnit": 3, "unit": "MINUTE"},
                "durationUntilReset": "58s",
            },
            {"code": "OK"},
        ],
    }


# ---------------------------------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UndecodableError("broken"), (13, "broken")),
        (BadRequestError("no domain"), (2, "no domain")),
        (StoreUnavailableError("no answer"), (14, "no answer")),
        (RulesError([]), (2, "")),
        (RateLimitError("other"), (2, "other")),
    ],
)
def test_errors_have_a_grpc_status(error: RateLimitError, status: tuple[int, str]) -> None:
    """Each error is told with its gRPC status and its own text."""
    assert rls.status_of(error) == status


def test_service_has_its_name() -> None:
    """Engines take the method's path from here: it is Envoy's."""
    assert f"/{rls.SERVICE}/{rls.METHOD}" == "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
