"""One container of such a manifest on this machine: the program of the same name, the same variables, folders as a kubelet mounts them."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ratelimit_svc.demo.child import Child, free_port
from ratelimit_svc.demo.parts import LOOPBACK, get
from tests.waiting import PATIENCE

PROGRAM = Path(sys.executable).parent / "ratelimit"
MOUNTS = ("/data", "/certs", "/etc/statsd-exporter", "/redis-certs")
"""Folders of the manifests, each of which is below the pod's own folder here."""


class Pod(Child):
    """`/bin/ratelimit` with a manifest's variables.

    Args:
        folder: what is the root of the file system there.
        env: the manifest's variables, to the letter.
        hosts: the addresses in them, and what is there on this machine.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], hosts: Mapping[str, str], *, name: str = "pod") -> None:
        self.root = folder
        # several pods share this machine, and none may have 8080 for itself
        self.port, self.grpc_port, self.debug_port = free_port(), free_port(), free_port()
        ports = {"PORT": self.port, "GRPC_PORT": self.grpc_port, "DEBUG_PORT": self.debug_port}
        there = {variable: self.here(hosts.get(value, value)) for variable, value in env.items()}
        own = {variable: str(port) for variable, port in ports.items()}
        super().__init__(
            name,
            [PROGRAM],
            folder=folder,
            env={**PATIENCE, "DRAIN_DELAY": "0s", **there, **own, "PYTHONUNBUFFERED": "1"},
        )

    def here(self, path: str) -> str:
        """Where a mounted path of the manifest is on this machine; other texts stay as they are."""
        return f"{self.root}{path}" if path.startswith(MOUNTS) else path

    @property
    def address(self) -> str:
        """`host:port` of its gRPC side."""
        return f"{LOOPBACK}:{self.grpc_port}"

    async def probe(self, host: str = LOOPBACK) -> tuple[int, str]:
        """What a kubelet's probe is told: GET /healthcheck on the HTTP port."""
        return await get(f"http://{host}:{self.port}/healthcheck")

    async def ready(self) -> bool:
        """Its probes succeed."""
        return (await self.probe())[0] == 200


class ConfigMap:
    """A folder as a kubelet keeps it: the files are links into `..data`, which is a link to where they really are."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir(parents=True)
        self.put(files)
        for name in files:
            (folder / name).symlink_to(f"..data/{name}")

    def put(self, files: Mapping[str, str]) -> None:
        """Replace all files at once."""
        self._version += 1
        real = self.folder / f"..2026_11_25_12_00_{self._version:02}.123456789"
        real.mkdir()
        for name, text in files.items():
            (real / name).write_text(text)
        link = self.folder / "..data_tmp"
        link.symlink_to(real.name)
        os.replace(link, self.folder / "..data")  # noqa: PTH105 — what a kubelet does
