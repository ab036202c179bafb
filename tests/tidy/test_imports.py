"""Imports go one way."""

import contextlib
import io

import pytest
from importlinter.cli import lint_imports

from tests.tidy.source import ROOT


def test_the_import_contracts_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contracts of pyproject.toml ([tool.importlinter]) are kept; `make lint` shows what breaks one."""
    monkeypatch.chdir(ROOT)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exit_code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)

    assert exit_code == 0, said.getvalue()
