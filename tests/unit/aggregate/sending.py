"""Events as sources send them, meters that read them, and a fold to send them to."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from pipeline.aggregate.model import Decision, EpochState, MeterRule, Outcome, PartitionProgress
from pipeline.aggregate.rules import NO_EDGE_US, EventFold, MeterBook, Record, arrivals, epochs_named
from pipeline.domain.identity import format_sequenced_id, home_partition
from pipeline.domain.slots import US_PER_SECOND, from_us, to_us

BASE_US = to_us(datetime(2013, 7, 1, tzinfo=UTC))
#: When the log took what is sent, unless said: later than anything that happened.
LOG_US = BASE_US + 2 * 86_400 * US_PER_SECOND
SLOT_US = 300 * US_PER_SECOND
GAP_US = 600 * US_PER_SECOND
FOREVER_US = 2**62
EPOCH = "00000000000000aa"
SOURCE = "urn:test:a"
SAMPLE = "test.sample.v1"
IGNORED = "test.noise.v1"

CPU = MeterRule(1, "cpu", "time_weighted", "cpu", SLOT_US, GAP_US, 0, FOREVER_US)
READS = MeterRule(2, "reads", "increase", "reads", SLOT_US, 0, 0, FOREVER_US)
CALLS = MeterRule(3, "calls", "sum", "calls", SLOT_US, 0, 0, FOREVER_US)
HOURS = MeterRule(4, "hours", "active_hours", None, SLOT_US, 0, 0, FOREVER_US)
METERS: Mapping[str, list[MeterRule]] = {SAMPLE: [CPU, READS, CALLS, HOURS]}
READINGS = {"cpu": 1, "reads": 2, "calls": 3}

Value = int | str


def second(seconds: int) -> int:
    """The instant so many seconds after the beginning, in microseconds."""
    return BASE_US + seconds * US_PER_SECOND


def event(
    number: int = 1,
    *,
    at_us: int = BASE_US,
    source: str = SOURCE,
    subject: str | None = "vm-1",
    epoch: str = EPOCH,
    event_id: str | None = None,
    kind: str = SAMPLE,
    data: Mapping[str, Value | None] = READINGS,
) -> bytes:
    """One event as sent."""
    envelope: dict[str, object] = {
        "specversion": "1.0",
        "id": format_sequenced_id(epoch, number) if event_id is None else event_id,
        "source": source,
        "type": kind,
        "time": from_us(at_us).isoformat().replace("+00:00", "Z"),
        "data": dict(data),
    }
    if subject is not None:
        envelope["subject"] = subject
    return json.dumps(envelope).encode()


def batch(*events: bytes) -> bytes:
    """Several events as one message."""
    return b"[" + b",".join(events) + b"]"


def source_at(partition: int, partition_count: int, nth: int = 0) -> str:
    """A source whose home is a partition."""
    names = (f"urn:test:{number}" for number in range(10_000))
    return [name for name in names if home_partition(name, partition_count) == partition][nth]


class Folding:
    """A fold of one flush over partitions of its own; every message lies at the next offset."""

    def __init__(
        self,
        meters: Mapping[str, list[MeterRule]] = METERS,
        *,
        ignored: Iterable[str] = (IGNORED,),
        partition_count: int = 1,
        epochs: dict[tuple[str, str], EpochState] | None = None,
        edge_us: int = NO_EDGE_US,
    ) -> None:
        self.epochs: dict[tuple[str, str], EpochState] = {} if epochs is None else epochs
        self.fold = EventFold(MeterBook(meters, ignored, edge_us), partition_count, self.epochs)
        self.progress = {number: PartitionProgress(0, 0, 0, 0) for number in range(partition_count)}

    def send(
        self, value: bytes | None, *, key: bytes | None = SOURCE.encode(), partition: int = 0, log_time_us: int = LOG_US
    ) -> list[Outcome]:
        """What is decided about each event of a message."""
        progress = self.progress[partition]
        parts = arrivals(Record(partition, progress.offset_reached, log_time_us, key, value))
        for name in epochs_named(parts):
            self.epochs.setdefault(name, EpochState())
        progress.offset_reached += 1
        return [self.fold.add(part, progress) for part in parts]

    @property
    def decisions(self) -> list[Decision]:
        return self.fold.folded.decisions

    @property
    def reasons(self) -> list[str]:
        return [decision.reason for decision in self.decisions]

    def state(self, source: str = SOURCE, epoch: str = EPOCH) -> EpochState:
        return self.epochs[source, epoch]
