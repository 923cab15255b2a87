"""Where rules come from: files that are watched, or an xDS server; and whether a replica without any is ready."""

import asyncio
from collections.abc import Callable
from functools import partial

from ratelimit_svc.health import Health
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.metrics.counts import XdsServer
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.rules.watch import watch
from ratelimit_svc.server import store
from ratelimit_svc.settings import Settings
from ratelimit_svc.state import NO_RULES, State
from ratelimit_svc.xds.source import Source


def health(settings: Settings) -> Health:
    """Return the health of a process that has no rules yet: unready, unless the operator wants it to start without."""
    starts_without = settings.force_start_without_initial_config
    if starts_without and not settings.healthy_with_at_least_one_config_loaded:
        return Health()
    return Health(NO_RULES)


async def keep(settings: Settings, state: State, limiter: Limiter, look: asyncio.Event) -> None:
    """Take up rules whenever they change, until cancelled. `look` asks for a look at once."""

    def on_rules(rules: RuleSet, files: tuple[RuleFile, ...]) -> None:
        limiter.use(rules)
        state.on_rules(rules, files)
        if settings.reference_keys:
            store.tell_not_shared(rules)

    loader = partial(
        load,
        strict=settings.strict,
        merge_domains=settings.merge_domain_config,
        algorithm=settings.algorithm,
        compare=settings.compared,
        quota_mode=settings.quota_mode,
    )
    if settings.xds is None:
        await watch(settings.rules_path, on_rules, state.on_rules_error, loader=loader, wake=look)
    else:
        await _ask(settings.xds, state, look, loader=loader, on_rules=on_rules)


async def _ask(
    source: Source,
    state: State,
    look: asyncio.Event,
    *,
    loader: "partial[RuleSet]",
    on_rules: Callable[[RuleSet, tuple[RuleFile, ...]], None],
) -> None:
    from ratelimit_svc.xds.client import Client  # noqa: PLC0415 - only who asks a server imports grpc.aio

    client = Client(
        source,
        loader=loader,
        on_rules=on_rules,
        on_error=state.on_rules_error,
        on_up=state.on_xds_up,
        on_down=state.on_xds_down,
        wake=look,
    )
    state.xds = client.describe
    state.metrics.gauges.xds = lambda: XdsServer(client.connected, client.streams)
    await client.run()
