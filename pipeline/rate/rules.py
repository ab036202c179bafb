"""What a total costs: pure, exact, one outcome an item."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from pipeline.catalogue.model import Price
from pipeline.catalogue.pricing import MODELS
from pipeline.catalogue.pricing.rated import shown
from pipeline.contracts.charge import Amount, BreakdownPart, BreakdownStep, Charge, Outcome
from pipeline.contracts.usage_total import Segment, Total
from pipeline.domain.decimals import plain
from pipeline.domain.errors import RejectedRecord
from pipeline.domain.period import Period
from pipeline.domain.rounding import quantise_posting

# Within numeric's reach, without an exponent and with no more decimals than `shown` gives exactly.
_QUANTITY = re.compile(r"-?[0-9]{1,60}(\.[0-9]{1,28})?")
_AMOUNT_DIGITS_MAX = 26
_AMOUNT_LIMIT = Decimal(10) ** _AMOUNT_DIGITS_MAX


def rate_total(total: Total, prices: Mapping[int, Price]) -> Charge:
    """
    Price every segment of a total and quantise each product's sum once, to 12 decimals.

    Args:
        total: Quantities in the meter's unit.
        prices: Price versions by id; at least those the total names, as far as they exist.

    Returns:
        The charge. Nothing about the total's content makes this raise: what cannot be rated has the outcome no_price
        (a price version does not exist) or failed, with the reason.
    """
    quantity = Fraction(0)
    try:
        quantity = sum((_read_quantity(segment) for segment in total.segments), Fraction(0))
        return _rate(total, prices, quantity)
    except RejectedRecord as rejection:
        outcome: Outcome = "no_price" if rejection.reason_code == "price_unknown" else "failed"
        return _unrated(total, quantity, outcome, f"{rejection.reason_code}: {rejection.detail}")
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        return _unrated(total, quantity, "failed", f"price_inapplicable: {type(error).__name__}: {error}")


def _rate(total: Total, prices: Mapping[int, Price], quantity: Fraction) -> Charge:
    period = Period(_read_time(total.period_start), _read_time(total.period_end))
    sums: dict[tuple[str, str], Fraction] = {}
    breakdown: list[BreakdownPart] = []
    for segment in total.segments:
        price = prices.get(segment.price_version_id)
        if price is None:
            raise RejectedRecord("price_unknown", f"price version {segment.price_version_id} does not exist")
        if total.currency is not None and price.currency != total.currency:
            raise RejectedRecord(
                "currency_differs", f"price {price.price} is in {price.currency}, the account in {total.currency}"
            )
        amount, part = _rate_segment(segment, price, period)
        product = (price.product, price.currency)
        sums[product] = sums.get(product, Fraction(0)) + amount
        breakdown.append(part)
    return Charge(
        billed_item_id=total.billed_item_id,
        revision=total.revision,
        outcome="rated",
        reason="",
        quantity=shown(quantity),
        amounts=tuple(
            Amount(product=product, currency=currency, amount=_posting_text(value))
            for (product, currency), value in sorted(sums.items())
        ),
        price_version_ids=_price_version_ids(total),
        breakdown=tuple(breakdown),
    )


def _rate_segment(segment: Segment, price: Price, period: Period) -> tuple[Fraction, BreakdownPart]:
    span = Period(_read_time(segment.start), _read_time(segment.end))
    if span.intersection(period) != span:
        raise RejectedRecord("segment_outside_period", f"{segment.start} to {segment.end} is not within the period")
    quantity = _read_quantity(segment) / Fraction(price.base_units)
    rated = MODELS[price.model].rate(price.parameters, quantity, span.share_of(period))
    part = BreakdownPart(
        price_version_id=segment.price_version_id,
        price=price.price,
        unit=price.unit,
        quantity=shown(quantity),
        start=segment.start,
        end=segment.end,
        steps=tuple(
            BreakdownStep(label=step.label, quantity=step.quantity, unit_price=step.unit_price, amount=step.amount)
            for step in rated.steps
        ),
    )
    return rated.amount, part


def _unrated(total: Total, quantity: Fraction, outcome: Outcome, reason: str) -> Charge:
    return Charge(
        billed_item_id=total.billed_item_id,
        revision=total.revision,
        outcome=outcome,
        reason=reason[:500],
        quantity=shown(quantity),
        amounts=(),
        price_version_ids=_price_version_ids(total),
        breakdown=(),
    )


def _price_version_ids(total: Total) -> tuple[int, ...]:
    return tuple(sorted({segment.price_version_id for segment in total.segments}))


def _read_quantity(segment: Segment) -> Fraction:
    if _QUANTITY.fullmatch(segment.quantity) is None:
        raise RejectedRecord("quantity_invalid", f"{segment.quantity[:80]!r} is not a plain decimal number")
    quantity = Fraction(segment.quantity)
    if quantity < 0:
        raise RejectedRecord("quantity_negative", f"{segment.quantity} is below zero")
    return quantity


def _read_time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise RejectedRecord("time_invalid", f"{text[:80]!r} is not an RFC 3339 time") from None
    if at.tzinfo is None:
        raise RejectedRecord("time_invalid", f"{text!r} names no zone")
    return at.astimezone(UTC)


def _posting_text(value: Fraction) -> str:
    posted = quantise_posting(value)
    if posted.copy_abs() >= _AMOUNT_LIMIT:
        raise RejectedRecord("amount_too_large", f"more than {_AMOUNT_DIGITS_MAX} digits before the point")
    return plain(posted)
