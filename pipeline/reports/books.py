"""What the books say: ledger accounts, statements, postings, and all of it for export."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.rows import dict_row

from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "books.sql")

Row = dict[str, Any]

_FETCH_ROWS = 5_000
_BIGINT_DIGITS_MAX = 18


@dataclass(frozen=True, slots=True)
class BookedEntry:
    """An entry as exported: debits positive; `period` is the service month, YYYY-MM; `position` None: not sealed."""

    ledger_account: str
    account_kind: str
    currency: str
    amount: Decimal
    period: str | None


@dataclass(frozen=True, slots=True)
class BookedTransaction:
    """A ledger transaction as exported. `words`: what it is for, from the item or the invoice's number."""

    number: int
    key: str
    kind: str
    booked_at: datetime
    position: int | None
    words: tuple[str, ...]
    entries: tuple[BookedEntry, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What frames an export: the ledger accounts with balances, the first and last booking, the chain's head."""

    accounts: tuple[Row, ...]
    first_at: datetime | None
    last_at: datetime | None
    head: tuple[int, str] | None


def accounts(
    connection: Connection, *, account: str | None = None, kind: str | None = None, name: str | None = None
) -> list[Row]:
    """Ledger accounts: name, kind, account, product, currency, entries, balance (Decimal, debit positive)."""
    return _rows(connection, "ledger_accounts", {"account": account, "kind": kind, "name": name})


def statement(
    connection: Connection,
    name: str,
    *,
    period: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[Row]:
    """
    Give the entries of a ledger account as they were booked, each with the balance before and behind it.

    Args:
        connection: Is read only.
        name: Of the ledger account, e.g. unbilled:acme:EUR.
        period: Only service of this month, YYYY-MM; balances count from nothing then.
        start: Booked at this time or later; earlier ones are in the first `before`.
        end: Booked before this time.

    Raises:
        ConfigurationFault: There is no such ledger account.
    """
    if not accounts(connection, name=name):
        raise ConfigurationFault(
            f"there is no ledger account {name!r}; `rackmeter ledger accounts` shows what there is",
            "ledger_account_unknown",
        )
    return _rows(connection, "statement", {"name": name, "period": period, "from": start, "to": end})


def posting(connection: Connection, name: str) -> Row:
    """The ledger transaction of that number or key, with its place in the chain; ConfigurationFault for none."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= _BIGINT_DIGITS_MAX else None
    found = _rows(connection, "posting", {"name": name, "number": number})
    if not found:
        raise ConfigurationFault(
            f"there is no posting {name!r}; give its number or its key, as `rackmeter ledger statement` shows them",
            "posting_unknown",
        )
    return found[0]


def posting_entries(connection: Connection, posting: int) -> list[Row]:
    """Entries of a ledger transaction: debit, credit (Decimal), what they are for, and the line that took each."""
    return _rows(connection, "posting_entries", {"posting": posting})


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Let everything read in the block be of one instant."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def summary(connection: Connection) -> Summary:
    """Give what frames an export."""
    first_at, last_at = connection.execute(QUERIES["export_days"]).fetchone() or (None, None)
    head = connection.execute(QUERIES["export_head"]).fetchone()
    return Summary(tuple(accounts(connection)), first_at, last_at, None if head is None else (head[0], head[1]))


def transactions(connection: Connection) -> Iterator[BookedTransaction]:
    """Give every transaction in the order it was booked; call it in a `snapshot`: rows are fetched as needed."""
    with connection.cursor(name="export") as cursor:
        cursor.itersize = _FETCH_ROWS
        cursor.execute(QUERIES["export_entries"])
        head: tuple[Any, ...] | None = None
        entries: list[BookedEntry] = []
        for row in cursor:
            if head is not None and head[0] != row[0]:
                yield _transaction(head, entries)
                entries = []
            head = row[:9]
            entries.append(BookedEntry(*row[9:]))
        if head is not None:
            yield _transaction(head, entries)


def _transaction(head: tuple[Any, ...], entries: list[BookedEntry]) -> BookedTransaction:
    number, key, kind, booked_at, position, *words = head
    return BookedTransaction(
        number, key, kind, booked_at, position, tuple(word for word in words if word), tuple(entries)
    )


def _rows(connection: Connection, name: str, parameters: Row) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[name], parameters).fetchall()
