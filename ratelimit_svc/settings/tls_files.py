"""TLS of the gRPC side: which files, and whether what was said of them fits together. What is in them is `wire.tls`'s.

The names of the variables are the reference implementation's.
"""

from pathlib import Path
from typing import NamedTuple

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.settings.files import readable


class TlsFiles(NamedTuple):
    """Where the certificates are, and who is let in; the arguments of `wire.tls.ServerTls`."""

    cert: Path
    key: Path
    client_ca: Path | None
    client_san: str | None


def tls_files(*, cert: str, key: str, client_ca: str, client_san: str) -> TlsFiles:
    """Return the files, each of which can be read now.

    Raises:
        SettingsError: a file is missing, or a client's name is asked for and its certificate is not.
    """
    named = {"GRPC_SERVER_TLS_CERT": cert, "GRPC_SERVER_TLS_KEY": key}
    for variable, text in named.items():
        if not text:
            raise SettingsError(f"GRPC_SERVER_USE_TLS is true, but {variable} is not set: it must name a PEM file")
    if client_san and not client_ca:
        raise SettingsError(
            "GRPC_CLIENT_TLS_SAN is set, but GRPC_CLIENT_TLS_CACERT is not: without it no client shows a certificate"
        )
    for variable, text in (named | {"GRPC_CLIENT_TLS_CACERT": client_ca}).items():
        if text:
            readable(variable, text)
    return TlsFiles(Path(cert), Path(key), Path(client_ca) if client_ca else None, client_san or None)
