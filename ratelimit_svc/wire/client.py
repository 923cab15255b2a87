"""A client of the service, for `ratelimit-svc hit` and for tests: one request as Envoy would send it, by grpcio."""

from collections.abc import Sequence
from typing import Self

import grpc

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


class Client:
    """A connection to one replica. Use it as a context manager.

    Args:
        address: host:port of its gRPC side.
        timeout_s: how long a call may take; sent to the service as its deadline.
    """

    def __init__(self, address: str, *, timeout_s: float = 1.0) -> None:
        self._channel = grpc.insecure_channel(address)
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
