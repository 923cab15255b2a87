"""The settings of what listens: HTTP, gRPC, the debug side; TLS there, and how long a connection lives."""

from dataclasses import dataclass
from pathlib import Path

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.settings.files import readable
from ratelimit_svc.settings.kinds import BOOLEAN, PORT, TEXT, duration
from ratelimit_svc.settings.row import row
from ratelimit_svc.settings.tls_files import TlsFiles, tls_files


@dataclass(frozen=True)
class WireSettings:
    """What listens."""

    host: str = row("HOST", TEXT, "0.0.0.0", "Address of the HTTP side; :: is every address, IPv4 as well as IPv6.")  # noqa: S104 - the reference's default: a pod is asked from outside
    port: int = row("PORT", PORT, "8080", "Port of the HTTP side: /healthcheck, /json, /metrics. 0: any free one.")
    grpc_host: str = row("GRPC_HOST", TEXT, "0.0.0.0", "Address of the gRPC side; :: is every address.")  # noqa: S104 - as above
    grpc_port: int = row("GRPC_PORT", PORT, "8081", "Port of the gRPC side. 0: any free one.")
    grpc_uds: str = row("GRPC_UDS", TEXT, "", "Path of a unix socket that the gRPC side listens on in place of a port.")
    grpc_server_use_tls: bool = row("GRPC_SERVER_USE_TLS", BOOLEAN, "false", "TLS on the gRPC side.")
    grpc_server_tls_cert: str = row(
        "GRPC_SERVER_TLS_CERT",
        TEXT,
        "",
        "The server's certificate and those between it and its root, a PEM file. A changed file is taken up.",
    )
    grpc_server_tls_key: str = row("GRPC_SERVER_TLS_KEY", TEXT, "", "Its private key, a PEM file; likewise.")
    grpc_client_tls_ca: str = row(
        "GRPC_CLIENT_TLS_CACERT",
        TEXT,
        "",
        "Roots of the clients' certificates, a PEM file; likewise. Given: a client without a certificate is refused.",
    )
    grpc_server_tls_ca: str = row(
        "GRPC_SERVER_TLS_CA_CERT", TEXT, "", "Envoy Gateway's name for GRPC_CLIENT_TLS_CACERT; the same."
    )
    grpc_client_tls_san: str = row(
        "GRPC_CLIENT_TLS_SAN", TEXT, "", "A DNS name that a client's certificate must have as well."
    )
    grpc_max_connection_age_us: int = row(
        "GRPC_MAX_CONNECTION_AGE",
        duration("0s", "87600h"),
        "24h",
        "So old, give or take a tenth, a connection is told to end, so that callers find new replicas. 0s: never.",
    )
    grpc_max_connection_age_grace_us: int = row(
        "GRPC_MAX_CONNECTION_AGE_GRACE",
        duration("0s", "87600h"),
        "1h",
        "So much later it is ended, whatever is under way on it. 0s: never.",
    )
    debug_host: str = row(
        "DEBUG_HOST",
        TEXT,
        "127.0.0.1",
        "Address of the debug side, which shows what callers sent: loopback unless it is opened.",
    )
    debug_port: int = row("DEBUG_PORT", PORT, "6070", "Port of the debug side; / lists what is there. 0: any free one.")
    debug_token: str = row(
        "DEBUG_TOKEN",
        TEXT,
        "",
        "What who changes something by the debug side must show. Without it nothing can be changed there.",
        secret=True,
        flag=False,
    )
    debug_token_file: str = row("DEBUG_TOKEN_FILE", TEXT, "", "The same in a file. A changed file is taken up.")

    @property
    def debug_token_path(self) -> Path | None:
        """The file with the debug side's token; None: there is none.

        Raises:
            SettingsError: it cannot be read, or the token is told in two ways.
        """
        if self.debug_token and self.debug_token_file:
            raise SettingsError("DEBUG_TOKEN and DEBUG_TOKEN_FILE are both set: give one of them")
        return readable("DEBUG_TOKEN_FILE", self.debug_token_file) if self.debug_token_file else None

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files for TLS on the gRPC side; None: plaintext."""
        if not self.grpc_server_use_tls:
            return None
        return tls_files(
            cert=self.grpc_server_tls_cert,
            key=self.grpc_server_tls_key,
            client_cas={
                "GRPC_CLIENT_TLS_CACERT": self.grpc_client_tls_ca,
                "GRPC_SERVER_TLS_CA_CERT": self.grpc_server_tls_ca,
            },
            client_san=self.grpc_client_tls_san,
        )
