"""The settings of the process: when it is ready, how it ends, what it tells, and what it runs on."""

from dataclasses import dataclass

from ratelimit_svc.settings.kinds import BOOLEAN, choice, duration
from ratelimit_svc.settings.row import row


@dataclass(frozen=True)
class ProcessSettings:
    """How it lives, and what it tells."""

    ready_requires_redis: bool = row(
        "READY_REQUIRES_REDIS",
        BOOLEAN,
        "false",
        "Be unready while the store is away. Takes every replica away at once.",
    )
    redis_health_check: bool = row(
        "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION",
        BOOLEAN,
        "false",
        "The reference implementation's name for READY_REQUIRES_REDIS; the same.",
    )
    drain_delay_us: int = row(
        "DRAIN_DELAY",
        duration("0s", "1h"),
        "5s",
        "Told to stop, be unready and serve on for so long, until Envoy has noticed.",
    )
    drain_timeout_us: int = row(
        "DRAIN_TIMEOUT", duration("0s", "1h"), "5s", "Then wait at most so long for the requests under way."
    )
    shadow_mode: bool = row(
        "SHADOW_MODE",
        BOOLEAN,
        "false",
        "Deny nobody: all is counted and reported as if it were enforced, and every request passes.",
    )
    response_dynamic_metadata: bool = row(
        "RESPONSE_DYNAMIC_METADATA",
        BOOLEAN,
        "false",
        "Tell Envoy with each answer, for its access log, which rule decided, whose quota it is, and the reset.",
    )
    denial_log_every_us: int = row(
        "DENIAL_LOG_INTERVAL",
        duration("0s", "1h"),
        "1s",
        "Log at most one denial of each rule in this time, with the number of those not logged. 0s: none.",
    )
    log_level: str = row(
        "LOG_LEVEL",
        choice("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"),
        "info",
        "The least level that is logged; trace adds what the libraries say.",
    )
    log_format: str = row(
        "LOG_FORMAT",
        choice("text", "json"),
        "text",
        "Lines of key=value, or JSON objects with @timestamp, @message and level; as logrus writes them.",
    )
    engine: str = row(
        "ENGINE",
        choice("http2", "grpcio"),
        "http2",
        "The gRPC server: this project's own, or the gRPC authors' library.",
    )
    loop: str = row("LOOP", choice("uvloop", "asyncio"), "uvloop", "The event loop.")

    @property
    def requires_redis(self) -> bool:
        """Whether a replica is unready while the store is away."""
        return self.ready_requires_redis or self.redis_health_check
