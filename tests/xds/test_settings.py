"""The settings of the xDS server: their names and defaults are the reference implementation's."""

from pathlib import Path

import pytest

from ratelimit_svc.settings import Settings
from ratelimit_svc.xds.source import Node, Source, Tls, Waits
from tests import environment


def source(**environ: str) -> Source:
    made = environment.read(CONFIG_TYPE="GRPC_XDS_SOTW", **environ).xds
    assert made is not None
    return made


def refused(**environ: str) -> str:
    return environment.refused(CONFIG_TYPE="GRPC_XDS_SOTW", **environ)


def test_files_have_no_server() -> None:
    """Whatever else is said of one."""
    assert environment.read().xds is None
    assert environment.read(CONFIG_TYPE="file", CONFIG_GRPC_XDS_SERVER_URL="a:1").xds is None


def test_defaults() -> None:
    """What is asked, and how it is waited for, where nothing is said."""
    assert source() == Source(
        url="localhost:18000",
        tls=None,
        node=Node("default", {}),
        headers={},
        waits=Waits(retry_s=3, initial_s=10, most_s=60, spread=0.5),
        max_message_bytes=4 * 1024**2,
    )


def test_as_envoy_gateway_sets_it() -> None:
    """Its environment, as far as it is about the server."""
    made = source(
        CONFIG_GRPC_XDS_SERVER_URL="envoy-gateway:18001",
        CONFIG_GRPC_XDS_NODE_ID="envoy-ratelimit",
        CONFIG_GRPC_XDS_SERVER_USE_TLS="true",
        CONFIG_GRPC_XDS_CLIENT_TLS_CERT="/certs/tls.crt",
        CONFIG_GRPC_XDS_CLIENT_TLS_KEY="/certs/tls.key",
        CONFIG_GRPC_XDS_SERVER_TLS_CACERT="/certs/ca.crt",
        FORCE_START_WITHOUT_INITIAL_CONFIG="true",
    )
    assert (made.url, made.node.id) == ("envoy-gateway:18001", "envoy-ratelimit")
    assert made.tls == Tls(Path("/certs/tls.crt"), Path("/certs/tls.key"), Path("/certs/ca.crt"), "")


def test_node_and_headers() -> None:
    """Metadata is key=value, headers are name:value; names of headers are in lower case, as HTTP/2 has them."""
    made = source(
        CONFIG_GRPC_XDS_NODE_METADATA="zone=a, team=b=c",
        CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS="X-Tenant:42, authorization:Bearer secret",
    )
    assert dict(made.node.metadata) == {"zone": "a", "team": "b=c"}
    assert made.headers == {"x-tenant": "42", "authorization": "Bearer secret"}


@pytest.mark.parametrize("headers", ["secret", "a:secret:b", "grpc-x:secret", "a-bin:secret", "a b:secret", "a:sécret"])
def test_headers_that_are_none(headers: str) -> None:
    """They are refused, and what may be a secret is not repeated; nor does it show elsewhere."""
    told = refused(CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS=headers)
    assert told.startswith("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS: ")
    assert "cret" not in told
    assert "hidden" not in repr(Settings.from_environment({"CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS": "a:hidden"}))


def test_a_certificate_without_its_key() -> None:
    """One without the other is a mistake, whichever is missing."""
    tls = {"CONFIG_GRPC_XDS_SERVER_USE_TLS": "1"}
    cert, key = "CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "CONFIG_GRPC_XDS_CLIENT_TLS_KEY"
    assert refused(**tls, CONFIG_GRPC_XDS_CLIENT_TLS_CERT="c").startswith(f"{cert} is set, but {key} is not")
    assert refused(**tls, CONFIG_GRPC_XDS_CLIENT_TLS_KEY="k").startswith(f"{key} is set, but {cert} is not")


def test_spread() -> None:
    """XDS_CLIENT_BACKOFF_JITTER turns it off; a factor above 1, which the reference implementation takes, is 1."""
    assert source(XDS_CLIENT_BACKOFF_JITTER="false").waits.spread == 0
    assert source(XDS_CLIENT_BACKOFF_RANDOM_FACTOR="2").waits.spread == 1
    assert source(XDS_CLIENT_BACKOFF_RANDOM_FACTOR="0.25").waits.spread == 0.25
