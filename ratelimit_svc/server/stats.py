"""Who reads the reference implementation's numbers: Prometheus at an address of its own, or a statsd server; mostly nobody."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from ratelimit_svc.admin import http, prometheus
from ratelimit_svc.errors import RulesError, SettingsError
from ratelimit_svc.metrics import Metrics, mapping, mapping_file
from ratelimit_svc.metrics.exposition import expose
from ratelimit_svc.metrics.page import Page
from ratelimit_svc.metrics.stats import Stat, stats
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.server.background import running
from ratelimit_svc.settings import Settings
from ratelimit_svc.settings.stats import Statsd
from ratelimit_svc.state import State
from ratelimit_svc.statsd import lines, sender


def page(settings: Settings, metrics: Metrics) -> Page:
    """Return the page for Prometheus. If anybody reads the reference's numbers, they are counted from now on, and are on it, too.

    Raises:
        SettingsError: the mapping file cannot be used.
    """
    if settings.statsd is None and not settings.serves_prometheus:
        return Page(metrics)
    metrics.count_for_reference(near_limit_ratio=settings.near_limit_ratio, local_cache=settings.local_cache_bytes > 0)
    tags = {mapping.escaped(key): value for key, value in settings.extra_tags}
    mapper = mapping.Mapper(_mapping(settings), tags)
    return Page(metrics, lambda: expose(stats(metrics, shadow_mode=settings.shadow_mode), mapper))


def _mapping(settings: Settings) -> Sequence[mapping.MappingRule]:
    name = settings.prometheus_mapper_yaml
    if not name or not settings.serves_prometheus:
        return mapping.usual(milliseconds=settings.prometheus_response_time_as_milliseconds)
    try:
        return mapping_file.load(RuleFile(name, Path(name).read_bytes()))
    except (OSError, RulesError) as error:
        raise SettingsError(f"PROMETHEUS_MAPPER_YAML={name!r} cannot be used: {error}") from error


@asynccontextmanager
async def told(settings: Settings, state: State, page: Page, stop: asyncio.Event) -> AsyncIterator[None]:
    """Tell those who read these numbers, for as long as the context lasts.

    Error handling: OSError if PROMETHEUS_ADDR cannot be had. A statsd server that is away is no error.
    """
    async with AsyncExitStack() as telling:
        if settings.serves_prometheus:
            host, port = settings.prometheus_address
            app = prometheus.make_app(settings.prometheus_path, page.render)
            await telling.enter_async_context(http.serving(app, host or prometheus.everywhere(), port))
        if settings.statsd is not None:
            read = partial(stats, state.metrics, shadow_mode=settings.shadow_mode)
            to = _sender(settings.statsd, read, state)
            telling.push_async_callback(to.close)
            await telling.enter_async_context(running("statsd", to.keep(), stop))
        yield


def _sender(statsd: Statsd, read: Callable[[], Iterable[Stat]], state: State) -> sender.Sender:
    tags = dict(statsd.tags)
    written = lines.dog(tags, statsd.mogrifiers) if statsd.dog else lines.plain(tags)
    where = sender.Where(statsd.host, statsd.port, statsd.tcp)
    most = sender.MOST_TCP_BYTES if statsd.tcp else sender.MOST_UDP_BYTES
    return sender.Sender(
        where,
        read,
        lines.Lines(written, most_bytes=most),
        every_s=statsd.every_s,
        on_change=partial(state.on_statsd, str(where)),
    )
