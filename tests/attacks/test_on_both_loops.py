"""On both loops: files that run out, and a flood of each kind. Replicas of their own."""

import pytest

from ratelimit_svc.wire.http2.engine import FILES_LEFT
from ratelimit_svc.wire.http2.frames import ErrorCode
from tests.attacks.honest import ASKED, Honest
from tests.attacks.offender import Offender
from tests.attacks.target import FILES, RULES, WithFewFiles, cpu_s
from tests.bench.cost import memory_mb, open_files
from tests.http2.client import OTHER, block, body, head, ping, reset, settings, window


@pytest.fixture(params=["uvloop", "asyncio"])
async def replica(tmp_path, request):
    """A replica on each loop, which may open few files."""
    (tmp_path / "rules.yaml").write_text(RULES)
    env = {"LOOP": request.param}
    async with WithFewFiles(tmp_path / "replica", rules=tmp_path / "rules.yaml", env=env) as started:
        yield started


@pytest.fixture
def honest(replica):
    """A client that was served before it all."""
    with Honest(replica.grpc_port) as one:
        one.ask()
        yield one


async def test_connections_beyond_the_files_there_are(replica, honest):
    """They are closed at once; those before them are served, files are left for others, and nothing spins."""
    begun = cpu_s(replica.pid)
    offenders = [Offender(replica.grpc_port) for _ in range(FILES)]
    for offender in offenders[-50:]:
        offender.until_closed()
        assert offender.closed
    assert honest.ask() < 1
    assert open_files(replica.pid) <= FILES - FILES_LEFT + 50
    assert cpu_s(replica.pid) - begun < 1
    quiet = cpu_s(replica.pid)
    offenders[0].listen(lambda: False, within_s=0.5)
    assert cpu_s(replica.pid) - quiet < 0.1
    for offender in offenders:
        offender.close()
    with Offender(replica.grpc_port) as late:
        late.send(ping())
        late.listen(lambda: late.heard["PING"] > 0)
    assert late.heard["PING"] == 1
    assert "Traceback" not in replica.log.read_text()


async def test_floods_on_both_loops(replica, honest):
    """Frames, resets, answers that nobody reads: as in the other tests, with less to measure."""
    memory, begun = memory_mb(replica.pid), cpu_s(replica.pid)
    with Offender(replica.grpc_port) as offender:
        offender.flood(ping() * 1000)
        assert offender.code is ErrorCode.ENHANCE_YOUR_CALM
    with Offender(replica.grpc_port) as offender:
        other = block({":path": OTHER})
        offender.send(b"".join(head(number, other) + reset(number) for number in range(1, 20_000, 2)))
        offender.listen(lambda: offender.code is not None)
        assert offender.code is ErrorCode.ENHANCE_YOUR_CALM
    with Offender(replica.grpc_port, reads=False) as offender:
        offender.send(settings(INITIAL_WINDOW_SIZE=2**31 - 1) + window(0, 2**30))
        offender.send(b"".join(head(number) + body(number, ASKED) for number in range(1, 20_000, 2)), within_s=1)
        assert honest.ask() < 1
    assert honest.ask() < 1
    assert memory_mb(replica.pid) - memory < 40
    assert cpu_s(replica.pid) - begun < 3
    assert "Traceback" not in replica.log.read_text()
