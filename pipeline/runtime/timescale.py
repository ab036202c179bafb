"""Turn the usage tables into hypertables where the server has TimescaleDB; elsewhere they stay plain tables."""

from dataclasses import dataclass

import psycopg

from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.migrations import Migration, Record, load_migrations, migrate, pending
from pipeline.runtime.postgres import Connection
from pipeline.runtime.settings import schemas_dir
from pipeline.runtime.sql import load_queries

QUERIES = load_queries("pipeline.runtime", "timescale.sql")

RECORD = Record(
    QUERIES["has_timescale_table"],
    QUERIES["create_timescale_table"],
    QUERIES["applied_timescale"],
    QUERIES["record_timescale"],
)

#: The Apache build has no compression and no continuous aggregates.
FULL_LICENCE = "timescale"


@dataclass(frozen=True, slots=True)
class Offer:
    """
    What can be done about TimescaleDB.

    `is_usable`: the server has it, with everything we use. `reason`: why not, '' on plain PostgreSQL. `pending`: files
    to apply. `is_upgrade`: the tables are still plain and hold rows, so that the first file moves them.
    """

    is_usable: bool
    reason: str
    pending: tuple[Migration, ...] = ()
    is_upgrade: bool = False


def offer(connection: Connection) -> Offer:
    """Tell what TimescaleDB there is and what of ours was not applied to it; changes nothing."""
    row = connection.execute(QUERIES["timescale_offer"]).fetchone()
    if row is None:
        return Offer(False, "")
    installed_version, is_preloaded, licence = row
    if installed_version is None and not is_preloaded:
        return Offer(False, "TimescaleDB is on the server, but not in its shared_preload_libraries: tables stay plain")
    if licence not in ("", FULL_LICENCE):
        return Offer(False, f"this TimescaleDB is the {licence} build, without compression: tables stay plain")
    shipped = load_migrations(schemas_dir() / "sql" / "timescale")
    waiting = pending(connection, shipped, RECORD)
    return Offer(True, "", tuple(waiting), len(waiting) == len(shipped) and _has_usage(connection))


def convert(connection: Connection) -> list[Migration]:
    """
    Apply what is pending of schemas/sql/timescale, after all of schemas/sql/migrations; rows move into chunks.

    Args:
        connection: With the owner's rights and without a statement timeout. Nobody else uses the tables meanwhile.

    Raises:
        ConfigurationFault: There is no usable TimescaleDB, the plain schema is not current, or the login may not
            create the extension.
    """
    found = offer(connection)
    if not found.is_usable:
        raise ConfigurationFault(found.reason or "the server has no TimescaleDB", "timescale_missing")
    if pending(connection, load_migrations()):
        raise ConfigurationFault("run `rackmeter migrate` first: the schema is not current", "not_migrated")
    try:
        connection.execute(QUERIES["create_timescale"])
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationFault(
            "this login may not create the extension; have the administrator run CREATE EXTENSION timescaledb",
            "timescale_refused",
        ) from error
    return migrate(connection, load_migrations(schemas_dir() / "sql" / "timescale"), RECORD)


def is_converted(connection: Connection) -> bool:
    """Tell whether the usage tables are hypertables; for maintenance, nobody else has to know."""
    row = connection.execute(QUERIES["has_timescale_table"]).fetchone()
    return bool(row and row[0] and connection.execute(QUERIES["applied_timescale"]).fetchone())


def _has_usage(connection: Connection) -> bool:
    for question in (QUERIES["has_usage_tables"], QUERIES["has_usage"]):
        row = connection.execute(question).fetchone()
        if row is None or not row[0]:
            return False
    return True
