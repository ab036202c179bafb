"""Law 7 for the fold: any order, batches, flushes and duplicates of the same events come to the same, exactly."""

from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from pipeline.aggregate import stretches
from pipeline.aggregate.model import EpochState, Folded, Sample, StreamKey
from pipeline.aggregate.rules import MeterBook
from tests.property.aggregate_history import (
    Delivery,
    History,
    Usage,
    delivered_histories,
    deliveries,
    histories,
    identities_by_hand,
    usage_by_hand,
)
from tests.unit.aggregate.sending import CALLS, CPU, GAP_US, METERS, READS, Folding, batch

SCALES = {CPU.meter_version_id: 10**15, READS.meter_version_id: 10**9, CALLS.meter_version_id: 10**9}


@dataclass
class Memory:
    """What the database keeps between flushes, kept here."""

    epochs: dict[tuple[str, str], EpochState] = field(default_factory=dict)
    samples: dict[StreamKey, list[Sample]] = field(default_factory=dict)
    usage: dict[tuple[tuple[int, str, str], int], int] = field(default_factory=dict)

    def commit(self, folded: Folded) -> None:
        """Keep a flush as the store does: sums are added, the slots of changed stretches replaced."""
        self.epochs |= deepcopy(folded.epochs)
        for key, quantity in folded.sums.items():
            self.usage[key] = self.usage.get(key, 0) + quantity
        self.usage |= dict.fromkeys(folded.active, 1)
        for stream, new in folded.samples.items():
            self._replace_slots(stream, new)
            self.samples.setdefault(stream, []).extend(new)

    def _replace_slots(self, stream: StreamKey, new: list[Sample]) -> None:
        source, subject, event_type = stream
        kept = self.samples.get(stream, [])
        stretch = stretches.stretch_of(new, GAP_US)
        before = [sample[0] for sample in kept if sample[0] < stretch.from_us]
        after = [sample[0] for sample in kept if sample[0] > stretch.last_us]
        end_us = stretches.stretch_end_us(stretch, min(after, default=None))
        first_us = max(before, default=stretch.from_us)
        found = stretches.slot_quantities(
            MeterBook(METERS, ()).ordered_meters(event_type),
            [sample for sample in kept if first_us <= sample[0] < end_us],
            new,
            from_us=stretch.from_us,
            to_us=end_us,
        )
        for (meter_version_id, slot_us), quantity in found.items():
            self.usage[(meter_version_id, subject, source), slot_us] = quantity

    def quantities(self) -> Usage:
        return {key: Fraction(value, SCALES.get(key[0][0], 1)) for key, value in self.usage.items() if value}

    def identities(self) -> dict[tuple[str, str], dict[str, set[int]]]:
        """As `identities_by_hand` gives them."""
        found = {}
        for key, state in self.epochs.items():
            sets = {name: getattr(state, name) for name in ("counted", "quarantined", "parked")}
            found[key] = {
                name: {number for start, stop in kept.to_pairs() for number in range(start, stop)}
                for name, kept in sets.items()
                if kept
            }
        return found


def run(delivery: Delivery) -> tuple[Memory, int]:
    """Fold a delivery flush by flush; gives what is kept at the end and how many events were received."""
    memory = Memory()
    folding = Folding(epochs=deepcopy(memory.epochs))
    received = 0
    for (source, events), is_flushed in zip(delivery.messages, delivery.is_flushed_after, strict=True):
        folding.send(batch(*events), key=source.encode())
        if is_flushed:
            received += check_tally(folding)
            memory.commit(folding.fold.folded)
            folding = Folding(epochs=deepcopy(memory.epochs))
    memory.commit(folding.fold.folded)
    return memory, received + check_tally(folding)


def check_tally(folding: Folding) -> int:
    """Law 1: received is the sum of the outcomes, and each but `counted` has its row."""
    tally = folding.progress[0].tally
    outcomes = sum(count for name, count in tally.items() if name != "received")
    assert tally["received"] == outcomes == folding.fold.folded.event_count
    assert outcomes == tally["counted"] + len(folding.decisions)
    return outcomes


@given(delivered_histories())
def test_usage_is_what_happened_however_it_came(given_: tuple[History, Delivery]) -> None:
    """Every slot is what the slowest computation over all events at once says (traps 1, 8, 16, 19, 20)."""
    history, delivery = given_
    memory, received = run(delivery)
    assert memory.quantities() == usage_by_hand(history)
    assert memory.identities() == identities_by_hand(history)
    assert received == sum(len(events) for _, events in delivery.messages)


@given(histories().flatmap(lambda history: st.tuples(deliveries(history), deliveries(history))))
def test_two_deliveries_of_one_history_agree(given_: tuple[Delivery, Delivery]) -> None:
    """Law 7: the same events leave the same samples, slots and identities, by whichever way they came."""
    (one, _), (other, _) = run(given_[0]), run(given_[1])
    assert one.usage == other.usage
    assert one.epochs == other.epochs
    assert {stream: sorted(kept, key=lambda sample: sample[:3]) for stream, kept in one.samples.items()} == {
        stream: sorted(kept, key=lambda sample: sample[:3]) for stream, kept in other.samples.items()
    }


@given(delivered_histories())
def test_sources_never_meet(given_: tuple[History, Delivery]) -> None:
    """Trap 20: what an ordered meter makes of one source is the same whether or not another speaks of the server."""
    history, delivery = given_
    together, _ = run(delivery)
    for source in {identity.source for identity in history}:
        alone = {key: one for key, one in history.items() if key.source == source}
        expected = usage_by_hand(alone)
        ordered = {key: quantity for key, quantity in together.quantities().items() if key[0][2] == source}
        assert ordered == {key: quantity for key, quantity in expected.items() if key[0][2]}
