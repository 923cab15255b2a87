"""Logs: one line per event to standard error, for people (text) or for machines (JSON).

Rule 1: nothing is logged per request; a quiet service logs a handful of lines.
Rule 2: a line that cannot be written is lost, and harms nobody: a full disk must not end who has something to tell.
Rule 3: what libraries log by the standard library looks the same. Only their warnings and worse are shown, so that `debug`
        is about this service; `trace` shows all they say.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TextIO

import structlog
from structlog.typing import Processor

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

_COMMON: Sequence[Processor] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
)

_RENDERERS: Mapping[str, Processor] = MappingProxyType(
    {
        "text": structlog.processors.LogfmtRenderer(key_order=("time", "level", "event"), bool_as_flag=False),
        "json": structlog.processors.JSONRenderer(ensure_ascii=False),
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
    renderer = _RENDERERS[log_format]
    structlog.configure(
        processors=[*_COMMON, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=partial(_Lines, sys.stderr),
        cache_logger_on_first_use=False,  # so that loggers made before this call, at import, obey it
    )
    _configure_libraries(LEVELS[level], renderer)


def _configure_libraries(level: int, renderer: Processor) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_COMMON],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level if level == logging.NOTSET else max(level, logging.WARNING))
    for name in _PER_CALL:
        logging.getLogger(name).setLevel(level if level == logging.NOTSET else logging.CRITICAL)
