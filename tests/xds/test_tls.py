"""TLS to the xDS server: who is let in, which server is believed, and certificates that are renewed."""

from pathlib import Path

import grpc
import pytest
import trustme

from ratelimit_svc.xds.source import Tls
from tests.certificates import chain
from tests.waiting import until
from tests.xds.ads import config, listening
from tests.xds.asking import SOON, asking, source

GATEWAY, OURS = "envoy-gateway", "envoy-ratelimit"
LONG = SOON._replace(retry_s=3600, initial_s=3600, most_s=3600)


@pytest.fixture(scope="module")
def root() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other() -> trustme.CA:
    """A root that the first one does not know."""
    return trustme.CA(organization_name="other")


class Files:
    """Our files, as the operator mounts them."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key, self.ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"

    def put(self, root: trustme.CA, *, ca: trustme.CA | None = None) -> None:
        """A certificate of ours under `root`; the server's is to be under `ca`, the same one if not said."""
        made = root.issue_cert(OURS)
        self.cert.write_bytes(chain(made))
        self.key.write_bytes(made.private_key_pem.bytes())
        self.ca.write_bytes((ca or root).cert_pem.bytes())

    def tls(self, name: str = "") -> Tls:
        return Tls(self.cert, self.key, self.ca, name)


@pytest.fixture
def ours_files(tmp_path: Path, root: trustme.CA) -> Files:
    made = Files(tmp_path)
    made.put(root)
    return made


def gateway(root: trustme.CA, *names: str, clients: trustme.CA | None = None) -> grpc.ServerCredentials:
    """A server's certificate for these names, and whose clients it asks for theirs."""
    made = root.issue_cert(*(names or ("127.0.0.1",)))
    pair = made.private_key_pem.bytes(), chain(made)
    return grpc.ssl_server_credentials([pair], (clients or root).cert_pem.bytes(), require_client_auth=True)


async def test_both_show_certificates(root: trustme.CA, ours_files: Files) -> None:
    """As Envoy Gateway does it: each side asks for the other's."""
    async with (
        listening(credentials=gateway(root)) as server,
        asking(source(server.url, tls=ours_files.tls())) as ours,
    ):
        talk = await server.ads.opened()
        await talk.say("1", config("a", "shop", limit=3))
        await talk.heard()
        assert (ours.limits(), ours.downs) == ({"shop/k": 3}, [])


async def test_the_servers_name_can_be_given(root: trustme.CA, ours_files: Files) -> None:
    """CONFIG_GRPC_XDS_SERVER_TLS_SAN is looked for in its certificate, in place of the host that is asked."""
    async with listening(credentials=gateway(root, GATEWAY)) as server:
        async with asking(source(server.url, tls=ours_files.tls(GATEWAY))):
            await server.ads.opened()
        async with asking(source(server.url, tls=ours_files.tls())) as ours:
            await ours.until_down("UNAVAILABLE")
        async with asking(source(server.url, tls=ours_files.tls("someone-else"))) as ours:
            await ours.until_down("UNAVAILABLE")
        assert server.ads.waiting == 0


async def test_a_server_under_another_root_is_not_believed(
    root: trustme.CA, other: trustme.CA, ours_files: Files
) -> None:
    """Nothing is asked of it, and the reason is told."""
    async with (
        listening(credentials=gateway(other, clients=root)) as server,
        asking(source(server.url, tls=ours_files.tls())) as ours,
    ):
        await ours.until_down("CERTIFICATE_VERIFY_FAILED")
        assert (server.ads.waiting, ours.ups) == (0, 0)


async def test_a_certificate_that_the_server_does_not_know_is_refused(
    root: trustme.CA, other: trustme.CA, ours_files: Files
) -> None:
    """And so is none at all."""
    async with listening(credentials=gateway(root)) as server:
        ours_files.put(other, ca=root)
        async with asking(source(server.url, tls=ours_files.tls())) as ours:
            await ours.until_down("UNAVAILABLE")
        async with asking(source(server.url, tls=Tls(None, None, ours_files.ca, ""))) as ours:
            await ours.until_down("UNAVAILABLE")
        assert server.ads.waiting == 0


async def test_renewed_certificates_are_taken_up(root: trustme.CA, other: trustme.CA, ours_files: Files) -> None:
    """A server that comes back under another root is believed as soon as our files say so; no restart is needed."""
    async with listening(credentials=gateway(root)) as server:
        port = server.port
        async with asking(source(server.url, tls=ours_files.tls())) as ours:
            talk = await server.ads.opened()
            await talk.say("1", config("a", "shop", limit=3))
            await talk.heard()
            await server.stop()
            async with listening(port=port, credentials=gateway(other)) as renewed:
                await ours.until_down("CERTIFICATE_VERIFY_FAILED")
                ours_files.put(other)
                talk = await renewed.ads.opened()
                await talk.say("2", config("a", "shop", limit=4))
                await talk.heard()
                assert ours.limits() == {"shop/k": 4}


async def test_a_file_that_is_not_there_yet(root: trustme.CA, ours_files: Files) -> None:
    """It is told by its name, and looked for again at the next attempt."""
    there = ours_files.key.read_bytes()
    ours_files.key.unlink()
    async with (
        listening(credentials=gateway(root)) as server,
        asking(source(server.url, tls=ours_files.tls(), waits=LONG)) as ours,
    ):
        await ours.until_down(f"{ours_files.key} cannot be read: No such file or directory")
        ours_files.key.write_bytes(there)
        ours.wake.set()
        await server.ads.opened()


async def test_files_that_hold_no_certificate(root: trustme.CA, ours_files: Files) -> None:
    """Nonsense in them is a reason like any other: it is tried again, and nothing ends."""
    ours_files.ca.write_text("nonsense")
    async with (
        listening(credentials=gateway(root)) as server,
        asking(source(server.url, tls=ours_files.tls())) as ours,
    ):
        await until(lambda: bool(ours.downs), within_s=60)
        ours_files.put(root)
        await server.ads.opened()
