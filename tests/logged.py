"""What a replica has logged, with LOG_FORMAT=json."""

import json
from typing import Any

from ratelimit_svc.demo.child import Child


def log_of(replica: Child) -> list[dict[str, Any]]:
    """All lines of its log."""
    return [json.loads(line) for line in replica.log.read_text().splitlines()]


def logged(replica: Child, message: str) -> list[dict[str, Any]]:
    """Those lines whose message begins so."""
    return [line for line in log_of(replica) if line["@message"].startswith(message)]
