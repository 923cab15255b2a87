"""The settings of where rules come from: files, or an xDS server; which one, and how it is waited for.

The names, and what they mean, are the reference implementation's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.model import MICROSECONDS
from ratelimit_svc.settings.kinds import (
    BOOLEAN,
    MAP,
    METADATA,
    TEXT,
    choice,
    decimal,
    duration,
    integer,
    read_map,
)
from ratelimit_svc.settings.row import row
from ratelimit_svc.xds.source import Node, Source, Tls, Waits

_WAIT = duration("0s", "24h")

_HEADER = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
"""What gRPC lets a header be called; its own, and those with bytes in them, are not for settings."""
_HEADER_VALUE = re.compile(r"[ -~]*")


@dataclass(frozen=True)
class XdsSettings:
    """Where rules come from."""

    config_type: str = row(
        "CONFIG_TYPE",
        choice("FILE", "GRPC_XDS_SOTW"),
        "FILE",
        "Where rules come from: FILE, or GRPC_XDS_SOTW, an xDS server that sends them, as Envoy Gateway does.",
    )
    force_start_without_initial_config: bool = row(
        "FORCE_START_WITHOUT_INITIAL_CONFIG",
        BOOLEAN,
        "false",
        "Listen before anything is known of rules, and be ready without: until there are some, each request gets an error. "
        "Else nothing listens before they were looked at, and ready is who has some.",
    )
    healthy_with_at_least_one_config_loaded: bool = row(
        "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED",
        BOOLEAN,
        "false",
        "Be unready while no domain has rules, also where FORCE_START_WITHOUT_INITIAL_CONFIG is true.",
    )
    config_grpc_xds_server_url: str = row(
        "CONFIG_GRPC_XDS_SERVER_URL", TEXT, "localhost:18000", "The xDS server, host:port."
    )
    config_grpc_xds_node_id: str = row(
        "CONFIG_GRPC_XDS_NODE_ID", TEXT, "default", "What the xDS server knows this service by."
    )
    config_grpc_xds_node_metadata: tuple[tuple[str, str], ...] = row(
        "CONFIG_GRPC_XDS_NODE_METADATA", METADATA, "", "What else it is told of it, as key=value,key=value."
    )
    config_grpc_xds_server_connect_retry_interval_us: int = row(
        "CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL",
        _WAIT,
        "3s",
        "The first wait after a stream that gave rules has ended, and after the first attempt at the start.",
    )
    config_grpc_xds_client_additional_headers: str = row(
        "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS",
        TEXT,
        "",
        "Headers that are sent with each stream, as name:value,name:value.",
        secret=True,
        flag=False,
    )
    config_grpc_xds_server_use_tls: bool = row(
        "CONFIG_GRPC_XDS_SERVER_USE_TLS", BOOLEAN, "false", "TLS to the xDS server."
    )
    config_grpc_xds_client_tls_cert: str = row(
        "CONFIG_GRPC_XDS_CLIENT_TLS_CERT",
        TEXT,
        "",
        "Our certificate for the xDS server, a PEM file. It is read at each connection, so a changed one is taken up.",
    )
    config_grpc_xds_client_tls_key: str = row(
        "CONFIG_GRPC_XDS_CLIENT_TLS_KEY", TEXT, "", "Its private key, a PEM file; likewise."
    )
    config_grpc_xds_server_tls_cacert: str = row(
        "CONFIG_GRPC_XDS_SERVER_TLS_CACERT",
        TEXT,
        "",
        "Roots of the xDS server's certificate, a PEM file; likewise. Empty: the system's.",
    )
    config_grpc_xds_server_tls_san: str = row(
        "CONFIG_GRPC_XDS_SERVER_TLS_SAN",
        TEXT,
        "",
        "The name that the xDS server's certificate must have. Empty: the host of CONFIG_GRPC_XDS_SERVER_URL.",
    )
    xds_client_backoff_initial_interval_us: int = row(
        "XDS_CLIENT_BACKOFF_INITIAL_INTERVAL",
        _WAIT,
        "10s",
        "The second wait for the xDS server if there are still no rules from it. Each one after it is twice as long.",
    )
    xds_client_backoff_max_interval_us: int = row(
        "XDS_CLIENT_BACKOFF_MAX_INTERVAL", _WAIT, "60s", "These waits grow no longer than this."
    )
    xds_client_backoff_random_factor: float = row(
        "XDS_CLIENT_BACKOFF_RANDOM_FACTOR",
        decimal(0, 1_000),
        "0.5",
        "Each wait is longer or shorter by up to this part of it; more than 1 is 1.",
    )
    xds_client_backoff_jitter: bool = row(
        "XDS_CLIENT_BACKOFF_JITTER",
        BOOLEAN,
        "true",
        "False: waits are exact, and XDS_CLIENT_BACKOFF_RANDOM_FACTOR means nothing.",
    )
    xds_client_max_message_bytes: int = row(
        "XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES",
        integer(1, 2**31 - 1),
        "4194304",
        "A response of the xDS server may be so large; a larger one is refused unread.",
    )

    @cached_property
    def xds(self) -> Source | None:
        """The xDS server; None: rules are in files.

        Raises:
            SettingsError: what was said of it does not fit together.
        """
        if self.config_type == "FILE":
            return None
        spread = min(self.xds_client_backoff_random_factor, 1.0) if self.xds_client_backoff_jitter else 0.0
        return Source(
            url=self.config_grpc_xds_server_url,
            tls=self._xds_tls(),
            node=Node(self.config_grpc_xds_node_id, dict(self.config_grpc_xds_node_metadata)),
            headers=_headers(self.config_grpc_xds_client_additional_headers),
            waits=Waits(
                retry_s=self.config_grpc_xds_server_connect_retry_interval_us / MICROSECONDS,
                initial_s=self.xds_client_backoff_initial_interval_us / MICROSECONDS,
                most_s=self.xds_client_backoff_max_interval_us / MICROSECONDS,
                spread=spread,
            ),
            max_message_bytes=self.xds_client_max_message_bytes,
        )

    def _xds_tls(self) -> Tls | None:
        """Return the files. Whether they can be read is seen at each connection: they may come later, or be renewed."""
        if not self.config_grpc_xds_server_use_tls:
            return None
        cert, key = self.config_grpc_xds_client_tls_cert, self.config_grpc_xds_client_tls_key
        if bool(cert) != bool(key):
            said, missing = ("CERT", "KEY") if cert else ("KEY", "CERT")
            raise SettingsError(
                f"CONFIG_GRPC_XDS_CLIENT_TLS_{said} is set, but CONFIG_GRPC_XDS_CLIENT_TLS_{missing} is not: "
                "a certificate and its key go together"
            )
        ca = self.config_grpc_xds_server_tls_cacert
        return Tls(
            cert=Path(cert) if cert else None,
            key=Path(key) if key else None,
            ca=Path(ca) if ca else None,
            name=self.config_grpc_xds_server_tls_san,
        )


def _headers(text: str) -> Mapping[str, str]:
    """Read headers by their names.

    Raises:
        SettingsError: they are none. It repeats nothing of them, since a value may be a secret.
    """
    variable = "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS"
    try:
        headers = {name.lower(): value for name, value in read_map(text)}
    except ValueError:
        raise SettingsError(f"{variable}: must be {MAP.rule}") from None
    for place, (name, value) in enumerate(headers.items(), start=1):
        if not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise SettingsError(
                f"{variable}: the name of pair {place} must be letters, digits, - _ and ., without grpc- before or -bin "
                "behind, and its value printable ASCII"
            )
    return headers
