"""graduated: each unit costs what its tier says. Parameters: tiers, ascending by up_to, the last without end.

Tiers begin anew in each segment of a period and are not prorated.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import cast

from pipeline.catalogue.pricing.rated import (
    Fault,
    Rated,
    Step,
    decimal_faults,
    exact,
    normalised,
    refuse_negative,
    shown,
    step,
    unknown_faults,
)
from pipeline.domain.decimals import parse_exact

PER_SUBJECT = False


def check(parameters: Mapping[str, object]) -> list[Fault]:
    """Everything wrong with the parameters: order, gaps (a last tier that ends), prices below zero."""
    faults = unknown_faults(parameters, ("tiers",))
    tiers = parameters.get("tiers")
    if not isinstance(tiers, list) or not tiers:
        return [*faults, Fault("tiers", "is missing, or not a list of tiers {up_to, unit_price}")]
    reached = parse_exact("0")
    for index, tier in enumerate(tiers):
        where = f"tiers[{index}]."
        if not isinstance(tier, dict):
            faults.append(Fault(where[:-1], "is not a tier {up_to, unit_price}"))
            continue
        faults += unknown_faults(tier, ("up_to", "unit_price"), where)
        faults += decimal_faults(tier, "unit_price", where)
        up_to = tier.get("up_to")
        is_last = index == len(tiers) - 1
        if is_last and up_to is not None:
            # Its number is looked at all the same: it stays where another tier is added behind it.
            faults.append(Fault(f"{where}up_to", "ends the last tier, so use beyond it has no price; leave it out"))
        if up_to is None:
            if not is_last:
                faults.append(Fault(f"{where}up_to", "is missing; only the last tier has no end"))
        elif bad := decimal_faults(tier, "up_to", where):
            faults += bad
        elif parse_exact(str(up_to)) <= reached:
            faults.append(Fault(f"{where}up_to", f"is {up_to}, but tiers ascend and the one before ends at {reached}"))
        else:
            reached = parse_exact(str(up_to))
    return faults


def normalise(parameters: Mapping[str, object]) -> dict[str, object]:
    """Canonical parameters."""
    tiers = cast(list[dict[str, object]], parameters["tiers"])
    return {
        "tiers": [
            {
                "up_to": normalised(tier, "up_to") if tier.get("up_to") is not None else None,
                "unit_price": normalised(tier, "unit_price"),
            }
            for tier in tiers
        ]
    }


def rate(parameters: Mapping[str, object], quantity: Fraction, share: Fraction) -> Rated:  # noqa: ARG001
    """The part of the quantity in each tier at the tier's price; tiers that are not reached have no step."""
    refuse_negative(quantity)
    amount, reached = Fraction(0), Fraction(0)
    steps: list[Step] = []
    for tier in cast(list[dict[str, object]], parameters["tiers"]):
        limit = None if tier["up_to"] is None else exact(tier, "up_to")
        stop = quantity if limit is None else min(quantity, limit)
        if stop <= reached:
            break
        unit_price = exact(tier, "unit_price")
        steps.append(step(_label(reached, limit), stop - reached, unit_price))
        amount += (stop - reached) * unit_price
        reached = stop
    return Rated(amount, tuple(steps))


def _label(start: Fraction, limit: Fraction | None) -> str:
    if limit is None:
        return f"above {shown(start)}"
    return f"{shown(start)} to {shown(limit)}"
