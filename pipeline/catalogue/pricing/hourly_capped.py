"""hourly_capped: so much an hour, per server, never more than the cap a period. Parameters: unit_price, cap.

The cap is prorated to the part of the period that the price is in force for.
"""

from collections.abc import Mapping
from fractions import Fraction

from pipeline.catalogue.pricing.rated import (
    Fault,
    Rated,
    decimal_faults,
    exact,
    normalised,
    refuse_negative,
    shown,
    step,
    unknown_faults,
)

PER_SUBJECT = True


def check(parameters: Mapping[str, object]) -> list[Fault]:
    """Everything wrong with the parameters."""
    return [
        *unknown_faults(parameters, ("unit_price", "cap")),
        *decimal_faults(parameters, "unit_price"),
        *decimal_faults(parameters, "cap"),
    ]


def normalise(parameters: Mapping[str, object]) -> dict[str, object]:
    """Canonical parameters."""
    return {"unit_price": normalised(parameters, "unit_price"), "cap": normalised(parameters, "cap")}


def rate(parameters: Mapping[str, object], quantity: Fraction, share: Fraction) -> Rated:
    """Quantity times unit price, at most cap times share; where the cap is reached a second step takes the rest off."""
    refuse_negative(quantity)
    unit_price, cap = exact(parameters, "unit_price"), exact(parameters, "cap") * share
    uncapped = quantity * unit_price
    steps = [step("every hour", quantity, unit_price)]
    if uncapped > cap:
        steps.append(step(f"capped at {shown(cap)}", Fraction(1), cap - uncapped))
    return Rated(min(uncapped, cap), tuple(steps))
