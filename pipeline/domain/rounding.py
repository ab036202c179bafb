"""The two roundings there are: to the posting scale, once; to the currency, once. Half goes away from zero."""

from decimal import Decimal
from fractions import Fraction

from pipeline.domain.currency import minor_exponent

POSTING_SCALE = 12
"""Decimals of an amount in the ledger."""


def _nearest_half_away(numerator: int, denominator: int) -> int:
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return magnitude if numerator >= 0 else -magnitude


def _decimal_of_units(units: int) -> Decimal:
    # Built from text: scaleb and arithmetic would round to the context's precision.
    return Decimal(f"{units}E-{POSTING_SCALE}")


def quantise_posting(value: Fraction) -> Decimal:
    """The nearest decimal with exactly 12 decimals; a tie goes away from zero."""
    return _decimal_of_units(_nearest_half_away(value.numerator * 10**POSTING_SCALE, value.denominator))


def round_line(amount: Decimal, currency: str) -> tuple[int, Decimal]:
    """Round an amount in major units to (whole minor units, remainder in major units), half away from zero.

    The minor units plus the remainder are the amount, exactly; the remainder has 12 decimals. An amount with more
    than 12 decimals was never posted and is a ValueError.
    """
    numerator, denominator = amount.as_integer_ratio()
    scaled = numerator * 10**POSTING_SCALE
    if scaled % denominator:
        raise ValueError(f"{amount} has more than {POSTING_SCALE} decimals")
    units = scaled // denominator
    units_per_minor: int = 10 ** (POSTING_SCALE - minor_exponent(currency))
    minor = _nearest_half_away(units, units_per_minor)
    return minor, _decimal_of_units(units - minor * units_per_minor)
