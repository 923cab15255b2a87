"""TLS of the gRPC side: certificates from files, which are taken up when they change, and which clients are let in.

Rule 1: files are looked at when a client connects, not on a timer: until someone does, nobody can tell the difference.
Rule 2: files that cannot be used change nothing. What worked goes on, and that is told once for each state of the files.
Rule 3: connections there are live on.
"""

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

ALPN = "h2"


class TlsFilesError(Exception):
    """The operator must act: a file of TLS cannot be used. The text names it."""


class Pem(NamedTuple):
    """What the files hold, for engines that do TLS by themselves."""

    cert: bytes
    key: bytes
    client_ca: bytes | None


class _Loaded(NamedTuple):
    pem: Pem
    context: ssl.SSLContext


class ServerTls:
    """The certificates of one server.

    Args:
        cert: the server's certificate and those between it and its root, PEM.
        key: its private key, PEM, without a passphrase.
        client_ca: roots of the clients' certificates. Given: a client without a certificate under one of them is refused.
        client_san: a DNS name that the client's certificate must have as well.
        on_renewed: changed files are in use from now on. Called in whichever thread an engine's handshakes run.
        on_failure: changed files cannot be used, and why; likewise.

    Raises:
        TlsFilesError: a file cannot be used.
    """

    def __init__(
        self,
        *,
        cert: Path,
        key: Path,
        client_ca: Path | None = None,
        client_san: str | None = None,
        on_renewed: Callable[[], None] = lambda: None,
        on_failure: Callable[[TlsFilesError], None] = lambda _: None,
    ) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._client_san = client_san
        self._on_renewed, self._on_failure = on_renewed, on_failure
        self._looking = Lock()
        self._seen = self._stamp()
        self._loaded = self._load()
        self.context = self._loaded.context
        """For every connection: a handshake exchanges it for that of the files as they are then. ALPN offers `h2` alone, but to
        a client without ALPN says nothing: who insists looks at `selected_alpn_protocol`."""
        self.context.sni_callback = self._on_handshake  # is called for clients that send no name, too

    def __repr__(self) -> str:
        return f"<ServerTls: {self._cert}{', clients by ' + str(self._client_ca) if self._client_ca else ''}>"

    @property
    def clients_are_asked(self) -> bool:
        """Whether a client must show a certificate."""
        return self._client_ca is not None

    def pem(self) -> Pem:
        """Return what the files hold now, or held when they could be used last."""
        return self._look().pem

    def admits(self, peercert: Mapping[str, Any]) -> bool:
        """Return whether a client may stay. Its certificate is verified already.

        Args:
            peercert: as `ssl.SSLSocket.getpeercert` returns it.
        """
        if self._client_san is None:
            return True
        names = (name for kind, name in peercert.get("subjectAltName", ()) if kind == "DNS")
        return any(name.lower() == self._client_san.lower() for name in names)

    def _on_handshake(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._look().context

    def _look(self) -> _Loaded:
        """Return what is to be used now; if the files have changed, what they hold."""
        with self._looking:
            stamp = self._stamp()
            if stamp == self._seen:
                return self._loaded
            self._seen = stamp  # before they are read: a change meanwhile is seen at the next look
            try:
                self._loaded = self._load()
            except TlsFilesError as error:
                self._on_failure(error)
            else:
                self._on_renewed()
            return self._loaded

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return what tells one state of the files from another."""
        return tuple(_stamp(path) for path in (self._cert, self._key, self._client_ca) if path is not None)

    def _load(self) -> _Loaded:
        ca = self._client_ca
        pem = Pem(_read(self._cert), _read(self._key), None if ca is None else _read(ca))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([ALPN])
        # a resumed session would go on with the certificates of its first handshake, also after they were replaced
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_passphrase)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise TlsFilesError(f"{self._cert} and {self._key} are no certificate with its key: {error}") from error
        if ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(ca)
            except (ssl.SSLError, OSError) as error:
                raise TlsFilesError(f"{ca} has no certificate in it: {error}") from error
        return _Loaded(pem, context)


def _no_passphrase() -> str:
    """Answer for a key that has one; without an answer, OpenSSL would ask at the terminal, and wait."""
    raise ValueError("the key must have no passphrase")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFilesError(f"{path} cannot be read: {error.strerror}") from error
