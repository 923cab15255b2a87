"""A real Cluster for tests: three masters and three replicas, made by hand, since the wheels carry no valkey-cli.

Slots are moved and masters killed as operators and accidents do it: by the Cluster's own commands.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import LOOPBACK, RedisServer, valkey
from ratelimit_svc.demo.parts import redis as redis_6_2
from ratelimit_svc.store.redis.slots import SLOTS
from ratelimit_svc.store.redis.where import Address, Kind, Where

MASTERS = 3

OLD_BUS = 10_000
"""So far above its port a node of Redis 6.2 listens for the other nodes, and takes no other one."""

Make = Callable[..., RedisServer]


class ClusterServers:
    """Six servers that are one Cluster: `servers[:3]` begin as masters, each with a third of the slots.

    Args:
        folder: theirs.
        node_timeout_ms: how long a node may be silent before the others take it for dead and its replica takes its place. Long
            by default: on a busy machine nobody shall seem dead who is only slow.
        make: makes one server.
    """

    def __init__(self, folder: Path, *, node_timeout_ms: int = 30_000, make: Make = valkey) -> None:
        timeout = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)]
        # the replicas shall not wait for others before they begin to copy, nor refuse to stand up for having copied little
        quick = ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"]
        # a node that is well serves its own slots, also while another's are away; by default it does not
        quick += ["--cluster-require-full-coverage", "no"]
        self._life = AsyncExitStack()
        self._clients: dict[RedisServer, Redis] = {}
        self._is_old = make is redis_6_2
        """Its bus is at port + OLD_BUS, and it takes slots one by one."""
        self._buses = [0 if self._is_old else free_port() for _ in range(2 * MASTERS)]
        self.servers = [
            redis_6_2(folder / str(number), args=[*timeout, *quick], port=free_port(second=OLD_BUS))
            if self._is_old
            else make(folder / str(number), args=[*timeout, *quick, "--cluster-port", str(bus)])
            for number, bus in enumerate(self._buses)
        ]

    async def __aenter__(self) -> Self:
        try:
            for server in self.servers:
                await self._life.enter_async_context(server)
            await asyncio.to_thread(self._introduce)
            await until(self._all_know_all, "the nodes know each other", within=30)
            await asyncio.to_thread(self._pair)
            await until(self.healthy, "the Cluster is whole", within=30)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for opened in self._clients.values():
            opened.close()
        await self._life.aclose()

    def client(self, server: RedisServer) -> Redis:
        """A plain client of one server, for what only operators do."""
        if server not in self._clients:
            self._clients[server] = Redis(host=LOOPBACK, port=server.port, socket_timeout=10)
        return self._clients[server]

    @property
    def where(self) -> Where:
        """One of the nodes, which is enough to find the others. It is a replica."""
        return Where((Address(LOOPBACK, self.servers[-1].port),), Kind.CLUSTER)

    @property
    def masters(self) -> list[RedisServer]:
        """Who is a master now, of those that run."""
        return [server for server in self.servers if server.running and self._role(server) == "master"]

    def id_of(self, server: RedisServer) -> str:
        """Return what the Cluster calls it."""
        opened = self.client(server)
        return str(opened.execute_command("CLUSTER MYID").decode())

    def owner(self, slot: int) -> RedisServer:
        """Return the master that has a slot, as it says itself."""
        return next(server for server in self.masters if slot in self._slots(server))

    def flush(self) -> None:
        """Empty all windows."""
        for server in self.masters:
            opened = self.client(server)
            opened.flushall()

    def begin_to_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Let both ends know that a slot will move: from now on they answer ASK and TRYAGAIN."""
        to = self.client(target)
        of = self.client(source)
        to.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.id_of(source))
        of.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer, *, most: int = 1000) -> list[bytes]:
        """Move some of a slot's keys; return which."""
        of = self.client(source)
        keys: list[bytes] = of.execute_command("CLUSTER GETKEYSINSLOT", slot, most)
        if keys:
            of.execute_command("MIGRATE", LOOPBACK, target.port, "", 0, 10_000, "KEYS", *keys)
        return keys

    def end_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Give a slot, from which all keys have moved, to its new owner. The others hear of it by and by.

        Before the next move all masters have to: the new owner makes its claim the greatest that it knows of (its epoch). If the
        next did not know that one, both claims would be equal, and the Cluster might give the slot back later, keys and all.
        """
        self._wait_for_one_epoch()
        to = self.client(target)
        of = self.client(source)
        new = self.id_of(target)
        to.execute_command("CLUSTER SETSLOT", slot, "NODE", new)
        of.execute_command("CLUSTER SETSLOT", slot, "NODE", new)

    def _wait_for_one_epoch(self, within_s: float = 20) -> None:
        """Wait until all masters know the greatest claim, and no two are equal."""
        until_s = monotonic() + within_s
        while True:
            told = [self.client(server).execute_command("CLUSTER INFO") for server in self.masters]
            if len({info["cluster_my_epoch"] for info in told}) == len(told) and (
                len({info["cluster_current_epoch"] for info in told}) == 1
            ):
                return
            assert monotonic() < until_s, told
            sleep(0.01)

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot, keys and all."""
        self.begin_to_move(slot, source, target)
        while self.move_keys(slot, source, target):
            pass
        self.end_move(slot, source, target)

    @contextmanager
    def unserved(self, slot: int) -> Iterator[None]:
        """A slot that no node has; its master has it again in the end."""
        owner = self.owner(slot)
        others = [server for server in self.servers if server is not owner]
        try:
            while holders := [server for server in (owner, *others) if slot in self._covered(server)]:
                for server in holders:
                    with suppress(ResponseError):  # heard a moment ago: some still tell each other
                        self.client(server).execute_command("CLUSTER DELSLOTS", slot)
            yield
        finally:
            self.client(owner).execute_command("CLUSTER ADDSLOTS", slot)

    async def healthy(self) -> bool:
        """Whether all that run say that the Cluster is whole, and the replicas have copied their masters."""
        return await asyncio.to_thread(self._healthy)

    def _healthy(self) -> bool:
        try:
            return all(self._is_well(server) for server in self.servers if server.running)
        except RedisError:
            return False

    def _is_well(self, server: RedisServer) -> bool:
        opened = self.client(server)
        info: dict[str, Any] = opened.info("replication")
        follows = info["role"] == "master" or info["master_link_status"] == "up"
        state: dict[str, str] = opened.execute_command("CLUSTER INFO")
        slots: list[list[Any]] = opened.execute_command("CLUSTER SLOTS")
        covered = sum(last - first + 1 for first, last, *_ in slots)
        return follows and covered == SLOTS and state["cluster_state"] == "ok"

    def _role(self, server: RedisServer) -> str:
        opened = self.client(server)
        return str(opened.info("replication")["role"])

    def _covered(self, server: RedisServer) -> set[int]:
        """Slots of which a server thinks that somebody has them."""
        rows: list[Any] = self.client(server).execute_command("CLUSTER SLOTS")
        return {slot for row in rows for slot in range(row[0], row[1] + 1)}

    def _slots(self, server: RedisServer) -> set[int]:
        opened = self.client(server)
        rows: list[Any] = opened.execute_command("CLUSTER SLOTS")
        mine = [row for row in rows if row[2][1] == server.port]
        return {slot for row in mine for slot in range(row[0], row[1] + 1)}

    def _introduce(self) -> None:
        clients = [self.client(server) for server in self.servers]
        for number, opened in enumerate(clients):
            opened.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number < MASTERS:
                first, last = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS - 1
                slots = range(first, last + 1) if self._is_old else (first, last)
                opened.execute_command("CLUSTER ADDSLOTS" if self._is_old else "CLUSTER ADDSLOTSRANGE", *slots)
        for server, bus in zip(self.servers[1:], self._buses[1:], strict=True):
            clients[0].execute_command("CLUSTER MEET", LOOPBACK, server.port, *([bus] if bus else []))

    async def _all_know_all(self) -> bool:
        return await asyncio.to_thread(lambda: all(self._knows(server) == len(self.servers) for server in self.servers))

    def _knows(self, server: RedisServer) -> int:
        opened = self.client(server)
        nodes: dict[str, dict[str, str]] = opened.execute_command("CLUSTER NODES")
        return sum("handshake" not in node["flags"] for node in nodes.values())

    def _pair(self) -> None:
        for master, replica in zip(self.servers[:MASTERS], self.servers[MASTERS:], strict=True):
            opened = self.client(replica)
            opened.execute_command("CLUSTER REPLICATE", self.id_of(master))
