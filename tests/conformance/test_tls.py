"""TLS as clients meet it: whom they trust, who is let in, and certificates that are renewed while all goes on."""

import asyncio
import ssl
import warnings
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
import trustme

from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2_grpc
from tests.certificates import CLIENT, Files, chain
from tests.conformance.served import BIG, OK, Served, serving

REFUSED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED}
"""At the handshake, or at the first call: grpcio's library shows certificates to calls only."""


@pytest.fixture(scope="module")
def root() -> trustme.CA:
    """Who vouches for the server, and for its clients."""
    return trustme.CA()


@pytest.fixture(scope="module")
def other() -> trustme.CA:
    """Who vouches for others."""
    return trustme.CA()


@pytest.fixture
def files(tmp_path, root) -> Files:
    """The server's files."""
    made = Files(tmp_path)
    made.put(root)
    return made


def channel_to(served: Served, trusted: trustme.CA, own: trustme.LeafCert | None = None):
    """A client that trusts a root, and has perhaps a certificate of its own. Shares no connection with others."""
    ca = trusted.cert_pem.bytes()
    pair = (own.private_key_pem.bytes(), chain(own)) if own else (None, None)
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(served.address, grpc.ssl_channel_credentials(ca, *pair), options)


async def told(served: Served, trusted: trustme.CA, own: trustme.LeafCert | None = None) -> grpc.StatusCode:
    """How a call of such a client ends."""
    async with channel_to(served, trusted, own) as channel:
        try:
            response = await rls_pb2_grpc.RateLimitServiceStub(channel).ShouldRateLimit(BIG, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()
    assert response.overall_code == OK
    return grpc.StatusCode.OK


async def test_a_client_trusts_the_right_root_only(engine, clock, files, root, other):
    """It gets its answer; one that trusts others goes away."""
    async with serving(engine, clock, tls=files.tls()) as served:
        assert await told(served, root) is grpc.StatusCode.OK
        assert await told(served, other) is grpc.StatusCode.UNAVAILABLE
        assert await told(served, root) is grpc.StatusCode.OK


async def test_plaintext_is_not_answered(engine, clock, files, root):
    """On a port with TLS, what is no TLS gets nowhere, and harms nobody."""
    async with serving(engine, clock, tls=files.tls()) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.ask()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await told(served, root) is grpc.StatusCode.OK


@asynccontextmanager
async def handshake(served: Served, context: ssl.SSLContext):
    _, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
    try:
        yield writer.get_extra_info("ssl_object")
    finally:
        writer.transport.abort()


async def test_h2_is_what_is_spoken(engine, clock, files, root):
    """ALPN picks `h2` out of what a client offers, TLS is 1.2 at least, and nothing older is taken."""
    context = ssl.create_default_context()
    root.configure_trust(context)
    context.set_alpn_protocols(["http/1.1", "h2"])
    async with serving(engine, clock, tls=files.tls()) as served:
        async with handshake(served, context) as spoken:
            assert (spoken.selected_alpn_protocol(), spoken.version()) == ("h2", "TLSv1.3")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with handshake(served, context) as spoken:
            assert spoken.version() == "TLSv1.2"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(OSError) as refused:
            await handshake(served, context).__aenter__()
        assert isinstance(refused.value, ConnectionError) or "ALERT_PROTOCOL_VERSION" in str(refused.value)


async def test_a_client_must_show_a_certificate_where_one_is_asked_for(engine, clock, files, root, other):
    """Under the right root; another one is none."""
    async with serving(engine, clock, tls=files.tls(clients=True)) as served:
        assert await told(served, root) in REFUSED
        assert await told(served, root, other.issue_cert(CLIENT)) in REFUSED
        assert await told(served, root, root.issue_cert("any.example")) is grpc.StatusCode.OK
        assert len(served.limiter.timeouts_s) == 1


async def test_a_client_must_have_the_name_that_is_asked_for(engine, clock, files, root, other):
    """Exactly; and under the right root."""
    async with serving(engine, clock, tls=files.tls(clients=True, san=CLIENT)) as served:
        for own in (root.issue_cert("any.example"), root.issue_cert(f"x.{CLIENT}"), other.issue_cert(CLIENT)):
            assert await told(served, root, own) in REFUSED
        assert served.limiter.timeouts_s == []
        assert await told(served, root, root.issue_cert("any.example", CLIENT)) is grpc.StatusCode.OK


async def test_a_renewed_certificate_acts_at_the_next_handshake(engine, clock, files, root, other):
    """Who is connected stays so; who connects meets the new one, and the new root for clients."""
    async with serving(engine, clock, tls=files.tls(clients=True)) as served:
        async with channel_to(served, root, root.issue_cert(CLIENT)) as old:
            stub = rls_pb2_grpc.RateLimitServiceStub(old)
            assert (await stub.ShouldRateLimit(BIG, timeout=10)).overall_code == OK
            files.put(other)
            assert await told(served, other, other.issue_cert(CLIENT)) is grpc.StatusCode.OK
            assert (await stub.ShouldRateLimit(BIG, timeout=10)).overall_code == OK
        assert await told(served, root, other.issue_cert(CLIENT)) in REFUSED
        assert await told(served, other, root.issue_cert(CLIENT)) in REFUSED


async def test_broken_files_change_nothing(engine, clock, files, root):
    """Half a renewal is none: the certificate before it goes on, and the log is told once for each state of the files."""
    failures: list[str] = []
    tls = files.tls(on_failure=lambda error: failures.append(str(error)))
    async with serving(engine, clock, tls=tls) as served:
        files.key.write_bytes(root.issue_cert("x").private_key_pem.bytes())
        assert [await told(served, root) for _ in range(3)] == [grpc.StatusCode.OK] * 3
        assert len(failures) == 1
        files.cert.unlink()
        assert await told(served, root) is grpc.StatusCode.OK
        assert len(failures) == 2


async def test_a_handshake_that_ends_in_a_stop_does_not_hold_it_up(clock, files, root):
    """Who connected before the stop, and is let in during it, is told to go elsewhere: no call of its would be answered."""
    context = ssl.create_default_context(cadata=root.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    async with serving("http2", clock, tls=files.tls()) as served, channel_to(served, root) as channel:
        served.store.go.clear()
        call = rls_pb2_grpc.RateLimitServiceStub(channel).ShouldRateLimit(BIG, timeout=10)
        await served.store.asked.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        came, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        late = context.wrap_bio(came, to_send, server_hostname="127.0.0.1")
        with suppress(ssl.SSLWantReadError):
            late.do_handshake()
        writer.write(to_send.read())
        came.write(await reader.read(2**16))
        stopping = asyncio.ensure_future(served.engine.stop(60))
        await asyncio.sleep(0)
        late.do_handshake()
        writer.write(to_send.read())
        told = b""
        async with asyncio.timeout(10):
            while b"draining" not in told:
                came.write(await reader.read(2**16))
                with suppress(ssl.SSLWantReadError):
                    told += late.read()
        writer.transport.abort()
        assert not stopping.done()
        served.store.go.set()
        await call
        async with asyncio.timeout(10):
            await stopping
