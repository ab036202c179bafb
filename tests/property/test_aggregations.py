"""Laws of the aggregations: windows add up, order of arrival does not matter, against the slowest possible model."""

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalogue.aggregations import AGGREGATIONS
from pipeline.catalogue.aggregations.active_hours import HOUR_US, active_hour_starts
from pipeline.catalogue.model import Aggregation

SLOT = 10
TO = 200
Sample = tuple[int, int]

streams = st.lists(st.tuples(st.integers(-30, TO + 20), st.integers(0, 5)), max_size=30).map(
    lambda samples: sorted(samples, key=lambda sample: sample[0])
)
gaps = st.integers(1, 60)
aggregations = st.sampled_from(list(Aggregation))


def quantities(aggregation: Aggregation, samples: list[Sample], start: int, stop: int, gap: int) -> dict[int, int]:
    """The slots of a window, from all samples."""
    rule = AGGREGATIONS[aggregation]
    return rule.slot_quantities(samples, from_us=start, to_us=stop, slot_us=SLOT, gap_us=gap)


@given(aggregations, streams, gaps, st.integers(0, TO // SLOT))
def test_a_window_split_at_a_slot_edge_adds_up(
    aggregation: Aggregation, samples: list[Sample], gap: int, slots: int
) -> None:
    """Two windows side by side hold together what one over both holds, slot by slot."""
    edge = slots * SLOT
    left = quantities(aggregation, samples, 0, edge, gap)
    right = quantities(aggregation, samples, edge, TO, gap)
    assert left | right == quantities(aggregation, samples, 0, TO, gap)
    assert not left.keys() & right.keys()


@given(streams, gaps)
def test_time_weighted_is_the_value_at_each_instant(samples: list[Sample], gap: int) -> None:
    """At each instant the last sample at or before it counts, unless it is older than the gap."""
    model: Counter[int] = Counter()
    for instant in range(TO):
        before = [sample for sample in samples if sample[0] <= instant]
        if before and instant < before[-1][0] + gap:
            model[instant // SLOT * SLOT] += before[-1][1]
    found = quantities(Aggregation.TIME_WEIGHTED, samples, 0, TO, gap)
    assert {slot: value for slot, value in found.items() if value} == {s: v for s, v in model.items() if v}
    assert model.keys() == found.keys()


@given(streams)
def test_increase_is_how_far_the_counter_went_up(samples: list[Sample]) -> None:
    """Without resets the increases of a window are its last reading less the last one before it."""
    total, climbing = 0, []
    for at, value in samples:
        total += value
        climbing.append((at, total))
    found = quantities(Aggregation.INCREASE, climbing, 0, TO, 1)
    inside = [value for at, value in climbing if 0 <= at < TO]
    before = [value for at, value in climbing if at < 0]
    expected = inside[-1] - (before[-1] if before else inside[0]) if inside else 0
    assert sum(found.values()) == expected


@given(streams)
def test_a_fall_is_a_reset_and_counts_the_later_value_whole(samples: list[Sample]) -> None:
    """Each pair of neighbours is judged by itself."""
    expected: Counter[int] = Counter()
    for (_, before), (at, value) in itertools.pairwise(samples):
        if 0 <= at < TO:
            expected[at // SLOT * SLOT] += value - before if value >= before else value
    assert quantities(Aggregation.INCREASE, samples, 0, TO, 1) == dict(expected)


@given(streams, st.randoms(use_true_random=False))
def test_sums_and_hours_do_not_depend_on_arrival(samples: list[Sample], random: object) -> None:
    """For meters that need no order, samples may come in any."""
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for aggregation in (Aggregation.SUM, Aggregation.ACTIVE_HOURS):
        assert quantities(aggregation, shuffled, 0, TO, 1) == quantities(aggregation, samples, 0, TO, 1)


@given(st.lists(st.integers(0, 100)), st.integers(0, 23))
def test_active_hours_are_counted_from_the_periods_start(quarters: list[int], first: int) -> None:
    """Hours begin at the period's start, also where that is not on a full hour of UTC; each counts once."""
    quarter = HOUR_US // 4
    start = first * quarter
    found = active_hour_starts(
        (quarter * one for one in quarters), period_start_us=start, period_end_us=start + 50 * quarter
    )
    inside = [quarter * one for one in quarters if first <= one < first + 50]
    assert found == sorted({start + (at - start) // HOUR_US * HOUR_US for at in inside})
