"""Logs: one line per event to standard error, for people (text) or for machines (JSON).

Both have the form that the reference implementation's logger, logrus, gives them, for log pipelines that parse it:

    time="2026-11-25T04:29:32Z" level=warning msg="breaker open" node="one:6379"
    {"@timestamp": "2026-11-25T04:29:32.104233Z", "level": "warning", "@message": "breaker open", "node": "one:6379"}

Rule 1: nothing is logged per request; a quiet service logs a handful of lines.
Rule 2: a line that cannot be written is lost, and harms nobody: a full disk must not end who has something to tell.
Rule 3: what libraries log by the standard library looks the same. Only their warnings and worse are shown, so that `debug`
        is about this service; `trace` shows all they say.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor

LEVELS: Mapping[str, int] = MappingProxyType(
    {
        "trace": logging.NOTSET,
        "debug": logging.DEBUG,
        "info": logging.INFO,
        "warn": logging.WARNING,
        "warning": logging.WARNING,
        "error": logging.ERROR,
        "fatal": logging.CRITICAL,
        "panic": logging.CRITICAL,
    }
)
"""The reference implementation's names; it has no more than the standard library's five, either."""

_PER_CALL = ("grpc._cython.cygrpc",)
"""Loggers of libraries that write an error for each call whose caller has gone meanwhile."""

_PLAIN = re.compile(r"[a-zA-Z0-9._/@^+-]*")
"""What needs no quotes in a line of text; logrus's own rule."""
_ESCAPED: Mapping[str, str] = MappingProxyType(
    {"\\": r"\\", '"': r"\"", "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
)
"""What Go's `%q` has a short escape for."""


def _named_as_logrus(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Call the worst level by logrus's name for it."""
    if event["level"] == "critical":
        event["level"] = "fatal"
    return event


def _text(_logger: object, _method: str, event: EventDict) -> str:
    first = {"time": event.pop("time"), "level": event.pop("level"), "msg": event.pop("event")}
    return " ".join(f"{name}={_quoted(value)}" for name, value in (*first.items(), *event.items()))


def _quoted(value: object) -> str:
    """Write a value as logrus does: plain where it can be, else between quotes, on one line."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _PLAIN.fullmatch(text) else f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


_COMMON: Sequence[Processor] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    _named_as_logrus,
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
)

_FORMATS: Mapping[str, Sequence[Processor]] = MappingProxyType(
    {
        "text": (structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True, key="time"), _text),
        "json": (
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="@timestamp"),
            structlog.processors.EventRenamer("@message"),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ),
    }
)


class _Lines(structlog.WriteLogger):
    """Writes lines where it can; see rule 2."""

    def __init__(self, file: TextIO, *_: object) -> None:
        super().__init__(file)

    def msg(self, message: str) -> None:
        """Write a line."""
        with suppress(OSError, ValueError):  # the file is full, its reader has gone, or it is closed
            super().msg(message)

    debug = info = warning = error = critical = msg


def configure(level: str, log_format: str) -> None:
    """Set up all logging of the process. `level` is a name of `LEVELS`, `log_format` text or json."""
    rendering = _FORMATS[log_format]
    structlog.configure(
        processors=[*_COMMON, *rendering],
        logger_factory=partial(_Lines, sys.stderr),
        cache_logger_on_first_use=False,  # so that loggers made before this call, at import, obey it
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_COMMON],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.getLogger().handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Log from this level on, a name of `LEVELS`; may be called at any time."""
    least = LEVELS[level]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(least))
    everything = least == logging.NOTSET
    logging.getLogger().setLevel(least if everything else max(least, logging.WARNING))
    for name in _PER_CALL:
        logging.getLogger(name).setLevel(least if everything else logging.CRITICAL)
