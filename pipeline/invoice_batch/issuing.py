"""Proven invoices get their numbers, ledger transactions and documents: one transaction a seller and chunk."""

from datetime import date
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.domain.keys import digest
from pipeline.domain.money import format_minor
from pipeline.domain.period import Period
from pipeline.invoice_batch import rules, store
from pipeline.invoice_batch.documents.document import build_document
from pipeline.invoice_batch.model import CloseRequest, Listener, Ports, Step
from pipeline.runtime.postgres import Connection

# Bounds how long one seller's series stays locked.
NUMBERS_PER_TRANSACTION = 500


def issue_proven(connection: Connection, ports: Ports, request: CloseRequest, tell: Listener) -> list[str]:
    """Issue every proven invoice, also what an earlier run proved and did not number; give their ids."""
    issued: list[str] = []
    for row in store.rows(connection, "sellers_to_number"):
        while chunk := _issue_chunk(connection, ports, row["seller"], row["time_zone"], request):
            for invoice_id in chunk:
                tell(Step.ISSUED, invoice_id)
            issued += chunk
    return issued


def _issue_chunk(connection: Connection, ports: Ports, seller: str, zone_name: str, request: CloseRequest) -> list[str]:
    issued_on = request.issued_on or request.now.astimezone(ZoneInfo(zone_name)).date()
    series = rules.series_of(issued_on)
    with connection.transaction():
        waiting = [
            row["invoice_id"]
            for row in store.rows(connection, "lock_proven", seller=seller, limit=NUMBERS_PER_TRANSACTION)
        ]
        if not waiting:
            return []
        headers = [store.rows(connection, "invoice_header", invoice_id=waiting_id)[0] for waiting_id in waiting]
        for account_id, currency in sorted({(header["account_id"], header["currency"]) for header in headers}):
            store.execute(connection, "ensure_ledger_accounts", account_id=account_id, currency=currency)
        number_next = store.lock_number(connection, seller, series)
        for offset, header in enumerate(headers):
            number = rules.invoice_number(header["number_prefix"], series, number_next + offset)
            _issue_one(connection, ports, header, number, issued_on)
        store.execute(
            connection, "advance_series", seller=seller, series=series, number_next=number_next + len(headers)
        )
    return waiting


def _issue_one(connection: Connection, ports: Ports, header: dict[str, Any], number: str, issued_on: date) -> None:
    this_id = header["invoice_id"]
    lines = store.rows(connection, "invoice_lines", invoice_id=this_id)
    due_on = rules.due_date(issued_on, header["payment_terms_days"])
    reference = ports.payment_reference(header["payment_gateway"], number)
    document = build_document(header, lines, number, issued_on, due_on, reference)
    taken = {
        (row["ledger_account_id"], row["period_start"]): row["amount"]
        for row in store.rows(connection, "taken_sums", invoice_id=this_id)
    }
    receivable = Decimal(format_minor(header["total_minor"], header["currency"]))
    credited, rounding = rules.ledger_amounts(taken, receivable)
    store.post_invoice(connection, header, receivable, credited, rounding)
    store.issue(connection, this_id, number, issued_on, due_on, document, digest(document))
    period = Period(header["period_start"], header["period_end"])
    store.set_period_state(connection, header["account_id"], period, "closed")
