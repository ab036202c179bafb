"""Bring a database to the current schema: numbered SQL files, each in one transaction, each once."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.postgres import Connection
from pipeline.runtime.settings import schemas_dir
from pipeline.runtime.sql import load_queries

_FILE = re.compile(r"^(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql$")
QUERIES = load_queries("pipeline.runtime", "migrations.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of schemas/sql/migrations, or of another set beside it."""

    version: int
    name: str
    statements: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Record:
    """The table that says which files of a set were applied, as statements."""

    has_table: LiteralString
    create_table: LiteralString
    applied: LiteralString
    add: LiteralString


SCHEMA = Record(
    QUERIES["has_migration_table"],
    QUERIES["create_migration_table"],
    QUERIES["applied_migrations"],
    QUERIES["record_migration"],
)


def load_migrations(folder: Path | None = None) -> list[Migration]:
    """Read the migration files in order; a gap or a badly named file is a ConfigurationFault."""
    folder = folder or schemas_dir() / "sql" / "migrations"
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.match(path.name)
        if match is None:
            raise ConfigurationFault(f"{path}: a migration is named NNNN_what_it_does.sql")
        text = path.read_text(encoding="utf-8")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        migrations.append(Migration(int(match["version"]), match["name"], text, checksum))
    expected = list(range(1, len(migrations) + 1))
    if [migration.version for migration in migrations] != expected:
        raise ConfigurationFault(f"{folder}: migrations must be numbered without gap from 0001")
    return migrations


def pending(connection: Connection, migrations: list[Migration], record: Record = SCHEMA) -> list[Migration]:
    """
    Tell which migrations the database has not seen.

    Raises:
        ConfigurationFault: An applied file was edited afterwards, or the database is newer than this program.
    """
    row = connection.execute(record.has_table).fetchone()
    if row is None or not row[0]:
        return migrations
    applied: dict[int, str] = dict(connection.execute(record.applied).fetchall())
    known = {migration.version: migration for migration in migrations}
    for version, checksum in applied.items():
        if version not in known:
            raise ConfigurationFault(f"the database has migration {version:04d}, this program does not: upgrade it")
        if known[version].checksum != checksum:
            raise ConfigurationFault(
                f"migration {version:04d} was edited after it was applied: restore it, add a new one"
            )
    return [migration for migration in migrations if migration.version not in applied]


def migrate(
    connection: Connection, migrations: list[Migration] | None = None, record: Record = SCHEMA
) -> list[Migration]:
    """
    Apply what is pending, one transaction a file, under an advisory lock, and return what was applied.

    Args:
        connection: With the owner's rights (`connect(..., role=None)`).
        migrations: Defaults to the shipped files.
        record: Of the set they belong to.
    """
    migrations = load_migrations() if migrations is None else migrations
    applied: list[Migration] = []
    connection.execute(QUERIES["lock_migrations"])
    try:
        with connection.transaction():
            connection.execute(record.create_table)
        for migration in pending(connection, migrations, record):
            with connection.transaction():
                connection.execute(migration.statements.encode())
                connection.execute(
                    record.add,
                    {"version": migration.version, "name": migration.name, "checksum": migration.checksum},
                )
            applied.append(migration)
    finally:
        connection.execute(QUERIES["unlock_migrations"])
    return applied
