"""gRPC on a unix socket (GRPC_UDS), by either engine: who may have the place, and that it is tidy afterwards."""

import os
import signal
import socket
import stat
from pathlib import Path

import pytest
import trustme

from ratelimit_svc.demo.child import until
from ratelimit_svc.demo.parts import Replica
from ratelimit_svc.model import Entry
from ratelimit_svc.wire import unix
from ratelimit_svc.wire.client import Client, ClientTls, request
from tests.certificates import SERVER, Files
from tests.engines import ENGINES

RULES = "domain: shop\ndescriptors: [{key: tenant, rate_limit: {unit: hour, requests_per_unit: 3}}]\n"


@pytest.fixture
def rules(tmp_path) -> Path:
    """A rule file of one rule, three an hour."""
    path = tmp_path / "shop.yaml"
    path.write_text(RULES)
    return path


@pytest.fixture
def place(tmp_path) -> Path:
    """Where the socket shall be; short, for a socket's path may have a hundred characters or so."""
    return tmp_path / "s"


def ask(place: Path, tls: ClientTls | None = None) -> int:
    with Client(f"unix:{place}", timeout_s=10, tls=tls) as client:
        return client.ask(request("shop", [[Entry("tenant", "a")]])).overall_code


async def ended(replica: Replica) -> int:
    """Wait for the end and return the exit status."""

    async def is_over() -> bool:
        return not replica.running

    await until(is_over, "it ends")
    assert replica._process is not None
    return replica._process.returncode


@pytest.mark.parametrize(("engine", "loop"), [*((engine, "uvloop") for engine in ENGINES), ("http2", "asyncio")])
async def test_it_listens_there_in_place_of_a_port(tmp_path, rules, place, engine, loop):
    """A file that a killed process left is replaced; the rights are the umask's; the file goes with the process."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(place))
    env = {"GRPC_UDS": str(place), "ENGINE": engine, "LOOP": loop}
    async with Replica(tmp_path / "replica", rules=rules, env=env) as replica:
        assert [ask(place) for _ in range(4)] == [1, 1, 1, 2]
        umask = os.umask(0o077)
        os.umask(umask)
        assert stat.S_IMODE(place.stat().st_mode) == 0o777 & ~umask
        with socket.socket() as asking:
            assert asking.connect_ex(("127.0.0.1", replica.grpc_port)) != 0
        os.kill(replica.pid, signal.SIGTERM)
        assert await ended(replica) == 0
    assert not place.exists()


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_place_that_is_taken_is_refused(tmp_path, rules, place, engine):
    """By another replica, which notices nothing; or by a file that is no socket, which stays."""
    env = {"GRPC_UDS": str(place), "ENGINE": engine}
    async with Replica(tmp_path / "one", rules=rules, env=env):
        other = Replica(tmp_path / "other", rules=rules, env=env)
        other.folder.mkdir()
        other._spawn()
        assert await ended(other) == 2
        assert f"gRPC cannot listen on {place}: another process listens there" in other.log.read_text()
        assert ask(place) == 1
    place.write_text("mine")
    third = Replica(tmp_path / "third", rules=rules, env=env)
    third.folder.mkdir()
    third._spawn()
    assert await ended(third) == 2
    assert f"gRPC cannot listen on {place}: there is a file that is no socket" in third.log.read_text()
    assert place.read_text() == "mine"


@pytest.mark.parametrize("engine", ENGINES)
async def test_tls_is_done_there_as_well(tmp_path, rules, place, engine):
    """A certificate is asked of a client who comes by a file, too."""
    files, root = Files(tmp_path), trustme.CA()
    files.put(root)
    env = {
        "GRPC_UDS": str(place),
        "ENGINE": engine,
        "GRPC_SERVER_USE_TLS": "true",
        "GRPC_SERVER_TLS_CERT": str(files.cert),
        "GRPC_SERVER_TLS_KEY": str(files.key),
    }
    async with Replica(tmp_path / "replica", rules=rules, env=env):
        assert ask(place, ClientTls(files.ca, name=SERVER)) == 1


def test_a_socket_whose_queue_is_full_is_somebodys(place):
    """One who accepts nothing for the moment is there."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(place))
        busy.listen(0)
        waiting.connect(str(place))
        with pytest.raises(OSError, match="another process listens there"), unix.place(place):
            pytest.fail("it took a place that is taken")
    assert place.exists()


def test_who_has_taken_over_keeps_the_place(place):
    """At the end a file is left alone where somebody else listens by then."""
    with unix.place(place):
        next_one = unix.listener(place, 1)
    assert place.exists()
    next_one.close()
    with unix.place(place):
        assert not place.exists()


def test_a_path_that_is_too_long_is_told(tmp_path):
    """The system's limit is about a hundred bytes."""
    path = tmp_path / ("x" * 120)
    with pytest.raises(OSError, match=f"gRPC cannot listen on {path}: AF_UNIX path too long"):
        unix.listener(path, 1)
