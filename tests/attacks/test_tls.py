"""Over TLS: the same, once; and what TLS adds."""

import asyncio
import socket
import ssl
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme

from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.wire.http2.engine import FILES_LEFT
from ratelimit_svc.wire.http2.frames import ErrorCode
from ratelimit_svc.wire.http2.handshake import HANDSHAKE_S
from tests.attacks.offender import Offender
from tests.attacks.target import FILES, RULES, WithFewFiles, cpu_s
from tests.bench.cost import open_files
from tests.certificates import Files
from tests.http2.client import ping, request
from tests.waiting import until


@asynccontextmanager
async def replica_over_tls(folder: Path, kind: type[Replica] = Replica, **env: str):
    """A replica that speaks TLS, and a client's context for it."""
    root, files = trustme.CA(), Files(folder)
    files.put(root)
    (folder / "rules.yaml").write_text(RULES)
    env |= {
        "GRPC_SERVER_USE_TLS": "true",
        "GRPC_SERVER_TLS_CERT": str(files.cert),
        "GRPC_SERVER_TLS_KEY": str(files.key),
    }
    context = ssl.create_default_context(cafile=files.ca)
    context.set_alpn_protocols(["h2"])
    async with kind(folder / "replica", rules=folder / "rules.yaml", env=env) as started:
        yield started, context


@pytest.fixture
async def over_tls(tmp_path):
    """Such a replica."""
    async with replica_over_tls(tmp_path) as started:
        yield started


@pytest.fixture(params=["uvloop", "asyncio"])
async def with_few_files(tmp_path, request):
    """One on each loop, which may open few files."""
    async with replica_over_tls(tmp_path, WithFewFiles, LOOP=request.param) as started:
        yield started


def pinged(client: Offender) -> None:
    """It is answered."""
    heard = client.heard["PING"]
    client.send(ping())
    client.listen(lambda: client.heard["PING"] > heard)
    assert client.heard["PING"] == heard + 1


def let_in(replica: Replica, context: ssl.SSLContext) -> bool:
    """Whether a new client gets a connection."""
    try:
        with Offender(replica.grpc_port, tls=context):
            return True
    except OSError:
        return False


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


async def test_silent_connections_before_their_handshake(with_few_files):
    """Each counts: files are left for others, who is connected is answered, and who comes is let in when the silent ones have gone;
    those that were let in are gone before their time, since connections are scarce.
    """
    replica, context = with_few_files
    begun = cpu_s(replica.pid)
    with Offender(replica.grpc_port, tls=context) as before, ExitStack() as opened:
        pinged(before)
        silent = [
            opened.enter_context(socket.create_connection(("127.0.0.1", replica.grpc_port))) for _ in range(FILES)
        ]
        silent[-1].settimeout(HANDSHAKE_S)
        assert silent[-1].recv(100) == b""  # turned away
        assert FILES // 2 < open_files(replica.pid) <= FILES - FILES_LEFT + 50
        pinged(before)
        async with asyncio.timeout(HANDSHAKE_S / 2):
            while not let_in(replica, context):
                await asyncio.sleep(0.1)
        pinged(before)
    with Offender(replica.grpc_port, tls=context) as late:
        pinged(late)
    await until(lambda: open_files(replica.pid) < FILES // 4)
    assert cpu_s(replica.pid) - begun < 2
    assert "Traceback" not in replica.log.read_text()
    assert "never retrieved" not in replica.log.read_text()
