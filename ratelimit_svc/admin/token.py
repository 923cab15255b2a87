"""The token that who changes something by the debug side must show (DEBUG_TOKEN, DEBUG_TOKEN_FILE).

Rule 1: without a token that was set, nobody gets in. A file that is empty or cannot be read is no token.
Rule 2: a file is read each time, so that a changed Secret acts without a restart.
Rule 3: tokens are compared in constant time, and never told.
"""

import hmac
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

LONGEST_BYTES = 4096
"""Of a file no more is read: a token is some dozens of characters."""

SCHEME = "Bearer "


class Refusal(NamedTuple):
    """Why somebody is not let in."""

    status: HTTPStatus
    text: str


_OFF = Refusal(
    HTTPStatus.FORBIDDEN,
    "nothing can be changed here: set DEBUG_TOKEN, or DEBUG_TOKEN_FILE, and send `Authorization: Bearer` with the token",
)
_UNREADABLE = Refusal(HTTPStatus.FORBIDDEN, "nothing can be changed here: DEBUG_TOKEN_FILE cannot be read, or is empty")
_MISSING = Refusal(HTTPStatus.UNAUTHORIZED, "this needs the token: send `Authorization: Bearer` with it")
_WRONG = Refusal(HTTPStatus.UNAUTHORIZED, "this is not the token")


@dataclass(frozen=True, slots=True)
class Token:
    """What lets in. With neither of the two, nobody."""

    text: str = field(default="", repr=False)
    file: Path | None = None
    """Has the token, and perhaps a newline after it."""

    def refuses(self, authorization: str) -> Refusal | None:
        """Return why the one with this `Authorization` header is not let in; None: they are. Reads the file, if there is one.

        Args:
            authorization: the header's text; empty where there is none.
        """
        if not self.text and self.file is None:
            return _OFF
        token = self.text.encode() if self.file is None else _read(self.file)
        if not token:
            return _UNREADABLE
        if not authorization.startswith(SCHEME):
            return _MISSING
        shown = authorization.removeprefix(SCHEME).encode("utf-8", "surrogateescape")
        return None if hmac.compare_digest(shown, token) else _WRONG


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_BYTES).strip()
    except OSError:
        return b""
