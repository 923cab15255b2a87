"""TLS from files: what is wrong with them is told, who is admitted. Handshakes are in tests/conformance/test_tls.py."""

import asyncio
import ssl
from contextlib import suppress

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ratelimit_svc.wire.tls import ServerTls, TlsFilesError
from tests.certificates import CLIENT, Files


@pytest.fixture
def files(tmp_path) -> Files:
    """Good files."""
    made = Files(tmp_path)
    made.put(trustme.CA())
    return made


def encrypted(key: bytes) -> bytes:
    loaded = load_pem_private_key(key, None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("file", "spoil", "text"),
    [
        ("cert.pem", lambda _: b"", "cert.pem and .*key.pem are no certificate with its key"),
        ("key.pem", lambda _: b"nonsense", "cert.pem and .*key.pem are no certificate with its key"),
        ("key.pem", lambda _: trustme.CA().issue_cert("x").private_key_pem.bytes(), "key values mismatch"),
        ("key.pem", encrypted, "the key must have no passphrase"),
        ("ca.pem", lambda _: b"nonsense", "ca.pem has no certificate in it"),
        ("ca.pem", lambda _: b"", "ca.pem has no certificate in it"),
        ("ca.pem", None, "ca.pem cannot be read: No such file or directory"),
    ],
)
def test_files_that_cannot_be_used_are_told(files, file, spoil, text):
    """At the start it is an error that names the file; later it is told once, and nothing changes."""
    told: list[str] = []
    tls = files.tls(clients=True, on_failure=lambda error: told.append(str(error)))
    good = tls.pem()
    path = files.folder / file
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil(path.read_bytes()))
    assert [tls.pem(), tls.pem()] == [good, good]
    assert len(told) == 1
    with pytest.raises(TlsFilesError, match=text) as error:
        files.tls(clients=True)
    assert told == [str(error.value)]


def test_files_that_change_are_taken_up(files):
    """At the next look, and it is told once; also after a time in which they could not be used."""
    told: list[str] = []
    tls = files.tls(on_renewed=lambda: told.append("renewed"), on_failure=lambda _: told.append("failed"))
    old = tls.pem()
    files.cert.unlink()
    assert tls.pem() == old
    files.put(trustme.CA())
    assert tls.pem().cert == files.cert.read_bytes() != old.cert
    assert tls.pem().key == files.key.read_bytes()
    assert told == ["failed", "renewed"]


@pytest.mark.parametrize(
    ("names", "admitted"),
    [
        ([("DNS", CLIENT)], True),
        ([("DNS", "other.example"), ("DNS", CLIENT.upper())], True),
        ([("DNS", f"x.{CLIENT}")], False),
        ([("DNS", "*.example")], False),
        ([("URI", CLIENT)], False),
        ([], False),
    ],
)
def test_who_is_admitted(files, names, admitted):
    """Exactly the DNS name, in any case of letters; without a name asked for, everyone whose certificate is good."""
    assert files.tls(clients=True, san=CLIENT).admits({"subjectAltName": names}) is admitted
    assert files.tls(clients=True).admits({"subjectAltName": names})


async def test_each_handshake_uses_the_files_of_its_moment(tmp_path, files):
    """Of one context: the certificate, and the root that clients must be under. No session outlives its certificates."""
    tls = files.tls(clients=True)
    served: list[ssl.SSLObject] = []

    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer.get_extra_info("ssl_object"))
        writer.write(b"welcome")
        writer.close()

    async def welcome(root: trustme.CA, own: trustme.LeafCert) -> bytes:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2"])
        root.configure_trust(context)
        own.configure_cert(context)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        said = b""
        with suppress(ConnectionError):
            said = await reader.read()
            assert not said or not writer.get_extra_info("ssl_object").session.has_ticket
        writer.transport.abort()
        return said

    old, new = trustme.CA(), trustme.CA()
    files.put(old)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.context) as server:
        port = server.sockets[0].getsockname()[1]
        assert await welcome(old, old.issue_cert(CLIENT)) == b"welcome"
        files.put(new)
        assert await welcome(new, old.issue_cert(CLIENT)) == b""
        assert await welcome(new, new.issue_cert(CLIENT)) == b"welcome"
    assert [connection.selected_alpn_protocol() for connection in served] == ["h2", "h2"]
    assert tls.admits(served[-1].getpeercert() or {})


def test_it_says_what_it_is(files):
    """For logs."""
    assert repr(files.tls()) == f"<ServerTls: {files.cert}>"
    assert repr(files.tls(clients=True)) == f"<ServerTls: {files.cert}, clients by {files.ca}>"
    assert not ServerTls(cert=files.cert, key=files.key).clients_are_asked
