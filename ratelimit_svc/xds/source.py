"""Source: which xDS server, who asks it, and how it is waited for; as the settings have it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Tls(NamedTuple):
    """TLS to the server. The files are read at each connection, so that renewed ones are taken up."""

    cert: Path | None
    """Our own certificate and those above it, PEM; None: a server that asks for one refuses us."""
    key: Path | None
    """Its private key, PEM."""
    ca: Path | None
    """Roots of the server's certificate, PEM; None: the system's."""
    name: str
    """The name that the server's certificate must have; empty: the host that is asked."""


class Node(NamedTuple):
    """Who asks, in the server's words."""

    id: str
    metadata: Mapping[str, str]


class Waits(NamedTuple):
    """How long to wait before a server is asked again, in seconds."""

    retry_s: float
    """After a stream that gave rules, and at the start."""
    initial_s: float
    """If there are still no rules then. Each wait after it is twice as long."""
    most_s: float
    """No wait grows longer than this."""
    spread: float
    """Each wait is longer or shorter by up to this part of it, so that many replicas do not come at once; 0 … 1."""


class Source(NamedTuple):
    """One xDS server."""

    url: str
    """host:port, or another name that gRPC resolves."""
    tls: Tls | None
    """None: plaintext."""
    node: Node
    headers: Mapping[str, str]
    """Sent with each stream, in lower case; may hold a secret."""
    waits: Waits
    max_message_bytes: int
    """A response that is larger ends the stream."""
