"""The books in PostgreSQL: what the sink reads, locks and writes. Every function runs in the caller's transaction."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

import psycopg

from pipeline.contracts.charge import encode_amounts, encode_breakdown
from pipeline.domain.errors import InvariantViolation, RejectedRecord, TransientFault
from pipeline.ledger_sink.accounts import LedgerAccount
from pipeline.ledger_sink.rules import BilledItem, BookedCharge, Booking, CurrentTotal
from pipeline.runtime.postgres import Connection, constraint_of, is_transient
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)

# What the database refuses under these names is wrong in the program, not in one charge.
_LAWS = frozenset({"ledger_entry_balance_ck", "ledger_entry_currency_ck"})


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """A row of the trial balance; debits positive, 12 decimals, in major units of the currency."""

    name: str
    kind: str
    currency: str
    balance: Decimal


@contextmanager
def faults_named() -> Iterator[None]:
    """
    Name the database's errors by what the sink does about them.

    Raises:
        TransientFault: Try the same work again, on a new connection.
        RejectedRecord: charge_unpostable; a value of some charge fits no column or breaks a key.
        InvariantViolation: Entries out of balance, or in another currency than their account's.
    """
    try:
        yield
    except psycopg.Error as error:
        detail = str(error).strip()
        if is_transient(error):
            raise TransientFault(f"the books cannot be written now: {detail}") from error
        if constraint_of(error) in _LAWS:
            raise InvariantViolation(detail, "books_out_of_balance") from error
        if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
            raise RejectedRecord("charge_unpostable", detail) from error
        raise


@contextmanager
def booking_transaction(connection: Connection) -> Iterator[None]:
    """Open the sink's transaction: committed at the end of the block, rolled back by whatever leaves it early."""
    with faults_named(), connection.transaction():
        yield


def installation_generation(connection: Connection) -> int:
    """Give the generation whose charges count."""
    row = connection.execute(QUERIES["installation_generation"]).fetchone()
    if row is None:
        raise InvariantViolation("the table installation has no row: this database was not made by `rackmeter migrate`")
    return int(row[0])


def items(connection: Connection, billed_item_ids: Sequence[int]) -> dict[int, BilledItem]:
    """Give the billed items among these ids that exist."""
    with faults_named():
        rows = connection.execute(QUERIES["items"], {"billed_item_ids": list(billed_item_ids)}).fetchall()
    return {row[0]: BilledItem(*row) for row in rows}


def lock_accounts(connection: Connection, account_ids: Iterable[str]) -> set[str]:
    """Lock billing accounts against their closing, until the transaction ends, and give those that are closing."""
    parameters = {"account_ids": sorted(set(account_ids))}
    connection.execute(QUERIES["lock_accounts"], parameters)
    return {row[0] for row in connection.execute(QUERIES["closing_accounts"], parameters).fetchall()}


def current_totals(connection: Connection, billed_item_ids: Sequence[int]) -> dict[int, CurrentTotal]:
    """Give the current revision of each item's total, where there is one."""
    rows = connection.execute(QUERIES["current_totals"], {"billed_item_ids": list(billed_item_ids)}).fetchall()
    return {row[0]: CurrentTotal(row[1], row[2]) for row in rows}


def lock_booked(connection: Connection, billed_item_ids: Sequence[int], generation: int) -> dict[int, BookedCharge]:
    """
    Lock what is booked for these items, one row each, made where there is none (revision 0).

    Whoever calls this either books every item that came back with revision 0 or rolls back.
    """
    parameters = {"billed_item_ids": sorted(billed_item_ids), "generation": generation}
    connection.execute(QUERIES["insert_booked_rows"], parameters)
    rows = connection.execute(QUERIES["lock_booked_rows"], parameters).fetchall()
    return {row[0]: BookedCharge(row[1], row[2], _amounts(row[3]), row[4] == "rated") for row in rows}


def get_or_create(connection: Connection, accounts: Iterable[LedgerAccount]) -> dict[str, int]:
    """Give the ids of ledger accounts by name, opening those that are not there."""
    wanted = {account.name: account for account in sorted(set(accounts))}
    names = {"names": list(wanted)}
    found: dict[str, int] = dict(connection.execute(QUERIES["ledger_accounts"], names).fetchall())
    missing = [account for name, account in wanted.items() if name not in found]
    if missing:
        connection.execute(
            QUERIES["insert_ledger_accounts"],
            {
                "names": [account.name for account in missing],
                "kinds": [account.kind for account in missing],
                "account_ids": [account.account_id for account in missing],
                "products": [account.product for account in missing],
                "currencies": [account.currency for account in missing],
            },
        )
        found = dict(connection.execute(QUERIES["ledger_accounts"], names).fetchall())
    return found


def post(connection: Connection, bookings: Sequence[Booking]) -> None:
    """Insert the ledger transactions and entries of bookings that have entries."""
    posting = [booking for booking in bookings if booking.entries]
    if not posting:
        return
    account_ids = get_or_create(connection, (entry.ledger_account for booking in posting for entry in booking.entries))
    transaction_ids: dict[str, int] = dict(
        connection.execute(
            QUERIES["insert_transactions"],
            {
                "keys": [booking.key for booking in posting],
                "billed_item_ids": [booking.item.billed_item_id for booking in posting],
                "revisions": [booking.charge.revision for booking in posting],
            },
        ).fetchall()
    )
    lines = [(booking, entry) for booking in posting for entry in booking.entries]
    connection.execute(
        QUERIES["insert_entries"],
        {
            "ledger_transaction_ids": [transaction_ids[booking.key] for booking, _ in lines],
            "ledger_account_ids": [account_ids[entry.ledger_account.name] for _, entry in lines],
            "amounts": [entry.amount for _, entry in lines],
            "currencies": [entry.ledger_account.currency for _, entry in lines],
            "account_ids": [booking.item.account_id for booking, _ in lines],
            "period_starts": [booking.item.period_start for booking, _ in lines],
        },
    )


def update_booked(connection: Connection, bookings: Sequence[Booking], generation: int) -> None:
    """Move the booked rows to the charges' revisions."""
    connection.execute(
        QUERIES["update_booked_rows"],
        {
            "generation": generation,
            "billed_item_ids": [booking.item.billed_item_id for booking in bookings],
            "revisions": [booking.charge.revision for booking in bookings],
            "outcomes": [booking.charge.outcome for booking in bookings],
            "reasons": [booking.charge.reason for booking in bookings],
            "quantities": [booking.charge.quantity for booking in bookings],
            "amounts": [encode_amounts(booking.posted) for booking in bookings],
            "breakdowns": [encode_breakdown(booking.charge.breakdown) for booking in bookings],
        },
    )


def trial_balance(connection: Connection) -> list[AccountBalance]:
    """Give every ledger account with its balance, by currency and name; per currency they sum to zero."""
    return [AccountBalance(*row) for row in connection.execute(QUERIES["trial_balance"]).fetchall()]


def _amounts(stored: object) -> Mapping[tuple[str, str], Decimal]:
    if not isinstance(stored, list):
        raise InvariantViolation(f"booked_charge.amounts is no list: {stored!r}")
    return {(row["product"], row["currency"]): Decimal(row["amount"]) for row in stored}
