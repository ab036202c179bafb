"""What the books say about some invoices: the entries they took, the transactions around them, what is booked."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from pipeline.proof import facts
from pipeline.proof.facts import Invoice, Line
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


class BookedItem(NamedTuple):
    """An item with what is booked for it and its total; None where there is no such row."""

    billed_item_id: int
    account_id: str
    subscription_id: str
    item: str
    subject: str
    period_start: datetime
    period_end: datetime
    generation: int | None
    revision: int | None
    outcome: str | None
    quantity: Decimal | None
    amounts: Sequence[Mapping[str, str]] | None
    breakdown: Sequence[Mapping[str, Any]] | None
    total_generation: int | None
    total_revision: int | None
    segments: Sequence[Mapping[str, Any]] | None
    is_dirty: bool

    @property
    def booked_at(self) -> tuple[int, int]:
        """Generation and revision that are booked; (0, 0) where nothing is."""
        return self.generation or 0, self.revision or 0

    @property
    def total_at(self) -> tuple[int, int]:
        """Generation and revision of the total; (0, 0) where there is none."""
        return self.total_generation or 0, self.total_revision or 0


#: What older invoices took: account, subscription, item, subject, service period's start, product.
LineKey = tuple[str, str, str, str, datetime, str]


@dataclass(frozen=True, slots=True)
class Books:
    """What the books say about some invoices and their accounts; `posted`: by item, kind, product and currency."""

    entries: Mapping[str, Sequence[Entry]]
    transactions: Mapping[int, Sequence[tuple[Any, ...]]]
    by_key: Mapping[str, int]
    taken_before: Mapping[LineKey, Sequence[tuple[datetime, Decimal]]]
    booked: Sequence[BookedItem]
    posted: Mapping[int, Mapping[tuple[str, str, str], Decimal]]
    attempts: Mapping[str, Sequence[tuple[Any, ...]]]

    def charged_before(self, invoice: Invoice, line: Line) -> Fraction:
        """Give what older invoices charged for the same item, product and service period."""
        key = (
            invoice.account_id, line.subscription_id, line.item, line.subject, line.service_period_start, line.product,
        )  # fmt: skip
        listed = self.taken_before.get(key, ())
        return sum((Fraction(amount) for start, amount in listed if start < invoice.period_start), Fraction(0))


def read_books(connection: Connection, invoices: Sequence[Invoice], lines: Mapping[str, Sequence[Line]]) -> Books:
    """Read entries, transactions, payment attempts and what is booked for the periods of invoices and their lines."""
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
    taken: dict[LineKey, list[tuple[datetime, Decimal]]] = defaultdict(list)
    for account, start, *key, product, amount in facts.rows(connection, "taken_before", {"account_ids": accounts}):
        subscription, item, subject, service_start = key
        taken[account, subscription, item, subject, service_start, product].append((start, amount))
    starts = {invoice.period_start for invoice in invoices} | {
        line.service_period_start for listed in lines.values() for line in listed
    }
    about = {"account_ids": accounts, "period_starts": sorted(starts)}
    booked = [BookedItem(*row) for row in facts.rows(connection, "booked", about)]
    posted: dict[int, dict[tuple[str, str, str], Decimal]] = defaultdict(dict)
    for row in facts.rows(connection, "posted", {"billed_item_ids": [item.billed_item_id for item in booked]}):
        posted[row[0]][row[1], row[2], row[3]] = row[4]
    attempts: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in facts.rows(connection, "attempts", {"invoice_ids": ids}):
        attempts[row[0]].append(row[1:])
    return Books(entries, transactions, by_key, taken, booked, posted, attempts)


def shown(value: Fraction) -> str:
    """A number as decimal text, or as a fraction where its decimals do not end."""
    scale = 10**24
    if scale % value.denominator:
        return str(value)
    text = f"{Decimal(f'{value.numerator * (scale // value.denominator)}E-24'):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
