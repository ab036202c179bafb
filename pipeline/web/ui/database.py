"""The door to the database: read only, and one snapshot a page, so that its figures belong together."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.runtime.postgres import Connection, connect, is_transient
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)

#: A page that takes longer is not looked at any more.
STATEMENT_SECONDS_MAX = 30


@contextmanager
def snapshot(database_url: str) -> Iterator[Connection]:
    """
    Give a connection that can only read, in one transaction of one snapshot.

    It acts as `pg_read_all_data` where the login may, which has no right to write at all; else as the application.

    Raises:
        ConfigurationFault: It was asked for what no name can be, e.g. with a NUL in it.
        TransientFault: The database does not answer, stopped answering, or is not at this program's schema.
    """
    connection = connect(
        database_url,
        application_name="rackmeter-ui",
        role=None,
        statement_timeout_seconds=STATEMENT_SECONDS_MAX,
    )
    try:
        _give_up_writing(connection)
        with connection.transaction():
            yield connection
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise TransientFault(
            f"the database is not at this program's schema: {error.diag.message_primary}. Run `rackmeter migrate`."
        ) from error
    except psycopg.DataError as error:
        raise ConfigurationFault(f"the database has nothing of that name: {error}", "name_unknown") from error
    except psycopg.errors.QueryCanceled as error:
        raise TransientFault(f"the database took longer than {STATEMENT_SECONDS_MAX} s; ask for less") from error
    except psycopg.Error as error:
        if is_transient(error):
            raise TransientFault(f"the database stopped answering: {str(error).strip()}") from error
        raise
    finally:
        connection.close()


def _give_up_writing(connection: Connection) -> None:
    row = connection.execute(QUERIES["may_read_all"]).fetchone()
    connection.execute(QUERIES["act_as_reader" if row is not None and row[0] else "act_as_application"])
    connection.execute(QUERIES["read_only"])
