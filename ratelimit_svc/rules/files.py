"""Files: a path → the bytes of every rule file there.

Rule 1: what cannot be read is a finding, like what cannot be understood, and all are collected.
Rule 2: names that start with a dot are no rules: Kubernetes keeps the real files of a ConfigMap in such folders
        (`..data`) and links the visible names to them. Nor are names that end in `~`: editors keep old versions there.
Rule 3: a name says whether a file must hold rules (`SUFFIXES`); any other visible file may. The reference implementation
        loads every file, whatever its name, so this one reads them all, and `load` looks into those strays.
Rule 4: links are followed, and each real folder is entered once, so that a link to a parent does no harm.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ratelimit_svc.errors import Finding, RulesError

SUFFIXES = (".yaml", ".yml", ".json")

MAX_BYTES = 16 * 1024 * 1024
"""Of one file. A ConfigMap holds 1 MiB; what is larger than this is not a rule file but a mistake."""


@dataclass(frozen=True, slots=True)
class RuleFile:
    """One file's name and bytes, as read at one time."""

    name: str
    """As the user wrote it, or as it stands below the rules folder."""
    data: bytes = field(repr=False)
    """At most MAX_BYTES + 1 of them: one more than allowed is enough to see that it is too much."""
    stray: bool = False
    """True: its name does not say that it holds rules, so only its bytes can."""


@dataclass(slots=True)
class Survey:
    """What stands at a path, by name only."""

    files: list[tuple[str, Path]] = field(default_factory=list)
    """Each rule file, with the name that findings use; sorted by it."""
    folders: list[Path] = field(default_factory=list)
    strays: list[tuple[str, Path | None]] = field(default_factory=list)
    """Each other visible file; None for what is no regular file and so is not opened."""
    findings: list[Finding] = field(default_factory=list)


def read(path: Path) -> tuple[RuleFile, ...]:
    """Read one rule file, or every file below a folder: *.yaml, *.yml and *.json, then strays, each sorted by name.

    A stray that cannot be read is as good as empty: nothing says that it was to be read.

    Raises:
        RulesError: The path is missing, holds no file at all, or a rule file there cannot be read.
    """
    found = survey(path)
    files = []
    for name, place in found.files:
        try:
            files.append(RuleFile(name, _read_bytes(place)))
        except OSError as error:
            found.findings.append(_unreadable(name, error))
    for name, stray in found.strays:
        data = b""
        with suppress(OSError):
            data = _read_bytes(stray) if stray else b""
        files.append(RuleFile(name, data, stray=True))
    if not files and not found.findings:
        found.findings.append(Finding(str(path), 0, "", _NO_RULE_FILE))
    if found.findings:
        raise RulesError(found.findings)
    return tuple(files)


def survey(path: Path) -> Survey:
    """List what stands at a path without reading it."""
    found = Survey()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        found.findings.append(_unreadable(str(path), error, "; give a rule file, or a folder of them"))
        return found
    if stat.S_ISDIR(mode):
        _survey_folder(found, path)
        found.files.sort()
        found.strays.sort(key=lambda stray: stray[0])
    elif stat.S_ISREG(mode):
        found.files.append((str(path), path))
    else:  # reading a pipe could last for ever, and gives something else the next time
        found.findings.append(Finding(str(path), 0, "", "not a regular file; give a rule file, or a folder of them"))
    return found


def _survey_folder(found: Survey, top: Path) -> None:
    entered: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            place = folder.stat()
            if (place.st_dev, place.st_ino) in entered:
                continue
            entered.add((place.st_dev, place.st_ino))
            children = sorted(folder.iterdir(), reverse=True)
        except OSError as error:
            found.findings.append(_unreadable(_below(top, folder), error))
            continue
        found.folders.append(folder)
        for child in children:
            if not child.name.startswith(".") and not child.name.endswith("~"):
                _sort_in(found, top, child, waiting)


def _sort_in(found: Survey, top: Path, child: Path, waiting: list[Path]) -> None:
    try:
        mode = child.stat().st_mode
    except OSError:
        mode = stat.S_IFREG  # a broken link: if its name is a rule file's, reading it says what is wrong
    if stat.S_ISDIR(mode):
        waiting.append(child)
    elif stat.S_ISREG(mode) and child.suffix.lower() in SUFFIXES:
        found.files.append((_below(top, child), child))
    else:
        found.strays.append((_below(top, child), child if stat.S_ISREG(mode) else None))


def links(path: Path) -> Iterator[Path]:
    """Yield every symbolic link passed on the way to `path`, and last what it leads to; all without links before them.

    A missing name ends the way: it is yielded, being what would have to appear.
    """
    waiting = list(reversed(path.absolute().parts))
    here = Path(waiting.pop())
    passed = 0
    while waiting:
        name = waiting.pop()
        step = here.parent if name == ".." else here / name
        if step.is_symlink() and passed < 40:  # as many as Linux follows before it calls them a loop
            passed += 1
            yield step
            target = step.readlink()
            waiting.extend(reversed(target.parts))
            step = here
            if target.is_absolute():
                step = Path(waiting.pop())
        elif not step.exists():
            yield step
            return
        here = step
    yield here


def _read_bytes(place: Path) -> bytes:
    with place.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _below(top: Path, child: Path) -> str:
    name = child.relative_to(top).as_posix()
    return os.fsencode(name).decode("utf-8", "replace")  # a name that is not UTF-8 could not be printed


def _unreadable(name: str, error: OSError, what_to_do: str = "") -> Finding:
    return Finding(name, 0, "", f"cannot be read: {error.strerror or error}{what_to_do}")


_NO_RULE_FILE = (
    f"no rule file in this folder; rule files are named {', '.join(f'*{suffix}' for suffix in SUFFIXES)} and do not start "
    "with a dot"
)
