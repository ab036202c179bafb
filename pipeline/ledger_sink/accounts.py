"""The chart of accounts: which ledger accounts there are, and how they are named."""

from dataclasses import dataclass
from typing import Literal

LedgerAccountKind = Literal["unbilled", "receivable", "revenue", "rounding"]


@dataclass(frozen=True, slots=True, order=True)
class LedgerAccount:
    """
    A ledger account by what it is for; two with one name are one.

    Unbilled and receivable belong to a billing account, revenue to a product, rounding to neither.
    """

    name: str
    kind: LedgerAccountKind
    account_id: str | None
    product: str | None
    currency: str


def unbilled(account_id: str, currency: str) -> LedgerAccount:
    """What a billing account has used and no invoice has taken yet; an asset."""
    return LedgerAccount(f"unbilled:{account_id}:{currency}", "unbilled", account_id, None, currency)


def receivable(account_id: str, currency: str) -> LedgerAccount:
    """What a billing account owes by its invoices; an asset."""
    return LedgerAccount(f"receivable:{account_id}:{currency}", "receivable", account_id, None, currency)


def revenue(product: str, currency: str) -> LedgerAccount:
    """What a product has earned."""
    return LedgerAccount(f"revenue:{product}:{currency}", "revenue", None, product, currency)


def rounding(currency: str) -> LedgerAccount:
    """What rounding invoice lines to the currency's minor unit gained or lost."""
    return LedgerAccount(f"rounding:{currency}", "rounding", None, None, currency)
