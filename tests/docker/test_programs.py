"""The image in the place of the reference implementation's: its programs, its user, its folders, with Istio's sample unchanged."""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.contracts.manifests import ISTIO, ISTIO_MOUNT, ISTIO_RULES
from tests.docker.engine import EngineError, run

pytestmark = pytest.mark.timeout(1200)  # the first run makes images

LOCKED_DOWN = ("--read-only", "--user=65534:65534", "--cap-drop=ALL", "--security-opt=no-new-privileges:true")
PROGRAMS = ("ratelimit", "ratelimit_client", "ratelimit_config_check")


@dataclass
class Container:
    """A container of the image, with `/bin/ratelimit` as the manifest's command."""

    name: str

    def health(self) -> str:
        """What the engine found when it checked last."""
        (found,) = json.loads(run("docker", "inspect", self.name))
        assert found["State"]["Running"], run("docker", "logs", self.name)
        return str(found["State"]["Health"]["Status"])

    def call(self, *command: str) -> str:
        """Run a program in it, and return what it printed."""
        return run("docker", "exec", self.name, *command)


@pytest.fixture(scope="module")
def sample(compose, tmp_path_factory) -> Iterator[Container]:
    """Istio's sample: its environment to the letter, its rules where it mounts them, and a store of the name `redis`."""
    rules = tmp_path_factory.mktemp("config")
    rules.chmod(0o755)
    (rules / "config.yaml").write_text(ISTIO_RULES)
    (store,) = compose.inspect("valkey")
    ((network, joined),) = store["NetworkSettings"]["Networks"].items()
    container = Container(f"{compose.name}-istio-{uuid.uuid4().hex[:8]}")
    settings = [f"--env={name}={value}" for name, value in ISTIO.items()]
    reached = (f"--network={network}", f"--add-host=redis:{joined['IPAddress']}")
    mounted = f"--volume={rules}:{ISTIO_MOUNT}:ro"
    image, named = compose.env["RATELIMIT_IMAGE"], ("--name", container.name)
    begin = ("docker", "run", "--detach", *named, *LOCKED_DOWN, *reached, mounted, "--entrypoint=/bin/ratelimit")
    try:
        run(*begin, *settings, image)
        wait_until_healthy(container)
        yield container
    finally:
        run("docker", "rm", "--force", container.name)


def wait_until_healthy(container: Container) -> None:
    """Look at it until the image's own check succeeds."""
    deadline = time.monotonic() + 120
    while container.health() != "healthy":
        if time.monotonic() > deadline:
            raise EngineError(run("docker", "logs", container.name))
        time.sleep(0.5)


def test_istios_sample_starts_it(sample):
    """Unchanged and locked down, it answers by the sample's limits: one a minute for the product page."""
    asked = (
        "/bin/ratelimit_client",
        "-dial_string=localhost:8081",
        "-domain=ratelimit",
        "-descriptors=PATH=/productpage",
    )
    answers = [sample.call(*asked).splitlines()[-1] for _ in range(3)]
    codes = [answer.split()[1] for answer in answers]
    assert codes == ["overall_code:OK", "overall_code:OVER_LIMIT", "overall_code:OVER_LIMIT"]


def test_its_rules_are_found_where_the_sample_mounts_them(sample):
    """By the program that a pipeline would run before."""
    told = sample.call("/bin/ratelimit_config_check", "-config_dir", ISTIO_MOUNT)
    assert told.splitlines()[-2:] == [f"opening config file: {ISTIO_MOUNT}/config.yaml", "all rate limit configs ok"]


def test_counts_are_in_the_stores_that_it_was_told_of(sample, compose):
    """Not in its own memory: the window of the product page is in Valkey."""
    sample.call("/bin/ratelimit_client", "-domain", "ratelimit", "-descriptors", "PATH=/somewhere")
    ask = "import socket; s=socket.create_connection(('redis', 6379)); s.sendall(b'DBSIZE\\r\\n'); print(s.recv(99))"
    assert sample.call("python3", "-c", ask).startswith("b':")
    assert int(sample.call("python3", "-c", ask).removeprefix("b':").split("\\")[0]) > 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_are_in_bin(compose, program):
    """By the absolute paths that manifests and scripts call."""
    found = run("docker", "run", "--rm", "--entrypoint=ls", compose.env["RATELIMIT_IMAGE"], f"/bin/{program}")
    assert found.split() == [f"/bin/{program}"]


def test_the_image_says_what_it_is(compose):
    """Its user, and the four ports."""
    (image,) = json.loads(run("docker", "image", "inspect", compose.env["RATELIMIT_IMAGE"]))
    assert image["Config"]["User"] == "65534:65534"
    assert image["Config"]["ExposedPorts"].keys() == {f"{port}/tcp" for port in (8080, 8081, 6070, 19001)}
