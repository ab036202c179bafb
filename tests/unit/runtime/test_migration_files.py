"""Migration files are read in order, and a folder that is not in order is refused."""

from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.migrations import load_migrations


def _folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).write_text(f"SELECT '{name}';\n")
    return tmp_path


def test_files_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Version and name come from the file's name."""
    migrations = load_migrations(_folder(tmp_path, "0002_add_rows.sql", "0001_create_tables.sql"))

    assert [(migration.version, migration.name) for migration in migrations] == [(1, "create_tables"), (2, "add_rows")]


def test_a_changed_file_has_another_checksum(tmp_path: Path) -> None:
    """So an edit after the fact is noticed."""
    folder = _folder(tmp_path, "0001_create_tables.sql")
    before = load_migrations(folder)[0].checksum
    (folder / "0001_create_tables.sql").write_text("SELECT 2;\n")

    assert load_migrations(folder)[0].checksum != before


@pytest.mark.parametrize(
    "names",
    [
        ("0001_create_tables.sql", "0003_add_rows.sql"),
        ("0001_create_tables.sql", "0001_create_others.sql"),
        ("0002_create_tables.sql",),
    ],
)
def test_a_gap_or_a_number_given_twice_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Two branches that both added number 3 are noticed when they meet."""
    with pytest.raises(ConfigurationFault, match="without gap"):
        load_migrations(_folder(tmp_path, *names))


def test_a_badly_named_file_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    """A file that nobody would apply is an error, not a surprise."""
    with pytest.raises(ConfigurationFault, match=r"1-tables\.sql"):
        load_migrations(_folder(tmp_path, "0001_create_tables.sql", "1-tables.sql"))


def test_the_shipped_files_can_be_read() -> None:
    """The repository's own folder is in order."""
    assert load_migrations()[0].version == 1
