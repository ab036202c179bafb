"""time_weighted: a gauge's value times the seconds it holds, until the next sample, at most the meter's gap."""

from collections.abc import Sequence


def slot_quantities(
    samples: Sequence[tuple[int, int]], *, from_us: int, to_us: int, slot_us: int, gap_us: int
) -> dict[int, int]:
    """Quantities in 10^-15 unit-seconds (10^-9 of the value times microseconds), by slot start.

    `samples` holds the last one before `from_us`, if there is any: it may hold into the window. Of several samples of
    one instant the last one holds. Holds are cut exactly at slot edges.
    """
    found: dict[int, int] = {}
    last = len(samples) - 1
    for index, (at_us, value) in enumerate(samples):
        stop_us = at_us + gap_us
        if index < last and samples[index + 1][0] < stop_us:
            stop_us = samples[index + 1][0]
        if stop_us > to_us:
            stop_us = to_us
        start_us = at_us if at_us > from_us else from_us
        while start_us < stop_us:
            slot = start_us - start_us % slot_us
            edge_us = slot + slot_us
            if edge_us > stop_us:
                edge_us = stop_us
            found[slot] = found.get(slot, 0) + value * (edge_us - start_us)
            start_us = edge_us
    return found
