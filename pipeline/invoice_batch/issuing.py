"""Proven invoices get their numbers, ledger transactions and documents: one transaction a seller and chunk."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.domain.keys import digest
from pipeline.domain.money import format_minor
from pipeline.domain.period import Period
from pipeline.invoice_batch import journalled, rules, store
from pipeline.invoice_batch.documents.document import build_document
from pipeline.invoice_batch.model import CloseRequest, Listener, Ports, Step
from pipeline.runtime.postgres import Connection

# Bounds how long one seller's series stays locked.
NUMBERS_PER_TRANSACTION = 500


def issue_proven(connection: Connection, ports: Ports, request: CloseRequest, tell: Listener) -> list[str]:
    """Issue every proven invoice, also what an earlier run proved and did not number; give their ids."""
    issued: list[str] = []
    for row in store.rows(connection, "sellers_to_number"):
        # A number that is in the journal is given: first what was begun under one.
        while begun := journalled.unfinished(connection, ports.journal, row["seller"]):
            issued += _told(tell, _finish_chunk(connection, ports, row["seller"], begun))
        while chunk := _issue_chunk(connection, ports, row["seller"], row["time_zone"], request):
            issued += _told(tell, chunk)
    return issued


def _told(tell: Listener, chunk: list[str]) -> list[str]:
    for invoice_id in chunk:
        tell(Step.ISSUED, invoice_id)
    return chunk


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
        headers = _headers(connection, waiting)
        number_next = store.lock_number(connection, seller, series)
        records = []
        for sequence, header in enumerate(headers, start=number_next):
            number = rules.invoice_number(header["number_prefix"], series, sequence)
            due_on = rules.due_date(issued_on, header["payment_terms_days"])
            document = _document(connection, ports, header, number, issued_on, due_on)
            _issue_one(connection, header, issued_on, due_on, document)
            records.append(journalled.record_of(seller, series, sequence, document))
        store.execute(
            connection, "advance_series", seller=seller, series=series, number_next=number_next + len(headers)
        )
        # Last, so that only what commits, or was killed in between, is in it.
        ports.journal.append(journalled.stream_of(seller, series), records)
    return waiting


def _finish_chunk(connection: Connection, ports: Ports, seller: str, begun: Sequence[journalled.Record]) -> list[str]:
    """Issue what the journal has as it has it; nothing where another run has done so meanwhile."""
    begun = begun[:NUMBERS_PER_TRANSACTION]
    series, first = begun[0]["series"], begun[0]["sequence"]
    with connection.transaction():
        wanted = [record["invoice_id"] for record in begun]
        found = store.rows(connection, "lock_begun", seller=seller, invoice_ids=wanted)
        number_next = store.lock_number(connection, seller, series)
        if number_next > first:
            return []
        journalled.check_waiting(begun, number_next, [row["invoice_id"] for row in found])
        for record, header in zip(begun, _headers(connection, wanted), strict=True):
            issued_on, due_on = journalled.dates_of(record)
            rebuilt = _document(connection, ports, header, record["number"], issued_on, due_on)
            journalled.check_same(record, rebuilt)
            _issue_one(connection, header, issued_on, due_on, record["document"])
        store.execute(connection, "advance_series", seller=seller, series=series, number_next=first + len(begun))
    return wanted


def _headers(connection: Connection, invoice_ids: Sequence[str]) -> list[dict[str, Any]]:
    headers = [store.rows(connection, "invoice_header", invoice_id=invoice_id)[0] for invoice_id in invoice_ids]
    for account_id, currency in sorted({(header["account_id"], header["currency"]) for header in headers}):
        store.execute(connection, "ensure_ledger_accounts", account_id=account_id, currency=currency)
    return headers


def _document(
    connection: Connection, ports: Ports, header: dict[str, Any], number: str, issued_on: date, due_on: date
) -> dict[str, Any]:
    lines = store.rows(connection, "invoice_lines", invoice_id=header["invoice_id"])
    reference = ports.payment_reference(header["payment_gateway"], number)
    return build_document(header, lines, number, issued_on, due_on, reference)


def _issue_one(
    connection: Connection, header: dict[str, Any], issued_on: date, due_on: date, document: Mapping[str, Any]
) -> None:
    this_id = header["invoice_id"]
    taken = {
        (row["ledger_account_id"], row["period_start"]): row["amount"]
        for row in store.rows(connection, "taken_sums", invoice_id=this_id)
    }
    receivable = Decimal(format_minor(header["total_minor"], header["currency"]))
    credited, rounding = rules.ledger_amounts(taken, receivable)
    store.post_invoice(connection, header, receivable, credited, rounding)
    store.issue(connection, this_id, document["number"], issued_on, due_on, document, digest(document))
    period = Period(header["period_start"], header["period_end"])
    store.set_period_state(connection, header["account_id"], period, "closed")
