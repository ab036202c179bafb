"""From samples to slots: which stretch of a stream a late or new sample changes, and what its slots come to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.aggregate.model import MeterRule, Sample
from pipeline.catalogue.aggregations import increase, time_weighted
from pipeline.domain.slots import US_PER_SECOND, ceil_us, floor_us

#: Slots divide this, so its edges are edges of every meter's slots.
EDGE_SECONDS = 900

_QUANTITIES: Mapping[str, Callable[..., dict[int, int]]] = {
    "time_weighted": time_weighted.slot_quantities,
    "increase": increase.slot_quantities,
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """
    The half-open event time whose slots new samples can change, in microseconds; its edges are slot edges.

    `first_us` and `last_us` are the earliest and the latest new sample; `reach_us` is how far the latest one can
    hold. What lies behind the next stored sample is not changed, and the store widens `to_us` to its slot's end,
    because an increase belongs to the slot of its later sample.
    """

    first_us: int
    last_us: int
    from_us: int
    reach_us: int


def stretch_of(samples: Sequence[Sample], gap_us_max: int) -> Stretch:
    """Give the stretch the new samples of one stream change."""
    first_us = min(sample[0] for sample in samples)
    last_us = max(sample[0] for sample in samples)
    return Stretch(
        first_us=first_us,
        last_us=last_us,
        from_us=floor_us(first_us, EDGE_SECONDS),
        reach_us=ceil_us(last_us + max(gap_us_max, 1), EDGE_SECONDS),
    )


def stretch_end_us(stretch: Stretch, next_sample_us: int | None) -> int:
    """Give the end of the stretch: its reach, or the end of the slot of the next stored sample if that lies beyond."""
    if next_sample_us is None:
        return stretch.reach_us
    return max(stretch.reach_us, floor_us(next_sample_us, EDGE_SECONDS) + EDGE_SECONDS * US_PER_SECOND)


def slot_quantities(
    rules: Iterable[MeterRule], stored: Sequence[Sample], new: Sequence[Sample], *, from_us: int, to_us: int
) -> Mapping[tuple[int, int], int]:
    """
    Recompute every slot of a stretch of one stream.

    Args:
        rules: The ordered meter versions over the stream's event type.
        stored: Samples already kept, from the one before `from_us` to the end of the stretch.
        new: Samples of this flush.
        from_us: Slot edge.
        to_us: Slot edge.

    Returns:
        (meter version id, slot start in microseconds) -> quantity: 10^-15 unit-seconds for time_weighted,
        10^-9 units for increase. Every slot that a value reaches is there, zeros too.
    """
    samples = sorted([*stored, *new], key=_by_time_and_identity)
    found: dict[tuple[int, int], int] = {}
    for rule in rules:
        start_us, end_us = max(from_us, rule.from_us), min(to_us, rule.to_us)
        if start_us >= end_us or rule.value_field is None:
            continue
        name = rule.value_field
        values = [(sample[0], sample[3][name]) for sample in samples if name in sample[3]]
        quantities = _QUANTITIES[rule.aggregation](
            values, from_us=start_us, to_us=end_us, slot_us=rule.slot_us, gap_us=rule.gap_us
        )
        for slot_start_us, quantity in quantities.items():
            found[rule.meter_version_id, slot_start_us] = quantity
    return found


def _by_time_and_identity(sample: Sample) -> tuple[int, str, int]:
    return sample[:3]
