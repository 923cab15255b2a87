"""The Docker engine and Compose, as their commands, and one project that leaves nothing behind."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENDS = 'cat; exec docker compose --project-name "$0" --profile "*" down --volumes --remove-orphans --timeout 5'
"""What ends a project: `cat` returns when whoever holds the other end of its input closes it, or dies."""


class EngineError(Exception):
    """A command of Docker failed; the text has what it said."""


def run(*argv: str | Path, env: Mapping[str, str] | None = None, within_s: float = 900, text: str = "") -> str:
    """Run a command in the project's folder and return what it printed; EngineError with its words if it fails."""
    try:
        done = subprocess.run(
            [str(arg) for arg in argv],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            input=text,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as why:
        raise EngineError(f"{argv[0]}: {why}") from why
    if done.returncode:
        said = (done.stdout + done.stderr)[-4000:]
        raise EngineError(f"{' '.join(str(arg) for arg in argv)}: status {done.returncode}\n{said}")
    return done.stdout


def missing() -> str:
    """Say what is missing to run docker-compose.yml, or nothing."""
    if shutil.which("docker") is None:
        return "there is no `docker` on PATH"
    try:
        run("docker", "version", within_s=30)
    except EngineError as why:
        return f"no Docker engine answers: {why}"
    try:
        version = run("docker", "compose", "version", "--short", within_s=30).strip().removeprefix("v")
    except EngineError as why:
        return f"there is no `docker compose`: {why}"
    return "" if int(version.split(".")[0]) >= 2 else f"Compose v2 is needed, and this is {version}"


def builder() -> dict[str, str]:
    """Return the setting for the builder that is there: an engine without buildx has only the classic one."""
    try:
        run("docker", "buildx", "version", within_s=30)
    except EngineError:
        return {"DOCKER_BUILDKIT": "0"}
    return {}


def has_image(name: str) -> bool:
    """Say whether the engine has an image."""
    try:
        run("docker", "image", "inspect", name, within_s=30)
    except EngineError:
        return False
    return True


def pulled(name: str) -> bool:
    """Pull an image, if a registry with it can be reached."""
    try:
        run("docker", "pull", "--quiet", name)
    except EngineError:
        return False
    return True


class Project:
    """docker-compose.yml under a project name of its own."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.name = f"ratelimit-svc-test-{uuid.uuid4().hex[:8]}"
        self.env = {**env, "COMPOSE_PROJECT_NAME": self.name}

    def compose(self, *args: str, text: str = "") -> str:
        """Run a command of Compose, and return what it printed."""
        return run("docker", "compose", *args, env=self.env, text=text)

    def up(self, *options: str) -> None:
        """Start what is of no profile, and wait until all of it is healthy."""
        try:
            self.compose("up", "--detach", "--wait", "--wait-timeout", "120", *options)
        except EngineError as why:
            raise EngineError(f"{why}\n{self.compose('logs', '--tail', '20')}") from why

    def to_the_end(self, *services: str) -> dict[str, str]:
        """Start the profiles of these, wait for them to end by themselves, and return what each logged.

        A service's profile is the first word of its name. EngineError if one of them failed.
        """
        self.compose("rm", "--force", "--stop", *services)  # what an earlier run logged is not of this one
        profiles = [word for service in services for word in ("--profile", service.partition("-")[0])]
        self.compose(*profiles, "up", "--detach")
        self.compose("wait", *services)
        logs = {service: self.compose("logs", service) for service in services}
        if any(container["State"]["ExitCode"] for container in self.inspect(*services)):
            raise EngineError("\n".join(f"{service}: {log[-2000:]}" for service, log in logs.items()))
        return logs

    def inspect(self, *services: str) -> list[dict[str, Any]]:
        """Return all that the engine knows of each container of these services, also of those that have ended."""
        ids = self.compose("ps", "--all", "--quiet", *services).split()
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", *ids))
        return found

    def python(self, service: str, code: str, *, index: int = 1) -> str:
        """Run a line of Python in a container, and return what it printed."""
        return self.compose("exec", "-T", "--index", str(index), service, "python3", "-c", code)

    def left(self) -> list[str]:
        """Everything of this project that the engine still has."""
        mine = f"label=com.docker.compose.project={self.name}"
        containers = run("docker", "ps", "--all", "--quiet", "--filter", mine)
        networks = run("docker", "network", "ls", "--quiet", "--filter", mine)
        volumes = run("docker", "volume", "ls", "--quiet", "--filter", mine)
        return (containers + networks + volumes).split()


@contextmanager
def project(env: Mapping[str, str]) -> Iterator[Project]:
    """A project that is taken down on leaving, and also if this process is killed."""
    mine = Project(env)
    end = subprocess.Popen(
        ["sh", "-c", ENDS, mine.name],
        cwd=ROOT,
        env={**os.environ, **mine.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: this one must live on
    )
    assert end.stdin is not None
    try:
        yield mine
    finally:
        end.stdin.close()
        end.wait(timeout=120)
    assert mine.left() == []
