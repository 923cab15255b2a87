"""What can go wrong, named by who must act.

A denied request is not here: a denial is a value (`model.Verdict`), an error is rare.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class RateLimitError(Exception):
    """Any error of this package."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong in one place of one rule file."""

    file: str
    """The file's name as the user wrote it or as it stands below the rules folder."""
    line: int
    """1-based; 0 where the finding is about the file as a whole."""
    path: str
    """Where in the document: `descriptors[0].rate_limit.unit`; empty for the root."""
    message: str
    """The value found, the rule it breaks and what would be right."""

    def __str__(self) -> str:
        """Format as compilers do, so that editors can jump there."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class RulesError(RateLimitError):
    """The rules' author must act. Carries every finding, not only the first."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


class SettingsError(RateLimitError):
    """The operator must act: a flag or an environment variable cannot be used as it is."""


class StoreUnavailableError(RateLimitError):
    """The operator must act, and the rule's `on_store_failure` does meanwhile: the store did not take the batch."""


class BadRequestError(RateLimitError):
    """The caller must act: this request has no meaning. Its text is what the caller is told."""


class UndecodableError(BadRequestError):
    """The caller must act: these bytes are not a `RateLimitRequest`."""
