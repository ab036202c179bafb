"""Lines, totals, numbers and dates of an invoice: pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Context, Decimal
from zoneinfo import ZoneInfo

from pipeline.domain.errors import InvariantViolation
from pipeline.domain.period import Period
from pipeline.domain.rounding import round_line
from pipeline.invoice_batch.model import DraftLine, ItemCharge, Posting

# Wide enough that no sum of amounts or quantities is ever rounded.
_EXACT = Context(prec=120)
_DIGITS = re.compile(r"(\d+)")


def exact_sum(values: Iterable[Decimal]) -> Decimal:
    """The sum, never rounded to the context's precision."""
    total = Decimal(0)
    for value in values:
        total = _EXACT.add(total, value)
    return total


def natural_key(text: str) -> tuple[tuple[bool, int, str], ...]:
    """Sort key that puts vm-2 before vm-10."""
    return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in _DIGITS.split(text) if part)


def month_name(at: datetime, zone_name: str) -> str:
    """The local month of an instant, as in "July 2013"."""
    return f"{at.astimezone(ZoneInfo(zone_name)):%B %Y}"


def month_label(at: datetime, zone_name: str) -> str:
    """The local month of an instant, as in "2013-07"."""
    return f"{at.astimezone(ZoneInfo(zone_name)):%Y-%m}"


def draft_lines(
    items: Iterable[ItemCharge], postings: Iterable[Posting], period: Period, currency: str, zone_name: str
) -> list[DraftLine]:
    """
    Make the lines of one invoice: one per billed item and product.

    A line takes every posting of its item and product. An item of this period that was used but costs nothing gets a
    line of zero; an item without quantity and without postings gets none. Older periods come after the period's own
    lines and only with postings.

    Raises:
        InvariantViolation: A posting in another currency, for a later period or of an item that was not read; the gate
            lets none of these through.
    """
    charges = {charge.billed_item_id: charge for charge in items}
    taken: dict[tuple[int, str], list[Posting]] = defaultdict(list)
    for posting in postings:
        charge = charges.get(posting.billed_item_id)
        if charge is None or charge.period.start > period.start or posting.currency != currency:
            raise InvariantViolation(f"entry {posting.ledger_entry_id} does not belong on this invoice", "cut_foreign")
        taken[posting.billed_item_id, posting.product].append(posting)
    for charge in charges.values():
        if charge.period == period:
            for segment in charge.segments:
                if segment.quantity:
                    taken.setdefault((charge.billed_item_id, segment.product), [])
    lines = [
        _line(charges[billed_item_id], product, entries, period, currency, zone_name)
        for (billed_item_id, product), entries in taken.items()
    ]
    return sorted(lines, key=_line_order)


def _line(
    charge: ItemCharge, product: str, postings: Sequence[Posting], period: Period, currency: str, zone_name: str
) -> DraftLine:
    exact = exact_sum(posting.amount for posting in postings)
    minor, _ = round_line(exact, currency)
    versions = {segment.price_version_id for segment in charge.segments if segment.product == product}
    return DraftLine(
        billed_item_id=charge.billed_item_id,
        subscription_id=charge.subscription_id,
        item=charge.item,
        product=product,
        subject=charge.subject,
        service_period=charge.period,
        description=description(charge.item, charge.subject, charge.period, period, zone_name),
        quantity=exact_sum(segment.quantity for segment in charge.segments if segment.product == product),
        amount_exact=exact,
        amount_minor=minor,
        breakdown=tuple(part for part in charge.breakdown if part.get("price_version_id") in versions),
        ledger_entry_ids=tuple(sorted(posting.ledger_entry_id for posting in postings)),
    )


def _line_order(line: DraftLine) -> tuple[object, ...]:
    # Newest service period first: the period's own lines, then what came late.
    newest_first = -line.service_period.start.timestamp()
    return (newest_first, line.product, natural_key(line.subject), line.subscription_id, line.item)


def description(item: str, subject: str, service_period: Period, period: Period, zone_name: str) -> str:
    """What the line is for, in words."""
    text = f"{item}, server {subject}" if subject else item
    if service_period.start < period.start:
        return f"{text}: correction for {month_name(service_period.start, zone_name)}"
    return text


def total_minor(lines: Iterable[DraftLine]) -> int:
    """The invoice's total: the sum of its rounded lines, never rounded again."""
    return sum(line.amount_minor for line in lines)


def due_date(issued_on: date, terms_days: int) -> date:
    """When the invoice is to be paid."""
    return issued_on + timedelta(days=terms_days)


def series_of(issued_on: date) -> str:
    """The number series an invoice issued that day belongs to: its year."""
    return f"{issued_on.year:04d}"


def invoice_number(prefix: str, series: str, number: int) -> str:
    """("RM", "2013", 1) -> "RM-2013-0001"; more digits when four are not enough."""
    return f"{prefix}-{series}-{number:04d}"


def ledger_amounts(
    taken: Mapping[tuple[int, datetime], Decimal], total: Decimal
) -> tuple[list[tuple[int, datetime, Decimal]], Decimal]:
    """
    The entries an invoice posts beside its receivable.

    Args:
        taken: (unbilled ledger account, service period) -> exact sum taken.
        total: The invoice's total in major units.

    Returns:
        Credits on the unbilled accounts, zeros left out, and the amount for the rounding account: receivable, credits
        and rounding sum to zero.
    """
    credited = [(account, start, amount.copy_negate()) for (account, start), amount in sorted(taken.items()) if amount]
    return credited, _EXACT.subtract(exact_sum(taken.values()), total)
