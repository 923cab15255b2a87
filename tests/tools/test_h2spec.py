"""h2spec: the HTTP/2 and HPACK specifications as a client that breaks them, against the engine that is ours."""

import asyncio
import subprocess
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from ratelimit_svc.demo import shipped
from ratelimit_svc.demo.parts import Replica

ALL = ("generic", "http2", "hpack")
CASES = 145
"""How many there are in these three."""


class Case(NamedTuple):
    """One case of h2spec."""

    name: str
    """Section and title."""
    why: str
    """What was expected and what came; empty if it passed."""


async def cases(h2spec, folder, *, engine: str, sections: Sequence[str]) -> list[Case]:
    """Start the service with an engine and try sections of the specifications on it."""
    async with Replica(folder / "replica", rules=shipped("demo.yaml"), env={"ENGINE": engine}) as replica:
        return await tried(h2spec, replica.grpc_port, folder / "h2spec.xml", sections)


async def tried(h2spec, port, report, sections) -> list[Case]:
    """Run h2spec to its end and read its report."""
    command = [h2spec, *sections, "--host", "127.0.0.1", "--port", port, "--junit-report", report]
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = await process.communicate()
    assert process.returncode in (0, 1), said.decode()
    return [
        Case(f"{case.get('package')}: {case.get('classname')}", _why(case))
        for case in ET.parse(report).iter("testcase")
    ]


def _why(case: ET.Element) -> str:
    return "; ".join(f"{bad.tag}: {bad.text or ''}".strip() for bad in case)


@pytest.mark.timeout(300)
async def test_our_engine_passes_every_case(h2spec, tmp_path):
    """All of the specifications, with nothing failed and nothing skipped."""
    found = await cases(h2spec, tmp_path, engine="http2", sections=ALL)
    assert [case for case in found if case.why] == []
    assert len(found) == CASES


async def test_a_case_that_fails_is_seen(h2spec, tmp_path):
    """grpcio keeps a connection whose Huffman padding is wrong, so the harness can tell good from bad."""
    found = await cases(h2spec, tmp_path, engine="grpcio", sections=("hpack",))
    assert len(found) > 5
    assert 0 < len([case for case in found if case.why]) < len(found)
