"""active_hours: an hour counts once if at least one sample lies in it.

A slot's quantity is 1. The hours of a period are counted in steps of 3600 s from its start, and an hour belongs to who
held its start; so the quantity of a period never comes from sums of slots or days.
"""

from collections.abc import Iterable, Sequence

HOUR_US = 3_600_000_000


def slot_quantities(
    samples: Sequence[tuple[int, int]],
    *,
    from_us: int,
    to_us: int,
    slot_us: int,
    gap_us: int = 0,  # noqa: ARG001 - one signature for all aggregations
) -> dict[int, int]:
    """1 for every slot with a sample, by slot start."""
    return {at_us - at_us % slot_us: 1 for at_us, _ in samples if from_us <= at_us < to_us}


def active_hour_starts(slot_starts_us: Iterable[int], *, period_start_us: int, period_end_us: int) -> list[int]:
    """The starts of the period's hours that hold an active slot, ascending, in microseconds."""
    return sorted(
        {
            start - (start - period_start_us) % HOUR_US
            for start in slot_starts_us
            if period_start_us <= start < period_end_us
        }
    )
