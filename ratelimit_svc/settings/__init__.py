"""What the process can be told, by environment variable or by flag. Read once, at the start.

The fields of `Settings` are the one table of them: variable, kind, default and meaning stand together. It is cut in groups:

    wire       what listens: HTTP, gRPC, the debug side
    redis      which Redis, and how one logs in there; `redis_where` makes one value of it
    answers    how long one may wait, what is remembered
    rules      where the rules are, and how they are read
    xds        whether an xDS server has them instead, and which one
    stats      who is told the reference implementation's numbers: statsd, DogStatsD, Prometheus
    process    when it is ready, how it ends, what it tells
    tracing    spans of sampled requests
    accepted   what the reference implementation has and what has no effect here

`row` makes one row of the table, `kinds` has what the text of a setting may be, `files` and `tls_files` whether files are there.
`environment` has what is no setting, `reference` the reference implementation's defaults, `page` makes docs/settings.md.

Rule 1: the only room that knows the names of variables and flags. `TABLE` is the table for those who list it (help, tests).
Rule 2: a flag goes before its variable. A variable that is set but empty is its default where it is text, and an error where
        it is a number, a duration or a switch, as in the reference implementation.
Rule 3: a password never shows: not in an error, not in a repr.
Rule 4: what is set and has no effect is told once, at the start: see `Settings.warnings`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.settings.accepted import AcceptedSettings, without_effect
from ratelimit_svc.settings.answers import AnswerSettings
from ratelimit_svc.settings.environment import misspelt, without_service_links
from ratelimit_svc.settings.process import ProcessSettings
from ratelimit_svc.settings.redis import RedisSettings
from ratelimit_svc.settings.row import Setting, setting
from ratelimit_svc.settings.rules import RuleSettings
from ratelimit_svc.settings.stats import StatsSettings
from ratelimit_svc.settings.tracing import TracingSettings
from ratelimit_svc.settings.wire import WireSettings
from ratelimit_svc.settings.xds import XdsSettings

__all__ = ["TABLE", "Setting", "Settings"]


@dataclass(frozen=True)
class Settings(
    AcceptedSettings,
    TracingSettings,
    ProcessSettings,
    XdsSettings,
    StatsSettings,
    RuleSettings,
    AnswerSettings,
    RedisSettings,
    WireSettings,
):
    """The process's settings. Durations are integer microseconds (`_us`), however they were written.

    The groups stand from the last to the first, which is the order that `dataclass` takes their fields in.

    Raises:
        SettingsError: what is said of Redis, of an xDS server or of statsd does not fit together, or a file that TLS or the
            debug side needs is not there.
    """

    warnings: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    """What an operator should hear: each variable that is set and has no effect, or that seems to be misspelt, in a sentence."""

    def __post_init__(self) -> None:
        self._refuse_memcache(without_redis=not self.redis_address)
        # each of these is made now, so that what is wrong with it is told at the start
        _ = (self.redis, self.redis_per_second, self.tls_files, self.debug_token_path, self.xds, self.statsd)

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], flags: Mapping[str, str | None] = MappingProxyType({})
    ) -> Self:
        """Read all settings. `flags` has the text of the flags given, by field; None is a flag not given.

        Raises:
            SettingsError: the text of one of them breaks its rule; names the variable or flag, the text and the rule.
        """
        if unknown := flags.keys() - {each.field for each in TABLE if each.flag}:
            raise SettingsError(f"no such flag: {', '.join(sorted(unknown))}")
        environ = without_service_links(environ)
        values: dict[str, Any] = {each.field: each.read(environ, flags) for each in TABLE}
        told = misspelt(environ.keys(), {each.variable for each in TABLE})
        return cls(**values, warnings=(*without_effect(values), *told))


TABLE = tuple(setting(field) for field in dataclasses.fields(Settings) if field.name != "warnings")
"""Every setting there is."""
