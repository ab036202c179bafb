"""Amounts: whole minor units as documents show them, and exact ones as the ledger holds them."""

from dataclasses import dataclass
from decimal import Decimal

from pipeline.domain.currency import minor_exponent


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in whole minor units (cents) of an ISO 4217 currency."""

    minor: int
    currency: str

    def __str__(self) -> str:
        return f"{format_minor(self.minor, self.currency)} {self.currency}"


@dataclass(frozen=True, slots=True)
class ExactAmount:
    """An amount in major units (euros) at the posting scale, before it is rounded to the currency."""

    value: Decimal
    currency: str


def format_minor(minor: int, currency: str) -> str:
    """Minor units as text in major units: (1234, "EUR") -> "12.34", (-5, "EUR") -> "-0.05", (12, "JPY") -> "12"."""
    exponent = minor_exponent(currency)
    sign = "-" if minor < 0 else ""
    digits = str(abs(minor)).rjust(exponent + 1, "0")
    if exponent == 0:
        return sign + digits
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"
