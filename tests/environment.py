"""Settings as an environment makes them, and what is said of one that is wrong."""

import pytest

from ratelimit_svc.errors import SettingsError
from ratelimit_svc.settings import Settings


def read(**environ: str) -> Settings:
    return Settings.from_environment(environ)


def refused(**environ: str) -> str:
    """Return the text that a wrong setting is refused with."""
    with pytest.raises(SettingsError) as error:
        read(**environ)
    return str(error.value)
