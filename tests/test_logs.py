"""Logs: what a line looks like in each format, and which lines there are."""

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from ratelimit_svc import logs

UTC_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what went to standard error; nothing may go to standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A text line has the time in UTC, the level, the event, and then what belongs to it."""
    logs.configure("info", "text")
    structlog.get_logger().info("rules loaded", file=Path("a b.yaml"), domains=2, ready=True)
    (line,) = lines(capsys)
    assert re.fullmatch(rf'time={UTC_TIME} level=info event="rules loaded" file="a b.yaml" domains=2 ready=true', line)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON line is one object with the same."""
    logs.configure("info", "json")
    structlog.get_logger().warning("store away", since=1.5, kind="redis")
    (line,) = lines(capsys)
    found = json.loads(line)
    assert re.fullmatch(UTC_TIME, found.pop("time"))
    assert found == {"level": "warning", "event": "store away", "since": 1.5, "kind": "redis"}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical", "exception"])
def test_a_full_disk_harms_nobody(level: str, log_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has something to tell goes on."""
    full = open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123, SIM115 — to close it would raise
    monkeypatch.setattr(sys, "stderr", full)
    with pytest.raises(OSError, match="No space left"):
        print("nothing can be written", file=sys.stderr, flush=True)
    logs.configure("debug", log_format)
    getattr(structlog.get_logger(), level)("store is away")
    with suppress(OSError):
        full.close()


def fail() -> None:
    raise ValueError("first\nsecond")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_error_stays_on_one_line(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    """A traceback or a text of several lines does not tear a line apart."""
    logs.configure("info", log_format)
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed", text="a\nb")
    (line,) = lines(capsys)
    assert "Traceback" in line
    assert "second" in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_libraries_look_the_same(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    """What a library logs by the standard library has the same shape, and says which library."""
    logs.configure("info", log_format)
    logging.getLogger("aiohttp.server").error("no %s", "luck")
    (line,) = lines(capsys)
    if log_format == "json":
        found = json.loads(line)
        assert (found["event"], found["level"], found["logger"]) == ("no luck", "error", "aiohttp.server")
    else:
        assert re.fullmatch(rf'time={UTC_TIME} level=error event="no luck" logger=aiohttp.server', line)


def shown(capsys: pytest.CaptureFixture[str], level: str) -> tuple[list[str], list[str]]:
    """Return the levels that are shown of ours and of a library's."""
    logs.configure(level, "json")
    ours, library = structlog.get_logger(), logging.getLogger("some.library")
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(ours, name)("ours")
        getattr(library, name)("library")
    found = [json.loads(line) for line in lines(capsys)]
    return tuple([each["level"] for each in found if each["event"] == who] for who in ("ours", "library"))  # type: ignore[return-value] # two of them


ALL = ["debug", "info", "warning", "error", "critical"]
SHOWN = {
    "trace": (ALL, ALL),
    "debug": (ALL, ALL[2:]),
    "info": (ALL[1:], ALL[2:]),
    "warn": (ALL[2:], ALL[2:]),
    "warning": (ALL[2:], ALL[2:]),
    "error": (ALL[3:], ALL[3:]),
    "fatal": (ALL[4:], ALL[4:]),
    "panic": (ALL[4:], ALL[4:]),
}
"""By level asked for: the levels shown of ours, and of a library's."""


@pytest.mark.parametrize("level", logs.LEVELS)
def test_levels(capsys: pytest.CaptureFixture[str], level: str) -> None:
    """A level shows itself and what is worse; libraries are quieter, but for trace."""
    assert shown(capsys, level) == SHOWN[level]


def test_loggers_made_before_obey(capsys: pytest.CaptureFixture[str]) -> None:
    """A logger made at import time obeys the settings read later, and settings changed since."""
    logger = structlog.get_logger()
    logs.configure("error", "text")
    logger.info("hidden")
    logs.configure("info", "json")
    logger.info("shown")
    (line,) = lines(capsys)
    assert json.loads(line)["event"] == "shown"
