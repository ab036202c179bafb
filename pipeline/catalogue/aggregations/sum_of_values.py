"""sum: each sample's value counts in the slot it lies in."""

from collections.abc import Sequence


def slot_quantities(
    samples: Sequence[tuple[int, int]],
    *,
    from_us: int,
    to_us: int,
    slot_us: int,
    gap_us: int = 0,  # noqa: ARG001 - one signature for all aggregations
) -> dict[int, int]:
    """Quantities in 10^-9 of the unit, by slot start."""
    found: dict[int, int] = {}
    for at_us, value in samples:
        if from_us <= at_us < to_us:
            slot = at_us - at_us % slot_us
            found[slot] = found.get(slot, 0) + value
    return found
