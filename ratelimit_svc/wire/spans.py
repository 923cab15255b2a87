"""What a span says of a call: what it was, and how it was answered. No key, no value, nothing else that a caller sent but its domain."""

from collections.abc import Callable, Sequence

from ratelimit_svc.errors import RateLimitError
from ratelimit_svc.model import Code
from ratelimit_svc.pb.envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from ratelimit_svc.tracing.spans import AttributeValue, Described
from ratelimit_svc.wire import rls
from ratelimit_svc.wire.calls import GrpcStatus

NAME = f"{rls.SERVICE}/{rls.METHOD}"

LONGEST_TEXT, MOST_RULES = 256, 32
"""Characters of a domain, or of an error, and rules that a span names."""

_RPC = {"rpc.system": "grpc", "rpc.service": rls.SERVICE, "rpc.method": rls.METHOD}


def describing(rules: Callable[[bytes], Sequence[str]]) -> Callable[[bytes, bytes | RateLimitError], Described]:
    """Return what describes calls. `rules` returns the ids of the rules that a request meets."""

    def describe(request: bytes, answer: bytes | RateLimitError) -> Described:
        said: dict[str, AttributeValue]
        if isinstance(answer, RateLimitError):
            status, text = rls.status_of(answer)
            said = {**_RPC, "rpc.grpc.status_code": int(status)}
            return Described(said, text[:LONGEST_TEXT])
        code = Code(RateLimitResponse.FromString(answer).overall_code)
        said = {
            **_RPC,
            "rpc.grpc.status_code": int(GrpcStatus.OK),
            "ratelimit.domain": rls.decode(request).domain[:LONGEST_TEXT],
            "ratelimit.overall_code": code.name,
            "ratelimit.rules": list(rules(request)[:MOST_RULES]),
        }
        return Described(said)

    return describe
