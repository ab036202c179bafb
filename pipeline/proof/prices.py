"""What a quantity costs: the price models stated a second time, in Fractions."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pipeline.domain.errors import InvariantViolation

#: Decimals of an amount in the ledger.
POSTING_DECIMALS = 12

#: Digits of the minor unit by ISO 4217; what is not here is not guessed.
MINOR_DIGITS: Mapping[str, int] = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "XAF"), 0),
    **dict.fromkeys(("EUR", "USD", "GBP", "CHF", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "RON", "BGN", "TRY"), 2),
    **dict.fromkeys(("AUD", "CAD", "NZD", "SGD", "HKD", "CNY", "INR", "BRL", "MXN", "ZAR", "ILS", "AED", "THB"), 2),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}

PER_SERVER_MODELS = frozenset({"hourly_capped"})


def amount_of(model: str, parameters: Mapping[str, Any], quantity: Fraction, share: Fraction) -> Fraction:
    """
    Price a quantity in the price's unit; `share` is the part of the period the price is in force for.

    Raises:
        InvariantViolation: The model is not one the proof can state.
    """
    if model == "per_unit":
        return quantity * Fraction(parameters["unit_price"])
    if model == "graduated":
        total, lower = Fraction(0), Fraction(0)
        for tier in parameters["tiers"]:
            upper = quantity if tier["up_to"] is None else min(quantity, Fraction(tier["up_to"]))
            total += max(upper - lower, Fraction(0)) * Fraction(tier["unit_price"])
            lower = max(lower, upper)
        return total
    if model == "hourly_capped":
        return min(quantity * Fraction(parameters["unit_price"]), Fraction(parameters["cap"]) * share)
    raise InvariantViolation(f"the proof has no statement of price model {model!r}")


def posted(amount: Fraction) -> Decimal:
    """Quantise once, half away from zero, to the ledger's 12 decimals."""
    return Decimal(f"{_half_away(amount * 10**POSTING_DECIMALS)}E-{POSTING_DECIMALS}")


def minor_units(amount: Decimal, currency: str) -> int:
    """
    Round an amount to the currency's minor unit, half away from zero.

    Raises:
        InvariantViolation: The currency's minor unit is not known here.
    """
    return _half_away(Fraction(amount) * minor_per_unit(currency))


def minor_per_unit(currency: str) -> int:
    """
    How many minor units make one of the currency.

    Raises:
        InvariantViolation: The currency's minor unit is not known here.
    """
    if currency not in MINOR_DIGITS:
        raise InvariantViolation(f"the proof does not know the minor unit of {currency}")
    return int(10 ** MINOR_DIGITS[currency])


def _half_away(value: Fraction) -> int:
    whole, rest = divmod(abs(value), 1)
    rounded = int(whole) + (1 if rest >= Fraction(1, 2) else 0)
    return rounded if value >= 0 else -rounded
