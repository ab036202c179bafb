"""A run as tables for finance: pandas in, CSV out; amounts stay decimal text."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas

INVOICE_COLUMNS = (
    "number", "invoice_id", "account_id", "buyer", "seller", "issued_on", "due_on", "first_day", "last_day",
    "currency", "total", "total_exact", "rounding", "lines", "payment_reference",
)  # fmt: skip
LINE_COLUMNS = (
    "number", "line", "account_id", "subscription", "product", "item", "subject", "description", "service_start",
    "service_end", "quantity", "unit", "amount_exact", "amount", "currency",
)  # fmt: skip


def invoices_csv(documents: Sequence[Mapping[str, Any]]) -> str:
    """One row per invoice, in the order given."""
    return _csv([_invoice_row(document) for document in documents], INVOICE_COLUMNS)


def lines_csv(documents: Sequence[Mapping[str, Any]]) -> str:
    """One row per line; quantity in the meter's unit, service_end exclusive."""
    return _csv(
        [_line_row(document, line) for document in documents for line in document["lines"]],
        LINE_COLUMNS,
    )


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    # dtype object: pandas must not make floats of decimal text.
    frame = pandas.DataFrame(list(rows), columns=list(columns), dtype=object)
    return frame.to_csv(index=False, lineterminator="\n")


def _invoice_row(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": document["number"],
        "invoice_id": document["invoice_id"],
        "account_id": document["buyer"]["account_id"],
        "buyer": document["buyer"]["name"],
        "seller": document["seller"]["id"],
        "issued_on": document["issued_on"],
        "due_on": document["due_on"],
        "first_day": document["service_period"]["first_day"],
        "last_day": document["service_period"]["last_day"],
        "currency": document["currency"],
        "total": document["total"],
        "total_exact": document["total_exact"],
        "rounding": document["rounding"],
        "lines": len(document["lines"]),
        "payment_reference": document["payment"]["reference"],
    }


def _line_row(document: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": document["number"],
        "line": line["line"],
        "account_id": document["buyer"]["account_id"],
        "subscription": line["subscription"],
        "product": line["product"],
        "item": line["item"],
        "subject": line["subject"],
        "description": line["description"],
        "service_start": line["service_period"]["start"],
        "service_end": line["service_period"]["end"],
        "quantity": line["quantity"],
        "unit": line["unit"],
        "amount_exact": line["amount_exact"],
        "amount": line["amount"],
        "currency": document["currency"],
    }
