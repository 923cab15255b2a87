"""Opening a connection: by TLS and with passwords, as real servers want them, and what is told when they refuse."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis as client_of
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ratelimit_svc.demo.parts import LOOPBACK, RedisServer, Sentinel, redis, valkey
from ratelimit_svc.model import Line
from ratelimit_svc.settings import Settings
from ratelimit_svc.store.redis import RedisStore, handshake, sentinel
from ratelimit_svc.store.redis.where import Address, Kind, Tls, Where
from tests.certificates import chain
from tests.histories import charge
from tests.proxying import Proxy
from tests.taking import granted
from tests.waiting import until

ONE = [Line((charge("k", 100),), 1)]


async def why_not(where: Where) -> str:
    """Try to connect to the first address; return the words of the refusal."""
    try:
        writer, _ = await handshake.connect(where, where.addresses[0], timeout_s=20)
    except Exception as error:  # noqa: BLE001 — as it says
        return handshake.reason(error)
    writer.close()
    raise AssertionError("it was let in")


async def let_in(where: Where) -> None:
    """Connect to the first address."""
    writer, _ = await handshake.connect(where, where.addresses[0], timeout_s=20)
    writer.close()


def told(**environ: str) -> Where:
    """What settings make of these variables; connecting may take long on the test's machine."""
    found = Settings.from_environment({"REDIS_TIMEOUT": "20s"} | environ).redis
    assert found is not None
    return found


# ── passwords ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=[valkey, redis])
async def guarded(request, tmp_path) -> AsyncIterator[RedisServer]:
    """A server of each kind that lets nobody in without the password `one`, or as `me` with `two`."""
    user = ["--user", "me", "on", ">two", "~*", "&*", "+@all"]
    async with request.param(tmp_path / "server", args=["--requirepass", "one", *user]) as server:
        yield server


async def test_a_password_or_a_user(guarded, tmp_path):
    """REDIS_AUTH is a password or user:password; what is wrong is told in words, without the password."""
    await let_in(told(REDIS_URL=guarded.address, REDIS_AUTH="one"))
    await let_in(told(REDIS_URL=f"redis://me:two@{guarded.address}/3"))
    await let_in(told(REDIS_URL=guarded.address, REDIS_AUTH="me:two"))
    for auth in ("me:other", "you:two", "other"):
        why = await why_not(told(REDIS_URL=guarded.address, REDIS_AUTH=auth))
        assert "invalid username-password pair" in why
        assert "other" not in why
    assert "Authentication required" in await why_not(told(REDIS_URL=guarded.address))


async def test_a_secret_that_is_rotated(guarded, tmp_path):
    """The password changes on the server and in the file: the store, once cut off, comes back with the new one by itself."""
    file = tmp_path / "secret"
    file.write_text("one\n")
    where = told(REDIS_URL=guarded.address, REDIS_AUTH_FILE=str(file))
    reasons: list[str] = []
    async with RedisStore(where, timeout_s=5, on_down=reasons.append) as store:
        assert store.up
        with client_of.Redis(host=LOOPBACK, port=guarded.port, password="one") as client:
            client.config_set("requirepass", "three")
            client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: any("invalid username-password pair" in reason for reason in reasons))
        file.unlink()
        await until(lambda: f"the password cannot be read from {file}: No such file or directory" in reasons)
        file.write_text("three")
        await until(lambda: store.up)
        assert (await granted(store.take(ONE)))[0].granted == 1
    assert not any("one" in reason or "three" in reason for reason in reasons)


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Authority:
    """Who signs certificates, and files as an operator has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = trustme.CA()
        self.ca = folder / "ca.pem"
        self.cert = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.root.cert_pem.write_to_path(str(self.ca))

    def server(self, name: str = LOOPBACK, *, clients: bool = False) -> ssl.SSLContext:
        """TLS of a server with that name, which may ask for clients' certificates."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.root.issue_cert(name).configure_cert(context)
        if clients:
            self.root.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def put_client(self, root: trustme.CA) -> None:
        """A client's certificate under some root, as a renewal puts it there."""
        made = root.issue_cert("client.example")
        self.cert.write_bytes(chain(made))
        self.key.write_bytes(made.private_key_pem.bytes())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority of the test's own."""
    return Authority(tmp_path)


@asynccontextmanager
async def behind(server: RedisServer | Sentinel, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """The server behind TLS; its `host:port`."""
    async with Proxy(server.port, tls=tls) as proxy:
        yield f"{LOOPBACK}:{proxy.port}"


async def test_a_root_and_a_name(server, authority, tmp_path):
    """Redis shows a certificate under a root that is trusted, with its name in it; the name may be let be, the root not."""
    ca = str(authority.ca)
    async with behind(server, authority.server()) as address:
        await let_in(told(REDIS_URL=address, REDIS_TLS="true", REDIS_TLS_CACERT=ca))
        await let_in(told(REDIS_URL=f"rediss://{address}", REDIS_TLS_CACERT=ca))
        assert "unable to get local issuer certificate" in await why_not(told(REDIS_URL=address, REDIS_TLS="true"))
    async with behind(server, authority.server("other.example")) as address:
        where = told(REDIS_URL=address, REDIS_TLS="true", REDIS_TLS_CACERT=ca)
        assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in await why_not(where)
        skip = {"REDIS_TLS": "true", "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": "true"}
        await let_in(told(REDIS_URL=address, REDIS_TLS_CACERT=ca, **skip))
        assert "unable to get local issuer certificate" in await why_not(told(REDIS_URL=address, **skip))


async def test_given_roots_are_the_only_ones(server, authority, tmp_path, monkeypatch):
    """Without REDIS_TLS_CACERT the system's roots count; with it, those do no longer."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    async with behind(server, authority.server()) as address:
        await let_in(told(REDIS_URL=f"rediss://{address}"))
        why = await why_not(told(REDIS_URL=f"rediss://{address}", REDIS_TLS_CACERT=str(other)))
        assert "CERTIFICATE_VERIFY_FAILED" in why


async def test_plain_text_to_a_server_with_tls(server, authority):
    """Neither side waits for ever."""
    async with behind(server, authority.server()) as address:
        assert "closed" in (await why_not(told(REDIS_URL=address))).lower()


async def test_a_client_s_certificate(server, authority):
    """Who shows none, or one of somebody else's, is refused; one that was renewed is shown at the next connection."""
    environ = {"REDIS_TLS": "true", "REDIS_TLS_CACERT": str(authority.ca)}
    async with behind(server, authority.server(clients=True)) as address:
        assert await why_not(told(REDIS_URL=address, **environ))
        authority.put_client(trustme.CA())
        environ |= {"REDIS_TLS_CLIENT_CERT": str(authority.cert), "REDIS_TLS_CLIENT_KEY": str(authority.key)}
        where = told(REDIS_URL=address, **environ)
        assert await why_not(where)
        authority.put_client(authority.root)
        await let_in(where)
        authority.cert.write_bytes(authority.cert.read_bytes() + authority.key.read_bytes())
        del environ["REDIS_TLS_CLIENT_KEY"]
        await let_in(told(REDIS_URL=address, **environ))


async def test_files_that_are_no_certificates(authority):
    """They are named; nothing is asked on the terminal."""
    address = (Address(LOOPBACK, 1),)
    authority.put_client(authority.root)
    nothing = authority.folder / "nothing"
    nothing.touch()
    why = await why_not(Where(address, tls=Tls(ca=nothing)))
    assert why.startswith(f"{nothing} has no certificate in it: ")
    why = await why_not(Where(address, tls=Tls(ca=authority.ca, cert=authority.cert, key=nothing)))
    assert why.startswith(f"{authority.cert} and {nothing} are no certificate with its key: ")
    why = await why_not(Where(address, tls=Tls(ca=authority.ca, cert=authority.folder / "gone")))
    assert why.startswith(f"{authority.folder}/gone is no certificate with its key: ")
    key = load_pem_private_key(authority.key.read_bytes(), None)
    locked = authority.folder / "locked"
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    why = await why_not(Where(address, tls=Tls(ca=authority.ca, cert=authority.cert, key=locked)))
    assert why.endswith("locked are no certificate with its key: the key is encrypted")


# ── what does not answer ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_says_nothing_is_left_in_time():
    """REDIS_TIMEOUT is how long it may take until all is ready."""
    loop = asyncio.get_running_loop()
    with socket.create_server((LOOPBACK, 0)) as mute:  # connections are made, and nobody takes them up
        address = f"{LOOPBACK}:{mute.getsockname()[1]}"
        started = loop.time()
        assert await why_not(told(REDIS_URL=address, REDIS_TIMEOUT="300ms")) == "no answer within 300 ms"
        assert 0.25 < loop.time() - started < 10


# ── sentinels ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_sentinels_have_a_login_of_their_own_and_the_same_tls(authority, tmp_path):
    """Both are asked by TLS; to each its own password, and never that of the other."""
    async with (
        valkey(tmp_path / "primary", args=["--requirepass", "for-redis"]) as primary,
        Sentinel(tmp_path / "sentinel", primary, lines=["requirepass for-sentinels"]) as watching,
        behind(primary, authority.server()) as primary_address,
        behind(watching, authority.server()) as sentinel_address,
    ):
        port = int(primary_address.rpartition(":")[2])
        with client_of.Redis(host=LOOPBACK, port=watching.port, password="for-sentinels") as client:
            client.execute_command("SENTINEL", "MONITOR", "secured", LOOPBACK, port, 1)
        environ = {
            "REDIS_TYPE": "SENTINEL",
            "REDIS_URL": f"secured,{sentinel_address}",
            "REDIS_AUTH": "for-redis",
            "REDIS_SENTINEL_AUTH": "for-sentinels",
            "REDIS_TLS": "true",
            "REDIS_TLS_CACERT": str(authority.ca),
        }
        async with RedisStore(told(**environ), timeout_s=20) as store:
            assert store.up, store
            assert (await granted(store.take(ONE)))[0].granted == 1
        async with RedisStore(told(**environ | {"REDIS_SENTINEL_AUTH": "for-redis"}), timeout_s=20) as store:
            assert "no sentinel names a primary for 'secured'" in repr(store)
            assert "invalid username-password pair" in repr(store)
            assert "for-" not in repr(store)


async def test_a_primary_that_is_a_replica_is_refused(tmp_path):
    """Sentinels may be late: who they name says itself what it is."""
    async with valkey(tmp_path / "a") as primary, Sentinel(tmp_path / "sentinel", primary) as watching:
        with client_of.Redis(host=LOOPBACK, port=primary.port) as client:
            client.replicaof(LOOPBACK, 1)
        where = Where((Address(LOOPBACK, watching.port),), kind=Kind.SENTINEL, master="primary", connect_timeout_s=20)
        found = await sentinel.primary(where)
        assert found == Address(LOOPBACK, primary.port)
        async with RedisStore(where, timeout_s=20) as store:
            assert repr(store) == "<RedisStore: down, it is a replica, and takes no writes>"
