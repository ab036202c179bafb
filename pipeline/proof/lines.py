"""What a line should say: its quantity, amount, text and the steps of its price, by our own statement."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.proof import prices
from pipeline.proof.booked import same_steps
from pipeline.proof.books import Books, shown
from pipeline.proof.charges import Cost
from pipeline.proof.facts import Catalogue, Invoice, Line
from pipeline.proof.ownership import month_around
from pipeline.proof.report import Findings

STEP = "invoices"
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def check_line(invoice: Invoice, line: Line, cost: Cost, books: Books, findings: Findings) -> None:
    """Compare a line with what its item costs, less what older invoices charged for it."""
    name = f"line {line.line_number} of {invoice.name}"
    quantity = cost.quantities.get(line.product, Fraction(0))
    exact = Fraction(cost.amounts.get(line.product, Decimal(0))) - books.charged_before(invoice, line)
    if Fraction(line.quantity) != quantity:
        findings.add(STEP, f"{name}: quantity {line.quantity:f} recomputed {shown(quantity)}")
    if Fraction(line.amount_exact) != exact:
        findings.add(STEP, f"{name}: amount {line.amount_exact:f} {invoice.currency} recomputed {shown(exact)}")
    minor = prices.minor_units(line.amount_exact, invoice.currency)
    if line.amount_minor != minor:
        findings.add(STEP, f"{name}: {line.amount_minor} minor units, rounded again {minor}")
    if line.service_period_start > invoice.period_start:
        findings.add(STEP, f"{name} is for a later period than its invoice")
    if (line.service_period_start, line.service_period_end) != month_around(
        line.service_period_start, invoice.time_zone
    ):
        findings.add(STEP, f"{name}: its service period is not a calendar month of {invoice.time_zone}")
    wanted = wording(invoice, line)
    if line.description != wanted:
        findings.add(STEP, f"{name} reads {line.description!r}, should read {wanted!r}")
    steps = [part.breakdown for part in cost.parts if part.price.product == line.product]
    if not same_steps(line.breakdown, steps):
        findings.add(STEP, f"{name}: the steps of the price are not those recomputed")
    findings.compared["lines"] += 1


def wording(invoice: Invoice, line: Line) -> str:
    """Give the text of a line."""
    text = f"{line.item}, server {line.subject}" if line.subject else line.item
    if line.service_period_start < invoice.period_start:
        local = line.service_period_start.astimezone(ZoneInfo(invoice.time_zone))
        text += f": correction for {_MONTHS[local.month - 1]} {local.year}"
    return text


def units_of(known: Catalogue) -> Mapping[tuple[str, str], str]:
    """Give the unit of each (subscription, item): of the newest version of the meter it was bound to last."""
    units = {meter.meter: meter.unit for meter in sorted(known.meters, key=lambda meter: meter.version)}
    bound = sorted(known.bindings, key=lambda row: (row.known_number, row.effective_from))
    return {(row.subscription_id, row.item): units.get(row.meter, "") for row in bound}


def documented(invoice: Invoice, line: Line, unit: str, charged_before: Fraction) -> dict[str, Any]:
    """Give what the document should have of a line; numbers as fractions."""
    said: dict[str, Any] = {
        "line": line.line_number,
        "description": line.description,
        "product": line.product,
        "item": line.item,
        "subscription": line.subscription_id,
        "subject": line.subject,
        "service_period": month(line.service_period_start, line.service_period_end, invoice.time_zone),
        "quantity": Fraction(line.quantity),
        "unit": unit,
        "segments": [
            {name: value for name, value in part.items() if name != "price_version_id"} for part in line.breakdown
        ],
        "amount": Fraction(line.amount_minor, prices.minor_per_unit(invoice.currency)),
        "amount_exact": Fraction(line.amount_exact),
    }
    if line.service_period_start < invoice.period_start:
        said["charged_before"] = charged_before
        said["charged_now"] = charged_before + Fraction(line.amount_exact)
    return said


def month(start: datetime, end: datetime, zone_name: str) -> dict[str, str]:
    """Give a service period as documents have it."""
    zone = ZoneInfo(zone_name)
    first = start.astimezone(zone)
    last = end.astimezone(zone) - datetime.resolution
    return {
        "month": f"{first.year:04d}-{first.month:02d}",
        "start": start.astimezone(ZoneInfo("UTC")).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end": end.astimezone(ZoneInfo("UTC")).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "first_day": first.date().isoformat(),
        "last_day": last.date().isoformat(),
        "time_zone": zone_name,
    }
