"""A database is brought to the current schema once, by whoever comes first, and never by an edited file."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.runtime.migrations import Migration, load_migrations, migrate, pending
from pipeline.runtime.postgres import FAR_FUTURE, FAR_PAST, Connection, connect

pytestmark = pytest.mark.real


@pytest.fixture
def owner(empty_database_url: str) -> Iterator[Connection]:
    """The owner's connection to a database without any table."""
    with contextlib.closing(connect(empty_database_url, application_name="tests", role=None)) as connection:
        yield connection


def _folder(tmp_path: Path, **files: str) -> list[Migration]:
    for name, statements in files.items():
        (tmp_path / f"{name.lstrip('_')}.sql").write_text(statements)
    return load_migrations(tmp_path)


def _tables(connection: Connection) -> set[str]:
    rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {row[0] for row in rows}


def test_an_empty_database_gets_everything_once(owner: Connection) -> None:
    """The second run finds nothing to do."""
    shipped = load_migrations()

    assert pending(owner, shipped) == shipped
    assert migrate(owner) == shipped
    assert pending(owner, shipped) == []
    assert migrate(owner) == []


def test_looking_changes_nothing(owner: Connection) -> None:
    """`migrate --plan` leaves no table behind."""
    pending(owner, load_migrations())

    assert _tables(owner) == set()


def test_a_file_that_fails_leaves_nothing_of_itself(owner: Connection, tmp_path: Path) -> None:
    """Each file is one transaction: what went before stays, the failing one is undone whole and can be tried again."""
    good = "CREATE TABLE kept (number integer);"
    migrations = _folder(tmp_path, _0001_create_kept=good, _0002_create_lost="CREATE TABLE lost (a int); SELECT 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(owner, migrations)

    assert _tables(owner) == {"schema_migration", "kept"}
    mended = _folder(tmp_path, _0002_create_lost="CREATE TABLE lost (a int);")
    assert [migration.version for migration in migrate(owner, mended)] == [2]


def test_an_applied_file_that_was_edited_is_refused(owner: Connection, tmp_path: Path) -> None:
    """The database would not be what the file says."""
    migrate(owner, _folder(tmp_path, _0001_create_kept="CREATE TABLE kept (number integer);"))
    edited = _folder(tmp_path, _0001_create_kept="CREATE TABLE kept (number bigint);")

    with pytest.raises(ConfigurationFault, match="0001 was edited"):
        migrate(owner, edited)


def test_a_database_newer_than_the_program_is_refused(owner: Connection, tmp_path: Path) -> None:
    """An old program must not write into a schema it does not know."""
    migrations = _folder(tmp_path, _0001_create_one="SELECT 1;", _0002_create_two="SELECT 2;")
    migrate(owner, migrations)

    with pytest.raises(ConfigurationFault, match="upgrade it"):
        pending(owner, migrations[:1])


def test_two_that_migrate_at_once_go_one_after_the_other(empty_database_url: str, tmp_path: Path) -> None:
    """Workers that start together on a new database do not stumble over each other."""
    migrations = _folder(tmp_path, _0001_create_slow="SELECT pg_sleep(0.3); CREATE TABLE slow (number integer);")
    applied: list[int] = []

    def run() -> None:
        with contextlib.closing(connect(empty_database_url, application_name="tests", role=None)) as connection:
            applied.append(len(migrate(connection, migrations)))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(applied) == [0, 0, 1]


def test_a_stage_without_its_role_is_told_what_to_run(empty_database_url: str) -> None:
    """On a server that was never migrated there is no role to act as; the message names the command."""
    with pytest.raises(TransientFault, match="rackmeter migrate"):
        connect(empty_database_url, application_name="tests", role="nobody_at_all")


def test_sessions_run_under_our_settings(database_url: str) -> None:
    """UTC, bounded waits and durable commits, whatever the server's own defaults are."""
    with contextlib.closing(connect(database_url, application_name="rackmeter-tests-0")) as connection:
        wanted = {
            "TimeZone": "UTC",
            "lock_timeout": "1min",
            "statement_timeout": "5min",
            "synchronous_commit": "on",
            "application_name": "rackmeter-tests-0",
            "role": "rackmeter_app",
        }
        rows = connection.execute("SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", [list(wanted)])

        assert dict(rows.fetchall()) == wanted


def test_infinity_sorts_where_it_belongs(database_url: str) -> None:
    """Python has no instant for infinity; the one we read for it is later (or earlier) than all others."""
    with contextlib.closing(connect(database_url, application_name="tests")) as connection:
        row = connection.execute("SELECT 'infinity'::timestamptz, '-infinity'::timestamptz").fetchone()

    assert row == (FAR_FUTURE, FAR_PAST)


def test_an_unreachable_database_is_a_fault_to_wait_out(tmp_path: Path) -> None:
    """The message asks the two questions that help."""
    with pytest.raises(TransientFault, match="Is it running, and is DATABASE_URL right"):
        connect(f"postgresql://nobody@/none?host={tmp_path}", application_name="tests")
