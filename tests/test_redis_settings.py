"""Which Redis: every way to write it, as one value; what does not fit together is refused, and no password ever shows."""

from pathlib import Path

import pytest

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.store.redis.where import NOBODY, Address, Kind, Login, Tls, Where
from tests import environment
from tests.environment import read


def where(**environ: str) -> Where:
    found = read(**environ).redis
    assert found is not None
    return found


def refused(**environ: str) -> str:
    """Return the text that a wrong setting is refused with; it never has the secret in it."""
    text = environment.refused(**environ)
    assert "sec" not in text.replace("persecond", "").replace("PERSECOND", "")
    return text


@pytest.fixture
def pem(tmp_path: Path) -> str:
    """A file that can be read; settings do not look into it."""
    path = tmp_path / "some.pem"
    path.touch()
    return str(path)


# ── one server ────────────────────────────────────────────────────────────────────────────────────────────────────────


def tcp(host: str, port: int = 6379, **others: object) -> Where:
    return Where((Address(host, port),), **others)  # type: ignore[arg-type]


def unix(path: str, **others: object) -> Where:
    return Where((Address(path, None),), **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("redis:6379", tcp("redis")),
        ("127.0.0.1:6380/2", tcp("127.0.0.1", 6380, db=2)),
        ("[::1]:6379", tcp("::1")),
        ("redis://host", tcp("host")),
        ("redis://host:1/3", tcp("host", 1, db=3)),
        ("redis://[fe80::1%25eth0]:1", tcp("fe80::1%eth0", 1)),
        ("rediss://user:p%40ss@host:1/0", tcp("host", 1, login=Login("user", "p@ss"), tls=Tls())),
        ("redis://:secret@host:1", tcp("host", 1, login=Login(password="secret"))),
        ("redis://host:1?db=4&username=me&password=p%26w", tcp("host", 1, db=4, login=Login("me", "p&w"))),
        (
            "rediss://host:1?ssl_ca_certs=/a&ssl_certfile=/b&ssl_keyfile=/c",
            tcp("host", 1, tls=Tls(Path("/a"), Path("/b"), Path("/c"))),
        ),
        ("/var/run/redis.sock", unix("/var/run/redis.sock")),
        ("/tmp/a b?c", unix("/tmp/a b?c")),
        ("unix:///tmp/redis%20.sock?db=1", unix("/tmp/redis .sock", db=1)),
        ("unix://user:secret@/tmp/redis.sock", unix("/tmp/redis.sock", login=Login("user", "secret"))),
    ],
)
def test_one_server(address: str, found: Where) -> None:
    """Each form of address is one value; a store takes the same text."""
    assert where(REDIS_URL=address) == Where.of_url(address) == found


WRONG_ADDRESSES = [
    "redis",
    "host:",
    ":6379",
    "host:0",
    "host:65536",
    "host:port",
    "::1:6379",
    "[::1:6379",
    "a:1,b:2",
    "host:1/x",
    "host:1/1?db=2",
    "host 1:1",
    "http://:secret@host:1",
    "redis://",
    "redis://:sec/ret@host:1",
    "redis://:sec@ret@host:1",
    "redis://:secret",
    "redis://:secret@host:99999",
    "redis://:secret@host:1/db",
    "redis://:secret@host:1?db=x",
    "redis://:secret@host:1?password=secret",
    "redis://host:1?password=secret&password=secret",
    "redis://host:1?password=secret&timeout=1",
    "redis://host:1?ssl_ca_certs=/secret",
    "redis://:secret@a:1,b:2",
    "unix://:secret@relative/path",
    "user:secret@host:1",
    "host:1?pasword=secret",
]


@pytest.mark.parametrize("address", WRONG_ADDRESSES)
def test_wrong_address(address: str) -> None:
    """A wrong address is told the right forms; a password in it is not repeated."""
    text = refused(REDIS_URL=address)
    assert text.startswith("REDIS_URL (--redis-url)")
    assert "must be host:port, /path/of/socket, redis://host:port/db" in text


def test_a_plain_wrong_address_is_repeated() -> None:
    """Where no password can be, the text is shown."""
    assert refused(REDIS_URL="redis").startswith("REDIS_URL (--redis-url)='redis': must be host:port")
    assert refused(REDIS_URL="a:1,b:2").endswith("or in REDIS_AUTH; several hosts need REDIS_TYPE sentinel or cluster")


def test_socket_type_must_fit() -> None:
    """A socket type that says something else than the address is an error; one that agrees is fine."""
    assert "must fit REDIS_URL, which is unix" in refused(REDIS_URL="/tmp/s", REDIS_SOCKET_TYPE="tcp")
    assert "must fit REDIS_URL, which is tcp" in refused(REDIS_URL="host:1", REDIS_SOCKET_TYPE="unix")
    assert where(REDIS_URL="redis:6379", REDIS_SOCKET_TYPE="tcp") == tcp("redis")


# ── several servers ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["SENTINEL", "sentinel"])
@pytest.mark.parametrize("address", ["my-master,a:1,[::1]:2", "my-master, redis://a:1, [::1]:2"])
def test_sentinels(kind: str, address: str) -> None:
    """The primary's name comes first, as in the reference implementation; each login is for whom it says."""
    assert where(REDIS_TYPE=kind, REDIS_URL=address, REDIS_AUTH="a:b", REDIS_SENTINEL_AUTH="c") == Where(
        (Address("a", 1), Address("::1", 2)),
        kind=Kind.SENTINEL,
        master="my-master",
        login=Login("a", "b"),
        sentinel_login=Login(password="c"),
    )


@pytest.mark.parametrize(
    "address",
    [
        "a:1",
        "a:1,b:2",
        ",a:1",
        "name",
        "name,",
        "name,a",
        "name,/tmp/s",
        "name,a:1/1",
        "name,redis://:secret@a:1",
        "name,a:1,rediss://b:1",
        "redis://:secret@name,a:1",
    ],
)
def test_wrong_sentinels(address: str) -> None:
    """Without a name, without a sentinel, with one unlike the others, with what sentinels do not have: refused."""
    text = refused(REDIS_TYPE="SENTINEL", REDIS_URL=address)
    assert "must be master,host:port,host:port…: first what the sentinels call the primary" in text


@pytest.mark.parametrize(
    ("address", "hosts", "login", "tls"),
    [
        ("a:1", "a:1", NOBODY, None),
        ("a:1,b:2", "a:1,b:2", NOBODY, None),
        ("redis://a:1,redis://b", "a:1,b:6379", NOBODY, None),
        ("rediss://me:x@a:1, rediss://me:x@b:2", "a:1,b:2", Login("me", "x"), Tls()),
    ],
)
def test_cluster(address: str, hosts: str, login: Login, tls: Tls | None) -> None:
    """One node or some, by which the others are found."""
    found = where(REDIS_TYPE="CLUSTER", REDIS_URL=address)
    assert (found.kind, ",".join(map(str, found.addresses))) == (Kind.CLUSTER, hosts)
    assert (found.login, found.tls) == (login, tls)


@pytest.mark.parametrize(
    "address",
    [
        "a",
        "a:1,",
        "/tmp/s",
        "unix:///tmp/s",
        "a:1/1",
        "a:1,b:1/1",
        "a:1?db=1",
        "redis://:secret@a:1,b:1",
        "a:1,rediss://b:1",
        "redis://:secret@a:1,redis://:secre7@b:1",
    ],
)
def test_wrong_cluster(address: str) -> None:
    """A Cluster has no numbered databases and no unix sockets, and its nodes are logged in to in one way."""
    assert "must be host:port,host:port…: some of its nodes" in refused(REDIS_TYPE="CLUSTER", REDIS_URL=address)


@pytest.mark.parametrize("prefix", ["{", "a{b", "{}", "a{}b{c}"])
def test_a_prefix_that_parts_a_window_from_its_receipt_is_refused(prefix: str) -> None:
    """In a Cluster, where braces decide on the slot; one with a tag brings all to one slot, and may."""
    told = refused(REDIS_TYPE="cluster", REDIS_URL="a:1,b:2", CACHE_KEY_PREFIX=prefix)
    assert repr(prefix) in told
    assert "CACHE_KEY_PREFIX" in told
    assert read(REDIS_URL="a:1", CACHE_KEY_PREFIX=prefix).cache_key_prefix == prefix
    assert read(REDIS_TYPE="cluster", REDIS_URL="a:1", CACHE_KEY_PREFIX="{all}:").redis is not None


def test_wrong_type() -> None:
    """One of three."""
    assert refused(REDIS_TYPE="ring") == "REDIS_TYPE='ring': must be one of single, sentinel, cluster"


# ── who we are ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("auth", "login"),
    [
        ("secret", Login("", "secret")),
        ("me:secret", Login("me", "secret")),
        ("me:a:b", Login("me", "a:b")),
        ("p@s/s?w#%20", Login("", "p@s/s?w#%20")),
    ],
)
@pytest.mark.parametrize("address", ["host:1/2", "unix:///tmp/redis.sock"])
def test_auth(address: str, auth: str, login: Login, tmp_path: Path) -> None:
    """REDIS_AUTH is taken as it is; so is what stands in its file, without the newline that editors put there."""
    assert where(REDIS_URL=address, REDIS_AUTH=auth).login == login
    file = tmp_path / "auth"
    for end in ("", "\n", "\r\n"):
        file.write_bytes(f"{auth}{end}".encode())
        found = where(REDIS_URL=address, REDIS_AUTH_FILE=str(file)).login
        assert (found, found.read()) == (Login(file=file), login)
    file.write_text(f"{auth}\n\n")
    assert found.read().password == f"{login.password}\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "the password cannot be read from {}: No such file or directory"),
        (b"", "there is no password in {}"),
        (b"\n", "there is no password in {}"),
        (b"secret\xff", "the password in {} is not UTF-8"),
    ],
)
def test_a_secret_s_file_that_is_no_good_later(content: bytes | None, why: str, tmp_path: Path) -> None:
    """It is told in words, without what is in it."""
    file = tmp_path / "auth"
    file.write_text("good")
    login = where(REDIS_URL="a:1", REDIS_AUTH_FILE=str(file)).login
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StoreUnavailableError) as error:
        login.read()
    assert str(error.value) == why.format(file)


@pytest.mark.parametrize("address", ["redis://:secret@host:1", "redis://host:1?password=secret"])
def test_two_passwords(address: str, pem: str) -> None:
    """Two passwords are one too many."""
    text = "REDIS_AUTH and REDIS_URL both carry a password: give one of them"
    assert refused(REDIS_URL=address, REDIS_AUTH="secret") == text
    text = "REDIS_AUTH_FILE and REDIS_URL both carry a password: give one of them"
    assert refused(REDIS_URL=address, REDIS_AUTH_FILE=pem) == text
    text = "REDIS_AUTH and REDIS_AUTH_FILE both carry a password: give one of them"
    assert refused(REDIS_URL="host:1", REDIS_AUTH="secret", REDIS_AUTH_FILE=pem) == text
    sentinels = {"REDIS_URL": "m,a:1", "REDIS_TYPE": "SENTINEL"}
    text = "REDIS_SENTINEL_AUTH and REDIS_SENTINEL_AUTH_FILE both carry a password: give one of them"
    assert refused(**sentinels, REDIS_SENTINEL_AUTH="secret", REDIS_SENTINEL_AUTH_FILE=pem) == text


def test_what_is_of_no_use_is_refused(pem: str) -> None:
    """A password alone is a forgotten address: better told than run on memory. So it is with the others."""
    for variable, value in (
        ("REDIS_AUTH", "secret"),
        ("REDIS_AUTH_FILE", pem),
        ("REDIS_TYPE", "CLUSTER"),
        ("REDIS_TLS", "true"),
        ("REDIS_SOCKET_TYPE", "tcp"),
    ):
        assert refused(**{variable: value}).startswith(f"{variable} is set, but REDIS_URL is not")
    assert read(REDIS_TYPE="SINGLE", REDIS_TLS="false").redis is None
    for variable, value in (("REDIS_SENTINEL_AUTH", "secret"), ("REDIS_SENTINEL_AUTH_FILE", pem)):
        text = refused(REDIS_URL="a:1", **{variable: value})
        assert text == f"{variable} is set, but REDIS_TYPE is single, not sentinel"
    assert refused(REDIS_URL="a:1", REDIS_AUTH_FILE="/nowhere") == (
        "REDIS_AUTH_FILE='/nowhere': cannot be read: No such file or directory"
    )


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tls(pem: str) -> None:
    """It is on by its switch or by the URL; its files hold for all servers."""
    assert where(REDIS_URL="a:1", REDIS_TLS="true").tls == where(REDIS_URL="rediss://a:1").tls == Tls()
    assert where(REDIS_URL="a:1", REDIS_TLS="false").tls is None
    found = where(
        REDIS_TYPE="SENTINEL",
        REDIS_URL="m,a:1,b:1",
        REDIS_TLS="1",
        REDIS_TLS_CACERT=pem,
        REDIS_TLS_CLIENT_CERT=pem,
        REDIS_TLS_CLIENT_KEY=pem,
        REDIS_TLS_SKIP_HOSTNAME_VERIFICATION="true",
    )
    assert found.tls == Tls(Path(pem), Path(pem), Path(pem), check_hostname=False)


@pytest.mark.parametrize("switch", ["yes", "tRUE"])
def test_no_switch(switch: str) -> None:
    """Refused as any other switch is."""
    assert refused(REDIS_URL="a:1", REDIS_TLS=switch).startswith(f"REDIS_TLS={switch!r}: must be true or false")


def test_tls_that_does_not_fit(pem: str) -> None:
    """What contradicts itself, or is of no use, is told by name."""
    assert refused(REDIS_URL="rediss://a:1", REDIS_TLS="false") == (
        "REDIS_TLS is false, but REDIS_URL is a rediss:// URL, which means TLS"
    )
    assert refused(REDIS_URL="/tmp/s", REDIS_TLS="true").startswith("REDIS_TLS is true, but REDIS_URL is a unix socket")
    for variable in ("REDIS_TLS_CACERT", "REDIS_TLS_CLIENT_CERT", "REDIS_TLS_CLIENT_KEY"):
        assert refused(REDIS_URL="a:1", **{variable: pem}).startswith(
            f"{variable} is set, but there is no TLS to Redis"
        )
        files = {"REDIS_TLS_CLIENT_CERT": pem, variable: "/nowhere"}
        text = f"{variable}='/nowhere': cannot be read: No such file or directory"
        assert refused(REDIS_URL="a:1", REDIS_TLS="1", **files) == text
    skip = {"REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": "true"}
    assert refused(REDIS_URL="a:1", **skip).startswith(
        "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION is set, but there is no TLS"
    )
    assert refused(REDIS_URL="rediss://a:1", REDIS_TLS_CLIENT_KEY=pem).startswith(
        "REDIS_TLS_CLIENT_KEY is set, but REDIS_TLS_CLIENT_CERT is not"
    )


# ── time; the second Redis ────────────────────────────────────────────────────────────────────────────────────────────


def test_connect_timeout() -> None:
    """One second, unless told otherwise; never for ever."""
    assert where(REDIS_URL="a:1").connect_timeout_s == 1
    assert where(REDIS_URL="a:1", REDIS_TIMEOUT="10s").connect_timeout_s == 10
    assert "must be a duration" in refused(REDIS_URL="a:1", REDIS_TIMEOUT="0s")


def test_a_second_redis(pem: str, tmp_path: Path) -> None:
    """It has variables of its own, but for the files of TLS."""
    assert read(REDIS_URL="a:1", REDIS_PERSECOND_URL="b:1").redis_per_second is None
    settings = read(
        REDIS_URL="a:1",
        REDIS_AUTH="secret",
        REDIS_TLS_CACERT=pem,
        REDIS_PERSECOND="true",
        REDIS_PERSECOND_TYPE="SENTINEL",
        REDIS_PERSECOND_URL="m,b:1,c:1",
        REDIS_PERSECOND_SOCKET_TYPE="tcp",
        REDIS_PERSECOND_AUTH_FILE=pem,
        REDIS_PERSECOND_SENTINEL_AUTH="me:other",
        REDIS_PERSECOND_TLS="true",
        REDIS_PERSECOND_TIMEOUT="2s",
    )
    assert settings.redis == tcp("a", 1, login=Login(password="secret"))
    assert settings.redis_per_second == Where(
        (Address("b", 1), Address("c", 1)),
        kind=Kind.SENTINEL,
        master="m",
        login=Login(file=Path(pem)),
        sentinel_login=Login("me", "other"),
        tls=Tls(ca=Path(pem)),
        connect_timeout_s=2,
        short=True,
    )


def test_a_second_redis_that_is_wrong() -> None:
    """Its own variables are named."""
    assert refused(REDIS_URL="a:1", REDIS_PERSECOND="1") == (
        "REDIS_PERSECOND is true, but REDIS_PERSECOND_URL is not set: both must be"
    )
    assert refused(REDIS_PERSECOND_URL="a:1", REDIS_PERSECOND="1") == (
        "REDIS_PERSECOND is true, but REDIS_URL is not set: both must be"
    )
    second = {"REDIS_URL": "a:1", "REDIS_PERSECOND": "1"}
    assert refused(**second, REDIS_PERSECOND_URL="b").startswith(
        "REDIS_PERSECOND_URL (--redis-persecond-url)='b': must"
    )
    url = "redis://:secret@b:1"
    assert refused(**second, REDIS_PERSECOND_URL=url, REDIS_PERSECOND_AUTH="secret") == (
        "REDIS_PERSECOND_AUTH and REDIS_PERSECOND_URL both carry a password: give one of them"
    )


# ── what is shown ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({"REDIS_URL": "host:1"}, "redis://host:1"),
        ({"REDIS_URL": "[::1]:1"}, "redis://[::1]:1"),
        ({"REDIS_URL": "host:1", "REDIS_AUTH": "me:secret"}, "redis://***@host:1"),
        ({"REDIS_URL": "rediss://me:secret@host:1/2"}, "rediss://***@host:1/2"),
        ({"REDIS_URL": "redis://secret@host:1"}, "redis://***@host:1"),
        ({"REDIS_URL": "redis://host:1?password=secret&db=3"}, "redis://***@host:1/3"),
        ({"REDIS_URL": "unix://me:secret@/tmp/s?db=1"}, "unix://***@/tmp/s?db=1"),
        ({"REDIS_URL": "host:1", "REDIS_TLS": "true"}, "rediss://host:1"),
        ({"REDIS_URL": "a:1,b:2", "REDIS_TYPE": "cluster", "REDIS_AUTH": "secret"}, "redis://***@a:1,b:2 (cluster)"),
        (
            {"REDIS_URL": "m,a:1,b:2", "REDIS_TYPE": "sentinel", "REDIS_SENTINEL_AUTH": "secret"},
            "redis://a:1,b:2 (sentinels of m)",
        ),
    ],
)
def test_the_password_never_shows(environ: dict[str, str], shown: str) -> None:
    """Settings can be printed, and where Redis is, without giving the password away."""
    settings = read(**environ)
    assert settings.redis_url_shown == shown
    for text in (repr(settings), str(settings), f"{settings}", repr(settings.redis)):
        assert "secret" not in text
