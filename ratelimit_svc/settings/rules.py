"""The settings of rules: where they are, and how they are read."""

from dataclasses import dataclass
from pathlib import Path

from ratelimit_svc.model import Algorithm
from ratelimit_svc.settings.kinds import BOOLEAN, TEXT, choice
from ratelimit_svc.settings.row import row


@dataclass(frozen=True)
class RuleSettings:
    """Where the rules are, and how they are read."""

    rules: str = row("RULES", TEXT, "", "A rule file, or a folder of them. Goes before the RUNTIME_ settings.")
    runtime_root: str = row(
        "RUNTIME_ROOT",
        TEXT,
        "/srv/runtime_data/current",
        "Rules are the files below RUNTIME_ROOT/SUBDIRECTORY/APPDIRECTORY.",
    )
    runtime_subdirectory: str = row("RUNTIME_SUBDIRECTORY", TEXT, "", "The middle part of that path.")
    runtime_appdirectory: str = row("RUNTIME_APPDIRECTORY", TEXT, "config", "The last part of that path.")
    runtime_watch_root: bool = row(
        "RUNTIME_WATCH_ROOT",
        BOOLEAN,
        "true",
        "Accepted: edits in place and swapped symlinks are both seen, either way.",
    )
    runtime_ignore_dot_files: bool = row(
        "RUNTIME_IGNOREDOTFILES", BOOLEAN, "false", "Accepted: dot files and dot folders are never read, either way."
    )

    strict: bool = row(
        "STRICT",
        BOOLEAN,
        "false",
        "Refuse rule files for what is only a warning else: what loads, but does not do what it seems to.",
    )
    merge_domain_config: bool = row(
        "MERGE_DOMAIN_CONFIG",
        BOOLEAN,
        "false",
        "Several rule files may describe one domain: their descriptors are put together, in the order of the files' names.",
    )
    quota_mode: bool = row(
        "QUOTA_MODE",
        BOOLEAN,
        "false",
        "Read every rule as if it said quota_mode: a request passes while one of its limits has room, or a descriptor has none.",
    )
    default_algorithm: str = row(
        "DEFAULT_ALGORITHM",
        choice(*(algorithm.name.lower() for algorithm in Algorithm)),
        "sliding_window",
        "What counts where a rule does not say: fixed_window is what the reference implementation does.",
    )

    @property
    def rules_path(self) -> Path:
        """The file or folder that the rules are in."""
        if self.rules:
            return Path(self.rules)
        return Path(self.runtime_root, self.runtime_subdirectory.lstrip("/"), self.runtime_appdirectory.lstrip("/"))

    @property
    def algorithm(self) -> Algorithm:
        """What counts where a rule does not say."""
        return Algorithm[self.default_algorithm.upper()]
