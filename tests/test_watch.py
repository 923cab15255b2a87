"""Watching: real files in a real folder, changed as editors, deployments and the kubelet change them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from ratelimit_svc.errors import RulesError
from ratelimit_svc.rules.files import RuleFile, read
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.rules.watch import watch

DATA = Path(__file__).parent / "data"

PATIENCE = 10.0
"""Seconds that a test waits for what must come; a pass takes a fraction of one."""
NEVER = 3_600.0
"""Seconds between looks without a notice, where a test proves the notice."""


def rules(limit: int | str, domain: str = "shop") -> str:
    return f"domain: {domain}\ndescriptors: [{{key: k, rate_limit: {{unit: second, requests_per_unit: {limit}}}}}]\n"


def put(file: Path, text: str) -> None:
    """Create or replace a file at once, as careful writers do: nobody ever sees half of it."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.rename(file)


def overwrite(file: Path, text: str) -> None:
    """Edit a file in place with one write, so that a look sees all of it or nothing."""
    with file.open("r+b", buffering=0) as opened:
        opened.write(text.ljust(file.stat().st_size, "\n").encode())


def replace_link(link: Path, target: str) -> None:
    """Point a link elsewhere as the kubelet does it: a new link is renamed over the old one."""
    fresh = link.with_name(f"{link.name}_tmp")
    fresh.symlink_to(target)
    fresh.rename(link)


class Wake(asyncio.Event):
    """A wake event that tells when a look begins: then it is cleared."""

    def __init__(self) -> None:
        super().__init__()
        self._looks: asyncio.Queue[None] = asyncio.Queue()

    def clear(self) -> None:
        super().clear()
        self._looks.put_nowait(None)

    async def looked(self) -> None:
        """Force a look and wait for its end, that is, for the beginning of one more."""
        for _ in range(2):
            while not self._looks.empty():
                self._looks.get_nowait()
            self.set()
            async with asyncio.timeout(PATIENCE):
                await self._looks.get()


class Watched:
    """What a watch has reported, one at a time."""

    def __init__(self) -> None:
        self.wake = Wake()
        self.reports: asyncio.Queue[RuleSet | RulesError] = asyncio.Queue()

    async def report(self) -> RuleSet | RulesError:
        async with asyncio.timeout(PATIENCE):
            return await self.reports.get()

    async def limit(self) -> int:
        """The limit of the first rule of the next report, which must be a good one."""
        report = await self.report()
        assert isinstance(report, RuleSet), report
        assert report.rules[0].limit
        return report.rules[0].limit.requests_per_unit

    async def error(self) -> str:
        report = await self.report()
        assert isinstance(report, RulesError), report
        return str(report)


@asynccontextmanager
async def watching(path: Path, *, every: float = NEVER, **options) -> AsyncIterator[Watched]:
    watched = Watched()
    task = asyncio.create_task(
        watch(
            path,
            lambda ruleset, _files: watched.reports.put_nowait(ruleset),
            watched.reports.put_nowait,
            wake=watched.wake,
            every=every,
            **options,
        )
    )
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert watched.reports.empty(), watched.reports.get_nowait()


async def test_an_edit_in_place_is_noticed(tmp_path):
    """A file written again, once and again, brings its new rules each time."""
    file = tmp_path / "rules.yaml"
    file.write_text(rules(1))
    async with watching(tmp_path) as watched:
        assert await watched.limit() == 1
        for limit in (2, 3):
            overwrite(file, rules(limit))
            assert await watched.limit() == limit


async def test_a_single_file_is_watched(tmp_path):
    """A path to a file works like a folder, also when an editor replaces the file by rename."""
    file = tmp_path / "rules.yaml"
    file.write_text(rules(1))
    async with watching(file) as watched:
        assert await watched.limit() == 1
        put(file, rules(2))
        assert await watched.limit() == 2
        overwrite(file, rules(3))
        assert await watched.limit() == 3


async def test_files_come_and_go(tmp_path):
    """A new file adds its domain, also in a new folder below; a removed one takes it away."""
    (tmp_path / "a.yaml").write_text(rules(1))
    async with watching(tmp_path) as watched:
        assert await watched.limit() == 1
        (tmp_path / "below").mkdir()
        put(tmp_path / "below" / "b.yaml", rules(2, domain="other"))
        both = await watched.report()
        assert isinstance(both, RuleSet)
        assert list(both.domains) == ["shop", "other"]
        overwrite(tmp_path / "below" / "b.yaml", rules(3, domain="third"))
        both = await watched.report()
        assert isinstance(both, RuleSet)
        assert list(both.domains) == ["shop", "third"]
        (tmp_path / "a.yaml").unlink()
        assert await watched.limit() == 3


async def test_a_bad_change_is_an_error_once_and_a_good_one_follows(tmp_path):
    """Wrong files are reported, the same fault only once, and what is right again is reported as rules."""
    file = tmp_path / "rules.yaml"
    file.write_text(rules(1))
    async with watching(tmp_path) as watched:
        assert await watched.limit() == 1
        overwrite(file, rules("many"))
        assert "rules.yaml:2: descriptors[0].rate_limit.requests_per_unit: 'many' is text" in await watched.error()
        overwrite(file, rules("many") + "# the same fault\n")
        await watched.wake.looked()
        overwrite(file, "domain: [")
        assert "not YAML" in await watched.error()
        overwrite(file, rules(1))
        assert await watched.limit() == 1
        overwrite(file, "domain: [")
        assert "not YAML" in await watched.error()


async def test_a_half_written_file_is_an_error_until_it_is_whole(tmp_path):
    """A slow writer is seen at work: its half is an error, and its whole follows."""
    file = tmp_path / "rules.yaml"
    file.write_text(rules(1))
    async with watching(tmp_path) as watched:
        assert await watched.limit() == 1
        with file.open("w") as opened:
            opened.flush()
            assert "holds no rules" in await watched.error()
            opened.write("domain: sh")
            opened.flush()
            watched.wake.set()
            assert isinstance(await watched.report(), RuleSet)
            opened.write("op\ndescriptors: 5")
            opened.flush()
            assert "'5' stands where a list is expected" in await watched.error()
        overwrite(file, rules(2))
        assert await watched.limit() == 2


async def test_removed_files_are_an_error(tmp_path):
    """All files gone is not "no limits": it is an error, and so is a folder gone; both heal."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "rules.yaml").write_text(rules(1))
    async with watching(folder) as watched:
        assert await watched.limit() == 1
        (folder / "rules.yaml").unlink()
        assert "no rule file in this folder" in await watched.error()
        folder.rmdir()
        assert "No such file or directory" in await watched.error()
        folder.mkdir()
        assert "no rule file in this folder" in await watched.error()
        put(folder / "rules.yaml", rules(2))
        assert await watched.limit() == 2


async def test_a_missing_path_is_waited_for(tmp_path):
    """A path that does not exist yet is an error, and is noticed once it is there."""
    folder = tmp_path / "not" / "yet"
    async with watching(folder, every=0.1) as watched:
        assert "No such file or directory" in await watched.error()
        fresh = tmp_path / "fresh"
        (fresh / "yet").mkdir(parents=True)
        (fresh / "yet" / "rules.yaml").write_text(rules(1))
        fresh.rename(tmp_path / "not")
        assert await watched.limit() == 1


class ConfigMap:
    """A mounted ConfigMap, changed in the kubelet's order."""

    def __init__(self, folder: Path, **files: str) -> None:
        self.folder = folder
        self.version = 0
        self.publish(**files)

    def publish(self, **files: str) -> None:
        self.version += 1
        fresh = self.folder / f"..2026_01_01_00_00_{self.version:02}.1"
        fresh.mkdir()
        for name, text in files.items():
            (fresh / f"{name}.yaml").write_text(text)
        old = (self.folder / "..data").readlink() if self.version > 1 else None
        replace_link(self.folder / "..data", fresh.name)
        for name in files:
            link = self.folder / f"{name}.yaml"
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}.yaml")
        for link in self.folder.glob("*.yaml"):
            if link.stem not in files:
                link.unlink()
        if old is not None:
            for file in (self.folder / old).iterdir():
                file.unlink()
            (self.folder / old).rmdir()


async def test_a_configmap_update_is_noticed(tmp_path):
    """Kubernetes swaps `..data`; no visible name changes, and the rules do, time after time."""
    mount = ConfigMap(tmp_path, rules=rules(1))
    async with watching(tmp_path) as watched:
        assert await watched.limit() == 1
        for limit in (2, 3, 4):
            mount.publish(rules=rules(limit))
            assert await watched.limit() == limit


async def test_a_single_file_of_a_configmap_is_watched(tmp_path):
    """A path to one file of a ConfigMap leads through `..data`, and its swap is noticed."""
    mount = ConfigMap(tmp_path, rules=rules(1), other="domain: [")
    async with watching(tmp_path / "rules.yaml") as watched:
        assert await watched.limit() == 1
        for limit in (2, 3):
            mount.publish(rules=rules(limit), other="domain: [")
            assert await watched.limit() == limit


async def test_a_root_that_is_a_link_may_be_swapped(tmp_path):
    """RUNTIME_ROOT is a link to a release, and rules lie in a folder below it: swapping the link is a change."""
    for release in (1, 2, 3):
        folder = tmp_path / "releases" / str(release) / "ratelimit" / "config"
        folder.mkdir(parents=True)
        (folder / "rules.yaml").write_text(rules(release))
    (tmp_path / "srv").mkdir()
    current = tmp_path / "srv" / "current"
    current.symlink_to("../releases/1")
    async with watching(current / "ratelimit" / "config") as watched:
        assert await watched.limit() == 1
        replace_link(current, "../releases/2")
        assert await watched.limit() == 2
        replace_link(current, str(tmp_path / "releases" / "3"))
        assert await watched.limit() == 3
        overwrite(tmp_path / "releases" / "3" / "ratelimit" / "config" / "rules.yaml", rules(4))
        assert await watched.limit() == 4


async def test_a_file_that_is_a_link_to_elsewhere_is_watched(tmp_path):
    """An edit of what a link in the folder leads to is a change in the folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real.yaml").write_text(rules(1))
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "rules.yaml").symlink_to("../elsewhere/real.yaml")
    async with watching(folder) as watched:
        assert await watched.limit() == 1
        overwrite(tmp_path / "elsewhere" / "real.yaml", rules(2))
        assert await watched.limit() == 2


async def test_what_does_not_change_the_bytes_is_no_change(tmp_path):
    """Hidden files, old versions, new times and a forced look bring no report."""
    file = tmp_path / "rules.yaml"
    file.write_text(rules(1))
    async with watching(tmp_path) as watched:
        assert await watched.limit() == 1
        (tmp_path / "rules.yaml~").write_text("not rules")
        (tmp_path / ".rules.yaml.swp").write_text("not rules")
        os.utime(file, (0, 0))
        await watched.wake.looked()
        overwrite(file, rules(2))
        assert await watched.limit() == 2  # and nothing before it


async def test_a_stray_file_is_a_warning_and_strictly_an_error(tmp_path):
    """A file that is no rule file changes no rule; where rules are read strictly it keeps new ones out."""
    (tmp_path / "rules.yaml").write_text(rules(1))
    async with watching(tmp_path) as watched, watching(tmp_path, loader=partial(load, strict=True)) as strict:
        assert await watched.limit() == await strict.limit() == 1
        put(tmp_path / "NOTES", "not rules")
        report = await watched.report()
        assert isinstance(report, RuleSet)
        assert [warning.file for warning in report.warnings] == ["NOTES"]
        assert "NOTES: not a rule file: ignored" in await strict.error()
        put(tmp_path / "NOTES", rules(2, domain="other"))
        for each in (watched, strict):
            both = await each.report()
            assert isinstance(both, RuleSet)
            assert list(both.domains) == ["shop", "other"]
            assert both.warnings == ()


@pytest.mark.parametrize("file", sorted(DATA.glob("bad_*.yaml")), ids=lambda file: file.stem)
async def test_no_bad_file_changes_the_rules_in_force(tmp_path, file):
    """Whatever is wrong with a file, it is an error, and the watch goes on."""
    (tmp_path / "rules.yaml").write_text(rules(1))
    async with watching(tmp_path) as watched:
        assert await watched.limit() == 1
        put(tmp_path / "bad.yaml", file.read_text())
        assert "bad" in await watched.error()


async def change_unnoticed(folder: Path, text: str) -> None:
    """Change a file in a way that inotify does not tell: through another name of it, outside the folder."""
    other_name = folder.parent / "hard-link"
    if not other_name.exists():
        other_name.hardlink_to(folder / "rules.yaml")
    overwrite(other_name, text)


async def test_without_notices_a_look_comes_by_itself(tmp_path):
    """A change that the file system does not tell of is seen at the next look."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "rules.yaml").write_text(rules(1))
    async with watching(folder, every=0.1) as watched:
        assert await watched.limit() == 1
        await change_unnoticed(folder, rules(2))
        assert await watched.limit() == 2


async def test_a_look_can_be_forced(tmp_path):
    """Setting the wake event (SIGHUP) has the files looked at now."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "rules.yaml").write_text(rules(1))
    async with watching(folder) as watched:
        assert await watched.limit() == 1
        await change_unnoticed(folder, rules(2))
        watched.wake.set()
        assert await watched.limit() == 2


async def test_rules_that_are_known_are_not_reported(tmp_path):
    """What the caller loaded already is no change; what changed since then is."""
    file = tmp_path / "rules.yaml"
    file.write_text(rules(1))
    known = read(tmp_path)
    async with watching(tmp_path, known=known) as watched:
        overwrite(file, rules(2))
        assert await watched.limit() == 2
    overwrite(file, rules(3))
    async with watching(tmp_path, known=known) as watched:
        assert await watched.limit() == 3


async def test_the_files_come_with_the_rules(tmp_path):
    """Who shows rules can show the text they came from."""
    (tmp_path / "rules.yaml").write_text(rules(1))
    reports: asyncio.Queue[tuple[RuleSet, tuple[RuleFile, ...]]] = asyncio.Queue()
    errors: list[RulesError] = []
    task = asyncio.create_task(watch(tmp_path, lambda *report: reports.put_nowait(report), errors.append))
    async with asyncio.timeout(PATIENCE):
        _, files = await reports.get()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert files == (RuleFile("rules.yaml", rules(1).encode()),)
    assert not errors


async def test_cancelling_leaves_nothing_behind(tmp_path):
    """A cancelled watch ends only when its waiting thread has, and that takes a moment, at whatever point it is caught."""
    (tmp_path / "rules.yaml").write_text(rules(1))
    before = asyncio.all_tasks()
    async with asyncio.timeout(PATIENCE):
        async with watching(tmp_path) as watched:
            assert await watched.limit() == 1
        for turns in range(12):
            async with watching(tmp_path, known=read(tmp_path)):
                for _ in range(turns):
                    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
