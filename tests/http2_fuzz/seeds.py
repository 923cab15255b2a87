"""Writes a corpus for `target`: connections as Hypothesis writes them, whole and damaged, the same every time.

python -m tests.http2_fuzz.seeds FOLDER
"""

import sys
from hashlib import sha256
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from tests.http2_fuzz.damage import wires

SEEDS = 300


def write(folder: Path) -> None:
    """Write each into a file named by what it holds."""
    folder.mkdir(parents=True, exist_ok=True)

    @settings(
        max_examples=SEEDS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(wires())
    def one(wire: bytes) -> None:
        (folder / sha256(wire).hexdigest()[:16]).write_bytes(wire)

    one()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
