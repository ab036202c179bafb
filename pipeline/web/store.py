"""What the collector reads and remembers in PostgreSQL: tokens and usage."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row

from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.postgres import Connection, constraint_of
from pipeline.runtime.sql import load_queries
from pipeline.web.tokens import NewToken, Scope, Token

QUERIES = load_queries(__package__)
COLLECTOR_ROLE = "rackmeter_collector"

Row = dict[str, Any]
Window = Literal["hour", "day", "total"]


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """Which usage is asked for; None: all. Times are aware; `zone_name` None: each account's own, else UTC."""

    start: datetime
    end: datetime
    window: Window
    account: str | None
    subject: str | None
    meter: str | None
    zone_name: str | None
    by_account: bool
    by_subject: bool


def read_tokens(connection: Connection) -> list[Token]:
    """Every token that is not ended."""
    return [Token(**row) for row in _rows(connection, "read_tokens")]


def note_use(connection: Connection, token_ids: Iterable[str]) -> None:
    """Remember that tokens were used within this hour."""
    connection.execute(QUERIES["note_use"], {"token_ids": sorted(token_ids)})


def add_token(
    connection: Connection,
    new: NewToken,
    scope: Scope,
    *,
    source_prefix: str | None = None,
    account_id: str | None = None,
    expires_at: datetime | None = None,
    note: str = "",
) -> None:
    """
    Store a token.

    Args:
        connection: Of the database's owner.
        new: As `make_token` made it.
        scope: What it is for.
        source_prefix: Of an ingest token: whose events it may send.
        account_id: Of a read token: whose usage it may read; None: everybody's.
        expires_at: None: never.
        note: For people.

    Raises:
        ConfigurationFault: The account is not known, or the token would have expired already.
    """
    parameters = {
        "token_id": new.token_id,
        "secret_digest": new.secret_digest,
        "scope": scope,
        "source_prefix": source_prefix,
        "account_id": account_id,
        "expires_at": expires_at,
        "note": note,
    }
    try:
        connection.execute(QUERIES["insert_token"], parameters)
    except psycopg.errors.ForeignKeyViolation as error:
        raise ConfigurationFault(f"there is no account {account_id!r}", "account_unknown") from error
    except psycopg.errors.CheckViolation as error:
        if constraint_of(error) != "collector_token_span_ck":
            raise
        raise ConfigurationFault("a token that has expired already is of no use", "token_expired") from error


def rotate_token(connection: Connection, token_id: str, new: NewToken, overlap_seconds: int) -> datetime:
    """
    Store a successor that may do the same, and let the old token end after the overlap; gives when.

    Raises:
        ConfigurationFault: There is no such token, it ended, or it has a successor already.
    """
    names = {"token_id": new.token_id, "secret_digest": new.secret_digest, "replaces": token_id}
    try:
        with connection.transaction():
            if connection.execute(QUERIES["insert_successor"], names).rowcount != 1:
                raise ConfigurationFault(f"there is no valid token {token_id!r}", "token_unknown")
            ended = {"token_id": token_id, "overlap_seconds": overlap_seconds}
            row = connection.execute(QUERIES["end_predecessor"], ended).fetchone()
    except psycopg.errors.UniqueViolation as error:
        raise ConfigurationFault(
            f"token {token_id} was rotated already: rotate its successor", "token_rotated"
        ) from error
    if row is None:
        raise ConfigurationFault(f"there is no token {token_id!r}", "token_unknown")
    until: datetime = row[0]
    return until


def revoke_token(connection: Connection, token_id: str) -> bool:
    """End a token now; False where it was revoked before. ConfigurationFault where there is none."""
    if connection.execute(QUERIES["revoke_token"], {"token_id": token_id}).rowcount:
        return True
    row = connection.execute(QUERIES["has_token"], {"token_id": token_id}).fetchone()
    if row is None or not row[0]:
        raise ConfigurationFault(f"there is no token {token_id!r}", "token_unknown")
    return False


def list_tokens(connection: Connection) -> list[Row]:
    """Every token ever, oldest first, without secrets: its bounds, times and state."""
    return _rows(connection, "list_tokens")


def usage(connection: Connection, question: UsageQuestion, limit: int) -> list[Row]:
    """Rows of account, subject (None where not grouped by), meter, window_start, zone_name, quantity, unit."""
    parameters = asdict(question)
    parameters |= {"from": parameters.pop("start"), "to": parameters.pop("end"), "limit": limit}
    return _rows(connection, "usage_windows", parameters)


def _rows(connection: Connection, name: str, parameters: Row | None = None) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[name], parameters).fetchall()
