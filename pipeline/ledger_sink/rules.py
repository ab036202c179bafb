"""What booking a charge posts: pure. The difference to what is posted, per product and currency."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, Inexact

from pipeline.contracts.charge import Amount, Charge
from pipeline.domain.errors import RejectedRecord
from pipeline.domain.rounding import POSTING_SCALE
from pipeline.ledger_sink.accounts import LedgerAccount, revenue, unbilled

_AMOUNT = re.compile(rf"-?[0-9]{{1,26}}(\.[0-9]{{1,{POSTING_SCALE}}})?")
# Two amounts of 26 + 12 digits subtract exactly; should that ever not hold, it fails instead of rounding.
_EXACT = Context(prec=60, traps=[Inexact])

Amounts = Mapping[tuple[str, str], Decimal]


@dataclass(frozen=True, slots=True)
class BilledItem:
    """A billed item, as far as booking needs it."""

    billed_item_id: int
    account_id: str
    period_start: datetime


@dataclass(frozen=True, slots=True)
class CurrentTotal:
    """Which revision of an item's total is the current one."""

    generation: int
    revision: int


@dataclass(frozen=True, slots=True)
class BookedCharge:
    """What is booked for an item; revision 0 before the first booking."""

    generation: int
    revision: int
    amounts: Amounts
    is_rated: bool = True

    def is_overtaken_by(self, generation: int, charge: Charge) -> bool:
        """
        Whether a charge is newer than what is booked.

        One of the same revision is where only it could be rated: the price or the program was mended meanwhile.
        """
        mine, its = (self.generation, self.revision), (generation, charge.revision)
        return mine < its or (mine == its and not self.is_rated and charge.outcome == "rated")


@dataclass(frozen=True, slots=True)
class Entry:
    """One signed entry: a debit is positive, a credit negative; in major units with at most 12 decimals."""

    ledger_account: LedgerAccount
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Booking:
    """A charge and what it posts; no entries where it changes no amount."""

    item: BilledItem
    charge: Charge
    generation: int
    posted: tuple[Amount, ...]
    entries: tuple[Entry, ...]

    @property
    def key(self) -> str:
        """The key of the ledger transaction."""
        return f"usage:{self.item.billed_item_id}:{self.generation}:{self.charge.revision}"


def latest(charges: Iterable[Charge]) -> dict[int, Charge]:
    """Keep, of each item, the charge with the highest revision, by item id ascending."""
    kept: dict[int, Charge] = {}
    for charge in charges:
        known = kept.get(charge.billed_item_id)
        if known is None or known.revision < charge.revision:
            kept[charge.billed_item_id] = charge
    return dict(sorted(kept.items()))


def read_amounts(amounts: Iterable[Amount]) -> dict[tuple[str, str], Decimal]:
    """
    Give the amounts of a charge by (product, currency).

    Raises:
        RejectedRecord: amount_invalid, for text that is no plain decimal with at most 26 + 12 digits, and for a
            product named twice.
    """
    read: dict[tuple[str, str], Decimal] = {}
    for amount in amounts:
        if _AMOUNT.fullmatch(amount.amount) is None:
            raise RejectedRecord("amount_invalid", f"{amount.amount[:80]!r} is no amount with at most 12 decimals")
        key = (amount.product, amount.currency)
        if key in read:
            raise RejectedRecord("amount_invalid", f"{amount.product} in {amount.currency} is named twice")
        read[key] = Decimal(amount.amount)
    return read


def book(charge: Charge, item: BilledItem, generation: int, booked: BookedCharge) -> Booking:
    """
    Give the entries that move what is posted to what is charged: debit unbilled, credit revenue.

    A charge that could not be rated posts nothing and leaves what is posted as it is: the booked row says why, and
    holds the close.

    Raises:
        RejectedRecord: amount_invalid.
    """
    if charge.outcome != "rated":
        posted = tuple(_amount(key, value) for key, value in sorted(booked.amounts.items()))
        return Booking(item, charge, generation, posted, ())
    wanted = read_amounts(charge.amounts)
    entries: list[Entry] = []
    for product, currency in sorted(wanted.keys() | booked.amounts.keys()):
        key = (product, currency)
        difference = _EXACT.subtract(wanted.get(key, Decimal(0)), booked.amounts.get(key, Decimal(0)))
        if difference:
            entries.append(Entry(unbilled(item.account_id, currency), difference))
            entries.append(Entry(revenue(product, currency), difference.copy_negate()))
    return Booking(item, charge, generation, charge.amounts, tuple(entries))


def _amount(key: tuple[str, str], value: Decimal) -> Amount:
    product, currency = key
    return Amount(product=product, currency=currency, amount=format(value, "f"))
