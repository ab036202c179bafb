"""increase: how far a counter went up; the difference to the sample before belongs to the slot of the later one."""

from collections.abc import Sequence


def slot_quantities(
    samples: Sequence[tuple[int, int]],
    *,
    from_us: int,
    to_us: int,
    slot_us: int,
    gap_us: int = 0,  # noqa: ARG001 - one signature for all aggregations
) -> dict[int, int]:
    """Quantities in 10^-9 of the unit, by slot start.

    `samples` holds the last one before `from_us`, if there is any. A fall is a reset: the later value counts whole.
    The first sample of all counts nothing.
    """
    found: dict[int, int] = {}
    before: int | None = None
    for at_us, value in samples:
        if before is not None and from_us <= at_us < to_us:
            slot = at_us - at_us % slot_us
            found[slot] = found.get(slot, 0) + (value - before if value >= before else value)
        before = value
    return found
