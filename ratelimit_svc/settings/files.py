"""Files that settings name: whether they can be read now. What is in them is for those who use them."""

from pathlib import Path

from ratelimit_svc.errors import SettingsError


def readable(variable: str, text: str) -> Path:
    """Return the path.

    Raises:
        SettingsError: the file cannot be read.
    """
    path = Path(text)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise SettingsError(f"{variable}={text!r}: cannot be read: {error.strerror}") from None
