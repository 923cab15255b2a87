"""What the process knows of itself: its store, its rules, its health. It tells the log, health and metrics."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic, time

import structlog

from ratelimit_svc import __version__, logs
from ratelimit_svc.breaker import BreakerState
from ratelimit_svc.errors import RulesError
from ratelimit_svc.health import Health
from ratelimit_svc.limiter import Limiter
from ratelimit_svc.limiter.denials import Denial
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.metrics.counts import Loop, OwedHits, StoreNode
from ratelimit_svc.pressure import Pressure
from ratelimit_svc.rules.files import RuleFile
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.rules.words import in_words
from ratelimit_svc.settings import Settings
from ratelimit_svc.store.memory import MemoryStore
from ratelimit_svc.store.redis.node import Node
from ratelimit_svc.store.redis.replicas import Replicas
from ratelimit_svc.wire.engine import Engine
from ratelimit_svc.wire.tls import TlsFilesError

NO_RULES, STORE_AWAY, OVERLOADED = "no rules loaded", "the store is away", "overloaded: the event loop lags"

SPOILT_EVERY_S = 10.0
"""At most one spoilt key is told in this time: the metric counts them all."""

log = structlog.get_logger()


@dataclass(slots=True)
class State:
    """What the process knows of itself, and tells health, log and metrics."""

    settings: Settings
    health: Health
    metrics: Metrics
    store_up: bool
    store_reason: str = ""
    store_whole: bool = True
    """Whether nothing of it was away when it was last up."""
    rules: RuleSet | None = None
    rules_error: RulesError | None = None
    warned: set[str] = field(default_factory=set)
    """The warnings of the rules in force: those that a reload finds again are not told again."""
    nodes: Callable[[], Mapping[str, Node]] = dict
    """Returns the nodes of the store, by their addresses; there are none in memory."""
    away: Callable[[], list[str]] = list
    """Returns what is away of the store and why, in words."""
    replicas: Replicas | None = None
    """Who counts the replicas; None: nobody, since nothing is shared."""
    pressure: Pressure | None = None
    """What watches the loop; None: not yet."""
    spoilt_told_s: float = -inf
    """When a spoilt key was last told, on the clock."""
    xds: Callable[[], Mapping[str, object]] | None = None
    """Returns how it stands with the xDS server; None: rules are in files."""
    log_level: str = ""
    """What is logged now; LOG_LEVEL, until someone changes it."""
    rules_seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the rules were looked at: good or not, there is something to say."""

    def __post_init__(self) -> None:
        self.log_level = self.settings.log_level

    def on_store_up(self, warnings: list[str]) -> None:
        """Note that the store answers; again when what is away of it has changed."""
        away, was_up, was_whole = self.away(), self.store_up, self.store_whole
        self._store(up=True)
        self.store_whole = not away
        if not was_up or (self.store_whole and not was_whole):
            log.info("store is up", url=self.settings.redis_url_shown)
        for warning in warnings:
            if warning in away:
                log.error("a part of the store is away: answering by on_store_failure there", reason=warning)
            else:
                log.warning(warning)

    def on_store_down(self, reason: str) -> None:
        """Note that the store is away: from now on the rules' policies answer."""
        self._store(up=False, reason=reason)
        log.error("store is away: answering by on_store_failure", url=self.settings.redis_url_shown, reason=reason)

    def on_breaker(self, node: str, state: BreakerState, reason: str) -> None:
        """Note that a node of the store is not called for a while, or is again."""
        if state is BreakerState.CLOSED:
            log.info("breaker closed", node=node, reason=reason)
        else:
            log.warning("breaker open", node=node, reason=reason)

    def on_replicas(self, counted: int, sharing: int) -> None:
        """Note how many replicas there are, and among how many a limit is shared while the store is away."""
        log.info("replicas are counted", counted=counted, sharing=sharing)

    def on_replicas_uncounted(self, reason: str) -> None:
        """Note that replicas cannot be counted. Nothing new if the store is away."""
        if self.store_up:
            log.warning("replicas cannot be counted: what was counted last stays", reason=reason)

    def _store(self, *, up: bool, reason: str = "") -> None:
        self.store_up, self.store_reason = up, reason
        if self.settings.requires_redis:
            self.health.note(STORE_AWAY, holds=not up)

    def on_rules(self, rules: RuleSet, files: tuple[RuleFile, ...]) -> None:
        """Note rules that are now in force."""
        self.rules, self.rules_error = rules, None
        self.metrics.rules_loads.ok += 1
        self.metrics.rules_loaded_at = time()
        self.health.note(
            NO_RULES, holds=self.settings.healthy_with_at_least_one_config_loaded and not self.rules.domains
        )
        self.rules_seen.set()
        log.info("rules loaded", files=len(files), domains=len(rules.domains), rules=len(rules.rules))
        for finding in map(str, rules.warnings):
            if finding not in self.warned:
                log.warning("rules: this does not do what it seems to", finding=finding)
        self.warned = {str(finding) for finding in rules.warnings}

    def on_rules_error(self, error: RulesError) -> None:
        """Note rules that cannot be used; those in force stay."""
        self.rules_error = error
        self.metrics.rules_loads.failed += 1
        self.rules_seen.set()
        for finding in error.findings:
            # the reference implementation's words: people alert on them
            log.error("Error loading new configuration: %s", finding, kept=self._kept)

    @property
    def _kept(self) -> str:
        return "there are none yet: each request gets an error" if self.rules is None else "the rules in force stay"

    def on_xds_up(self) -> None:
        """Note that there is a stream with the xDS server."""
        log.info("xDS server is connected", server=self.settings.config_grpc_xds_server_url)

    def on_xds_down(self, reason: str, wait_s: float) -> None:
        """Note that there is none."""
        log.error(
            "xDS server is away",
            server=self.settings.config_grpc_xds_server_url,
            reason=reason,
            kept=self._kept,
            again_in_s=round(wait_s, 1),
        )

    def on_shedding(self, holds: bool, why: str) -> None:  # noqa: FBT001 — a callback's
        """Note that the process sheds requests, or has ceased to."""
        if holds:
            log.warning("overloaded: the event loop lags, requests are shed", reason=why)
        else:
            log.info("no longer overloaded: requests are not shed any more", reason=why)

    def on_unwell(self, holds: bool, why: str) -> None:  # noqa: FBT001 — a callback's
        """Note that shedding does not help, or that it does at last."""
        self.health.note(OVERLOADED, holds=holds)
        if holds:
            log.error("unready: the event loop lags although requests are shed", reason=why)
        else:
            log.info("ready again: the event loop keeps up; requests are shed for a while yet", reason=why)

    def on_spoilt(self, keys: Sequence[bytes]) -> None:
        """Note a request that has a window whose key holds something else: which of these it is, Redis does not tell."""
        now = monotonic()
        if now < self.spoilt_told_s + SPOILT_EVERY_S:
            return
        self.spoilt_told_s = now
        log.warning(
            "a window's key holds something else: answering by on_store_failure until it is deleted, or may be read",
            keys=[key.decode("utf-8", "replace") for key in keys],
        )

    def on_statsd(self, where: str, reason: str) -> None:
        """Note that the statsd server is not there, or is again."""
        if reason:
            log.warning("statsd server is away: it is told later", where=where, reason=reason)
        else:
            log.info("statsd server is told", where=where)

    def set_log_level(self, level: str) -> None:
        """Log from this level on, until it is changed again. Whichever of both shows more shows that, too."""
        before, self.log_level = self.log_level, level
        logs.set_level(min(before, level, key=logs.LEVELS.__getitem__))
        log.warning("LOG_LEVEL is changed by the debug side", level_was=before, level_is=level)
        logs.set_level(level)

    def on_tls_renewed(self) -> None:
        """Note that changed TLS files are in use. Called in any thread."""
        log.info("TLS files are renewed", cert=self.settings.grpc_server_tls_cert)

    def on_tls_failure(self, error: TlsFilesError) -> None:
        """Note that changed TLS files cannot be used. Called in any thread."""
        log.error("TLS files cannot be used: those before them stay in use", reason=str(error))

    def detail(self) -> Mapping[str, object]:
        """Return what `/healthcheck?verbose` shows."""
        return {
            "version": __version__,
            "shadow_mode": self.settings.shadow_mode,
            "store": {
                "kind": "redis" if self.settings.redis else "memory",
                "url": self.settings.redis_url_shown,
                "up": self.store_up,
                "reason": self.store_reason,
                "away": self.away(),
                "nodes": {address: node.describe() for address, node in self.nodes().items()},
            },
            "replicas": {
                "counted": self.replicas.count if self.replicas else None,
                "sharing": self.metrics.gauges.replicas(),
            },
            "owed": {"windows": self.metrics.gauges.owed_windows(), **self.metrics.gauges.owed_hits()._asdict()},
            "rules": {
                "count": len(self.rules.rules) if self.rules else 0,
                "domains": sorted(self.rules.domains) if self.rules else [],
                "loaded_at": self.metrics.rules_loaded_at,
                "findings": [str(finding) for finding in self.rules_error.findings] if self.rules_error else [],
                "warnings": sorted(self.warned),
            },
            "xds": self.xds() if self.xds else None,
            "loop": self.pressure.describe() if self.pressure else {},
        }

    def measure(self, limiter: Limiter, local: MemoryStore, engine: Engine, pressure: Pressure) -> None:
        """Tell the metrics and health detail where what they show is read."""
        self.pressure = pressure
        gauges = self.metrics.gauges
        gauges.queue_length = lambda: limiter.waiting.requests
        gauges.plan_memory_bytes = lambda: limiter.plans.bytes
        gauges.plan_memory_entries = lambda: len(limiter.plans)
        gauges.memory_windows = lambda: len(local)
        gauges.memory_windows_forgotten = lambda: local.forgotten
        gauges.denials_remembered = lambda: len(limiter.refusals)
        gauges.wire = engine.wire
        gauges.loop = lambda: Loop(pressure.worst_s, pressure.late_total_s, pressure.shedding)
        gauges.owed_windows = lambda: len(limiter.owed)
        gauges.owed_hits = lambda: OwedHits(limiter.owed.charged, limiter.owed.dropped)
        gauges.replicas = lambda: limiter.replicas
        gauges.beats_failed = lambda: self.replicas.failed if self.replicas else 0
        gauges.nodes = self._store_nodes
        gauges.store_up = lambda: self.store_up
        gauges.ready = lambda: self.health.ready

    def _store_nodes(self) -> Mapping[str, StoreNode]:
        return {
            address: StoreNode(node.breaker.state, node.breaker.opened, node.late, node.late_s, node.up, node.short)
            for address, node in self.nodes().items()
        }

    def on_denial(self, denial: Denial) -> None:
        """Log one denial."""
        log.info(
            "would deny (SHADOW_MODE)" if self.settings.shadow_mode else "denied",
            rule=denial.rule,
            tenant=denial.tenant,
            limit=in_words(denial.limit),
            window=denial.window,
            hits=denial.hits,
            remaining=denial.remaining,
            reset_s=denial.reset_s,
            overdrawn=denial.overdrawn,
            others=denial.others,
        )
