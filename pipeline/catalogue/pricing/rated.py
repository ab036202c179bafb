"""What pricing gives: an exact amount and the steps that lead to it; and reading of decimals in parameters."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from pipeline.domain.decimals import parse_exact, plain
from pipeline.domain.rounding import quantise_posting


class Fault(NamedTuple):
    """One thing wrong with a price's parameters; `field` is its path, e.g. tiers[1].up_to."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a price, for people: exact decimal strings, at 12 decimals where they do not end."""

    label: str
    quantity: str
    unit_price: str
    amount: str


@dataclass(frozen=True, slots=True)
class Rated:
    """An amount in major units, exact, and the steps that add up to it."""

    amount: Fraction
    steps: tuple[Step, ...]


def step(label: str, quantity: Fraction, unit_price: Fraction) -> Step:
    """A step that charges a quantity at a price."""
    return Step(label, shown(quantity), shown(unit_price), shown(quantity * unit_price))


def shown(value: Fraction) -> str:
    """The value as a decimal string: exact where its decimals end within 28, else at 12 decimals, half up."""
    scale = 10**28
    if scale % value.denominator == 0:
        return plain(Decimal(f"{value.numerator * (scale // value.denominator)}E-28"))
    return plain(quantise_posting(value))


def exact(parameters: Mapping[str, object], field: str) -> Fraction:
    """A canonical decimal parameter."""
    return Fraction(str(parameters[field]))


def refuse_negative(quantity: Fraction) -> None:
    """ValueError for a quantity below zero: nothing is priced backwards."""
    if quantity < 0:
        raise ValueError(f"quantity {quantity} is negative")


def decimal_faults(parameters: Mapping[str, object], field: str, where: str = "") -> list[Fault]:
    """What is wrong with a decimal that must be there and not negative."""
    path = where + field
    if field not in parameters:
        return [Fault(path, "is missing")]
    value = parameters[field]
    if not isinstance(value, str):
        return [Fault(path, "is not a decimal number")]
    try:
        return [Fault(path, f"is negative: {value}")] if parse_exact(value) < 0 else []
    except ValueError as error:
        return [Fault(path, str(error))]


def unknown_faults(parameters: Mapping[str, object], known: Collection[str], where: str = "") -> list[Fault]:
    """A fault for every key that the model does not have."""
    message = f"is not known here; known: {', '.join(known)}"
    return [Fault(where + key, message) for key in parameters if key not in known]


def normalised(parameters: Mapping[str, object], field: str) -> str:
    """A decimal as plain text, so that 0.40 and 0.4 are the same price."""
    return plain(parse_exact(str(parameters[field])))
