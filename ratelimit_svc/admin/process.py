"""What the process itself is asked: the rules it has, what it has counted, and where it is just now.

`/rlconfig` and `/stats` have the reference implementation's lines. Of Go's profiles, which a Python process cannot have, there is the
one that is asked for most: all stacks.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from itertools import takewhile
from math import isfinite
from types import CodeType, FrameType
from typing import Any

from aiohttp import web

from ratelimit_svc.admin.debug import Endpoint, Query, text

RLCONFIG, STATS, STACKS, PPROF = "/rlconfig", "/stats", "/debug/stacks", "/debug/pprof/"

MOST_TASKS, MOST_FRAMES = 500, 50
"""Of the page of stacks: nobody reads more, and it is made on the loop."""

_NO_PPROF = (
    f"Go's profiles are not here: this is a Python process. {STACKS} shows where it is now, {STATS} what it has counted.\n"
    "A profile, from outside, without a restart: py-spy record --pid 1 --output profile.svg\n"
)


def endpoints(
    *, limits: Callable[[], Iterable[str]], render_metrics: Callable[[], tuple[bytes, str]]
) -> Iterator[Endpoint]:
    """Return the endpoints.

    Args:
        limits: a line for each limit in force. Called in another thread.
        render_metrics: the page for Prometheus and its content type. Called in another thread.
    """

    async def rlconfig(_: Query) -> web.Response:
        return text(await asyncio.to_thread(lambda: "".join(f"{line}\n" for line in limits())))

    async def stats(query: Query) -> web.Response:
        found = await asyncio.to_thread(lambda: _stats(render_metrics()[0].decode()))
        if query.get("format") == "json":
            return web.Response(text=json.dumps(found, indent=1), content_type="application/json")
        return text("".join(f"{name}: {json.dumps(value)}\n" for name, value in found.items()))

    async def stacks(_: Query) -> web.Response:
        return text("\n".join(_stacks()))

    async def pprof(_: Query) -> web.Response:
        return text(_NO_PPROF, HTTPStatus.NOT_FOUND)

    yield Endpoint(RLCONFIG, "print out the currently loaded configuration for debugging", rlconfig)
    yield Endpoint(STATS, "print out stats; ?format=json: as one object", stats)
    yield Endpoint(STACKS, "the stack of every thread and of every task", stacks)
    yield Endpoint(PPROF, "Go's profiles are not here; says what is", pprof)


def _stats(page: str) -> dict[str, Any]:
    """Return what Go's `expvar` would: by name, a JSON value each. What is no number in JSON is left out.

    Args:
        page: for Prometheus.
    """
    samples = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    numbers = {name: _number(float(value)) for name, _, value in samples if isfinite(float(value))}
    resident = numbers.get("process_resident_memory_bytes", 0)
    cmdline = list(
        takewhile(lambda word: not word.startswith("--"), sys.orig_argv)
    )  # in a flag there may be a password
    return {"cmdline": cmdline, "memstats": {"Alloc": resident, "Sys": resident}, **dict(sorted(numbers.items()))}


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def _stacks() -> Iterator[str]:
    """Each thread, then each task of the loop, with where it is, the innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 — the documented way, in spite of its name
        yield f"thread {names.get(ident, ident)}"
        yield from reversed([_line(each.f_code, each.f_lineno) for each in _outwards(frame)])
    tasks = asyncio.all_tasks()
    for task in sorted(tasks, key=lambda task: task.get_name())[:MOST_TASKS]:
        yield f"task {task.get_name()}"
        yield from (_line(each.f_code, each.f_lineno) for each in _inwards(task.get_coro()))
    if len(tasks) > MOST_TASKS:
        yield f"and {len(tasks) - MOST_TASKS} more tasks"
    yield ""


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(MOST_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _inwards(awaited: object) -> Iterator[FrameType]:
    """What a coroutine awaits, and what that awaits; coroutines and generators call it differently."""
    for _ in range(MOST_FRAMES):
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(awaited, f"{kind}_frame")), None)
        if kind is None:
            return
        frame = getattr(awaited, f"{kind}_frame")
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def _line(code: CodeType, line: int) -> str:
    return f"    {code.co_filename}:{line} {code.co_qualname}"
