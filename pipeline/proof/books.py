"""What the books say about some invoices: the entries they took, the transactions around them, what is booked."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pipeline.proof import facts
from pipeline.proof.facts import Invoice
from pipeline.runtime.postgres import Connection


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry a line took."""

    invoice_id: str
    line_number: int
    ledger_entry_id: int
    ledger_transaction_id: int
    amount: Decimal
    currency: str
    account_id: str
    period_start: Any
    kind: str
    owner_account_id: str | None
    subscription_id: str | None
    item: str | None
    subject: str | None
    item_period_start: Any


@dataclass(frozen=True, slots=True)
class Books:
    """What the books say about some invoices and their accounts."""

    entries: Mapping[str, Sequence[Entry]]
    transactions: Mapping[int, Sequence[tuple[Any, ...]]]
    by_key: Mapping[str, int]
    taken_before: Sequence[tuple[Any, ...]]
    booked: Sequence[tuple[Any, ...]]


def read_books(connection: Connection, invoices: Sequence[Invoice]) -> Books:
    """Read entries, transactions and booked charges of invoices."""
    ids = [invoice.invoice_id for invoice in invoices]
    accounts = sorted({invoice.account_id for invoice in invoices})
    entries: dict[str, list[Entry]] = defaultdict(list)
    for row in facts.rows(connection, "entries", {"invoice_ids": ids}):
        entries[row[0]].append(Entry(*row))
    transaction_ids = sorted({entry.ledger_transaction_id for listed in entries.values() for entry in listed})
    transactions: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    by_key: dict[str, int] = {}
    keys = [f"invoice:{invoice_id}" for invoice_id in ids]
    for row in facts.rows(connection, "transactions", {"transaction_ids": transaction_ids, "keys": keys}):
        transactions[row[0]].append(row)
        by_key[row[1]] = row[0]
    about = {"account_ids": accounts}
    return Books(
        entries,
        transactions,
        by_key,
        facts.rows(connection, "taken_before", about),
        facts.rows(connection, "booked", about),
    )


def shown(value: Fraction) -> str:
    """A number as decimal text, or as a fraction where its decimals do not end."""
    scale = 10**24
    if scale % value.denominator:
        return str(value)
    text = f"{Decimal(f'{value.numerator * (scale // value.denominator)}E-24'):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
