"""A third client: libcurl, whose HTTP/2 is nghttp2, with HPACK and flow control of its own. It knows no gRPC: messages are framed by
hand, and the status is read out of the trailers.
"""

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import pycurl

from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_svc.wire.calls import GrpcStatus
from tests.conformance.frames import framed
from tests.conformance.served import SHOULD_RATE_LIMIT

PATIENCE_S = 20
"""After which a transfer fails."""


class Ask(NamedTuple):
    """What to send on one stream."""

    body: bytes = b""
    path: str = SHOULD_RATE_LIMIT
    content_type: str = "application/grpc"
    method: str = "POST"
    headers: Sequence[str] = ()
    """More of them, as `name: value`."""


def asking(request: rls_pb2.RateLimitRequest, *headers: str) -> Ask:
    """A call of Envoy's service."""
    return Ask(framed(request.SerializeToString()), headers=headers)


@dataclass
class Reply:
    """What came back."""

    status: int
    """HTTP's."""
    body: bytes
    connects: int
    """How many connections were made for it: 0 if one could be used that was there."""
    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def grpc_status(self) -> GrpcStatus:
        """gRPC's, which has to come after the message, or instead of one."""
        return GrpcStatus(int((self.trailers if self.body else self.headers)["grpc-status"]))

    @property
    def message(self) -> bytes:
        """The one message."""
        assert (self.status, self.grpc_status) == (200, GrpcStatus.OK), self
        message = self.body[5:]
        assert self.body == framed(message)
        return message

    @property
    def verdict(self) -> rls_pb2.RateLimitResponse:
        """The answer of Envoy's service."""
        return rls_pb2.RateLimitResponse.FromString(self.message)


class Nghttp2:
    """Connections to one port, kept from one `send` to the next. Use it as a context manager.

    Args:
        port: on loopback.
        trusted: the root of the server's certificate; None: plaintext, and HTTP/2 by prior knowledge.
        connections: at most.
        streams: at once on each.
    """

    def __init__(self, port: int, *, trusted: Path | None = None, connections: int = 1, streams: int = 100) -> None:
        self._port, self._trusted = port, trusted
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, connections)
        self._multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, streams)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._multi.close()

    async def send(self, *asks: Ask) -> list[Reply]:
        """Send all at once, and return the replies in their order. libcurl waits in a thread: the engine has this loop."""
        transfers = [_Transfer(self._handle(ask)) for ask in asks]
        await asyncio.to_thread(self._perform, [transfer.curl for transfer in transfers])
        return [transfer.reply() for transfer in transfers]

    def _handle(self, ask: Ask) -> pycurl.Curl:
        curl = pycurl.Curl()
        scheme, version = "http", pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
        if self._trusted is not None:
            scheme, version = "https", pycurl.CURL_HTTP_VERSION_2TLS
            curl.setopt(pycurl.CAINFO, str(self._trusted))
        curl.setopt(pycurl.URL, f"{scheme}://127.0.0.1:{self._port}{ask.path}")
        curl.setopt(pycurl.HTTP_VERSION, version)
        curl.setopt(pycurl.PIPEWAIT, 1)  # rather a stream than another connection
        curl.setopt(pycurl.TIMEOUT, PATIENCE_S)
        curl.setopt(pycurl.NOPROXY, "*")
        if ask.method == "POST":
            curl.setopt(pycurl.POST, 1)
            curl.setopt(pycurl.POSTFIELDS, ask.body)
            curl.setopt(
                pycurl.HTTPHEADER,
                [f"content-type: {ask.content_type}", "te: trailers", "user-agent: nghttp2", *ask.headers],
            )
        elif ask.method == "HEAD":
            curl.setopt(pycurl.NOBODY, 1)
        else:
            curl.setopt(pycurl.CUSTOMREQUEST, ask.method)
        return curl

    def _perform(self, handles: Sequence[pycurl.Curl]) -> None:
        for curl in handles:
            self._multi.add_handle(curl)
        running = len(handles)
        while running:
            _, running = self._multi.perform()
            self._multi.select(0.1)
        waiting, _, failed = self._multi.info_read(len(handles))
        for curl in handles:
            self._multi.remove_handle(curl)
        assert (waiting, failed) == (0, [])


class _Transfer:
    """A handle, and what it has heard."""

    def __init__(self, curl: pycurl.Curl) -> None:
        self.curl = curl
        self._body = io.BytesIO()
        self._blocks: list[dict[str, str]] = [{}]
        """Headers, trailers; an empty line ends each."""
        curl.setopt(pycurl.WRITEDATA, self._body)
        curl.setopt(pycurl.HEADERFUNCTION, self._line)

    def _line(self, line: bytes) -> None:
        name, colon, value = line.decode("latin-1").strip().partition(": ")
        if colon:
            self._blocks[-1][name] = value
        elif not name:
            self._blocks.append({})

    def reply(self) -> Reply:
        """What came, when all has."""
        status, connects = self.curl.getinfo(pycurl.RESPONSE_CODE), self.curl.getinfo(pycurl.NUM_CONNECTS)
        assert self.curl.getinfo(pycurl.INFO_HTTP_VERSION) == pycurl.CURL_HTTP_VERSION_2_0
        self.curl.close()
        return Reply(status, self._body.getvalue(), connects, self._blocks[0], self._blocks[1])
