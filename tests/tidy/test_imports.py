"""Imports go one way."""

import subprocess
import sys
from pathlib import Path

from tests.tidy.source import ROOT


def test_the_import_contracts_hold() -> None:
    """The contracts of pyproject.toml ([tool.importlinter]) are kept; `make lint` shows the same."""
    # A process of its own: the tool sets up logging for the whole process it runs in.
    linter = Path(sys.executable).with_name("lint-imports")
    told = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert told.returncode == 0, told.stdout + told.stderr
