"""One project for all tests, started once. Without an engine nothing here is skipped: the run fails and says so."""

import pytest

from tests.docker.engine import missing, project
from tests.docker.images import variables


def pytest_sessionstart(session):
    """End the run where there is no engine."""
    if what := missing():
        pytest.exit(
            f"these tests run docker-compose.yml for real and need Docker with Compose v2: {what}", returncode=1
        )


@pytest.fixture(scope="session")
def compose():
    """The compose file, up and healthy, on ports of its own, and taken down at the end."""
    from ratelimit_svc.demo.child import free_port

    ports = {"ENVOY_PORT": str(free_port()), "ENVOY_ADMIN_PORT": str(free_port())}
    with project({"LOAD_SECONDS": "8", **variables(), **ports}) as mine:
        mine.compose("build", "load")
        mine.up("--build")
        yield mine
