"""The settings of who is told the reference implementation's numbers: a statsd server, DogStatsD, or Prometheus.

At most one of them, as in the reference implementation. Where it is none, nothing is counted for them.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.model import MICROSECONDS
from ratelimit_svc.settings.kinds import (
    ADDRESS,
    BOOLEAN,
    BOOLEAN_IF_SET,
    LIST,
    MAP,
    PORT_IF_SET,
    TEXT,
    Kind,
    choice,
    decimal,
    duration,
)
from ratelimit_svc.settings.row import row
from ratelimit_svc.statsd.mogrifiers import Mogrifier


class Statsd(NamedTuple):
    """The statsd server that is told, and how."""

    host: str
    port: int
    tcp: bool
    dog: bool
    """Whether it is DogStatsD, which has tags."""
    mogrifiers: tuple[Mogrifier, ...]
    """What changes names for DogStatsD; the first that fits does."""
    tags: tuple[tuple[str, str], ...]
    """Of all numbers (EXTRA_TAGS)."""
    every_s: float
    """How often it is told, in seconds."""


@dataclass(frozen=True)
class StatsSettings:
    """Who is told."""

    use_statsd: bool | None = row(
        "USE_STATSD",
        BOOLEAN_IF_SET,
        "",
        "Tell a statsd server. Not set: if STATSD_HOST or STATSD_PORT is, and nobody else is told.",
    )
    statsd_host: str = row("STATSD_HOST", TEXT, "", "Where the statsd server is. Empty: localhost.")
    statsd_port: int | None = row("STATSD_PORT", PORT_IF_SET, "", "Its port. Empty: 8125.")
    statsd_protocol: str = row(
        "STATSD_PROTOCOL", choice("tcp", "udp"), "tcp", "How it is told; DogStatsD always by UDP."
    )
    use_dog_statsd: bool = row("USE_DOG_STATSD", BOOLEAN, "false", "Tell DogStatsD, with tags, at STATSD_HOST.")
    use_dog_statsd_mogrifiers: tuple[str, ...] = row(
        "USE_DOG_STATSD_MOGRIFIERS", LIST, "", "Which rules change names for DogStatsD; the first that fits does."
    )
    dog_statsd_mogrifier: tuple[tuple[str, str], ...] = row(
        "DOG_STATSD_MOGRIFIER_",
        Kind("lines", lambda text: tuple(_pair(line) for line in text.splitlines()), is_text=True),
        "",
        "Each of these rules: <NAME>_PATTERN (a regular expression), <NAME>_NAME and <NAME>_TAGS (key:value,key:value), with $1 for a group.",
        flag=False,
        beginning=True,
    )
    use_prometheus: bool = row(
        "USE_PROMETHEUS", BOOLEAN, "false", "Serve the reference implementation's numbers to Prometheus, beside ours."
    )
    prometheus_address: tuple[str, int] = row("PROMETHEUS_ADDR", ADDRESS, ":9090", "Where they are served.")
    prometheus_path: str = row("PROMETHEUS_PATH", TEXT, "/metrics", "The path there.")
    prometheus_mapper_yaml: str = row(
        "PROMETHEUS_MAPPER_YAML", TEXT, "", "A statsd_exporter mapping file: names and labels. Empty: the usual ones."
    )
    prometheus_response_time_as_milliseconds: bool = row(
        "PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS",
        BOOLEAN,
        "false",
        "Tell response times in milliseconds, under the name that says seconds. Only without a mapping file.",
    )
    extra_tags: tuple[tuple[str, str], ...] = row("EXTRA_TAGS", MAP, "", "Tags, or labels, of all these numbers.")
    stats_flush_interval_us: int = row(
        "STATS_FLUSH_INTERVAL", duration("100ms", "1h"), "10s", "How often the statsd server is told."
    )
    disable_stats: bool = row("DISABLE_STATS", BOOLEAN, "false", "Tell nobody, whatever the others say.")
    near_limit_ratio: float = row(
        "NEAR_LIMIT_RATIO", decimal(0, 1000), "0.8", "From which part of a limit on its hits count as near_limit."
    )

    @cached_property
    def statsd(self) -> Statsd | None:
        """The statsd server that is told; None: none.

        Raises:
            SettingsError: more than one is to be told, or a rule that changes names is not right.
        """
        if self.disable_stats:
            return None
        if (self.use_statsd or False) + self.use_dog_statsd + self.use_prometheus > 1:
            raise SettingsError(
                "unable to use more than one stats sink at the same time: "
                "set one of USE_DOG_STATSD, USE_STATSD, USE_PROMETHEUS"
            )
        named = bool(self.statsd_host) or self.statsd_port is not None
        implied = self.use_statsd is None and named and not self.use_prometheus
        if not (self.use_statsd or self.use_dog_statsd or implied):
            return None
        return Statsd(
            host=self.statsd_host or "localhost",
            port=8125 if self.statsd_port is None else self.statsd_port,
            tcp=self.statsd_protocol == "tcp" and not self.use_dog_statsd,
            dog=self.use_dog_statsd,
            mogrifiers=self._mogrifiers() if self.use_dog_statsd else (),
            tags=self.extra_tags,
            every_s=self.stats_flush_interval_us / MICROSECONDS,
        )

    @property
    def serves_prometheus(self) -> bool:
        """Whether the reference's numbers are served to Prometheus."""
        return self.use_prometheus and not self.disable_stats

    def _mogrifiers(self) -> tuple[Mogrifier, ...]:
        given = dict(self.dog_statsd_mogrifier)
        return tuple(_mogrifier(name, given) for name in self.use_dog_statsd_mogrifiers)


def _pair(line: str) -> tuple[str, str]:
    rest, _, text = line.partition("=")
    return rest, text


def _mogrifier(name: str, given: dict[str, str]) -> Mogrifier:
    variable = f"DOG_STATSD_MOGRIFIER_{name.upper()}"
    pattern, called, tags = (given.get(f"{name.upper()}_{part}", "") for part in ("PATTERN", "NAME", "TAGS"))
    for part, text in (("PATTERN", pattern), ("NAME", called)):
        if not text:
            raise SettingsError(f"{variable}_{part} is not set, but USE_DOG_STATSD_MOGRIFIERS names {name!r}")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingsError(f"{variable}_PATTERN={pattern!r}: must be a regular expression: {error}") from None
    try:
        pairs = MAP.read(tags)
    except ValueError:
        raise SettingsError(f"{variable}_TAGS={tags!r}: must be {MAP.rule}") from None
    return Mogrifier(compiled, called, dict(pairs))
