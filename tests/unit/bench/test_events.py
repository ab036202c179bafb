"""The generator's truth: what the definitions make of the same events."""

from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise

import pytest

from bench.events import (
    GAP_SECONDS,
    SLOT_SECONDS,
    TRUTH_DECIMALS,
    WORKLOADS,
    Generated,
    Load,
    Truth,
    Workload,
    generate,
    source_of,
    subject_of,
)
from pipeline.catalogue.aggregations import AGGREGATIONS
from pipeline.catalogue.document import read_catalogue
from pipeline.catalogue.model import Aggregation, Meter
from pipeline.contracts.usage_event import (
    HOST_SAMPLE_FIELDS,
    HOST_SAMPLE_TYPE,
    Rejection,
    UsageEvent,
    decode_event,
    encode_event,
    reading_decoder,
)
from pipeline.domain.errors import RejectedRecord
from pipeline.domain.slots import US_PER_SECOND

LOAD = Load(events=6_000, servers=3, seed=7)
FIELDS = reading_decoder(HOST_SAMPLE_FIELDS)


@cache
def _generated(load: Load = LOAD) -> tuple[list[Generated], Truth]:
    truth = Truth()
    return list(generate(load, truth)), truth


def _outcome(event: UsageEvent | Rejection, seen: set[tuple[str, str]]) -> str:
    if isinstance(event, Rejection):
        return "quarantined"
    if event.sequence is None or event.type != HOST_SAMPLE_TYPE:
        return "parked"
    if (event.source, event.id) in seen:
        return "duplicate"
    try:
        FIELDS(event.data)
    except RejectedRecord:
        return "quarantined"
    seen.add((event.source, event.id))
    return "counted"


def _counted(events: list[Generated]) -> dict[str, list[UsageEvent]]:
    """The events that count, of each server, in the order of time and number."""
    seen: set[tuple[str, str]] = set()
    by_subject: dict[str, list[UsageEvent]] = defaultdict(list)
    for one in events:
        event = decode_event(one.value)
        if _outcome(event, seen) == "counted":
            assert isinstance(event, UsageEvent)
            by_subject[event.subject or ""].append(event)
    for each in by_subject.values():
        each.sort(key=lambda event: (event.occurred_us, event.id))
    return by_subject


def _quantity(meter: Meter, events: list[UsageEvent]) -> int:
    """What a meter's aggregation makes of a server's events, in 10^-15 of its unit."""
    rule = AGGREGATIONS[meter.aggregation]
    place = HOST_SAMPLE_FIELDS.index(meter.value_field) if meter.value_field else 0
    slots = rule.slot_quantities(
        [(event.occurred_us, FIELDS(event.data)[place]) for event in events],
        from_us=0,
        to_us=2**62,
        slot_us=meter.slot_seconds * US_PER_SECOND,
        gap_us=(meter.gap_seconds_max or 0) * US_PER_SECOND,
    )
    unit: int = 10 ** (TRUTH_DECIMALS - rule.quantity_decimals)
    return sum(slots.values()) * unit


def test_outcomes_are_what_decoding_and_identity_say() -> None:
    """How many count, are duplicates, bad or parked follows from the bytes alone."""
    events, truth = _generated()
    seen: set[tuple[str, str]] = set()

    found = Counter(_outcome(decode_event(one.value), seen) for one in events)

    assert found == truth.outcomes
    assert truth.event_count == len(events)
    assert all(found[outcome] for outcome in ("counted", "duplicate", "quarantined", "parked"))


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)
def test_quantities_are_what_the_aggregations_say(workload: Workload) -> None:
    """The truth of each meter and server is its aggregation over the events that count, to the last digit."""
    events, truth = _generated()
    meters = read_catalogue(workload.catalogue).meters
    by_subject = _counted(events)

    wanted = {
        (name, subject): _quantity(meter, each)
        for name, meter in meters.items()
        for subject, each in by_subject.items()
    }

    assert truth.quantities[workload.name] == wanted


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)
def test_meters_have_the_slots_and_gaps_the_truth_assumes(workload: Workload) -> None:
    """A changed catalogue cannot leave the generator behind."""
    meters = read_catalogue(workload.catalogue).meters

    assert {meter.slot_seconds for meter in meters.values()} == {SLOT_SECONDS}
    held = [meter for meter in meters.values() if meter.aggregation is Aggregation.TIME_WEIGHTED]
    assert {meter.gap_seconds_max for meter in held} == ({GAP_SECONDS} if workload.is_held else set())


def test_the_same_load_is_the_same_bytes() -> None:
    """Runs on two machines read the same topic."""
    assert list(generate(LOAD, Truth())) == _generated()[0]
    assert _generated()[0] != _generated(Load(LOAD.events, LOAD.servers, LOAD.seed + 1))[0]


def test_an_event_is_encoded_as_emitters_do() -> None:
    """The bytes are those of encode_event, so the benchmark decodes what production decodes."""
    event = decode_event(_generated(Load(1, 1))[0][0].value)
    assert isinstance(event, UsageEvent)
    first = _generated(Load(1, 1))[0][0].value
    values = dict(zip(HOST_SAMPLE_FIELDS, _texts(first), strict=True))

    again = encode_event(
        source=source_of(0),
        event_id=event.id,
        event_type=HOST_SAMPLE_TYPE,
        subject=subject_of(0),
        time=first.decode().partition('"time":"')[2].partition('"')[0],
        data=values,
    )

    assert again == first


def test_the_load_has_late_events_ties_and_gaps() -> None:
    """What makes ordered meters hard is in it."""
    events, _ = _generated(Load(events=10_000, servers=3))
    numbers = [event.sequence.number for event in map(_decoded, events) if event is not None and event.sequence]
    assert sum(later < earlier for earlier, later in pairwise(numbers)) > 100

    steps = {
        (later.occurred_us - earlier.occurred_us) // US_PER_SECOND
        for each in _counted(events).values()
        for earlier, later in pairwise(each)
    }
    assert {0, 300, 301} <= steps
    assert max(steps) > GAP_SECONDS


def _decoded(one: Generated) -> UsageEvent | None:
    event = decode_event(one.value)
    return event if isinstance(event, UsageEvent) else None


def _texts(value: bytes) -> list[str]:
    data = value.decode().partition('"data":{')[2]
    return [part.split('"')[3] for part in data.rstrip("}").split(",")]
