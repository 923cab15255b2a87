"""statsd: what a server hears, over TCP and UDP, and that one which is away, slow or gone harms nobody and misses nothing."""

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ratelimit_svc.demo.child import free_port
from ratelimit_svc.demo.child import until as looked
from ratelimit_svc.demo.parts import LOOPBACK, Replica
from ratelimit_svc.metrics.stats import Counter, Gauge, Stat, Timer
from ratelimit_svc.metrics.times import TimesRead
from ratelimit_svc.model import Entry
from ratelimit_svc.statsd.lines import Lines, dog, plain
from ratelimit_svc.statsd.mogrifiers import Mogrifier, mogrify
from ratelimit_svc.statsd.sender import MOST_UDP_BYTES, Sender, Where
from ratelimit_svc.wire.client import Client, request
from tests.waiting import PATIENCE, until

TAGS = {"zone": "a:b", "env": "prod"}


class Server:
    """A statsd server that keeps what it hears. With `reads` false it takes nothing from its callers."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.callers: list[asyncio.StreamWriter] = []
        self.reads = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.callers.append(writer)
        if not self.reads:
            writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport has it
        while line := await reader.readline():
            self.heard.append(line.decode().rstrip("\n"))

    def hang_up(self) -> None:
        for writer in self.callers:
            writer.transport.abort()
        self.callers.clear()

    @asynccontextmanager
    async def at(self, port: int) -> AsyncIterator[None]:
        listening = await asyncio.start_server(self.serve, LOOPBACK, port)
        try:
            yield
        finally:
            listening.close()
            self.hang_up()


class Datagrams(asyncio.DatagramProtocol):
    """The same by UDP."""

    def __init__(self, heard: list[bytes]) -> None:
        self.heard = heard

    def datagram_received(self, data: bytes, _addr: object) -> None:
        self.heard.append(data)


def sender_of(stats: list[Stat], port: int, *, tcp: bool = True, changes: list[str] | None = None) -> Sender:
    most = 32_768 if tcp else MOST_UDP_BYTES
    on_change: Callable[[str], None] = (changes if changes is not None else []).append
    return Sender(
        Where(LOOPBACK, port, tcp), lambda: stats, Lines(plain({}), most_bytes=most), every_s=60, on_change=on_change
    )


def text(lines: Lines, *stats: Stat) -> list[str]:
    """What is told now, and noted as told."""
    chunks = list(lines.chunks(stats))
    for chunk in chunks:
        lines.note(chunk)
    return b"".join(chunk.data for chunk in chunks).decode().splitlines()


def test_a_tag_is_one_level_of_a_plain_name() -> None:
    """A dot in it would begin another."""
    assert text(Lines(plain({"a.b": "c.d"}), most_bytes=100), Counter("n", 1)) == ["n.__a_b=c_d:1|c"]


def test_a_chunk_may_be_full() -> None:
    """Lines go together up to the very last byte, and no line is cut."""
    lines = Lines(plain({}), most_bytes=len(b"n:1|c\n") * 2)
    assert [chunk.data for chunk in lines.chunks([Counter(name, 1) for name in "abc"])] == [
        b"a:1|c\nb:1|c\n",
        b"c:1|c\n",
    ]


def test_a_group_that_stands_for_nothing_is_empty() -> None:
    """In name and tags."""
    mogrifier = Mogrifier(re.compile("a(x)?b"), "n_$1", {"tag": "$1"})
    assert mogrify("ab", [mogrifier]) == ("n_", (("tag", ""),))


# ── lines ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_counter_is_told_by_how_much_it_has_grown() -> None:
    """And not while it has not; a gauge is told every time."""
    lines = Lines(plain({}), most_bytes=1000)
    assert text(lines, Counter("a", 3), Gauge("b", 7)) == ["a:3|c", "b:7|g"]
    assert text(lines, Counter("a", 3), Gauge("b", 7)) == ["b:7|g"]
    assert text(lines, Counter("a", 5)) == ["a:2|c"]


def test_what_was_not_noted_is_told_again() -> None:
    """With what has come since."""
    lines = Lines(plain({}), most_bytes=1000)
    assert [chunk.data for chunk in lines.chunks([Counter("a", 3)])] == [b"a:3|c\n"]
    assert text(lines, Counter("a", 5)) == ["a:5|c"]


@pytest.mark.parametrize("n", [1, 2, 3, 49, 1000, 999_983])
def test_who_divides_by_the_rate_has_the_number_of_requests(n: int) -> None:
    """Also if the rest is cut off, as statsd_exporter does."""
    lines = Lines(plain({}), most_bytes=1000)
    (line,) = text(lines, Timer("t", TimesRead({4: n})))
    found = re.fullmatch(r"t:4\|ms(?:\|@(.+))?", line)
    assert found is not None
    assert int(1 / float(found[1] or 1)) == n
    assert text(lines, Timer("t", TimesRead({4: n, 5: 1}))) == ["t:5|ms"]


def test_tags() -> None:
    """Behind a name as the reference has them, sorted; DogStatsD has real ones. What would end one stands in none."""
    assert text(Lines(plain(TAGS), most_bytes=1000), Counter("a", 1)) == ["a.__env=prod.__zone=a_b:1|c"]
    assert text(Lines(dog(TAGS), most_bytes=1000), Counter("a", 1)) == ["a:1|c|#env:prod,zone:a:b"]
    assert text(Lines(dog({"by": "a b,c|d"}), most_bytes=1000), Counter("a", 1)) == ["a:1|c|#by:a b_c_d"]
    assert text(Lines(dog({}), most_bytes=1000), Timer("a", TimesRead({2: 4}))) == ["a:2|ms|@0.24999999975"]


def test_mogrifiers() -> None:
    """The first that fits names the metric and its tags; a group that is not there stands as it is written."""
    rules = (
        Mogrifier(
            re.compile(r"^ratelimit\.service\.rate_limit\.(.*)\.(.*)\.(.*)$"), "hits.$3", {"domain": "$1", "key": "$2"}
        ),
        Mogrifier(re.compile("over"), "$0.$9", {}),
    )
    lines = Lines(dog({"env": "prod"}, rules), most_bytes=1000)
    assert text(lines, Counter("ratelimit.service.rate_limit.shop.a_b.over_limit", 1)) == [
        "hits.over_limit:1|c|#env:prod,domain:shop,key:a_b"
    ]
    assert text(lines, Counter("over_all", 1), Counter("else", 1)) == ["over.$9:1|c|#env:prod", "else:1|c|#env:prod"]


def test_chunks_are_whole_lines_and_no_longer_than_they_may_be() -> None:
    """A datagram that is cut would be one wrong line."""
    chunks = list(Lines(plain({}), most_bytes=50).chunks([Counter(f"name{n}", n + 1) for n in range(20)]))
    assert len(chunks) > 3
    assert all(len(chunk.data) <= 50 and chunk.data.endswith(b"\n") for chunk in chunks)
    assert sum(len(chunk.told) for chunk in chunks) == 20


# ── a server ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_over_tcp() -> None:
    """One connection, one line each, and the log hears of it once."""
    server, port, changes = Server(), free_port(), list[str]()
    stats: list[Stat] = [Counter("a", 3), Gauge("b", 1)]
    sender = sender_of(stats, port, changes=changes)
    async with server.at(port):
        await sender.flush()
        stats[0] = Counter("a", 4)
        await sender.flush()
        await until(lambda: len(server.heard) == 4)
        assert server.heard == ["a:3|c", "b:1|g", "a:1|c", "b:1|g"]
        assert len(server.callers) == 1
        await sender.close()
    assert changes == [""]


async def test_what_a_server_that_is_away_missed_it_is_told_later() -> None:
    """In one sum. The log hears of each change once."""
    server, port, changes = Server(), free_port(), list[str]()
    stats: list[Stat] = [Counter("a", 3)]
    sender = sender_of(stats, port, changes=changes)
    await sender.flush()
    await sender.flush()
    async with server.at(port):
        stats[0] = Counter("a", 5)
        await sender.flush()
        await until(lambda: server.heard == ["a:5|c"])
    await until(lambda: sender._open is not None and sender._open.lost())
    stats[0] = Counter("a", 9)
    await sender.flush()
    async with server.at(port):
        stats[0] = Counter("a", 10)
        await sender.flush()
        await until(lambda: server.heard == ["a:5|c", "a:5|c"])
        await sender.close()
    assert [bool(reason) for reason in changes] == [True, False, True, False]


async def test_a_server_that_reads_nothing_holds_one_flush_and_no_more() -> None:
    """It is waited for; what was not taken when it has gone is told again, but what the system had taken."""
    server, port = Server(), free_port()
    server.reads = False
    stats: list[Stat] = [Counter(f"{'x' * 100}{n}", 1) for n in range(100_000)]
    sender = sender_of(stats, port)
    async with server.at(port):
        flushing = asyncio.create_task(sender.flush())
        await until(lambda: len(sender._lines._told) > 0)
        assert not flushing.done()
        server.hang_up()
        await flushing
        noted = len(sender._lines._told)
        assert 0 < noted < 100_000
        server.reads = True
        await sender.flush()
        await until(lambda: len(server.heard) == 100_000 - noted, within_s=60)
        await sender.close()


def free_udp_port() -> int:
    """A port that no datagram leaves from: below the ephemeral range. (`free_port` holds the UDP port of the number it gives.)"""
    for port in random.sample(range(12_000, 32_000), k=200):  # others may look at the same time
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            to.bind((LOOPBACK, port))
            return port
    raise AssertionError


async def test_over_udp() -> None:
    """Datagrams; one that is refused is told later."""
    port, heard, changes = free_udp_port(), list[bytes](), list[str]()
    stats: list[Stat] = [Counter("a", 3)]
    sender = sender_of(stats, port, tcp=False, changes=changes)
    await sender.flush()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Datagrams(heard), local_addr=(LOOPBACK, port)
    )
    stats.append(Counter("b", 1))
    await sender.flush()
    await until(lambda: heard == [b"a:3|c\nb:1|c\n"])
    await sender.close()
    transport.close()
    assert [bool(reason) for reason in changes] == [True, False]


async def test_a_replica_tells_its_server(tmp_path: Path) -> None:
    """STATSD_HOST and STATSD_PORT are enough; what came last is told when it ends."""
    server, port = Server(), free_port()
    rules = tmp_path / "rules.yaml"
    rules.write_text("domain: shop\ndescriptors: [{key: tenant, rate_limit: {unit: year, requests_per_unit: 3}}]\n")
    env = PATIENCE | {
        "STATSD_HOST": LOOPBACK,
        "STATSD_PORT": str(port),
        "STATS_FLUSH_INTERVAL": "100ms",
        "EXTRA_TAGS": "env:prod",
    }

    def ask(replica: Replica) -> None:
        with Client(replica.address, timeout_s=30) as client:
            client.ask(request("shop", [[Entry("tenant", "a")]]))

    def total(name: str) -> int:
        return sum(int(line.split(":")[1].partition("|")[0]) for line in server.heard if line.startswith(name))

    hits = "ratelimit.service.rate_limit.shop.tenant.total_hits.__env=prod:"
    async with server.at(port):
        async with Replica(tmp_path, rules=rules, env=env) as replica:
            await looked(replica.ready, "it is ready")
            await asyncio.to_thread(ask, replica)
            await until(lambda: total(hits) == 1, within_s=30)
            await asyncio.to_thread(ask, replica)
            await until(lambda: total("ratelimit_server.ShouldRateLimit.total_requests.__env=prod:") == 2, within_s=30)
            await asyncio.to_thread(ask, replica)
        await until(lambda: total(hits) == 3)  # the process has ended, and what it said may still be on the way
    assert total("ratelimit.service.config_load_success.__env=prod:") == 1
