"""A client of the service, for `ratelimit-svc hit` and for tests: one request as Envoy would send it, by grpcio."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import grpc
from google.protobuf import text_format

from ratelimit_svc.model import Entry, Unit
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from ratelimit_svc.wire.calls import CallError, GrpcStatus


def request(
    domain: str,
    descriptors: Sequence[Sequence[Entry]],
    *,
    hits: int = 0,
    check: bool = False,
    refund: bool = False,
    limit: tuple[int, Unit] | None = None,
) -> rls_pb2.RateLimitRequest:
    """Return a request.

    Args:
        domain: whose rules are asked.
        descriptors: the entries of each.
        hits: `hits_addend` of the request; 0 leaves it out, which counts as 1.
        check: each descriptor asks with 0 hits of its own, and counts nothing.
        refund: each descriptor gives its hits back (`is_negative_hits`).
        limit: what each descriptor brings along in place of the rules' limits.
    """
    message = rls_pb2.RateLimitRequest(domain=domain, hits_addend=hits)
    for entries in descriptors:
        descriptor = message.descriptors.add(is_negative_hits=refund)
        if check:
            descriptor.hits_addend.value = 0
        if limit is not None:
            descriptor.limit.requests_per_unit = limit[0]
            descriptor.limit.unit = limit[1]  # type: ignore[assignment] # the same numbers, by model.Unit's contract
        for entry in entries:
            descriptor.entries.add(key=entry.key, value=entry.value)
    return message


class ClientTls(NamedTuple):
    """How to ask a service that has TLS on its gRPC side."""

    ca: Path | None = None
    """PEM roots of its certificate; None: those that the gRPC library brings."""
    cert: Path | None = None
    """Our own certificate, PEM, for a service that asks for one."""
    key: Path | None = None
    """Its private key, PEM."""
    name: str | None = None
    """The name that its certificate must have; None: the host that is asked."""

    def channel(self, address: str) -> grpc.Channel:
        """Return a connection, to be made at the first call.

        Raises:
            OSError: a file cannot be read.
        """
        ca, key, cert = (path.read_bytes() if path else None for path in (self.ca, self.key, self.cert))
        options = (("grpc.ssl_target_name_override", self.name),) if self.name else ()
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert), options)


class Client:
    """A connection to one replica. Use it as a context manager.

    Args:
        address: host:port of its gRPC side.
        timeout_s: how long a call may take; sent to the service as its deadline.
        tls: None: plaintext.
    """

    def __init__(self, address: str, *, timeout_s: float = 1.0, tls: ClientTls | None = None) -> None:
        self._channel = tls.channel(address) if tls else grpc.insecure_channel(address)
        self._stub = rls_pb2_grpc.RateLimitServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def ask(self, message: rls_pb2.RateLimitRequest) -> rls_pb2.RateLimitResponse:
        """Return the response.

        Raises:
            CallError: the service answered with a gRPC error, or not in time.
        """
        try:
            response: rls_pb2.RateLimitResponse = self._stub.ShouldRateLimit(message, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise CallError(GrpcStatus(error.code().value[0]), error.details() or "") from error
        return response


def in_words(response: rls_pb2.RateLimitResponse) -> list[str]:
    """Return the response as lines for people: the overall code, then one line a descriptor."""
    codes, units = rls_pb2.RateLimitResponse.Code, rls_pb2.RateLimitResponse.RateLimit.Unit
    lines = [codes.Name(response.overall_code)]
    for status in response.statuses:
        words = [codes.Name(status.code)]
        if status.HasField("current_limit"):
            limit = status.current_limit
            name = f" ({limit.name})" if limit.name else ""
            words.append(f"limit {limit.requests_per_unit} per {units.Name(limit.unit).lower()}{name}")
            words.append(f"{status.limit_remaining} remaining")
            words.append(f"reset in {status.duration_until_reset.seconds} s")
        elif status.limit_remaining:
            words.append("unlimited")
        else:
            words.append("no limit asked")
        lines.append("  " + ", ".join(words))
    return lines


_PROTO_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<scalar>\w+): |(?P<message>\w+) \{ ?| (?P<end>\})')


def as_text(response: rls_pb2.RateLimitResponse) -> str:
    """Return the response as protobuf's text, spaced as Go spaces it: `overall_code:OK statuses:{code:OK}`."""

    def respaced(found: re.Match[str]) -> str:
        kind = found.lastgroup
        return found[0] if kind is None else {"scalar": f"{found[1]}:", "message": f"{found[2]}:{{", "end": "}"}[kind]

    return _PROTO_TEXT.sub(respaced, text_format.MessageToString(response, as_one_line=True).strip())


def in_go_words(status: GrpcStatus) -> str:
    """Return a status as Go prints it: `DeadlineExceeded`."""
    return "Canceled" if status is GrpcStatus.CANCELLED else status.name.title().replace("_", "")
