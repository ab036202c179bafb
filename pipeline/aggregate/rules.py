"""Decide about each event and fold what counts. Pure: messages in, a `Folded` out; the definition of right."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from pipeline.aggregate.model import (
    WHOLE_MESSAGE,
    Change,
    Decision,
    EpochState,
    Folded,
    MeterRule,
    Outcome,
    PartitionProgress,
    Position,
    StreamKey,
    Waiting,
)
from pipeline.contracts import usage_event
from pipeline.contracts.control_event import CompleteUntil, Dropped, decode_control
from pipeline.contracts.usage_event import CONTROL_PREFIX, Rejection, UsageEvent
from pipeline.contracts.usage_event_check import NAME_CHARACTERS_MAX
from pipeline.domain.errors import RejectedRecord
from pipeline.domain.identity import IntervalSet, SequencedId, home_partition, parse_sequenced_id
from pipeline.domain.slots import US_PER_SECOND, from_us

#: An event may be this far ahead of the log's own time; clocks differ, but not by more.
FUTURE_US_MAX = 300 * US_PER_SECOND

BEHIND_RETENTION = "behind_retention"

#: Before every event time: nothing was dropped.
NO_EDGE_US = 0

#: A sender whose numbers lie in more pieces than this is parked: its identity would cost memory an event.
INTERVALS_MAX = 32_768


# Structs, as events are: one of each is made for every event, and these are the cheapest to make.
class Record(msgspec.Struct, frozen=True, gc=False):
    """One message of the log."""

    partition: int
    log_offset: int
    log_time_us: int
    key: bytes | None
    value: bytes | None


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """One event of a message, decoded or rejected, with its bytes."""

    record: Record
    index_in_message: int
    payload: bytes
    event: UsageEvent | Rejection


class MeterBook:
    """
    The meters and ignore rules as of one known number, looked up by event type and time.

    Slots before `edge_us` were dropped or closed for good: an event before it does not count.
    """

    def __init__(
        self, meters: Mapping[str, Sequence[MeterRule]], ignored_types: Iterable[str], edge_us: int = NO_EDGE_US
    ) -> None:
        self._meters = meters
        self.edge_us = edge_us
        self.ignored_types = frozenset(ignored_types)
        self._plans = {event_type: _plans_by_time(rules) for event_type, rules in meters.items()}

    def plan(self, event_type: str, occurred_us: int) -> "ReadingPlan | None":
        """Give what to read from an event of this type at this time; None where no meter is in force."""
        for start_us, end_us, plan in self._plans.get(event_type, ()):
            if start_us <= occurred_us < end_us:
                return plan
        return None

    def ordered_meters(self, event_type: str) -> list[MeterRule]:
        """Give every version of every ordered meter over an event type."""
        return [rule for rule in self._meters.get(event_type, ()) if rule.is_ordered]

    def meter_name(self, meter_version_id: int) -> str:
        """Give the meter a version belongs to."""
        return next(r.meter for rules in self._meters.values() for r in rules if r.meter_version_id == meter_version_id)


class ReadingPlan:
    """How the meters in force read one event type: which fields, and where each value goes."""

    def __init__(self, rules: tuple[MeterRule, ...]) -> None:
        fields = tuple(sorted({rule.value_field for rule in rules if rule.value_field is not None}))
        place = {name: index for index, name in enumerate(fields)}
        self.decode: Callable[..., tuple[int, ...]] = usage_event.reading_decoder(fields)
        self.ordered_fields = tuple(
            sorted(
                {(rule.value_field, place[rule.value_field]) for rule in rules if rule.is_ordered and rule.value_field}
            )
        )
        self.sums = tuple(
            (rule, place[rule.value_field]) for rule in rules if rule.aggregation == "sum" and rule.value_field
        )
        self.active = tuple(rule for rule in rules if rule.aggregation == "active_hours")


def _plans_by_time(rules: Sequence[MeterRule]) -> list[tuple[int, int, ReadingPlan]]:
    """Cut time where a meter version begins or ends; newest first, since that is what most events are."""
    edges = sorted({edge for rule in rules for edge in (rule.from_us, rule.to_us)})
    plans = []
    for start_us, end_us in pairwise(edges):
        in_force = tuple(rule for rule in rules if rule.from_us <= start_us and end_us <= rule.to_us)
        if in_force:
            plans.append((start_us, end_us, ReadingPlan(in_force)))
    return plans[::-1]


def arrivals(record: Record) -> list[Arrival]:
    """Take a message apart: its events, or one rejection at index -1 when it cannot be taken apart."""
    value = record.value if record.value is not None else b""
    parts = usage_event.split_message(value)
    if isinstance(parts, RejectedRecord):
        facts = Rejection(reason=parts.reason_code, detail=parts.detail)
        return [Arrival(record, WHOLE_MESSAGE, value, facts)]
    return [Arrival(record, index, bytes(part), usage_event.decode_event(part)) for index, part in enumerate(parts)]


def arrival_again(waiting: Waiting) -> Arrival:
    """Give a queued event as it arrived: what is queued came under its source's key at its source's home."""
    at = waiting.position
    record = Record(at.partition, at.log_offset, waiting.log_time_us, waiting.source.encode(), waiting.payload)
    return Arrival(record, at.index_in_message, waiting.payload, usage_event.decode_event(waiting.payload))


class EventFold:
    """
    Decide about arrivals one after the other and gather what a flush will write.

    Args:
        book: Meters in force.
        partition_count: Of the log; decides each source's home.
        epochs: The worker's memory of identities. Every (source, epoch) of the arrivals must be in it already;
            it is changed in place, and thrown away whole if the flush does not commit.
    """

    def __init__(self, book: MeterBook, partition_count: int, epochs: dict[tuple[str, str], EpochState]) -> None:
        self._book = book
        self._partition_count = partition_count
        self._epochs = epochs
        self._homes: dict[str, int] = {}
        self.folded = Folded()

    def add(self, arrival: Arrival, progress: PartitionProgress) -> Outcome:
        """Decide about one event; the outcome is also counted in the partition's tally."""
        record = arrival.record
        progress.log_time_us = max(progress.log_time_us, record.log_time_us)
        outcome = self._decide(arrival, progress.log_time_us)
        progress.tally["received"] += 1
        progress.tally[outcome] += 1
        self.folded.event_count += 1
        return outcome

    def decide_again(self, waiting: Waiting, arrival: Arrival, progress: PartitionProgress) -> Change:
        """Decide about an event that was quarantined or parked, by its own log time; its place in the tally moves."""
        outcome = self._decide(arrival, waiting.log_time_us)
        if outcome == "counted":
            # A counted event leaves no decision by itself.
            self._record(arrival, "counted", "decided_again", "", waiting.log_time_us)
        progress.tally[waiting.outcome] -= 1
        progress.tally[outcome] += 1
        return Change(waiting, self.folded.decisions.pop())

    def _decide(self, arrival: Arrival, log_time_us: int) -> Outcome:
        event = arrival.event
        if isinstance(event, Rejection):
            return self._reject(arrival, event, log_time_us)
        if arrival.record.key != event.source.encode():
            detail = f"the Kafka key is not the source {event.source!r}"
            return self._record(arrival, "quarantined", "key_mismatch", detail, log_time_us)
        if self.home(event.source) != arrival.record.partition:
            detail = f"the home of {event.source!r} is partition {self.home(event.source)}"
            return self._record(arrival, "parked", "misrouted", detail, log_time_us)
        if event.sequence is None:
            detail = "ids that are not epoch-number wait for a later version"
            return self._record(arrival, "parked", "unsequenced_id", detail, log_time_us)
        epoch, number = event.sequence
        state = self._epochs[event.source, epoch]
        if number in state.counted:
            return self._record(arrival, "duplicate", "identity_seen", "", log_time_us)
        if _is_too_sparse(state.counted, number):
            detail = f"the numbers of epoch {epoch} lie in {INTERVALS_MAX} pieces already"
            return self._record(arrival, "parked", "too_sparse", detail, log_time_us)
        try:
            outcome, reason = self._take(event, number, log_time_us)
        except RejectedRecord as rejected:
            return self._keep_state(arrival, state, "quarantined", rejected.reason_code, rejected.detail, log_time_us)
        if outcome == "parked":
            detail = f"no meter reads events of type {event.type!r} at this time"
            if reason == BEHIND_RETENTION:
                detail = f"usage before {from_us(self._book.edge_us).isoformat()} is settled and may be dropped"
            return self._keep_state(arrival, state, "parked", reason, detail, log_time_us)
        state.counted.add(number)
        state.quarantined.remove(number)
        state.parked.remove(number)
        self._remember(event.source, epoch, state, log_time_us)
        if outcome != "counted":
            self._record(arrival, outcome, reason, "", log_time_us)
        return outcome

    def _take(self, event: UsageEvent, number: int, log_time_us: int) -> tuple[Outcome, str]:
        """Fold a new, well-formed event; raises RejectedRecord where its time or values are bad."""
        if event.occurred_us > log_time_us + FUTURE_US_MAX:
            raise RejectedRecord("time_future", f"time is {(event.occurred_us - log_time_us) // US_PER_SECOND} s ahead")
        if event.type.startswith(CONTROL_PREFIX):
            self._control(event, number)
            return "control", event.type.removeprefix(CONTROL_PREFIX)
        if event.type in self._book.ignored_types:
            return "ignored", "ignore_rule"
        plan = self._book.plan(event.type, event.occurred_us)
        if plan is None:
            return "parked", "unknown_meter"
        if event.occurred_us < self._book.edge_us:
            return "parked", BEHIND_RETENTION
        if event.subject is None:
            raise RejectedRecord("subject_missing", "subject is missing: which server was measured?")
        readings = plan.decode(event.data)
        self._fold(event, event.subject, plan, readings)
        return "counted", ""

    def _fold(self, event: UsageEvent, subject: str, plan: ReadingPlan, readings: tuple[int, ...]) -> None:
        folded, at_us = self.folded, event.occurred_us
        stream: StreamKey = (event.source, subject, event.type)
        if plan.ordered_fields and event.sequence is not None:
            sample = (
                at_us,
                event.sequence.epoch,
                event.sequence.number,
                {name: readings[place] for name, place in plan.ordered_fields},
            )
            folded.samples.setdefault(stream, []).append(sample)
        for rule, place in plan.sums:
            key = ((rule.meter_version_id, subject, ""), at_us - at_us % rule.slot_us)
            folded.sums[key] = folded.sums.get(key, 0) + readings[place]
        for rule in plan.active:
            folded.active.add(((rule.meter_version_id, subject, ""), at_us - at_us % rule.slot_us))
        first_us, last_us = folded.seen.get(stream, (at_us, at_us))
        folded.seen[stream] = (min(first_us, at_us), max(last_us, at_us))

    def _control(self, event: UsageEvent, number: int) -> None:
        """Take what a source says about itself; raises RejectedRecord for what is not understood."""
        said = decode_control(event)
        source, epoch = event.source, event.sequence.epoch if event.sequence else ""
        if isinstance(said, CompleteUntil):
            key = (source, epoch, event.subject or "")
            _, earlier = self.folded.completeness.get(key, (0, 0))
            if number > earlier:
                self.folded.completeness[key] = (said.until_us, number)
        elif isinstance(said, Dropped):
            self._epochs[source, epoch].dropped.add_range(said.first, said.last + 1)

    def _remember(self, source: str, epoch: str, state: EpochState, log_time_us: int) -> None:
        """Note that the flush writes this identity state."""
        state.first_seen_us = state.first_seen_us or log_time_us
        self.folded.epochs[source, epoch] = state

    def _reject(self, arrival: Arrival, rejection: Rejection, log_time_us: int) -> Outcome:
        """Quarantine what is not a valid event; its identity is marked where it can be read and is its home's."""
        source, sequence = rejection.source, sequence_of(rejection)
        at_home = (
            source is not None
            and arrival.record.key == source.encode()
            and self.home(source) == arrival.record.partition
        )
        if source is None or sequence is None or not at_home:
            return self._record(arrival, "quarantined", rejection.reason, rejection.detail, log_time_us)
        state = self._epochs[source, sequence.epoch]
        if sequence.number in state.counted:
            return self._record(arrival, "duplicate", "identity_seen", "", log_time_us)
        return self._keep_state(arrival, state, "quarantined", rejection.reason, rejection.detail, log_time_us)

    def _keep_state(
        self, arrival: Arrival, state: EpochState, outcome: Outcome, reason: str, detail: str, log_time_us: int
    ) -> Outcome:
        """Record a quarantined or parked event and its identity's state beside "counted", so a replay can count."""
        event = arrival.event
        sequence = sequence_of(event)
        if event.source is not None and sequence is not None:
            kept, other = (state.quarantined, state.parked)
            if outcome == "parked":
                kept, other = other, kept
            # Beyond the bound the number stays a hole, which holds its source as much as the decision does.
            if not _is_too_sparse(kept, sequence.number):
                other.remove(sequence.number)
                kept.add(sequence.number)
                self._remember(event.source, sequence.epoch, state, log_time_us)
        return self._record(arrival, outcome, reason, detail, log_time_us)

    def _record(self, arrival: Arrival, outcome: Outcome, reason: str, detail: str, log_time_us: int) -> Outcome:
        event, record = arrival.event, arrival.record
        is_open = outcome in ("quarantined", "parked")
        self.folded.decisions.append(
            Decision(
                position=Position(record.partition, record.log_offset, arrival.index_in_message),
                outcome=outcome,
                reason=reason,
                detail=detail,
                source=event.source if event.source is not None else _text_of(record.key),
                event_id=event.id if isinstance(event, UsageEvent) else event.event_id,
                subject=event.subject,
                event_type=event.type if isinstance(event, UsageEvent) else event.event_type,
                occurred_us=event.occurred_us,
                log_time_us=log_time_us,
                content_digest=_digest(arrival.payload) if outcome == "duplicate" else None,
                payload=arrival.payload if is_open else None,
            )
        )
        return outcome

    def home(self, source: str) -> int:
        """Give the partition that owns a source."""
        home = self._homes.get(source)
        if home is None:
            home = self._homes[source] = home_partition(source, self._partition_count)
        return home


def epochs_named(batch: Iterable[Arrival]) -> set[tuple[str, str]]:
    """Give every (source, epoch) a batch speaks of, so that their states can be read before it is folded."""
    named = set()
    for arrival in batch:
        sequence = sequence_of(arrival.event)
        if sequence is not None and arrival.event.source is not None:
            named.add((arrival.event.source, sequence.epoch))
    return named


def sequence_of(event: UsageEvent | Rejection) -> SequencedId | None:
    """Give the epoch and number an event names; None where the id is of another form or cannot be read."""
    if isinstance(event, UsageEvent):
        return event.sequence
    return parse_sequenced_id(event.event_id) if event.event_id is not None else None


def new_tally() -> Counter[str]:
    """Give an empty count of outcomes."""
    return Counter()


def _is_too_sparse(kept: IntervalSet, number: int) -> bool:
    """Tell whether a number would be one interval too many; one that is there or touches another costs nothing."""
    return kept.interval_count >= INTERVALS_MAX and not (number in kept or number - 1 in kept or number + 1 in kept)


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()


def _text_of(key: bytes | None) -> str | None:
    """Give the Kafka key as the source, where the event itself does not say one; what is no text is left out."""
    if not key or len(key) > NAME_CHARACTERS_MAX:
        return None
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
