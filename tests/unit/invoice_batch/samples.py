"""A made-up invoice for the document tests: two products, tiers, a cap, a change of price, a late correction."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from pipeline.invoice_batch.documents.document import build_document

JULY = (datetime(2013, 6, 30, 22, tzinfo=UTC), datetime(2013, 7, 31, 22, tzinfo=UTC))
JUNE = (datetime(2013, 5, 31, 22, tzinfo=UTC), datetime(2013, 6, 30, 22, tzinfo=UTC))


def header() -> dict[str, Any]:
    return {
        "invoice_id": "inv_0123456789abcdef0123",
        "account_id": "northwind",
        "period_start": JULY[0],
        "period_end": JULY[1],
        "currency": "EUR",
        "state": "proven",
        "cut": {"known_number": 3, "catalogue_digest": "ca" * 32, "assignment_digest": "a5" * 32},
        "total_minor": 124_357,
        "proof": {"events": 412_345, "lines": 6, "differences": []},
        "buyer_name": "Northwind Webshops & Sons B.V.",
        "buyer_address": ["Keizersgracht 12", "1015 CN Amsterdam", "Netherlands"],
        "time_zone": "Europe/Amsterdam",
        "payment_gateway": "manual",
        "payment_terms_days": 14,
        "seller": "rackmeter-nl",
        "seller_name": "Rackmeter Hosting B.V.",
        "seller_address": ["Science Park 400", "1098 XH Amsterdam", "Netherlands"],
        "tax_id": "NL001234567B01",
        "bank_account": "NL91ABNA0417164300",
        "number_prefix": "RM",
    }


def _segment(price: str, unit: str, quantity: str, steps: list[tuple[str, str, str, str]]) -> dict[str, Any]:
    return {
        "price_version_id": 7,
        "price": price,
        "unit": unit,
        "quantity": quantity,
        "from": "2013-06-30T22:00:00Z",
        "to": "2013-07-31T22:00:00Z",
        "steps": [dict(zip(("label", "quantity", "unit_price", "amount"), step, strict=True)) for step in steps],
    }


def _line(number: int, item: str, product: str, subject: str, quantity: str, exact: str, minor: int) -> dict[str, Any]:
    return {
        "line_number": number,
        "subscription_id": "northwind-main",
        "item": item,
        "product": product,
        "service_period_start": JULY[0],
        "service_period_end": JULY[1],
        "subject": subject,
        "description": f"{item}, server {subject}" if subject else item,
        "quantity": Decimal(quantity),
        "amount_exact": Decimal(exact),
        "amount_minor": minor,
        "breakdown": [],
        "unit": "core-second",
        "charged_before": Decimal(0),
    }


def lines() -> list[dict[str, Any]]:
    hours = _line(1, "server hours", "compute", "vm-2", "744", "29.000000000000", 2900)
    hours["unit"] = "hour"
    hours["breakdown"] = [
        _segment(
            "server-small",
            "hour",
            "744",
            [("every hour", "744", "0.04", "29.76"), ("capped at 29", "1", "-0.76", "-0.76")],
        )
    ]
    other = _line(2, "server hours", "compute", "vm-10", "311", "12.440000000000", 1244)
    other["unit"] = "hour"
    other["breakdown"] = [_segment("server-small", "hour", "311", [("every hour", "311", "0.04", "12.44")])]
    cpu = _line(3, "cpu", "compute", "", "321415321.123456", "1071.384403744853", 107_138)
    cpu["breakdown"] = [
        _segment(
            "cpu-hour",
            "core-hour",
            "89282.03364540444444",
            [("every unit", "89282.033645404444", "0.012", "1071.3844")],
        )
    ]
    traffic = _line(4, "traffic out", "network", "", "7423441002330", "65.880000000000", 6588)
    traffic["unit"] = "byte"
    traffic["breakdown"] = [
        _segment(
            "traffic",
            "GB",
            "7423.44100233",
            [
                ("0 to 1000", "1000", "0", "0"),
                ("1000 to 5000", "4000", "0.01", "40"),
                ("above 5000", "2423.44100233", "0.010678", "25.88"),
            ],
        )
    ]
    split = _line(5, "disk", "storage", "", "9000000000", "65.870400000000", 6587)
    split["unit"] = "KiB-second"
    first = _segment("disk-2013", "GiB-hour", "12000", [("every unit", "12000", "0.0025", "30")])
    second = _segment("disk-2013-07", "GiB-hour", "14347.68", [("every unit", "14347.68", "0.0025", "35.8692")])
    first["to"] = second["from"] = "2013-07-14T22:00:00Z"
    split["breakdown"] = [first, second]
    late = _line(6, "cpu", "compute", "", "180000", "-1.004403744853", -100)
    late["service_period_start"], late["service_period_end"] = JUNE
    late["description"] = "cpu: correction for June 2013"
    late["charged_before"] = Decimal("1.604403744853")
    late["breakdown"] = [_segment("cpu-hour", "core-hour", "50", [("every unit", "50", "0.012", "0.6")])]
    return [hours, other, cpu, traffic, split, late]


def document() -> dict[str, Any]:
    made = build_document(header(), lines(), "RM-2013-0001", date(2013, 8, 1), date(2013, 8, 15), "RF59RM20130001")
    # As it comes back from the database.
    read: dict[str, Any] = json.loads(json.dumps(made))
    return read
