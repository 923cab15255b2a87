"""Imports go one way, and what only one place may know only one place imports."""

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

import ratelimit_svc

PACKAGE = Path(ratelimit_svc.__file__).parent

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(layer.split())
    for layer in (
        "__main__ shims",
        "cli",
        "loadtest",
        "demo",
        "server",
        "state recent",
        "wire admin settings logs",
        "limiter statsd",
        "limiter.unanswered limiter.telling limiter.options",
        "limiter.denials limiter.dynamic_metadata limiter.response_headers limiter.policy limiter.group_commit",
        "limiter.refusals limiter.reference_keys limiter.comparison xds",
        "limiter.plans limiter.waiting limiter.verdicts limiter.deadlines metrics health garbage pressure tracing",
        "limiter.owed limiter.compared",
        "rules store",
        "windows breaker",
        "model errors durations ring pb",
    )
)
"""From the top down: a module imports from its own layer only within its own room, else from below. The limiter's room is large: its
parts have layers of their own."""

ONLY = {
    "grpc": {"wire", "xds"},
    "grpc_health": {"wire"},
    "grpc_reflection": {"wire"},
    "google": {"wire", "xds"},
    "redis": {"store"},
    "hiredis": {"store"},
    "hpack": {"wire"},
    "yaml": {"rules", "demo"},
    "watchfiles": {"rules"},
    "aiohttp": {"admin", "demo"},
    "prometheus_client": {"metrics", "demo", "loadtest"},
    "structlog": {"logs", "server", "state"},
    "uvloop": {"cli"},
    "rich": {"demo"},
    "envoy_data_plane": {"demo"},
    "opentelemetry": {"tracing"},
}
"""Which rooms may import a foreign package."""


def rank(room: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if room in layer)


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "pb" not in path.relative_to(PACKAGE).parts]


def room_of(path: Path) -> str:
    """The first name below the package, `wire` for wire/rls.py, or the first two where these have a layer: `limiter.plans`."""
    return room_named(path.relative_to(PACKAGE).with_suffix("").parts)


def room_named(names: Sequence[str]) -> str:
    """The room of a module, or of what is imported from one, by its names below the package."""
    room = ".".join(names[:2])
    return room if any(room in layer for layer in LAYERS) else names[0]


def imports(path: Path) -> set[str]:
    """Full names of everything the module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path):
    """cli → server → wire, admin → limiter → rules, store → windows → model."""
    room = room_of(path)
    if room == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "ratelimit_svc" and len(parts) > 1 and parts[1] != "__version__":
            other = room_named(parts[1:])
            assert other == room or rank(other) > rank(room), f"{room} imports {name}"
        if parts[0] in ONLY:
            assert room in ONLY[parts[0]], f"{room} imports {name}, which is for {ONLY[parts[0]] or 'nobody'}"


def test_every_module_has_a_layer():
    """A new room is put into the layers, or this fails."""
    rooms = {room_of(path) for path in modules()} - {"__init__"}
    assert rooms | {"pb"} == set().union(*LAYERS)


def test_modules_are_short_and_say_what_they_are():
    """A module opens with what it does, and none is longer than one can read in a sitting."""
    for path in modules():
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)) or not text.strip(), path
        assert len(text.splitlines()) <= 350, path


def test_the_algorithms_await_log_and_read_no_clock():
    """What stands in windows, rules/match and limiter/verdicts is pure."""
    for path in [*PACKAGE.glob("windows/*.py"), PACKAGE / "rules/match.py", PACKAGE / "limiter/verdicts.py"]:
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree)), path
        assert not {name.split(".")[0] for name in imports(path)} & {
            "time",
            "asyncio",
            "logging",
            "structlog",
            "random",
        }
