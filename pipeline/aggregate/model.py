"""Values of the aggregate stage: what is decided about events and what a flush will write."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from pipeline.domain.identity import IntervalSet

Outcome = Literal["counted", "duplicate", "quarantined", "parked", "ignored", "control"]

#: Index of a message that could not be taken apart.
WHOLE_MESSAGE = -1


@dataclass(frozen=True, slots=True)
class Position:
    """Where an event stands: partition, offset, and its index in the message."""

    partition: int
    log_offset: int
    index_in_message: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Everything but "counted", as it is recorded; times in microseconds since 1970 UTC."""

    position: Position
    outcome: Outcome
    reason: str
    detail: str
    source: str | None
    event_id: str | None
    subject: str | None
    event_type: str | None
    occurred_us: int | None
    log_time_us: int
    content_digest: bytes | None = None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A quarantined or parked event that is to be decided about again, as the queue has it."""

    queue_number: int
    said_by: str
    position: Position
    outcome: Outcome
    source: str
    log_time_us: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one of them; only the decision's outcome, reason, detail and digest are new."""

    waiting: Waiting
    decision: Decision


@dataclass(slots=True)
class EpochState:
    """Which numbers of a (source, epoch) were seen, by state. Mutable: the worker's memory between flushes."""

    counted: IntervalSet = field(default_factory=IntervalSet)
    quarantined: IntervalSet = field(default_factory=IntervalSet)
    parked: IntervalSet = field(default_factory=IntervalSet)
    dropped: IntervalSet = field(default_factory=IntervalSet)
    #: Log time of the epoch's first event; 0 until it has one.
    first_seen_us: int = 0


@dataclass(frozen=True, slots=True)
class MeterRule:
    """A meter version as the fold needs it; the half-open event time it is in force for, in microseconds."""

    meter_version_id: int
    meter: str
    aggregation: str
    value_field: str | None
    slot_us: int
    gap_us: int
    from_us: int
    to_us: int

    @property
    def is_ordered(self) -> bool:
        """Whether samples are needed in order."""
        return self.aggregation in ("time_weighted", "increase")


#: (occurred_us, epoch, number, readings by field in nano)
Sample = tuple[int, str, int, dict[str, int]]

#: (source, subject, event type)
StreamKey = tuple[str, str, str]

#: (meter version id, subject, source or '')
SeriesKey = tuple[int, str, str]


@dataclass(slots=True)
class PartitionProgress:
    """Where a partition stands: what the flush expects to find and what it will leave."""

    offset_next: int
    flush_number: int
    log_time_us: int
    offset_reached: int
    tally: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Folded:
    """What a flush will write, gathered in memory. Order-free quantities are sums; samples await their neighbours."""

    decisions: list[Decision] = field(default_factory=list)
    epochs: dict[tuple[str, str], EpochState] = field(default_factory=dict)
    sums: dict[tuple[SeriesKey, int], int] = field(default_factory=dict)
    active: set[tuple[SeriesKey, int]] = field(default_factory=set)
    samples: dict[StreamKey, list[Sample]] = field(default_factory=dict)
    seen: dict[StreamKey, tuple[int, int]] = field(default_factory=dict)
    #: (source, epoch, subject or '') -> (complete until, None for ever; number of the event that said so)
    completeness: dict[tuple[str, str, str], tuple[int | None, int]] = field(default_factory=dict)
    event_count: int = 0
