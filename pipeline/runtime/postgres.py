"""Connections to PostgreSQL: the session settings every part of the pipeline runs under."""

import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.datetime import TimestamptzLoader

from pipeline.domain.errors import TransientFault

APPLICATION_ROLE = "rackmeter_app"

# A lock nobody gives back in this time is a fault worth a retry, not a reason to stand still.
LOCK_TIMEOUT_SECONDS = 60
STATEMENT_TIMEOUT_SECONDS = 300

# psycopg has no value for 'infinity'; these stand for it at the edge and sort as it does.
FAR_PAST = datetime.datetime.min.replace(tzinfo=datetime.UTC)
FAR_FUTURE = datetime.datetime.max.replace(tzinfo=datetime.UTC)

Connection = psycopg.Connection[Any]


class _InfinityLoader(TimestamptzLoader):
    """Read 'infinity' as FAR_FUTURE and '-infinity' as FAR_PAST."""

    def load(self, data: Any) -> datetime.datetime:
        text = bytes(data)
        if text == b"infinity":
            return FAR_FUTURE
        if text == b"-infinity":
            return FAR_PAST
        return super().load(data)


def connect(
    database_url: str,
    *,
    application_name: str,
    role: str | None = APPLICATION_ROLE,
    statement_timeout_seconds: int = STATEMENT_TIMEOUT_SECONDS,
) -> Connection:
    """
    Open a connection in autocommit mode; callers open `with connection.transaction():` at their commit point.

    Args:
        database_url: A libpq URL.
        application_name: Shown in pg_stat_activity, e.g. rackmeter-aggregate-0.
        role: The role to act as; None keeps the login's own rights (migrations).
        statement_timeout_seconds: 0 for no limit.

    Raises:
        TransientFault: The server cannot be reached, or refuses the role.
    """
    try:
        connection = psycopg.connect(
            database_url,
            autocommit=True,
            application_name=application_name,
            connect_timeout=10,
            options=(
                f"-c TimeZone=UTC -c lock_timeout={LOCK_TIMEOUT_SECONDS}s"
                f" -c statement_timeout={statement_timeout_seconds}s -c synchronous_commit=on"
            ),
        )
    except psycopg.OperationalError as error:
        # libpq ends with a question of its own.
        reason = str(error).strip().rstrip("?")
        raise TransientFault(
            f"the database does not answer: {reason}. Is it running, and is DATABASE_URL right?"
        ) from error
    connection.adapters.register_loader("timestamptz", _InfinityLoader)
    if role is not None:
        try:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        except psycopg.Error as error:
            connection.close()
            raise TransientFault(
                f"the database has no role {role} for us: {str(error).strip()}. Run `rackmeter migrate`."
            ) from error
    return connection


def is_transient(error: psycopg.Error) -> bool:
    """Tell whether the same work may succeed when tried again: a lost connection, a deadlock, a lost race."""
    if isinstance(
        error,
        psycopg.errors.SerializationFailure
        | psycopg.errors.DeadlockDetected
        | psycopg.errors.LockNotAvailable
        | psycopg.errors.QueryCanceled
        | psycopg.errors.AdminShutdown,
    ):
        return True
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def constraint_of(error: psycopg.Error) -> str:
    """Name the constraint a statement broke, or '' where the server names none."""
    return error.diag.constraint_name or ""
