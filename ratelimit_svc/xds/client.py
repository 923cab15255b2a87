"""Client: streams to an xDS server, one after another, for as long as the process lives.

Rule 1: the rules in force stay whatever happens, until better ones are there.
Rule 2: compiling is done in a thread, and never takes more than half of the time, however many updates there are. Of those that
        come meanwhile only the newest is looked at.
Rule 3: what stays the same is told once: a reason for having no stream, findings in resources that are sent again and again.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from time import monotonic, time
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as Resource
from google.protobuf.message import DecodeError

from ratelimit_svc.errors import RulesError
from ratelimit_svc.pb.envoy.service.discovery.v3 import ads_pb2
from ratelimit_svc.pb.envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.xds.backoff import Backoff
from ratelimit_svc.xds.channel import KEEPALIVE_S, channel_to
from ratelimit_svc.xds.resources import files, loaded
from ratelimit_svc.xds.source import Source
from ratelimit_svc.xds.stream import Stream, reason

_SERVICE = ads_pb2.DESCRIPTOR.services_by_name["AggregatedDiscoveryService"]
METHOD = f"/{_SERVICE.full_name}/{_SERVICE.methods_by_name['StreamAggregatedResources'].name}"

PACE_S = 0.005
"""At most one response is read in this time. What a server sends faster waits on its side: HTTP/2 holds it back."""

REST_S = 0.05
"""After an answer, at least so long passes before the next one is given."""

WRITE_S = 30.0
"""A request that the server has not taken by then ends the stream; the first one needs a connection, which gRPC tries for 20 s."""

_BROKEN = (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""What gRPC raises where a stream has ended, depending on how far it had come."""

_Call = Any
"""A `grpc.aio.StreamStreamCall` of bytes; its types are not complete."""


class Client:
    """What asks one xDS server for rules.

    Args:
        source: which server, and how.
        loader: `rules.load`, with the options that the caller wants.
        on_rules: is given the new rules and the files they came from. Must not block.
        on_error: is given what is wrong with what the server has sent; the rules given before stay valid. Must not block.
        on_up: a stream is there, after none was.
        on_down: there is none; is given why, and the seconds until the next one is tried. Once for each reason in a row.
        wake: set it to end a wait for the next stream at once (SIGHUP).
        dice: see `Backoff`.
        keepalive_s: after so much silence the server is asked whether it is there.
    """

    def __init__(
        self,
        source: Source,
        *,
        loader: Callable[[Iterable[RuleFile]], RuleSet],
        on_rules: Callable[[RuleSet, tuple[RuleFile, ...]], None],
        on_error: Callable[[RulesError], None],
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[str, float], None] = lambda _reason, _wait_s: None,
        wake: asyncio.Event | None = None,
        dice: Callable[[], float] = random.random,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        self._source = source
        self._loader = loader
        self._on_rules, self._on_error = on_rules, on_error
        self._on_up, self._on_down = on_up, on_down
        self._wake = wake or asyncio.Event()
        self._keepalive_s = keepalive_s
        self._backoff = Backoff(source.waits, dice)
        self._seen: list[tuple[str, bytes]] | None = None
        """The resources of the last response that was looked at, sorted: servers send them in any order."""
        self._error: RulesError | None = None
        """What is wrong with these."""
        self._reason: str | None = None
        """Why there was no stream, as it was told last; None: nothing was told since there were rules."""
        self._up_is_told = False
        self.connected = False
        """Whether there is a stream."""
        self.streams = 0
        """How many there were."""
        self.version = ""
        """What the server calls the rules in force."""
        self._refused: Mapping[str, object] | None = None

    def __repr__(self) -> str:
        return f"<Client: {self._source.url}, {'connected' if self.connected else 'away'}, version {self.version!r}>"

    def describe(self) -> Mapping[str, object]:
        """Return what health detail shows."""
        return {
            "server": self._source.url,
            "connected": self.connected,
            "reason": "" if self.connected else self._reason or "",
            "streams": self.streams,
            "version": self.version,
            "refused": self._refused,
        }

    async def run(self) -> None:
        """Ask the server until cancelled.

        Resource handling: a stream and its connection end with it, and so does the task that reads.

        Error handling: nothing about the server raises, nor about the files of TLS: it is told, and tried again. What the
        callbacks raise ends it.
        """
        while True:
            self._wake.clear()
            why = await self._one_stream()
            wait_s = self._backoff.next_s()
            if why != self._reason:
                self._reason, self._up_is_told = why, False
                self._on_down(why, wait_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _one_stream(self) -> str:
        """Ask on a new connection. Returns why that has ended."""
        try:
            async with await channel_to(self._source, keepalive_s=self._keepalive_s) as channel:
                call: _Call = channel.stream_stream(METHOD, request_serializer=DiscoveryRequest.SerializeToString)(
                    metadata=tuple(self._source.headers.items())
                )
                try:
                    return await self._converse(call)
                finally:
                    call.cancel()
        except OSError as error:
            return f"{error.filename} cannot be read: {error.strerror}"
        except _EndedError as error:
            return str(error)
        finally:
            self.connected = False

    async def _converse(self, call: _Call) -> str:
        stream, latest = Stream(), _Latest()
        await _write(call, stream.opening(self._source.node))
        self._note_stream()
        reading = asyncio.create_task(_read(call, latest))
        try:
            while (data := await latest.take()) is not None:
                began = monotonic()
                if (answer := await self._answer(stream, _decoded(data), latest)) is not None:
                    await _write(call, answer)
                await asyncio.sleep(max(REST_S, monotonic() - began))
            return await reading
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    def _note_stream(self) -> None:
        self.connected = True
        self.streams += 1
        if not self._up_is_told:
            self._up_is_told = True
            self._on_up()

    async def _answer(self, stream: Stream, response: DiscoveryResponse, latest: "_Latest") -> DiscoveryRequest | None:
        """Take up a response. Returns what the server is told; None: there is a newer one, so nothing."""
        resources = sorted((resource.type_url, resource.value) for resource in response.resources)
        if resources != self._seen:
            await self._load(resources)
        elif self._error is not None:
            # refused before: some servers send it again as soon as it is, round and round
            await latest.newer(self._source.waits.retry_s)
            if latest.is_there:
                return None
        if self._error is not None:
            self._refused = {"version": response.version_info, "reason": reason(self._error), "at": time()}
            return stream.refuse(response, self._error)
        self.version, self._refused = response.version_info, None
        self._backoff.reset()
        self._reason = None
        return stream.accept(response)

    async def _load(self, resources: list[tuple[str, bytes]]) -> None:
        outcome = await asyncio.to_thread(_compile, resources, self._loader)
        before, self._seen = self._error, resources
        if isinstance(outcome, RulesError):
            self._error = outcome
            if before is None or outcome.findings != before.findings:
                self._on_error(outcome)
        else:
            self._error = None
            self._on_rules(*outcome)


class _EndedError(Exception):
    """The stream has ended; the text says why."""


class _Latest:
    """The newest response that was not looked at yet. Those before it are forgotten."""

    def __init__(self) -> None:
        self._data: bytes | None = None
        self._changed = asyncio.Event()
        self._over = False

    @property
    def is_there(self) -> bool:
        return self._data is not None

    def put(self, data: bytes) -> None:
        self._data = data
        self._changed.set()

    def end(self) -> None:
        """There will be no more."""
        self._over = True
        self._changed.set()

    async def newer(self, within_s: float) -> None:
        """Wait for one, or for the end, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()

    async def take(self) -> bytes | None:
        """Wait for one and return it; None: there will be no more."""
        await self._changed.wait()
        data, self._data = self._data, None
        if not self._over:
            self._changed.clear()
        return data


async def _read(call: _Call, latest: _Latest) -> str:
    """Read responses to the stream's end. Returns why that was."""
    try:
        while (data := await call.read()) is not grpc.aio.EOF:
            latest.put(data)
            await asyncio.sleep(PACE_S)
        return await _ending(call)
    except _BROKEN:
        return await _ending(call)
    finally:
        latest.end()


async def _write(call: _Call, request: DiscoveryRequest) -> None:
    """Send a request.

    Raises:
        _EndedError: the stream has ended, or the server did not take it in time.
    """
    try:
        async with asyncio.timeout(WRITE_S):
            await call.write(request)
    except TimeoutError:
        raise _EndedError(f"the server has taken no request for {WRITE_S:g} s") from None
    except _BROKEN:
        raise _EndedError(await _ending(call)) from None


async def _ending(call: _Call) -> str:
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return "the server ended the stream"
    return f"{code.name}: {await call.details()}"


def _decoded(data: bytes) -> DiscoveryResponse:
    """Return the response.

    Raises:
        _EndedError: it is none. There is no nonce to answer, so there is nothing left to say.
    """
    try:
        return DiscoveryResponse.FromString(data)
    except DecodeError:
        raise _EndedError(f"the server sent {len(data)} bytes that are no DiscoveryResponse") from None


def _compile(
    resources: list[tuple[str, bytes]], loader: Callable[[Iterable[RuleFile]], RuleSet]
) -> tuple[RuleSet, tuple[RuleFile, ...]] | RulesError:
    try:
        made = files(Resource(type_url=type_url, value=value) for type_url, value in resources)
        return loaded(made, loader), made
    except RulesError as error:
        return error
