"""A real Cluster: slots that are elsewhere or on their way, nodes that die or hang. No charge is lost, none is doubled."""

import asyncio
import gc
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from ratelimit_svc.breaker import BreakerState
from ratelimit_svc.demo.child import until as until_it_is
from ratelimit_svc.demo.parts import LOOPBACK, RedisServer, valkey
from ratelimit_svc.demo.parts import redis as redis_6_2
from ratelimit_svc.model import Grant, Kind, Line
from ratelimit_svc.store import Untaken
from ratelimit_svc.store.redis.cluster import Cluster
from ratelimit_svc.store.redis.slots import slot_of
from ratelimit_svc.store.redis.spread import SpreadStore
from ratelimit_svc.store.redis.where import Address
from tests.clusters import ClusterServers
from tests.histories import charge
from tests.waiting import until

MANY = 2**31


def opened(servers: ClusterServers, *, timeout_s: float = 5, **others) -> SpreadStore:
    """A store on the Cluster, patient with a busy machine."""
    return SpreadStore(Cluster(servers.where, timeout_s=timeout_s, latency_s=timeout_s, **others))


def cluster_of(store: SpreadStore) -> Cluster:
    """The nodes and slots of a store."""
    assert isinstance(store._places, Cluster)
    return store._places


def line(key: str, n: int = 1) -> Line:
    """So many requests for a key that has room for all."""
    return Line((charge(key, MANY),), n)


def key_in(servers: ClusterServers, server: RedisServer, name: str = "k") -> str:
    """A key in a slot that a server has."""
    mine = servers._slots(server)
    return next(key for key in (f"{name}{number}" for number in range(10_000)) if slot_of(key.encode()) in mine)


async def count(store: SpreadStore, key: str) -> int:
    """How many hits a window holds."""
    (grant,) = await store.take([Line((charge(key, MANY, hits=0, kind=Kind.CHECK),), 1)])
    assert isinstance(grant, Grant), grant
    return MANY - grant.outcomes[0].remaining


@pytest.fixture
async def servers(cluster_servers: ClusterServers) -> ClusterServers:
    """The session's Cluster, empty."""
    cluster_servers.flush()
    return cluster_servers


@contextmanager
def moving(servers: ClusterServers, slot: int) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A slot on its way from one master to another; it arrives in the end, and is back after that."""
    source = servers.owner(slot)
    target = next(server for server in servers.masters if server is not source)
    servers.begin_to_move(slot, source, target)
    try:
        yield source, target
    finally:
        while servers.move_keys(slot, source, target):
            pass
        servers.end_move(slot, source, target)
        servers.move(slot, target, source)


async def test_it_is_found_through_any_node_and_answers_for_all_slots(servers):
    """A replica is told of: all masters are found, none of the replicas is asked."""
    told: list[list[str]] = []
    down: list[str] = []
    async with opened(servers, on_up=told.append, on_down=down.append) as store:
        assert store.up
        assert store.away() == []
        assert {node.address.port for node in store.nodes().values()} == {server.port for server in servers.masters}
        grants = await store.take([line(f"k{number}") for number in range(100)])
        assert all(isinstance(grant, Grant) and grant.granted == 1 for grant in grants)
    assert (told, down) == ([[]], [])


async def test_a_slot_that_has_moved_is_followed_and_learned(servers):
    """MOVED: the call goes where the slot is now, once, and the next one goes there at once."""
    key = key_in(servers, servers.masters[0])
    slot = slot_of(key.encode())
    async with opened(servers) as store:
        await store.take([line(key, 3)])
        source = servers.owner(slot)
        target = next(server for server in servers.masters if server is not source)
        servers.move(slot, source, target)
        try:
            (grant,) = await store.take([line(key, 2)])
            assert isinstance(grant, Grant)
            assert grant.outcomes[0].remaining == MANY - 5
            owner = cluster_of(store)._nodes.owners[slot]
            assert owner is not None
            assert owner.address.port == target.port
        finally:
            servers.move(slot, target, source)


async def test_a_slot_on_its_way_is_served(servers):
    """ASK: windows that have moved are asked for where they are, new ones begin there, and those that have not are not."""
    tag = key_in(servers, servers.masters[0], "t")
    slot = slot_of(tag.encode())
    first, second, new = (f"{{{tag}}}{name}" for name in ("first", "second", "new"))
    async with opened(servers) as store:
        await store.take([line(first), line(second)])
        with moving(servers, slot) as (source, target):
            # nothing has moved yet: what is there is served there, what is new begins there where it will be
            assert [await count(store, key) for key in (first, second)] == [1, 1]
            await store.take([line(first), line(new), line(second)])
            servers.move_keys(slot, source, target, most=1)
            await store.take([line(first), line(new), line(second)])
            while servers.move_keys(slot, source, target):
                pass
            grants = await store.take([line(first), line(new), line(second)])
            assert all(isinstance(grant, Grant) for grant in grants)
        assert [await count(store, key) for key in (first, second, new)] == [4, 4, 3]


async def test_windows_on_either_side_are_waited_for_and_charge_nothing_in_vain(servers):
    """TRYAGAIN: a request with windows on both sides is taken when they are together again; if that takes too long, it is not."""
    tag = key_in(servers, servers.masters[0], "t")
    slot = slot_of(tag.encode())
    both = Line((charge(f"{{{tag}}}a", MANY), charge(f"{{{tag}}}b", MANY)), 1)
    loop = asyncio.get_running_loop()
    async with opened(servers) as store:
        await store.take([both])
        with moving(servers, slot) as (source, target):
            servers.move_keys(slot, source, target, most=1)
            (untaken,) = await store.take([both], loop.time() + 0.2)
            assert isinstance(untaken, Untaken)
            assert untaken.outcome is None
            taking = store.take([both], loop.time() + 30)
            await asyncio.wait([taking], timeout=0.05)
            while servers.move_keys(slot, source, target):
                pass
            (grant,) = await taking
            assert isinstance(grant, Grant)
        assert [await count(store, f"{{{tag}}}{name}") for name in "ab"] == [2, 2]


async def test_a_slot_that_no_node_has_takes_only_its_own_windows_with_it_and_is_soon_found(servers):
    """Even if it is the slot of the key that probes write: the nodes are well. When somebody has it again, that is seen and told."""
    key = "{ratelimit-svc:probe}"
    slot = slot_of(key.encode())
    told: list[list[str]] = []
    with ExitStack() as until_then:
        until_then.enter_context(servers.unserved(slot))
        async with opened(servers, on_up=told.append) as store:
            assert store.away() == ["1 slots have no node"]
            lost, *kept = await store.take([line(key), *(line(f"k{n}") for n in range(50))])
            assert isinstance(lost, Untaken)
            assert lost.outcome is None
            assert all(isinstance(grant, Grant) for grant in kept)
            until_then.close()
            await until(lambda: store.away() == [], within_s=20)
            assert told[-1] == []
            (grant,) = await store.take([line(key)])
            assert isinstance(grant, Grant)
    await until_it_is(servers.healthy, "the Cluster is whole")


async def test_a_slot_that_its_node_has_lost_is_no_fault_of_the_node(servers):
    """A map that is out of date, and nobody to go to: the lines are untaken, in words, and the node's other windows are served."""
    key = key_in(servers, servers.masters[0])
    async with opened(servers) as store:
        cluster = cluster_of(store)
        owner = cluster._nodes.owners[slot_of(key.encode())]
        assert owner is not None
        with servers.unserved(slot_of(key.encode())):
            cluster._nodes.owners[slot_of(key.encode())] = owner
            (untaken,) = await store.take([line(key)])
            assert isinstance(untaken, Untaken)
            assert untaken.outcome is None
            assert "CLUSTERDOWN" in str(untaken.error)
            assert owner.breaker.describe()["failed"] == 0
    await until_it_is(servers.healthy, "the Cluster is whole")


# ── under load ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Load:
    """Takes one batch after the other, and counts by key what was granted and what was not."""

    def __init__(self, store: SpreadStore, keys: Iterable[str]) -> None:
        self.store, self.keys = store, list(keys)
        self.granted: Counter[str] = Counter()
        self.untaken: Counter[str] = Counter()
        self.unknown: dict[asyncio.Future[int], str] = {}
        self.batches = 0
        self.stopped = False

    async def run(self, patience_s: float = 5) -> None:
        """Take until it is stopped."""
        loop = asyncio.get_running_loop()
        while not self.stopped:
            answers = await self.store.take([line(key, 2) for key in self.keys], loop.time() + patience_s)
            self.batches += 1
            for key, answer in zip(self.keys, answers, strict=True):
                if isinstance(answer, Grant):
                    self.granted[key] += answer.granted
                else:
                    self.untaken[key] += 1
                    if answer.outcome is not None:
                        self.unknown[answer.outcome] = key
            await asyncio.sleep(0.005)  # the threads beside it want the interpreter, too


async def under_load(load: Load, work: Callable[[], object], **others) -> None:
    """Do something in a thread while the load runs."""
    running = asyncio.create_task(load.run(**others))
    try:
        await until(lambda: load.batches > 2)
        await asyncio.to_thread(work)
        seen = load.batches
        await until(lambda: load.batches > seen + 2)
    finally:
        load.stopped = True
        await running


async def test_a_thousand_slots_move_under_load_and_nothing_is_lost_or_doubled(servers):
    """Windows hold in the end exactly what was granted."""
    source, target = servers.masters[:2]
    slots = sorted(servers._slots(source))[:1000]
    wanted = set(slots)
    keys = [key for key in (f"r{number}" for number in range(2000)) if slot_of(key.encode()) in wanted][:60]
    assert len(keys) == 60
    async with opened(servers) as store:
        load = Load(store, keys)
        await under_load(load, lambda: [servers.move(slot, source, target) for slot in slots])
        assert load.untaken == {}
        assert {key: await count(store, key) for key in keys} == load.granted


@pytest.mark.parametrize("make", [valkey, redis_6_2])
async def test_a_master_that_dies_takes_only_its_own_windows_with_it_until_its_replica_stands_up(tmp_path, make):
    """Killed under load: the others go on, and the Cluster's own failover brings back the rest."""
    async with ClusterServers(tmp_path, node_timeout_ms=2_000, make=make) as servers:
        dead, *others = servers.masters
        lost = key_in(servers, dead)
        kept = [key_in(servers, server) for server in others]
        told: list[str] = []
        async with opened(servers, on_up=told.extend) as store:
            load = Load(store, [lost, *kept])
            running = asyncio.create_task(load.run(patience_s=2))
            await until(lambda: load.granted[lost] > 10)
            await dead.kill()
            await until(lambda: load.untaken[lost] > 0)
            assert any(f":{dead.port}, which has" in away for away in store.away())
            assert any(f":{dead.port}, which has" in away for away in told)
            before = load.granted[lost]
            await until(lambda: load.granted[lost] > before, within_s=40)
            load.stopped = True
            await running
            assert store.up
            assert [load.untaken[key] for key in kept] == [0, 0]
            assert {key: await count(store, key) for key in kept} == {key: load.granted[key] for key in kept}
            await until(lambda: store.away() == [])


async def test_a_node_that_hangs_takes_only_its_own_windows_with_it(servers):
    """Stopped, not dead: its lines end in time, the others have theirs; what it took nevertheless is told when it goes on."""
    hangs, *others = servers.masters
    lost, kept = key_in(servers, hangs), key_in(servers, others[0])
    async with opened(servers, timeout_s=0.3) as store:
        await store.take([line(lost), line(kept)])
        os.kill(hangs.pid, signal.SIGSTOP)
        try:
            slow, fast = await store.take([line(lost, 2), line(kept, 2)])
            assert isinstance(fast, Grant)
            assert isinstance(slow, Untaken)
            assert slow.outcome is not None
            away, _ = await store.take([line(lost), line(kept)])
            assert isinstance(away, Untaken)
            assert away.outcome is None
        finally:
            os.kill(hangs.pid, signal.SIGCONT)
        assert await asyncio.wait_for(slow.outcome, 20) == 2
        await until(lambda: store.away() == [])
        assert [await count(store, lost), await count(store, kept)] == [3, 4]


async def test_a_node_that_refuses_to_write_is_not_taken_for_well(servers):
    """Probes write where the node's windows are: of a slot that is elsewhere it would say MOVED, and that all is well."""
    refuses = next(server for server in servers.masters if server is not servers.owner(slot_of(b"ratelimit-svc:probe")))
    key = key_in(servers, refuses)
    changes: list[tuple[BreakerState, str]] = []
    async with opened(servers, on_change=lambda _, state, why: changes.append((state, why))) as store:
        node = store.nodes()[f"{LOOPBACK}:{refuses.port}"]
        servers.client(refuses).config_set("min-replicas-to-write", 9)
        try:
            while node.up:
                await store.take([line(key)])
            await until(lambda: len(changes) > 1 or node.why_down.startswith("Redis says: NOREPLICAS"))
            assert [state for state, _ in changes] == [BreakerState.OPEN]
        finally:
            servers.client(refuses).config_set("min-replicas-to-write", 0)
        await until(lambda: node.up)
        assert await count(store, key) == 0


async def test_what_is_denied_by_one_node_is_given_back_by_the_others(servers):
    """A request on three nodes: none keeps anything of what one has denied."""
    a, b, c = (key_in(servers, server) for server in servers.masters)
    async with opened(servers) as store:
        all_three = Line((charge(a, 10), charge(b, 3), charge(c, 10)), 5)
        (grant,) = await store.take([all_three])
        assert isinstance(grant, Grant)
        assert grant.granted == 3
        assert [await count(store, key) for key in (a, b, c)] == [3, 3, 3]
        assert (store.undos, store.undos_lost) == (2, 0)


async def test_a_cluster_that_is_not_there_says_so_and_is_found_when_it_comes(tmp_path):
    """Down at the start: lines are untaken; up as soon as there is a Cluster."""
    servers = ClusterServers(tmp_path)
    down: list[str] = []
    async with opened(servers, on_down=down.append) as store:
        (untaken,) = await store.take([line("k")])
        assert isinstance(untaken, Untaken)
        assert untaken.outcome is None
        assert not store.up
        assert len(down) == 1
        async with servers:
            await until(lambda: store.away() == [], within_s=20)
            (grant,) = await store.take([line("k")])
            assert isinstance(grant, Grant)


async def test_no_circle_is_left_for_the_collector(servers):
    """Taken, denied and undone, what a batch was made of goes without a search for it."""
    a, b, c = (key_in(servers, server) for server in servers.masters)
    async with opened(servers) as store:
        batch = [Line((charge(a, MANY), charge(b, 1), charge(c, MANY)), 3), line(a), line(b)]
        for _ in range(2):  # the first makes what stays
            gc.collect()
            gc.disable()
            try:
                for _ in range(20):
                    await store.take(batch)
                await until(lambda: not store._open)
                left = gc.collect()
            finally:
                gc.enable()
        assert left < 20  # of 20 batches


async def test_a_node_that_leaves_before_it_was_connected_leaves_nothing_behind(servers):
    """Somebody was sent there, and it never answers; the map does not have it, so it is closed by and by."""
    before = asyncio.all_tasks()
    patient = SpreadStore(Cluster(replace(servers.where, connect_timeout_s=60), timeout_s=5, latency_s=5))
    with socket.create_server((LOOPBACK, 0)) as silent:
        async with patient as store:
            nodes = cluster_of(store)._nodes
            address = Address(LOOPBACK, silent.getsockname()[1])
            node = await nodes.at(address, asyncio.get_running_loop().time())
            nodes.renew()
            await until(lambda: node in nodes._leaving)
            nodes.renew()
            await until(lambda: node not in nodes._leaving)
            assert not nodes._opening
        assert asyncio.all_tasks() == before


async def test_who_is_sent_elsewhere_while_all_is_closed_goes_nowhere(servers):
    """One call is refused with MOVED, another is still under way: nobody is left who follows the first."""
    hangs, *others = servers.masters
    moved, stuck = key_in(servers, others[0]), key_in(servers, hangs)
    before = asyncio.all_tasks()
    async with opened(servers) as store:
        nodes = cluster_of(store)._nodes
        wrong = nodes.owners[slot_of(key_in(servers, others[1]).encode())]
        assert wrong is not None
        nodes.owners[slot_of(moved.encode())] = wrong
        os.kill(hangs.pid, signal.SIGSTOP)
        try:
            taking = store.take([line(moved), line(stuck)])
            await until(lambda: wrong.describe()["in_flight"] == 0)
            await store.__aexit__()
        finally:
            os.kill(hangs.pid, signal.SIGCONT)
        assert all(isinstance(answer, Untaken) for answer in await taking)
        assert asyncio.all_tasks() == before


async def test_nothing_is_left_behind(servers):
    """Closed, it has no task and no connection."""
    before = asyncio.all_tasks()
    async with opened(servers) as store:
        await store.take([line("k")])
        nodes = list(store.nodes().values())
    assert asyncio.all_tasks() == before
    assert not any(node.up for node in nodes)
    await until_it_is(servers.healthy, "the Cluster is whole")
