"""Watch: a changed rule file → a new RuleSet, and the old one stays until the new one is good.

Rule 1: what is compared is bytes. Notices from the file system only say when to look, so a notice too many does no harm, and
        one too few costs at most the time to the next look without one.
Rule 2: nothing is kept between looks but what was seen last. The places to watch are found anew each time, because any of
        them may have become a link to somewhere else.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from watchfiles import Change, awatch

from ratelimit_svc.errors import Finding, RulesError
from ratelimit_svc.rules.files import RuleFile, links, read, survey
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.match import RuleSet

GATHER_MS = 50
"""Notices that come within this time of each other are one: an editor writes, renames and sets rights."""


class Seen(NamedTuple):
    """What one look saw."""

    files: tuple[RuleFile, ...]
    unreadable: tuple[Finding, ...] = ()
    """Why there are no files."""


class Places(NamedTuple):
    """Where a change would matter, without links on the way there."""

    folders: frozenset[Path]
    """Any change in these."""
    names: frozenset[Path]
    """A change of these themselves."""

    def matters(self, _change: Change, changed: str) -> bool:
        """True if the change that the file system tells of may change the rules."""
        place = Path(changed)
        return place in self.names or place in self.folders or place.parent in self.folders


async def watch(
    path: Path,
    on_rules: Callable[[RuleSet, tuple[RuleFile, ...]], None],
    on_error: Callable[[RulesError], None],
    *,
    loader: Callable[[Iterable[RuleFile]], RuleSet] = load,
    known: tuple[RuleFile, ...] | None = None,
    wake: asyncio.Event | None = None,
    every: float = 5.0,
) -> None:
    """Report each change of the rules at a path, until cancelled.

    Notices edits in place, files that come, go and are replaced, a ConfigMap update of Kubernetes (`..data` is renamed over),
    and any link on the way to the path that is changed, the path itself included. A look reads everything; equal bytes are
    no change. Reading and compiling happen in a thread.

    Args:
        path: A rule file or a folder of them. It may be missing: that is an error until it appears.
        on_rules: Is given the new rules and the files they came from. Must not block.
        on_error: Is given what is wrong with the present files. The rules given before stay valid. Must not block.
        loader: `load`, with the options that the caller wants (`functools.partial`).
        known: The files that the caller has loaded already; a change since then is reported. None: the first look is
            reported too.
        wake: Set it to have a look at once (SIGHUP).
        every: Seconds between looks where no notice comes: a file system without inotify, a notice lost.

    Resource handling:
        While it runs, one thread waits for notices. Cancelling ends that thread, in about 50 ms, before the cancellation
        goes on; a look under way finishes in its thread, and its result is dropped.

    Error handling:
        Nothing about the files raises: missing, unreadable, half written and wrong files all go to `on_error`, the same
        findings once until something else was reported. Files that return to what they were before an error are
        reported to `on_rules`, so that the error can be cleared. Where the file system gives no notices (inotify's limits
        are reached), looks go on every `every` seconds. What the callbacks raise ends the watch.
    """
    wake = wake or asyncio.Event()
    seen = None if known is None else Seen(known)
    failed: tuple[Finding, ...] = ()
    while True:
        async with _noticing(path, wake):
            wake.clear()
            now = await asyncio.to_thread(_look, path)
            if now != seen:
                seen = now
                outcome = await asyncio.to_thread(_compile, now, loader)
                if isinstance(outcome, RuleSet):
                    failed = ()
                    on_rules(outcome, now.files)
                elif outcome.findings != failed:
                    failed = outcome.findings
                    on_error(outcome)
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await wake.wait()


def _look(path: Path) -> Seen:
    try:
        return Seen(read(path))
    except RulesError as error:
        return Seen((), error.findings)


def _compile(seen: Seen, loader: Callable[[Iterable[RuleFile]], RuleSet]) -> RuleSet | RulesError:
    if seen.unreadable:
        return RulesError(seen.unreadable)
    try:
        return loader(seen.files)
    except RulesError as error:
        return error


@asynccontextmanager
async def _noticing(path: Path, wake: asyncio.Event) -> AsyncIterator[None]:
    """Set `wake` when something at the path changes, from the first line of the block on."""
    places = await asyncio.to_thread(_places, path)
    stop = asyncio.Event()
    task = asyncio.create_task(_notice(places, wake, stop))
    try:
        await asyncio.sleep(0)  # the task's first turn: it sets up the watch, and only then waits
        yield
    finally:
        stop.set()
        await task


async def _notice(places: Places, wake: asyncio.Event, stop: asyncio.Event) -> None:
    folders = {*places.folders, *(name.parent for name in places.names)}
    with suppress(OSError, RuntimeError):  # gone already, or out of inotify watches: `every` has to do
        async for _changes in awatch(
            *folders,
            watch_filter=places.matters,
            step=GATHER_MS,
            stop_event=stop,
            recursive=False,
            ignore_permission_denied=True,
        ):
            wake.set()


def _places(path: Path) -> Places:
    found = survey(path)
    inside = (*found.folders, *(file for _, file in found.files), *(stray for _, stray in found.strays if stray))
    leading = [path, *(place for place in inside if place.is_symlink())]
    names: set[Path] = set()
    for place in leading:
        with suppress(OSError):  # not ours to look into; the next look may see more
            names.update(links(place))
    return Places(frozenset(folder.resolve() for folder in found.folders), frozenset(names))
