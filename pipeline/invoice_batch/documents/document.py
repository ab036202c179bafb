"""The invoice as JSON: the document that is stored, sealed by its digest, and rendered."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.domain.decimals import plain
from pipeline.domain.money import format_minor
from pipeline.invoice_batch.rules import exact_sum, month_label

FORMAT = "rackmeter.invoice.v1"


def build_document(
    header: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    number: str,
    issued_on: date,
    due_on: date,
    reference: str,
) -> dict[str, Any]:
    """
    Make the document of an invoice; the same cut gives the same document, whenever and wherever it is made.

    Amounts are decimal text in major units, times RFC 3339 in UTC, `last_day` inclusive. Database ids, log offsets
    and the archive's file names stay out: they depend on how the work was dealt to workers. They are sealed in
    invoice.cut, beside the document.

    Args:
        header: The row of query invoice_header.
        lines: The rows of query invoice_lines.
        reference: What the buyer pays under; '' for none.
    """
    currency = header["currency"]
    exact = exact_sum(line["amount_exact"] for line in lines)
    total = Decimal(format_minor(header["total_minor"], currency))
    documented = [_line(line, currency, header) for line in lines]
    return {
        "format": FORMAT,
        "invoice_id": header["invoice_id"],
        "number": number,
        "issued_on": issued_on.isoformat(),
        "due_on": due_on.isoformat(),
        "currency": currency,
        "service_period": _service_period(header["period_start"], header["period_end"], header["time_zone"]),
        "seller": {
            "id": header["seller"],
            "name": header["seller_name"],
            "address": list(header["seller_address"]),
            "tax_id": header["tax_id"],
            "bank_account": header["bank_account"],
        },
        "buyer": {
            "account_id": header["account_id"],
            "name": header["buyer_name"],
            "address": list(header["buyer_address"]),
        },
        "products": _by_product(lines, currency),
        "lines": documented,
        "total": format_minor(header["total_minor"], currency),
        "total_exact": plain(exact),
        "rounding": plain(exact_sum((total, exact.copy_negate()))),
        "payment": {
            "gateway": header["payment_gateway"],
            "terms_days": header["payment_terms_days"],
            "reference": reference,
        },
        "proof": _proof(header),
    }


def _proof(header: Mapping[str, Any]) -> dict[str, Any]:
    report = header["proof"] or {}
    counts = {name: report[name] for name in ("events", "lines") if isinstance(report.get(name), int)}
    seals = {name: header["cut"][name] for name in ("catalogue_digest", "assignment_digest")}
    return {**counts, **seals}


def _by_product(lines: Sequence[Mapping[str, Any]], currency: str) -> list[dict[str, str]]:
    sums: dict[str, int] = {}
    for line in lines:
        sums[line["product"]] = sums.get(line["product"], 0) + line["amount_minor"]
    return [{"product": product, "amount": format_minor(minor, currency)} for product, minor in sorted(sums.items())]


def _line(line: Mapping[str, Any], currency: str, header: Mapping[str, Any]) -> dict[str, Any]:
    documented = {
        "line": line["line_number"],
        "description": line["description"],
        "product": line["product"],
        "item": line["item"],
        "subscription": line["subscription_id"],
        "subject": line["subject"],
        "service_period": _service_period(
            line["service_period_start"], line["service_period_end"], header["time_zone"]
        ),
        "quantity": plain(line["quantity"]),
        "unit": line["unit"] or "",
        "segments": [
            {name: value for name, value in segment.items() if name != "price_version_id"}
            for segment in line["breakdown"]
        ],
        "amount": format_minor(line["amount_minor"], currency),
        "amount_exact": plain(line["amount_exact"]),
    }
    if line["service_period_start"] < header["period_start"]:
        documented["charged_before"] = plain(line["charged_before"])
        documented["charged_now"] = plain(exact_sum((line["charged_before"], line["amount_exact"])))
    return documented


def _service_period(start: datetime, end: datetime, zone_name: str) -> dict[str, str]:
    last = end.astimezone(ZoneInfo(zone_name)) - timedelta(microseconds=1)
    return {
        "month": month_label(start, zone_name),
        "start": rfc3339(start),
        "end": rfc3339(end),
        "first_day": start.astimezone(ZoneInfo(zone_name)).date().isoformat(),
        "last_day": last.date().isoformat(),
        "time_zone": zone_name,
    }


def rfc3339(at: datetime) -> str:
    """An instant in UTC as text, e.g. 2013-06-30T22:00:00Z."""
    return at.isoformat().replace("+00:00", "Z")
