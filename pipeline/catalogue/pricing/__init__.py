"""How a quantity becomes an amount; one price model a file, registered here by its name in the catalogue.

A model is a module with `PER_SUBJECT` (billed per server, or per subscription), `check` and `normalise` (from the text
of the catalogue to canonical parameters) and `rate`. To add one: write its file, name it in MODELS.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Protocol

from pipeline.catalogue.pricing import graduated, hourly_capped, per_unit
from pipeline.catalogue.pricing.rated import Fault, Rated, Step

__all__ = ["MODELS", "Fault", "PriceModel", "Rated", "Step"]


class PriceModel(Protocol):
    """What a price model's module offers."""

    PER_SUBJECT: bool
    """Whether the billed item is one server, or all servers of the subscription together."""

    def check(self, parameters: Mapping[str, object]) -> list[Fault]:
        """Everything wrong with parameters as written (text, lists and mappings of text)."""

    def normalise(self, parameters: Mapping[str, object]) -> dict[str, object]:
        """Canonical parameters of what `check` found good: decimals as plain strings."""

    def rate(self, parameters: Mapping[str, object], quantity: Fraction, share: Fraction) -> Rated:
        """Price a quantity.

        Args:
            parameters: Canonical.
            quantity: In the price's unit, not negative (else ValueError).
            share: Part of the period that the price is in force for; prorates caps.
        """


MODELS: Mapping[str, PriceModel] = {
    "per_unit": per_unit,
    "graduated": graduated,
    "hourly_capped": hourly_capped,
}
