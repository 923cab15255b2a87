"""Over TLS: the same, once; and what TLS adds."""

import socket
import ssl
from contextlib import suppress

import pytest
import trustme

from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.wire.http2.frames import ErrorCode
from tests.attacks.offender import Offender
from tests.attacks.target import RULES
from tests.certificates import Files
from tests.http2.client import ping, request


@pytest.fixture
async def over_tls(tmp_path):
    """A replica that speaks TLS, and a client's context for it."""
    root, files = trustme.CA(), Files(tmp_path)
    files.put(root)
    (tmp_path / "rules.yaml").write_text(RULES)
    env = {
        "GRPC_SERVER_USE_TLS": "true",
        "GRPC_SERVER_TLS_CERT": str(files.cert),
        "GRPC_SERVER_TLS_KEY": str(files.key),
    }
    context = ssl.create_default_context(cafile=files.ca)
    context.set_alpn_protocols(["h2"])
    async with Replica(tmp_path / "replica", rules=tmp_path / "rules.yaml", env=env) as started:
        yield started, context


@pytest.mark.parametrize("flood", [ping() * 1000, request(1) + bytes(9) * 1000])
async def test_floods_over_tls(over_tls, flood):
    """As without: the offender reads why."""
    replica, context = over_tls
    with Offender(replica.grpc_port, tls=context) as offender:
        offender.flood(flood)
    assert offender.code in {ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.PROTOCOL_ERROR}


async def test_plaintext_to_a_tls_port(over_tls):
    """It is closed, and the next client is served."""
    replica, context = over_tls
    with Offender(replica.grpc_port) as offender:
        offender.until_closed()
    assert offender.closed
    plain = ssl.create_default_context(cafile=None)
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    opened = socket.create_connection(("127.0.0.1", replica.grpc_port))
    with plain.wrap_socket(opened) as without_alpn, suppress(ConnectionError):
        assert without_alpn.recv(100) == b""
    with Offender(replica.grpc_port, tls=context) as good:
        good.send(ping())
        good.listen(lambda: good.heard["PING"] > 0)
    assert good.heard["PING"] == 1
