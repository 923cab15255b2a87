"""TLS of the gRPC side: which files, and whether what was said of them fits together. What is in them is `wire.tls`'s.

The names of the variables are the reference implementation's.
"""

from collections.abc import Mapping
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


def tls_files(*, cert: str, key: str, client_cas: Mapping[str, str], client_san: str) -> TlsFiles:
    """Return the files, each of which can be read now.

    Args:
        cert: of the server.
        key: of the server.
        client_cas: the clients' roots, by each variable that may name them.
        client_san: a client's name.

    Raises:
        SettingsError: a file is missing, the clients' roots are two files, or a client's name is asked for and its certificate
            is not.
    """
    client_ca = _client_ca(client_cas)
    named = {"GRPC_SERVER_TLS_CERT": cert, "GRPC_SERVER_TLS_KEY": key}
    for variable, text in named.items():
        if not text:
            raise SettingsError(f"GRPC_SERVER_USE_TLS is true, but {variable} is not set: it must name a PEM file")
    if client_san and not client_ca:
        raise SettingsError(
            "GRPC_CLIENT_TLS_SAN is set, but GRPC_CLIENT_TLS_CACERT is not: without it no client shows a certificate"
        )
    for variable, text in {**named, **client_cas}.items():
        if text:
            readable(variable, text)
    return TlsFiles(Path(cert), Path(key), Path(client_ca) if client_ca else None, client_san or None)


def _client_ca(named: Mapping[str, str]) -> str:
    """Return the clients' roots; empty where no variable names them."""
    told = {text: variable for variable, text in named.items() if text}
    if len(told) > 1:
        each = " and ".join(f"{variable}={text!r}" for text, variable in told.items())
        raise SettingsError(f"{each} mean the same, and differ: set one of them")
    return next(iter(told), "")
