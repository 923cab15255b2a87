"""A client that says what no gRPC client would: HTTP/2 by `h2`, message frames by hand."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from ratelimit_svc.wire.calls import GrpcStatus
from tests.conformance.served import SHOULD_RATE_LIMIT


def framed(message: bytes, *, flag: int = 0) -> bytes:
    """A message as gRPC sends it: whether it is compressed, its length, itself."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


@dataclass
class Reply:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    @property
    def status(self) -> GrpcStatus | None:
        """The gRPC status, in trailers or, of an error at once, in the headers."""
        text = (self.headers | self.trailers).get("grpc-status")
        return None if text is None else GrpcStatus(int(text))

    @property
    def text(self) -> str:
        """The error's text, decoded."""
        return unquote((self.headers | self.trailers).get("grpc-message", ""), errors="strict")


class Connection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.h2 = H2Connection(
            H2Configuration(client_side=True, header_encoding="utf-8", normalize_outbound_headers=False)
        )
        self.replies: dict[int, Reply] = {}
        self.goaway: int | None = None
        """The error code that the server said farewell with."""
        self.closed = False
        self._unread = b""
        self.h2.initiate_connection()
        writer.write(self.h2.data_to_send())

    def begin(self, body: bytes, path: str = SHOULD_RATE_LIMIT, *, end: bool = True, **headers: Any) -> Reply:
        """Send a request; names of headers are written with _ for -."""
        number = self.h2.get_next_available_stream_id()
        all_headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
        all_headers["content-type"] = "application/grpc"
        all_headers |= {name.replace("_", "-"): text for name, text in headers.items()}
        self.h2.send_headers(number, list(all_headers.items()), end_stream=end and not body)
        if body:
            self.h2.send_data(number, body, end_stream=end)
        self._writer.write(self.h2.data_to_send())
        return self.replies.setdefault(number, Reply())

    async def until_over(self, reply: Reply, *, within_s: float = 10) -> Reply:
        """Read until a stream is over, or the connection."""
        async with asyncio.timeout(within_s):
            while not reply.over and not self.closed:
                await self.read()
        return reply

    async def until_closed(self, *, within_s: float = 10) -> None:
        """Read until the server has closed."""
        async with asyncio.timeout(within_s):
            while not self.closed:
                await self.read()

    async def read(self) -> None:
        """Take in what comes next. Window updates are never sent: who wants them, sends them."""
        try:
            data = await self._reader.read(65_536)
        except ConnectionError:
            data = b""
        self.closed = not data
        self._unread += data
        while len(self._unread) >= (size := 9 + int.from_bytes(self._unread[:3], "big")):
            frame, self._unread = self._unread[:size], self._unread[size:]
            for event in self.h2.receive_data(frame):
                self._note(event)
            if self.goaway is not None:  # which h2 takes for the end, though it may be a farewell in time
                self.h2.state_machine.state = ConnectionState.CLIENT_OPEN
        if not self.closed:
            self._writer.write(self.h2.data_to_send())

    def _note(self, event: object) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
            return
        reply = self.replies.get(getattr(event, "stream_id", 0) or 0)
        if reply is None:
            return
        match event:
            case ResponseReceived():
                reply.headers = _texts(event.headers)
            case TrailersReceived():
                reply.trailers = _texts(event.headers)
            case DataReceived():
                reply.data += event.data
            case StreamEnded():
                reply.ended = True
            case StreamReset():
                reply.reset = int(event.error_code)

    async def abort(self) -> None:
        """Be gone, without a word."""
        self._writer.transport.abort()


def _texts(headers) -> dict[str, str]:
    pairs: Mapping[str, str] = dict(headers)
    return dict(pairs)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Connect, without TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


async def reply_to(port: int, body: bytes, path: str = SHOULD_RATE_LIMIT, **headers: Any) -> Reply:
    """Send one request on a connection of its own, and return what came back."""
    async with connected(port) as connection:
        return await connection.until_over(connection.begin(body, path, **headers))
