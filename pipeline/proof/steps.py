"""How a price came about, for people: the steps an invoice prints, stated a second time."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from pipeline.domain.errors import InvariantViolation
from pipeline.proof.prices import posted

#: Decimals up to which a number is printed as it is; one that does not end within them is cut to a posting's.
_DECIMALS = 28


class Step(NamedTuple):
    """So much at such a price; the amounts of a quantity's steps add up to what it costs."""

    label: str
    quantity: Fraction
    unit_price: Fraction

    @property
    def amount(self) -> Fraction:
        """What the step costs."""
        return self.quantity * self.unit_price


def steps_of(model: str, parameters: Mapping[str, Any], quantity: Fraction, share: Fraction) -> list[Step]:
    """
    Give the steps of a quantity in the price's unit; arguments as those of `prices.amount_of`.

    Raises:
        InvariantViolation: The model is not one the proof can state.
    """
    if model == "per_unit":
        return [Step("every unit", quantity, Fraction(parameters["unit_price"]))]
    if model == "graduated":
        return _tiers(parameters["tiers"], quantity)
    if model == "hourly_capped":
        price, cap = Fraction(parameters["unit_price"]), Fraction(parameters["cap"]) * share
        over = quantity * price - cap
        steps = [Step("every hour", quantity, price)]
        return [*steps, Step(f"capped at {decimal_text(cap)}", Fraction(1), -over)] if over > 0 else steps
    raise InvariantViolation(f"the proof has no statement of price model {model!r}")


def _tiers(tiers: list[Mapping[str, Any]], quantity: Fraction) -> list[Step]:
    steps: list[Step] = []
    lower = Fraction(0)
    for tier in tiers:
        if quantity > lower:
            ends = None if tier["up_to"] is None else Fraction(tier["up_to"])
            upper = quantity if ends is None else min(quantity, ends)
            to = f"above {decimal_text(lower)}" if ends is None else f"{decimal_text(lower)} to {decimal_text(ends)}"
            steps.append(Step(to, upper - lower, Fraction(tier["unit_price"])))
            lower = upper
    return steps


def decimal_text(value: Fraction) -> str:
    """Write a number as plain decimal text, without zeros at the end."""
    scaled = value * 10**_DECIMALS
    number = Decimal(f"{scaled.numerator}E-{_DECIMALS}") if scaled.denominator == 1 else posted(value)
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
