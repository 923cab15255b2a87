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

SECOND = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"


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
    """A text line has the time in UTC, the level, the message, and then what belongs to it."""
    logs.configure("info", "text")
    structlog.get_logger().info("rules loaded", file=Path("a b.yaml"), domains=2, ready=True)
    (line,) = lines(capsys)
    assert re.fullmatch(rf'time="{SECOND}Z" level=info msg="rules loaded" file="a b.yaml" domains=2 ready=true', line)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain-Text.1", "plain-Text.1"),
        ("a/b@c^d+e-f.g", "a/b@c^d+e-f.g"),
        ("under_score", "under_score"),
        ("", ""),
        ("two words", '"two words"'),
        ("host:1", '"host:1"'),
        ('say "no"', r'"say \"no\""'),
        ("back\\slash", r'"back\\slash"'),
        ("one\ntwo\tthree", r'"one\ntwo\tthree"'),
        ("\x00\x1b\x7f", r'"\x00\x1b\x7f"'),
        ("Zürich", '"Zürich"'),
        ("\u200b\U000e0001", r'"\u200b\U000e0001"'),
        (1.5, "1.5"),
        (-3, "-3"),
        (None, "None"),
    ],
)
def test_values_are_quoted_as_logrus_does(capsys: pytest.CaptureFixture[str], value: object, written: str) -> None:
    """Letters, digits and -._/@^+ stand as they are; all else between quotes, escaped as by Go's %q."""
    logs.configure("info", "text")
    structlog.get_logger().info("told", value=value)
    (line,) = lines(capsys)
    assert line.partition(" msg=")[2] == f"told value={written}"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON line is one object with the same, under the reference implementation's names."""
    logs.configure("info", "json")
    structlog.get_logger().warning("store away", since=1.5, kind="redis")
    (line,) = lines(capsys)
    found = json.loads(line)
    assert re.fullmatch(rf"{SECOND}\.\d+Z", found.pop("@timestamp"))
    assert found == {"level": "warning", "@message": "store away", "since": 1.5, "kind": "redis"}


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
        assert (found["@message"], found["level"], found["logger"]) == ("no luck", "error", "aiohttp.server")
    else:
        assert re.fullmatch(rf'time="{SECOND}Z" level=error msg="no luck" logger=aiohttp.server', line)


def shown(capsys: pytest.CaptureFixture[str], level: str) -> tuple[list[str], list[str]]:
    """Return the levels that are shown of ours and of a library's."""
    logs.configure(level, "json")
    ours, library = structlog.get_logger(), logging.getLogger("some.library")
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(ours, name)("ours")
        getattr(library, name)("library")
    found = [json.loads(line) for line in lines(capsys)]
    return tuple([each["level"] for each in found if each["@message"] == who] for who in ("ours", "library"))  # type: ignore[return-value] # two of them


ALL = ["debug", "info", "warning", "error", "fatal"]
"""As logrus calls them."""
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
    assert json.loads(line)["@message"] == "shown"


def test_the_level_can_be_changed_later(capsys: pytest.CaptureFixture[str]) -> None:
    """Of ours and of the libraries', and back; the format stays."""
    logs.configure("warning", "json")
    ours, library = structlog.get_logger(), logging.getLogger("some.library")
    for level in ("trace", "error"):
        logs.set_level(level)
        ours.info(f"{level}: ours")
        library.info(f"{level}: library")
    assert [json.loads(line)["@message"] for line in lines(capsys)] == ["trace: ours", "trace: library"]
