"""What the targets of the Makefile say where a program is missing that they need and cannot get."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def said(command, folder):
    """Run it where PATH has nothing, in which it must fail; return what it says."""
    done = subprocess.run(command, cwd=ROOT, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_without_go_the_programs_are_missed_in_words(tmp_path):
    """`make test-tools` and `make loadtest` build theirs by Go."""
    make = shutil.which("make")
    command = [make, "--what-if=Makefile", "--old-file=.venv/installed", ".venv/tools/ghz"]
    assert "ghz is built by Go, and there is no Go here" in said(command, tmp_path)


def test_without_nghttp2_its_programs_are_missed_in_words(tmp_path):
    """`make test-h2load` takes those that the system has; one of two is one too few."""
    (tmp_path / "nghttp").symlink_to(sys.executable)
    text = said([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/nghttp2"], tmp_path)
    assert "needs h2load on PATH, of nghttp2" in text
