"""Stream: what is said on one xDS stream, and no I/O. The server answers each request of ours with all resources, or later.

Rule 1: each stream begins without a version. A server that was restarted may count its versions anew: told one that it happens to
        have as well, it would keep its resources to itself.
Rule 2: an answer names the response's nonce. One that is refused is answered with the version before it, and why.
Rule 3: only the newest response is answered; servers ignore answers to older ones anyway.
"""

from ratelimit_svc import __version__
from ratelimit_svc.errors import RulesError
from ratelimit_svc.pb.envoy.config.core.v3 import base_pb2
from ratelimit_svc.pb.envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse, ErrorDetail
from ratelimit_svc.xds.resources import TYPE_URL
from ratelimit_svc.xds.source import Node

INVALID_ARGUMENT = 3
"""gRPC's status for what is wrong whoever sends it."""

MOST_REASON = 4_096
"""Characters of a refusal's reason: of ten thousand findings, the first ones are enough, and servers bound their messages."""


class Stream:
    """One stream's side of ours."""

    def __init__(self) -> None:
        self._version = ""
        """Accepted last on this stream."""

    def opening(self, node: Node) -> DiscoveryRequest:
        """Return the first request: who asks, and for what."""
        asking = base_pb2.Node(id=node.id, user_agent_name="ratelimit-svc", user_agent_version=__version__)
        if node.metadata:
            asking.metadata.update(node.metadata)
        return DiscoveryRequest(node=asking, type_url=TYPE_URL)

    def accept(self, response: DiscoveryResponse) -> DiscoveryRequest:
        """Return the answer to a response that is in use now."""
        self._version = response.version_info
        return self._answer(response)

    def refuse(self, response: DiscoveryResponse, error: RulesError) -> DiscoveryRequest:
        """Return the answer to a response that cannot be used."""
        answer = self._answer(response)
        answer.error_detail.CopyFrom(ErrorDetail(code=INVALID_ARGUMENT, message=reason(error)))
        return answer

    def _answer(self, response: DiscoveryResponse) -> DiscoveryRequest:
        return DiscoveryRequest(version_info=self._version, type_url=TYPE_URL, response_nonce=response.nonce)


def reason(error: RulesError) -> str:
    """Return what is wrong with rules, as far as it is told to a server."""
    text = str(error)
    if len(text) <= MOST_REASON:
        return text
    told = text[:MOST_REASON].rsplit("\n", 1)[0]
    return f"{told}\n… of {len(error.findings)} findings"
