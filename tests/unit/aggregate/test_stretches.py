"""Which stretch of a stream new samples change, and what its slots come to."""

from dataclasses import replace

import pytest

from pipeline.aggregate.model import MeterRule, Sample
from pipeline.aggregate.stretches import Stretch, slot_quantities, stretch_end_us, stretch_of
from tests.unit.aggregate.sending import CPU, EPOCH, GAP_US, READS, SLOT_US, second

NANO = 10**9


def sample(seconds: int, value: int, number: int = 1, epoch: str = EPOCH) -> Sample:
    return (second(seconds), epoch, number, {"cpu": value * NANO, "reads": value * NANO})


def of_meter(rule: MeterRule, stored: list[Sample], new: list[Sample], seconds: tuple[int, int]) -> dict[int, int]:
    """Quantities in the meter's unit by slot, in seconds from the beginning."""
    found = slot_quantities([rule], stored, new, from_us=second(seconds[0]), to_us=second(seconds[1]))
    scale = 10**15 if rule.is_ordered and rule.aggregation == "time_weighted" else NANO
    return {(slot - second(0)) // 10**6: quantity // scale for (_, slot), quantity in found.items()}


@pytest.mark.parametrize(
    ("first", "last", "gap_us", "expected"),
    [
        (0, 0, 0, (0, 900)),
        (899, 899, 0, (0, 900)),
        (899, 899, 10**6, (0, 900)),
        (899, 899, 10**6 + 1, (0, 1800)),
        (1000, 2000, GAP_US, (900, 2700)),
    ],
)
def test_a_stretch_has_slot_edges(first: int, last: int, gap_us: int, expected: tuple[int, int]) -> None:
    """From the slot of the first new sample to the end of the slot the last one can hold in."""
    found = stretch_of([sample(last, 1), sample(first, 1)], gap_us)
    assert found == Stretch(second(first), second(last), second(expected[0]), second(expected[1]))


def test_a_late_sample_changes_the_stretch_up_to_the_next_one() -> None:
    """Trap 16: the following sample's increase changes too, however far away and in whichever period it lies."""
    stretch = stretch_of([sample(100, 5)], 0)
    assert stretch_end_us(stretch, None) == second(900)
    assert stretch_end_us(stretch, second(500)) == second(900)
    next_month = second(40 * 86_400)
    assert stretch_end_us(stretch, next_month) == next_month + second(900) - second(0)


def test_a_late_sample_takes_from_its_neighbours() -> None:
    """Trap 16: the counter's step is split at the late sample, and the gauge before it no longer holds over it."""
    before, after, late = sample(0, 10, 1), sample(1200, 30, 3), sample(600, 20, 2)
    assert of_meter(READS, [before, after], [], (0, 1800)) == {1200: 20}
    assert of_meter(READS, [before, after], [late], (0, 1800)) == {600: 10, 1200: 10}
    gauge = [sample(0, 1, 1), sample(900, 1, 3)]
    assert of_meter(CPU, gauge, [], (0, 1800)) == {0: 300, 300: 300, 900: 300, 1200: 300}
    assert of_meter(CPU, gauge, [sample(300, 2, 2)], (0, 1800)) == {0: 300, 300: 600, 600: 600, 900: 300, 1200: 300}


def test_gaps_of_301_seconds_lose_nothing() -> None:
    """Trap 19: with a gap of two intervals every second between samples is held, jitter or not."""
    samples = [sample(301 * index, 1, index + 1) for index in range(100)]
    assert sum(of_meter(CPU, samples, [], (0, 29_700)).values()) == 29_700


def test_a_value_holds_no_longer_than_the_gap() -> None:
    """A server that fell silent is not billed on and on; the gap is exact to the microsecond."""
    silent = [sample(0, 1, 1), sample(3600, 1, 2)]
    held = slot_quantities([CPU], silent, [], from_us=second(0), to_us=second(3600))
    assert sum(held.values()) == GAP_US * NANO
    assert max(slot for _, slot in held) == second(300)


def test_samples_of_one_instant_are_ordered_by_identity() -> None:
    """Of two samples of one instant the later (epoch, number) holds, whichever was stored first."""
    low, high = sample(0, 1, 9), sample(0, 5, 10)
    later_epoch = sample(0, 7, 1, "00000000000000ff")
    assert of_meter(CPU, [high], [low], (0, 900)) == {0: 1500, 300: 1500}
    assert of_meter(CPU, [low], [high], (0, 900)) == {0: 1500, 300: 1500}
    assert of_meter(CPU, [later_epoch], [low, high], (0, 900)) == {0: 2100, 300: 2100}


def test_a_fall_is_a_reset_wherever_the_flush_was() -> None:
    """After a reset the later value counts whole, also if the sample before it was stored long ago."""
    assert of_meter(READS, [sample(0, 100, 1)], [sample(400, 3, 2)], (300, 900)) == {300: 3}


def test_versions_cut_at_their_edge() -> None:
    """Trap 21: a value holds across the edge into the new version's series, and is counted once between them."""
    edge = second(900)
    old, new = replace(CPU, to_us=edge), replace(CPU, meter_version_id=9, from_us=edge, slot_us=SLOT_US // 5)
    found = slot_quantities([old, new], [], [sample(600, 1)], from_us=second(0), to_us=second(1800))
    by_version: dict[int, int] = {}
    for (version, _), quantity in found.items():
        by_version[version] = by_version.get(version, 0) + quantity
    assert by_version == {1: 300 * 10**15, 9: 300 * 10**15}
    assert len([slot for version, slot in found if version == 9]) == 5


def test_a_sample_without_the_field_is_none_of_the_meter() -> None:
    """A sample that was kept for other meters neither ends a hold nor counts as zero."""
    other = (second(300), EPOCH, 2, {"reads": 5})
    assert of_meter(CPU, [sample(0, 1), other], [], (0, 900)) == {0: 300, 300: 300}
