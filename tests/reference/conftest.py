"""Replicas, one process each, as the reference implementation's users would start them."""

from collections.abc import Iterator

import pytest

from ratelimit_svc.demo.parts import Replica
from tests.engines import ENGINES
from tests.reference.asking import RULES
from tests.waiting import PATIENCE, for_the_session


@pytest.fixture(scope="session", params=ENGINES)
def replica(request, tmp_path_factory) -> Iterator[Replica]:
    """A replica of each engine that counts and answers as the reference does, whatever else this machine does."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "rules.yaml").write_text(RULES)
    env = PATIENCE | {
        "ENGINE": request.param,
        "DEFAULT_ALGORITHM": "fixed_window",
        "LIMIT_RESPONSE_HEADERS_ENABLED": "T",
        "LIMIT_LIMIT_HEADER": "X-Limit",
        "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT": "true",
        "LOCAL_CACHE_SIZE_IN_BYTES": "524288",
    }
    with for_the_session(Replica(folder / "replica", rules=folder / "rules.yaml", env=env)) as started:
        yield started
