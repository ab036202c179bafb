"""The values of a close: who is billed, what was taken, what became of it, and the ports to the outside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from pipeline.domain.money import Money
from pipeline.domain.period import Period
from pipeline.runtime.journal import Journal
from pipeline.runtime.postgres import Connection


class Outcome(StrEnum):
    """What a run did for one account and period."""

    ISSUED = "issued"
    ALREADY_ISSUED = "already_issued"
    NOTHING_TO_BILL = "nothing_to_bill"
    HELD = "held"
    PROOF_FAILED = "proof_failed"


class Step(StrEnum):
    """
    What was just committed; told to `Worker`'s listener with a name.

    CLOSING, CUT: "account month", as the account goes through them.
    PROVEN, WITHDRAWN, ISSUED: an invoice id; a draft is withdrawn when its proof failed.
    OWES_NOTHING: "account month", closed without an invoice.
    DOCUMENTS: the folder, once a run. PAYMENTS: the month asked for, once a run.
    """

    CLOSING = "closing"
    CUT = "cut"
    PROVEN = "proven"
    WITHDRAWN = "withdrawn"
    OWES_NOTHING = "owes_nothing"
    ISSUED = "issued"
    DOCUMENTS = "documents"
    PAYMENTS = "payments"


Listener = Callable[[Step, str], None]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an account is held: a stable code, a sentence, and the server and meter it is about, where there is one."""

    code: str
    sentence: str
    subject: str = ""
    meter: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """A billing account as the close needs it; `first_at` is when it first could owe anything, None for never."""

    account_id: str
    currency: str
    time_zone: str
    seller: str
    first_at: datetime | None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a total at one price; quantity in the meter's unit."""

    price_version_id: int
    product: str
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class ItemCharge:
    """A billed item at the cut: its total by segment and how the booked charge came about."""

    billed_item_id: int
    subscription_id: str
    item: str
    subject: str
    period: Period
    revision: int
    segments: tuple[Segment, ...]
    breakdown: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Posting:
    """An entry on an unbilled account that no invoice has taken; amount in major units, 12 decimals."""

    ledger_entry_id: int
    billed_item_id: int
    product: str
    currency: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class DraftLine:
    """An invoice line with the entries it takes; quantity in the meter's unit, `amount_minor` rounded once."""

    billed_item_id: int
    subscription_id: str
    item: str
    product: str
    subject: str
    service_period: Period
    description: str
    quantity: Decimal
    amount_exact: Decimal
    amount_minor: int
    breakdown: tuple[Mapping[str, Any], ...]
    ledger_entry_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """An invoice that waits for its proof; `created_at` tells it from a later draft of the same id."""

    invoice_id: str
    account_id: str
    period: Period
    created_at: datetime
    total: Money


@dataclass(frozen=True, slots=True)
class ProofResult:
    """What the proof says of one invoice or account; `report` is JSON without floats, `differences` are sentences."""

    ok: bool
    report: Mapping[str, Any]
    differences: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ports:
    """
    What the close needs from outside.

    prove: invoice ids -> what the second implementation says of each; a missing one counts as not proven.
    prove_nothing_owed: (account id, period) of accounts without a posting to bill -> account id -> whether they really
        owe nothing for that period; a missing one counts as not proven. Called outside of a transaction.
    log_ends: partition -> the offset after the last record of usage.events, now.
    request_payments: issued invoices, by id -> how many attempts now have an outcome. Repeats are harmless.
    journal: Takes each document before its number takes effect.
    payment_reference: gateway name, invoice number -> the reference the buyer pays under; '' where there is none.
    """

    prove: Callable[[Connection, Sequence[str]], Mapping[str, ProofResult]]
    prove_nothing_owed: Callable[[Connection, Sequence[tuple[str, Period]]], Mapping[str, ProofResult]]
    log_ends: Callable[[], Mapping[int, int]]
    request_payments: Callable[[Connection, Sequence[str]], int]
    payment_reference: Callable[[str, str], str]
    journal: Journal


@dataclass(frozen=True, slots=True)
class CloseRequest:
    """
    What to close.

    month: YYYY-MM, each account's own local month.
    catch_up: Also every earlier month that is not closed yet, oldest first.
    now: Decides the close grace, nothing else.
    issued_on: The date on the invoices; None for today in the seller's time zone.
    account_ids: None for all.
    """

    month: str
    now: datetime
    catch_up: bool = False
    issued_on: date | None = None
    account_ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AccountResult:
    """One row of a run's table."""

    account_id: str
    month: str
    outcome: Outcome
    invoice_id: str = ""
    number: str = ""
    total: Money | None = None
    reasons: tuple[Reason, ...] = ()
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did, by account and month, and the files it made sure of."""

    results: tuple[AccountResult, ...]
    files: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 when nothing is held and nothing failed its proof, else 1."""
        return int(any(result.outcome in (Outcome.HELD, Outcome.PROOF_FAILED) for result in self.results))
