"""The settings of answering: how long one may wait, what is remembered, and when the policy answers in the store's place."""

from dataclasses import dataclass

from ratelimit_svc.settings.kinds import BOOLEAN, duration, header_name, integer
from ratelimit_svc.settings.row import row


@dataclass(frozen=True)
class AnswerSettings:
    """What is waited for and remembered."""

    store_timeout_us: int = row(
        "STORE_TIMEOUT",
        duration("1us", "10s"),
        "100ms",
        "A request waits so long for the store; then its rule's policy answers.",
    )
    deadline_margin_us: int = row(
        "DEADLINE_MARGIN",
        duration("0s", "1h"),
        "2ms",
        "Taken off each caller's own deadline, so that the answer is there in time.",
    )
    replicas: int = row(
        "REPLICAS",
        integer(1, 1_000_000),
        "1",
        "How many replicas share each limit while the store is away, at least: they count each other.",
    )
    queue_limit: int = row(
        "QUEUE_LIMIT",
        integer(1, 10_000_000),
        "10000",
        "Requests that wait at most; beyond, the policy answers at once.",
    )
    plan_memory_bytes: int = row(
        "PLAN_MEMORY_BYTES",
        integer(65_536, 2**40),
        "67108864",
        "Bytes of memory for what repeated requests mean (64 MiB).",
    )
    memory_store_keys: int = row(
        "MEMORY_STORE_KEYS", integer(1, 2**32), "100000", "Windows kept in this process's memory at most; 6 kB each."
    )
    max_message_bytes: int = row(
        "MAX_MESSAGE_BYTES", integer(1, 2**31 - 1), "4194304", "Bytes of the largest gRPC message taken (4 MiB)."
    )
    breaker_latency_us: int = row(
        "BREAKER_LATENCY", duration("1ms", "10s"), "50ms", "A Redis whose p95 is longer is not called for a moment."
    )
    loop_lag_us: int = row(
        "LOOP_LAG", duration("0s", "1h"), "20ms", "A process whose turns are mostly later sheds requests. 0s: never."
    )
    queue_age_us: int = row(
        "QUEUE_AGE",
        duration("1us", "10s"),
        "50ms",
        "While the oldest request has waited longer than this, the policy answers new ones at once.",
    )
    denial_memory_keys: int = row(
        "DENIAL_MEMORY_KEYS",
        integer(0, 2**32),
        "100000",
        "Denials remembered at most, so that a flood of them does not reach the store. 0: none.",
    )
    local_cache_bytes: int = row(
        "LOCAL_CACHE_SIZE_IN_BYTES",
        integer(0, 2**40),
        "0",
        "Bytes of memory for denials, in place of DENIAL_MEMORY_KEYS. 0: that counts.",
    )
    stop_cache_key_increment: bool = row(
        "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT",
        BOOLEAN,
        "false",
        "Accepted: a request is charged on all its limits or on none, either way.",
    )
    limit_response_headers_enabled: bool = row(
        "LIMIT_RESPONSE_HEADERS_ENABLED",
        BOOLEAN,
        "false",
        "Let Envoy add three headers to each answer: the limit with least left, what is left of it, and its reset.",
    )
    limit_limit_header: str = row(
        "LIMIT_LIMIT_HEADER", header_name(), "RateLimit-Limit", "What the limit's header is called."
    )
    limit_remaining_header: str = row(
        "LIMIT_REMAINING_HEADER", header_name(), "RateLimit-Remaining", "What the header of what is left is called."
    )
    limit_reset_header: str = row(
        "LIMIT_RESET_HEADER", header_name(), "RateLimit-Reset", "What the header of the seconds until then is called."
    )
    owed_keys: int = row(
        "OWED_KEYS",
        integer(0, 2**32),
        "100000",
        "Windows at most of which is remembered what passed while the store was away, to be counted there later. 0: none.",
    )

    @property
    def header_names(self) -> tuple[str, ...]:
        """What the three response headers are called; none where there shall be none."""
        names = self.limit_limit_header, self.limit_remaining_header, self.limit_reset_header
        return names if self.limit_response_headers_enabled else ()
