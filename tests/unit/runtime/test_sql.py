"""Named queries come out of their file whole, and a bad file is refused."""

import sys
from pathlib import Path

import pytest

from pipeline.runtime.sql import Queries, load_queries


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable package of this test's own, without any SQL yet."""
    name = f"package_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def _load(tmp_path: Path, package: str, text: str) -> Queries:
    (tmp_path / package / "queries.sql").write_text(text)
    return load_queries(package)


def test_each_name_gives_its_statement_with_its_comments(tmp_path: Path, package: str) -> None:
    """The comment lines stay: they show in pg_stat_activity."""
    text = "-- The file's own words.\n\n-- name: one\n-- Why.\nSELECT 1\n\n-- name: two\nSELECT\n    2\n"
    queries = _load(tmp_path, package, text)

    assert dict(queries) == {"one": "-- Why.\nSELECT 1", "two": "SELECT\n    2"}


def test_an_unknown_name_says_which_file_lacks_it(tmp_path: Path, package: str) -> None:
    """A misspelt name is told with the file that was searched."""
    queries = _load(tmp_path, package, "-- name: one\nSELECT 1\n")

    with pytest.raises(KeyError, match=rf"{package}/queries\.sql has no query named tow"):
        queries["tow"]


def test_a_name_given_twice_is_refused(tmp_path: Path, package: str) -> None:
    """Of two statements under one name, none may win silently."""
    with pytest.raises(ValueError, match="names one twice"):
        _load(tmp_path, package, "-- name: one\nSELECT 1\n-- name: one\nSELECT 2\n")


def test_a_statement_without_a_name_is_refused(tmp_path: Path, package: str) -> None:
    """A statement before the first name would never run."""
    with pytest.raises(ValueError, match="before the first name"):
        _load(tmp_path, package, "SELECT 1;\n-- name: one\nSELECT 1\n")
