"""Payment attempts in the database: intents, outcomes, and the posting of what was paid."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg.rows import dict_row

from pipeline.domain.errors import InvariantViolation
from pipeline.domain.keys import payment_key
from pipeline.domain.money import Money, format_minor
from pipeline.payments.gateway import Attempt, AttemptState, GatewayOutcome
from pipeline.payments.rules import may_follow
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)


@dataclass(frozen=True, slots=True)
class Undecided:
    """An attempt without a definite outcome, and the name of the gateway it is for."""

    attempt: Attempt
    gateway: str

    @property
    def record(self) -> dict[str, str | int]:
        """What is kept of it outside the database."""
        return {
            "idempotency_key": self.attempt.idempotency_key,
            "invoice_id": self.attempt.invoice_id,
            "attempt_number": self.attempt.attempt_number,
            "gateway": self.gateway,
            "amount_minor": self.attempt.amount.minor,
            "currency": self.attempt.amount.currency,
        }


@dataclass(frozen=True, slots=True)
class LastAttempt:
    """An invoice and how far its payment is; number 0 and state None where nothing was intended yet."""

    invoice_id: str
    invoice_number: str | None
    is_issued: bool
    total_minor: int
    attempt_number: int
    state: AttemptState | None


def intend(connection: Connection, invoice_id: str, attempt_number: int = 1) -> None:
    """
    Write down that an issued invoice's money will be asked for.

    Nothing where there is nothing to pay, where the attempt is there, or where the one before it was not declined.
    """
    key = payment_key(invoice_id, attempt_number)
    connection.execute(QUERIES["intend"], {"invoice_id": invoice_id, "attempt_number": attempt_number, "key": key})


def undecided(
    connection: Connection, invoice_ids: Sequence[str] | None, telling_gateways: Sequence[str] = ()
) -> list[Undecided]:
    """
    Attempts that have no definite outcome, by invoice number.

    Args:
        connection: Autocommit.
        invoice_ids: Of these invoices; None: of all.
        telling_gateways: Requested attempts of these gateways too, as they may know by now that the money came.
    """
    wanted = None if invoice_ids is None else list(invoice_ids)
    parameters = {"invoice_ids": wanted, "telling_gateways": list(telling_gateways)}
    return [
        Undecided(
            attempt=Attempt(
                invoice_id=row["invoice_id"],
                attempt_number=row["attempt_number"],
                invoice_number=row["invoice_number"],
                account_id=row["account_id"],
                amount=Money(row["amount_minor"], row["currency"]),
                idempotency_key=row["idempotency_key"],
                customer=row["payment_customer"],
                payment_method=row["payment_method"],
                period_end=row["period_end"],
            ),
            gateway=row["gateway"],
        )
        for row in _rows(connection, "undecided", parameters)
    ]


def last_attempt(connection: Connection, name: str) -> LastAttempt | None:
    """How far the payment of an invoice is, by number or id; None where there is no such invoice."""
    rows = _rows(connection, "last_attempt", {"name": name})
    if not rows:
        return None
    row = rows[0]
    return LastAttempt(
        row["invoice_id"],
        row["number"],
        row["invoice_state"] == "issued",
        row["total_minor"],
        row["attempt_number"] or 0,
        row["state"],
    )


@contextmanager
def attempt_lock(connection: Connection, attempt: Attempt) -> Iterator[bool]:
    """Keep other runs off an attempt while its gateway is called; False where another run has it."""
    key = {"key": attempt.idempotency_key}
    is_ours = bool(connection.execute(QUERIES["try_lock_attempt"], key).fetchone()[0])  # type: ignore[index]
    try:
        yield is_ours
    finally:
        if is_ours and not connection.closed:
            connection.execute(QUERIES["unlock_attempt"], key)


def attempt_state(connection: Connection, attempt: Attempt) -> AttemptState:
    """The attempt's state as of now."""
    state: AttemptState = _one(_rows(connection, "attempt_state", _key(attempt)), attempt)["state"]
    return state


def record_outcome(connection: Connection, attempt: Attempt, outcome: GatewayOutcome) -> bool:
    """
    Keep what the gateway said and post what succeeded, in one transaction.

    Returns:
        False where another run had an answer first, or where the answer changes nothing.
    """
    with connection.transaction():
        row = _one(_rows(connection, "lock_attempt", _key(attempt)), attempt)
        if not may_follow(row["state"], outcome.state):
            return False
        if outcome.state == "succeeded":
            _post(connection, attempt, row)
        said = {"state": outcome.state, "reference": outcome.reference, "detail": outcome.detail}
        connection.execute(QUERIES["record_outcome"], {**_key(attempt), **said})
    return True


def _post(connection: Connection, attempt: Attempt, row: Mapping[str, Any]) -> None:
    """Debit cash, credit receivable."""
    connection.execute(QUERIES["ensure_ledger_accounts"], row)
    key = {"key": f"payment:{attempt.idempotency_key}"}
    transaction = _one(_rows(connection, "insert_ledger_transaction", key), attempt)
    amount = Decimal(format_minor(row["amount_minor"], row["currency"]))
    connection.execute(QUERIES["insert_ledger_entries"], {**row, **transaction, "amount": amount})


def _key(attempt: Attempt) -> dict[str, Any]:
    return {"invoice_id": attempt.invoice_id, "attempt_number": attempt.attempt_number}


def _one(rows: Sequence[dict[str, Any]], attempt: Attempt) -> dict[str, Any]:
    if len(rows) != 1:
        raise InvariantViolation(f"payment attempt {attempt.idempotency_key} is not stored", "attempt_lost")
    return rows[0]


def _rows(connection: Connection, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[name], parameters).fetchall()
