"""Payment attempts in the database; each function is one statement."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import dict_row

from pipeline.domain.keys import payment_key
from pipeline.domain.money import Money
from pipeline.payments.gateway import Attempt, GatewayOutcome
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)


@dataclass(frozen=True, slots=True)
class Undecided:
    """An attempt without a definite outcome; `asked` when the gateway may have heard of it."""

    attempt: Attempt
    gateway: str
    asked: bool

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


def intend(connection: Connection, invoice_id: str) -> None:
    """Write down that an issued invoice's money will be asked for; nothing where there is nothing to pay."""
    connection.execute(QUERIES["intend"], {"invoice_id": invoice_id, "key": payment_key(invoice_id, 1)})


def undecided(connection: Connection, invoice_ids: Sequence[str]) -> list[Undecided]:
    """The invoices' attempts that have no definite outcome, by invoice number."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(QUERIES["undecided"], {"invoice_ids": list(invoice_ids)}).fetchall()
    return [
        Undecided(
            attempt=Attempt(
                invoice_id=row["invoice_id"],
                attempt_number=row["attempt_number"],
                invoice_number=row["invoice_number"],
                account_id=row["account_id"],
                amount=Money(row["amount_minor"], row["currency"]),
                idempotency_key=row["idempotency_key"],
            ),
            gateway=row["gateway"],
            asked=row["state"] == "unknown",
        )
        for row in rows
    ]


def record_outcome(connection: Connection, attempt: Attempt, outcome: GatewayOutcome) -> bool:
    """Keep what the gateway said; False where another run had an answer first."""
    cursor = connection.execute(
        QUERIES["record_outcome"],
        {
            "invoice_id": attempt.invoice_id,
            "attempt_number": attempt.attempt_number,
            "state": outcome.state,
            "reference": outcome.reference,
            "detail": outcome.detail,
        },
    )
    return cursor.rowcount == 1
