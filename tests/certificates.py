"""Certificates for tests: two roots that do not know each other, and files as an operator has them."""

from dataclasses import dataclass
from pathlib import Path

import trustme

from ratelimit_svc.wire.tls import ServerTls

SERVER, CLIENT = "127.0.0.1", "envoy.example"


@dataclass
class Files:
    """A server's files. `put` replaces them, as a renewal does."""

    folder: Path

    @property
    def cert(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def ca(self) -> Path:
        """Roots of the clients, and of the server."""
        return self.folder / "ca.pem"

    def put(self, root: trustme.CA) -> None:
        """A new certificate under this root, which is the root of the clients, too."""
        made = root.issue_cert(SERVER, "localhost")
        self.cert.write_bytes(chain(made))
        self.key.write_bytes(made.private_key_pem.bytes())
        self.ca.write_bytes(root.cert_pem.bytes())

    def tls(self, *, clients: bool = False, san: str | None = None, **listeners) -> ServerTls:
        """TLS from these files."""
        ca = self.ca if clients else None
        return ServerTls(cert=self.cert, key=self.key, client_ca=ca, client_san=san, **listeners)


def chain(made: trustme.LeafCert) -> bytes:
    """A certificate and those above it, in PEM."""
    return b"".join(blob.bytes() for blob in made.cert_chain_pems)
