"""The chain in PostgreSQL: what the sealer reads and adds. Each function is one statement."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import psycopg

from pipeline.domain.errors import InvariantViolation, TransientFault
from pipeline.runtime.postgres import Connection, is_transient
from pipeline.runtime.sql import load_queries
from pipeline.sealer.rules import Head, Link, Posting, first_head

QUERIES = load_queries(__package__)

#: Where the transaction's fields and the entry's begin in a row of `unsealed`.
_FIELDS, _ENTRY = 2, 7


@dataclass(frozen=True, slots=True)
class Installation:
    """Which database this is."""

    database_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """
    What one pass seals: transactions behind (after_xid, after_id), posted below `below` or copied in from `beyond` on.

    Transaction ids of PostgreSQL as text: they do not fit its bigint.
    """

    after_xid: str
    after_id: int
    below: str
    beyond: str


@contextmanager
def faults_named() -> Iterator[None]:
    """Name the database's errors: TransientFault where trying again may help, InvariantViolation for a broken law."""
    try:
        yield
    except psycopg.Error as error:
        detail = str(error).strip()
        if is_transient(error):
            raise TransientFault(f"the chain cannot be read or written now: {detail}") from error
        if isinstance(error, psycopg.IntegrityError):
            raise InvariantViolation(f"the chain is not as this sealer left it: {detail}", "chain_forked") from error
        raise


def take_lock(connection: Connection) -> bool:
    """Take the sealers' lock for this connection; False where another has it."""
    return bool(_row(connection, "lock_sealer")[0])


def installation(connection: Connection) -> Installation:
    """Give which database this is."""
    return Installation(*_row(connection, "installation"))


def head(connection: Connection) -> Head:
    """Give where the chain ends."""
    row = connection.execute(QUERIES["head"]).fetchone()
    return first_head(installation(connection).database_id) if row is None else Head(row[0], bytes(row[1]))


def hash_at(connection: Connection, position: int) -> bytes | None:
    """Give the hash at a position; None where the chain has none."""
    row = connection.execute(QUERIES["hash_at"], {"position": position}).fetchone()
    return None if row is None else bytes(row[0])


def bounds(connection: Connection) -> tuple[str, str]:
    """Give below which transaction id everything has ended, and from which on nothing has begun."""
    below, beyond = _row(connection, "bounds")
    return below, beyond


def unsealed(connection: Connection, stretch: Stretch, limit: int) -> tuple[list[Posting], Stretch]:
    """Give the next postings of a stretch, at most `limit`, and what is left of it behind them."""
    rows = connection.execute(
        QUERIES["unsealed"],
        {
            "after_xid": stretch.after_xid,
            "after_id": stretch.after_id,
            "below": stretch.below,
            "beyond": stretch.beyond,
            "limit": limit,
        },
    ).fetchall()
    postings = []
    for (_, transaction_id), group in groupby(rows, key=lambda row: row[:_FIELDS]):
        listed = list(group)
        entries = [row[_ENTRY:] for row in listed if row[_ENTRY] is not None]
        postings.append(Posting(transaction_id, listed[0][_FIELDS:_ENTRY], entries))
    return postings, replace(stretch, after_xid=rows[-1][0], after_id=rows[-1][1]) if rows else stretch


def add(connection: Connection, links: Sequence[Link]) -> None:
    """Add links behind the chain's end."""
    connection.execute(
        QUERIES["add_links"],
        {
            "positions": [link.position for link in links],
            "ledger_transaction_ids": [link.ledger_transaction_id for link in links],
            "hashes": [link.hash for link in links],
        },
    )


def _row(connection: Connection, name: str) -> tuple[Any, ...]:
    row = connection.execute(QUERIES[name]).fetchone()
    if row is None:
        raise InvariantViolation("the table installation has no row: this database was not made by `rackmeter migrate`")
    return tuple(row)
