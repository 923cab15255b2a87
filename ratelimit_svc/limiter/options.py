"""What an operator may tell the limiter."""

from dataclasses import dataclass

from ratelimit_svc.limiter.plans import Planner


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What an operator may tell the limiter."""

    store_timeout_s: float = 0.1
    """The longest a request waits for the store."""
    deadline_margin_s: float = 0.002
    """Taken off a caller's own timeout: what the answer needs to get back to it."""
    replicas: int = 1
    """How many replicas share a limit at least while the store is away; each enforces ceil(limit / replicas)."""
    owed_keys: int = 100_000
    """Windows of which it is kept what the store has yet to be told."""
    queue_limit: int = 10_000
    """How many requests may wait; beyond, the policy answers at once."""
    queue_age_s: float = 0.05
    """How long the oldest of them may have waited; beyond, likewise."""
    denial_memory_keys: int = 100_000
    """Windows that are remembered to be full."""
    batches_in_flight: int = 1
    """How many batches may be with the store at a time."""
    plan_memory_bytes: int = 64 * 1024 * 1024
    """About how much the remembered plans may take."""
    key_prefix: str = ""
    """Put before every key (CACHE_KEY_PREFIX)."""
    dynamic_metadata: bool = False
    """Tell Envoy's access log, in each answer, which rules met the request and how it stands with them."""
    header_names: tuple[str, ...] = ()
    """What callers are told in headers of each answer, by these names: the limit, what is left, and the reset. None: nothing."""
    planner: type[Planner] = Planner
    """Makes plans, and so decides in which keys hits are counted."""
    shadow_mode: bool = False
    """Nobody is denied: each request is charged as if all were enforced, statuses say what that would be, and all pass."""
    denial_log_every_s: float = 1.0
    """At most one denial of each rule in this time is told to `on_denial`; 0: none."""
