"""How samples become the quantity of a slot; one aggregation a file, registered here by its name in the catalogue.

All four have one signature: samples are (at_us, value_nano), sorted by (time, epoch, number); all widths and edges are
microseconds, and `from_us` and `to_us` are slot edges. The answer names every slot of [from_us, to_us) that a sample
reaches, zeros included, by its start.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from pipeline.catalogue.aggregations import active_hours, increase, sum_of_values, time_weighted
from pipeline.catalogue.model import Aggregation


class SlotQuantities(Protocol):
    """See the package's docstring."""

    def __call__(
        self, samples: Sequence[tuple[int, int]], *, from_us: int, to_us: int, slot_us: int, gap_us: int
    ) -> dict[int, int]:
        """Quantities by slot start."""


@dataclass(frozen=True, slots=True)
class AggregationRule:
    """One aggregation as the stages see it."""

    slot_quantities: SlotQuantities
    quantity_decimals: int
    """A quantity is a whole number of 10^-this of the meter's unit."""
    is_ordered: bool
    """Needs a stream's samples in order, so its series are kept by source."""
    is_additive: bool
    """Slots add up to days and periods."""

    def to_decimal(self, quantity: int) -> Decimal:
        """A slot's quantity in the meter's unit, exact."""
        return Decimal(f"{quantity}E-{self.quantity_decimals}")


def _rule(
    slot_quantities: Callable[..., dict[int, int]], *, decimals: int, ordered: bool, additive: bool
) -> AggregationRule:
    return AggregationRule(slot_quantities, decimals, ordered, additive)


AGGREGATIONS: Mapping[Aggregation, AggregationRule] = {
    Aggregation.SUM: _rule(sum_of_values.slot_quantities, decimals=9, ordered=False, additive=True),
    Aggregation.TIME_WEIGHTED: _rule(time_weighted.slot_quantities, decimals=15, ordered=True, additive=True),
    Aggregation.INCREASE: _rule(increase.slot_quantities, decimals=9, ordered=True, additive=True),
    Aggregation.ACTIVE_HOURS: _rule(active_hours.slot_quantities, decimals=0, ordered=False, additive=False),
}
