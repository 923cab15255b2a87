"""The whole picture on one machine: Envoy asks replicas of the service, which share one Valkey, before an application.

    async with stage(folder, rules=path) as scene:
        … scene.envoy.url …

Envoy's configuration is one of Istio's proxies with a shipped EnvoyFilter applied. On leaving, everything is stopped, and
what did not stop by itself is killed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ratelimit_svc.demo import envoy, istio
from ratelimit_svc.demo.child import Child, free_port, until
from ratelimit_svc.demo.parts import Envoy, RedisServer, Replica, valkey
from ratelimit_svc.demo.traffic import Upstream


@dataclass(frozen=True, slots=True)
class Scene:
    """What is running."""

    rules: Path
    """The rule file that all replicas watch."""
    store: RedisServer
    replicas: tuple[Replica, ...]
    envoy: Envoy
    upstream: Upstream

    @property
    def children(self) -> tuple[Child, ...]:
        """Every process."""
        return self.store, *self.replicas, self.envoy

    async def metrics(self, name: str, **labels: str) -> list[float]:
        """One metric of every replica."""
        return [await replica.metric(name, **labels) for replica in self.replicas]

    async def edit_rules(self, text: str) -> None:
        """Replace the rule file as editors do, and wait until every replica has loaded it."""
        before = await self.metrics("ratelimit_svc_rules_loads_total", result="ok")
        edited = self.rules.with_name(f".{self.rules.name}.new")
        edited.write_text(text)
        edited.replace(self.rules)

        async def loaded() -> bool:
            now = await self.metrics("ratelimit_svc_rules_loads_total", result="ok")
            return all(after > earlier for earlier, after in zip(before, now, strict=True))

        await until(loaded, "the edited rules are in force")

    async def restart_store(self) -> None:
        """Start the store again and wait until every replica has it."""
        await self.store.start()

        async def up() -> bool:
            return all(await self.metrics("ratelimit_svc_store_up"))

        await until(up, "the replicas have the store again")


@asynccontextmanager
async def stage(
    folder: Path,
    *,
    rules: Path,
    envoy_filter: str,
    proxy: istio.Proxy = envoy.GATEWAY,
    replicas: int = 2,
    env: Mapping[str, str] | None = None,
    upstream: Upstream | None = None,
    through: Callable[[list[int]], list[int]] | None = None,
) -> AsyncIterator[Scene]:
    """Start everything: Valkey first, the others side by side.

    Args:
        folder: where each process gets a folder of its own.
        rules: the rule file of all replicas.
        envoy_filter: the text of the document that Envoy runs.
        proxy: which of Istio's proxies Envoy is.
        replicas: how many.
        env: settings of the replicas, beside or instead of these.
        upstream: the application, instead of one that answers everything alike.
        through: of the replicas' ports, those that Envoy asks instead: somebody listens in between.
    """
    store = valkey(folder / "valkey", append_only=True)
    # a laptop may stall for longer than a mesh would wait for Redis: here Envoy's timeout is the one that counts,
    # and a busy laptop is no reason to shed
    settings = {"REPLICAS": str(replicas), "STORE_TIMEOUT": "1s", "LOOP_LAG": "0s", "QUEUE_AGE": "10s", **(env or {})}
    services = tuple(
        Replica(folder / f"replica-{number}", rules=rules, redis_url=store.url, env=settings, name=f"replica-{number}")
        for number in range(1, replicas + 1)
    )
    upstream = upstream or Upstream()
    ports = [one.grpc_port for one in services]
    proxied = _envoy(folder / "envoy", envoy_filter, proxy, through(ports) if through else ports, upstream.port)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(upstream)
        await stack.enter_async_context(store)
        async with asyncio.TaskGroup() as starts:  # a start that fails ends the other starts
            for child in (*services, proxied):
                starts.create_task(stack.enter_async_context(child))
        yield Scene(rules, store, services, proxied, upstream)


def _envoy(folder: Path, envoy_filter: str, proxy: istio.Proxy, replicas: list[int], upstream: int) -> Envoy:
    """One of Istio's proxies with the filter applied, and read strictly before it is started."""
    port, admin_port = free_port(), free_port()
    config = envoy.build(proxy, port=port, admin_port=admin_port, replicas=replicas, upstream=upstream)
    config = istio.apply(config, istio.read(envoy_filter), proxy)
    envoy.log_access(config, folder / "access.log")
    envoy.check(config)
    folder.mkdir(parents=True, exist_ok=True)
    return Envoy(folder, envoy.write(config, folder / "envoy.json"), port=port, admin_port=admin_port)
