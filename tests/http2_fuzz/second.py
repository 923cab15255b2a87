"""The second opinion: h2, with a gRPC of the tests' own on top.

h2 checks fields only where it is told to, here: what is malformed is then a stream's error, as RFC 9113 §8.1.1 has it; h2 alone would
end the connection.
"""

import re
import zlib
from dataclasses import dataclass, field

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from h2.utilities import HeaderValidationFlags, validate_headers

from tests.http2_fuzz.ours import MOST_MESSAGE_BYTES, QUICK_PATH, Said, Step
from tests.http2_fuzz.pieces import Act, Piece, message_of

UNKNOWN, UNIMPLEMENTED, INTERNAL, RESOURCE_EXHAUSTED = 2, 12, 13, 8
PROTOCOL_ERROR, FLOW_CONTROL_ERROR = 1, 3

UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

ONCE = {b"content-type", b"content-length", b"grpc-timeout", b"grpc-encoding"}


@dataclass
class Call:
    """One request."""

    path: str
    unary: bool
    timeout_s: float | None = None
    gzip: bool = False
    heard: bool = True
    """Nothing is wrong with it yet; what else comes is for nobody."""
    ended: bool = False
    content_length: int | None = None
    received: int = 0
    held: bytes = b""
    messages: list[bytes] = field(default_factory=list)
    begun: bool = False
    unsent: bytes = b""
    last: list[tuple[bytes, bytes]] | None = None
    """Trailers; empty for the end of a body."""
    http: bool = False
    """Answered in HTTP's words."""


class Fail(Exception):  # noqa: N818 — how a call ends, not an error
    """A call ends with this status."""

    def __init__(self, status: int) -> None:
        self.status = status


class Second:
    """A server made of h2."""

    def __init__(self) -> None:
        config = H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = H2Connection(config)
        self.h2.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 1024})
        self.h2.decoder.max_header_list_size = 64 * 1024
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(2**20 - 65535)
        self._said = Said()
        self._resets: list[tuple[int, int]] = []
        self._calls: dict[int, Call] = {}
        self._blocked: dict[int, Call] = {}
        self._asks: list[int] = []
        self._streaming: list[int] = []

    # ── what comes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def feed(self, data: bytes) -> Step:
        """Feed one piece."""
        step = Step()
        over = None
        try:
            for event in self.h2.receive_data(data):
                self._happened(event, step)
        except ProtocolError as error:
            over = int(error.error_code)
        said = self._said.read(self.h2.data_to_send())
        said.asks, said.calls = step.asks, step.calls
        said.resets += self._resets
        self._resets.clear()
        said.over = over if over is not None else said.over
        return said

    def _happened(self, event: h2.events.Event, step: Step) -> None:
        match event:
            case h2.events.RequestReceived():
                self._request(event.stream_id, event.headers, step)
            case h2.events.DataReceived():
                self._data(event, step)
            case h2.events.TrailersReceived():
                self._trailers(event)
            case h2.events.StreamEnded():
                self._ended(event.stream_id, step)
            case h2.events.StreamReset():
                self._gone(event.stream_id)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._push_all()

    def _request(self, number: int, fields, step: Step) -> None:
        if sum(len(name) + len(value) + 32 for name, value in fields) > 16 * 1024:
            self._calls[number] = Call("", unary=False, heard=False)
            self._refuse(number, b"431", b"the header list is longer than 16384 bytes")
            return
        if not sound(fields, trailers=False):
            self._reset(number, PROTOCOL_ERROR)
            return
        known = dict(fields)
        path = known[b":path"].decode("latin-1")
        length = known.get(b"content-length")
        call = self._calls[number] = Call(
            path, path == QUICK_PATH, content_length=None if length is None else int(length)
        )
        if known[b":method"] != b"POST":
            self._refuse(number, b"405", b"this port speaks gRPC: the method must be POST\n")
        elif not re.fullmatch(rb"application/grpc(\+proto)?( *;.*)?", known.get(b"content-type", b"")):
            self._refuse(number, b"415", b"this port speaks gRPC: the content-type must be application/grpc\n")
        elif (encoding := known.get(b"grpc-encoding", b"identity")) not in (b"identity", b"gzip"):
            self._end(number, UNIMPLEMENTED)
        elif (timeout := re.fullmatch(rb"(\d{1,8})([HMSmun])", known.get(b"grpc-timeout", b"1H"))) is None:
            self._end(number, INTERNAL)
        else:
            call.gzip = encoding == b"gzip"
            call.timeout_s = int(timeout[1]) * UNITS_S[timeout[2]] if b"grpc-timeout" in known else None
            if not call.unary:
                self._streaming.append(number)
                step.calls.append((number, "began", ()))

    def _data(self, event: h2.events.DataReceived, step: Step) -> None:
        number = event.stream_id
        call = self._calls.get(number)
        if call is None:
            return
        call.received += len(event.data)
        if not call.heard:
            return
        call.ended = event.stream_ended is not None
        if not call.ended:
            self.h2.acknowledge_received_data(event.flow_controlled_length, number)
        try:
            found = self._messages(call, event.data)
        except Fail as error:
            self._fail(number, error.status)
            return
        if call.unary:
            call.messages += found
            if len(call.messages) > 1:
                self._fail(number, UNIMPLEMENTED)
        elif found:
            step.calls.append((number, "came", tuple(found)))

    def _messages(self, call: Call, data: bytes) -> list[bytes]:
        call.held += data
        found = []
        while len(call.held) >= 5:
            length = int.from_bytes(call.held[1:5], "big")
            if length > MOST_MESSAGE_BYTES:
                raise Fail(RESOURCE_EXHAUSTED)
            if len(call.held) < 5 + length:
                break
            compressed, message, call.held = call.held[0], call.held[5 : 5 + length], call.held[5 + length :]
            found.append(plain(message, compressed, gzip=call.gzip))
        return found

    def _trailers(self, event: h2.events.TrailersReceived) -> None:
        call = self._calls.get(event.stream_id)
        cut_short = call is not None and call.content_length not in (
            None,
            call.received,
        )  # h2 looks only when DATA ends it
        if cut_short or not sound(event.headers, trailers=True):
            self._reset(event.stream_id, PROTOCOL_ERROR)

    def _ended(self, number: int, step: Step) -> None:
        call = self._calls.get(number)
        if call is None:
            return
        call.ended = True
        if not call.heard:
            return
        if call.held:
            self._fail(number, INTERNAL)
        elif not call.unary:
            step.calls.append((number, "ended", ()))
        elif not call.messages:
            self._fail(number, UNIMPLEMENTED)
        else:
            self._asks.append(number)
            step.asks.append((number, call.path, call.timeout_s, call.messages[0]))

    # ── what goes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def act(self, act: Piece) -> Step:
        """Do something to one of the calls."""
        match act.kind:
            case Act.ANSWER if self._asks:
                number = self._asks.pop(act.number % len(self._asks))
                self._say(number, message_of(act))
                self._end(number, 0)
            case Act.SAY if self._streaming:
                self._say(self._streaming[act.number % len(self._streaming)], message_of(act))
            case Act.END if self._streaming:
                self._end(self._streaming.pop(act.number % len(self._streaming)), act.flags % 17)
            case Act.RESET if waiting := self._asks or self._streaming:
                self._reset(waiting[act.number % len(waiting)], 8)
        return self._said.read(self.h2.data_to_send())

    def _say(self, number: int, message: bytes) -> None:
        call = self._calls[number]
        if not call.begun:
            call.begun = True
            self.h2.send_headers(number, [(b":status", b"200"), (b"content-type", b"application/grpc")])
        call.unsent += b"\0" + len(message).to_bytes(4, "big") + message
        self._push(number)

    def _end(self, number: int, status: int) -> None:
        call = self._calls[number]
        call.heard = False
        begin = [] if call.begun else [(b":status", b"200"), (b"content-type", b"application/grpc")]
        call.last = [*begin, (b"grpc-status", b"%d" % status)]
        self._push(number)

    def _fail(self, number: int, status: int) -> None:
        self._asks, self._streaming = ([one for one in some if one != number] for some in (self._asks, self._streaming))
        self._end(number, status)

    def _refuse(self, number: int, status: bytes, text: bytes) -> None:
        call = self._calls[number]
        call.heard, call.http, call.last, call.unsent = False, True, [], text
        self.h2.send_headers(number, [(b":status", status)])
        self._push(number)

    def _push_all(self) -> None:
        for number in list(self._blocked):
            self._push(number)

    def _push(self, number: int) -> None:
        call = self._calls[number]
        while call.unsent and (room := min(self.h2.local_flow_control_window(number), 16384)) > 0:
            self.h2.send_data(number, call.unsent[:room])
            call.unsent = call.unsent[room:]
        self._blocked.pop(number, None)
        if call.unsent:
            self._blocked[number] = call
            return
        if call.last is None:
            return
        if call.http:
            self.h2.end_stream(number)
        else:
            self.h2.send_headers(number, call.last, end_stream=True)
        call.last = None
        if not call.ended and not call.http:
            self.h2.reset_stream(number, 0)
            self._gone(number)

    def _reset(self, number: int, code: int) -> None:
        try:
            self.h2.reset_stream(number, code)
        except StreamClosedError:  # both sides have ended: what is wrong is wrong all the same
            self._resets.append((number, code))
        self._gone(number)

    def _gone(self, number: int) -> None:
        self._calls.pop(number, None)
        self._blocked.pop(number, None)
        self._asks, self._streaming = ([one for one in some if one != number] for some in (self._asks, self._streaming))


def sound(fields, *, trailers: bool) -> bool:
    """Return whether h2 finds nothing malformed, and no field that matters is given twice.

    h2 looks for the characters that §8.2.1 forbids at least; names are tokens besides (RFC 9110 §5.1).
    What h2 says of `host` is not asked: RFC 9113 §8.3.1 wants neither it nor `:authority`, and says SHOULD of two that differ.
    """
    fields = [(b"x-host" if name == b"host" else name, value) for name, value in fields]
    if not trailers and all(name != b":authority" for name, _ in fields):
        fields.insert(0, (b":authority", b"somewhere"))
    flags = HeaderValidationFlags(is_client=False, is_trailer=trailers, is_response_header=False, is_push_promise=False)
    if not all(name.startswith(b":") or re.fullmatch(rb"[!#$%&'*+.^_`|~0-9a-z-]+", name) for name, _ in fields):
        return False
    try:
        list(validate_headers(fields, flags))
    except ProtocolError:
        return False
    return trailers or all(len({value for name, value in fields if name == one}) < 2 for one in ONCE)


def plain(message: bytes, compressed: int, *, gzip: bool) -> bytes:
    """Return a message as it was before compression."""
    if compressed == 0:
        return message
    if compressed != 1 or not gzip:
        raise Fail(INTERNAL)
    inflater = zlib.decompressobj(31)
    try:
        found = inflater.decompress(message, MOST_MESSAGE_BYTES + 1)
    except zlib.error:
        raise Fail(INTERNAL) from None
    if len(found) > MOST_MESSAGE_BYTES:
        raise Fail(RESOURCE_EXHAUSTED)
    if not inflater.eof or inflater.unused_data:
        raise Fail(INTERNAL)
    return found
