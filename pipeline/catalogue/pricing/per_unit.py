"""per_unit: every unit costs the same. Parameters: unit_price."""

from collections.abc import Mapping
from fractions import Fraction

from pipeline.catalogue.pricing.rated import (
    Fault,
    Rated,
    decimal_faults,
    exact,
    normalised,
    refuse_negative,
    step,
    unknown_faults,
)

PER_SUBJECT = False


def check(parameters: Mapping[str, object]) -> list[Fault]:
    """Everything wrong with the parameters."""
    return [*unknown_faults(parameters, ("unit_price",)), *decimal_faults(parameters, "unit_price")]


def normalise(parameters: Mapping[str, object]) -> dict[str, object]:
    """Canonical parameters."""
    return {"unit_price": normalised(parameters, "unit_price")}


def rate(parameters: Mapping[str, object], quantity: Fraction, share: Fraction) -> Rated:  # noqa: ARG001
    """Quantity times unit price."""
    refuse_negative(quantity)
    unit_price = exact(parameters, "unit_price")
    return Rated(quantity * unit_price, (step("every unit", quantity, unit_price),))
