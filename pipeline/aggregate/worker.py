"""The aggregate stage's loop: fetch, decide, fold, commit, say how far we are."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import psycopg

from pipeline.aggregate import queue, store
from pipeline.aggregate.model import EpochState, MeterRule, PartitionProgress
from pipeline.aggregate.rows import COPY, RowWriter
from pipeline.aggregate.rules import (
    NO_EDGE_US,
    Arrival,
    EventFold,
    MeterBook,
    Record,
    arrival_again,
    arrivals,
    epochs_named,
    new_tally,
)
from pipeline.domain.errors import InvariantViolation, TransientFault
from pipeline.runtime import metrics
from pipeline.runtime.postgres import Connection, is_transient

STAGE = "aggregate"
LOGGER = logging.getLogger("rackmeter.aggregate")

#: Broker timestamps of this type say when the log took the message (confluent_kafka.TIMESTAMP_LOG_APPEND_TIME).
LOG_APPEND_TIME = 2

POLL_SECONDS = 0.1
#: How often the queue is looked at, and how many of its events one flush takes.
QUEUE_SECONDS = 1.0
QUEUE_EVENTS = 5_000
#: Events fetched at once, near enough: a message may hold a hundred, and memory is bounded in events.
POLL_EVENTS = 20_000


class Message(Protocol):
    """What this stage asks of a message; confluent_kafka.Message has it."""

    def partition(self) -> int | None:
        """Partition."""

    def offset(self) -> int | None:
        """Offset."""

    def timestamp(self) -> tuple[int, int]:
        """Type, and milliseconds since 1970 UTC."""

    def key(self) -> bytes | None:
        """Key as sent."""

    def value(self) -> bytes | None:
        """Value as sent."""


class LogReader(Protocol):
    """The port to the log; runtime.consumer.LogConsumer has it."""

    def poll_batch(self, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """Give up to so many messages, in offset order within a partition."""

    def commit_hint(self, offsets_next: Mapping[int, int]) -> None:
        """Tell Kafka how far we are, for people who look at lag."""

    def close(self) -> None:
        """Leave the group."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a flush is due: so many events gathered, or the oldest waiting so long, or nothing more has come."""

    flush_events: int = 50_000
    flush_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class CatalogueView:
    """What is known to this stage of meters and retention; `catalogue_number` is the newest known number of it."""

    catalogue_number: int
    meters: Mapping[str, Sequence[MeterRule]]
    ignored_types: frozenset[str]
    #: Slots before it never change.
    edge_us: int = NO_EDGE_US


class Worker:
    """
    Aggregates the partitions it is assigned. Give `assign` and `revoke` to the consumer, then the consumer to `attach`.

    Args:
        connection: In autocommit mode, as runtime.postgres.connect gives it.
        topic: The topic read.
        open_log: Compares topic and database (raises InvariantViolation where they do not belong together) and
            gives the fence and the number of partitions; asked at every assignment.
        load_catalogue: Gives the meters in force.
        pace: When to flush.
        writer: How rows reach the database.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        *,
        open_log: Callable[[], tuple[store.Fence, int]],
        load_catalogue: Callable[[Connection], CatalogueView],
        pace: Pace,
        monotonic: Callable[[], float] = time.monotonic,
        health: metrics.Health | None = None,
        writer: RowWriter = COPY,
    ) -> None:
        self._connection = connection
        self._writer = writer
        self._topic = topic
        self._open_log = open_log
        self._load_catalogue = load_catalogue
        self._pace = pace
        self._monotonic = monotonic
        self._health = health
        self._reader: LogReader | None = None
        self._fence: store.Fence | None = None
        self._partition_count = 0
        self._catalogue_number = -1
        self._poll_messages = POLL_EVENTS
        self._book = MeterBook({}, ())
        # Everything below is memory of the partitions owned; thrown away whole when anything goes wrong.
        self._progress: dict[int, PartitionProgress] = {}
        self._epochs: dict[tuple[str, str], EpochState] = {}
        self._fold: EventFold | None = None
        self._oldest_at = 0.0
        self._is_log_trusted = True
        self._queue_at = 0.0

    def attach(self, reader: LogReader) -> None:
        """Take the consumer that was given `assign` and `revoke`."""
        self._reader = reader

    def assign(self, partitions: Sequence[int]) -> dict[int, int]:
        """Take partitions over: offsets first, identities when first needed. Gives the offsets to read from."""
        self._forget()
        if not partitions:
            return {}
        self._fence, self._partition_count = self._open_log()
        self._is_log_trusted = True
        self._progress = store.read_progress(self._connection, self._fence, sorted(partitions))
        LOGGER.info("assigned", extra={"action": "assign", "partitions": list(partitions)})
        return {partition: row.offset_next for partition, row in self._progress.items()}

    def distrust(self) -> None:
        """Take note that the connection to the broker broke: the log is compared again before the next commit."""
        self._is_log_trusted = False

    def revoke(self, partitions: Sequence[int]) -> None:
        """Forget partitions; what is gathered of them will be read again by their next owner."""
        LOGGER.info("revoked", extra={"action": "revoke", "partitions": list(partitions)})
        self._forget()

    def run(self, stop: threading.Event) -> None:
        """
        Work until told to stop; what is gathered is flushed at the end.

        Raises:
            Fenced: Another worker moved our partitions on; start again.
            TransientFault: Broker or database stopped answering; start again.
            InvariantViolation: A law does not hold; a person must look.
        """
        try:
            while not stop.is_set():
                self.step()
                if self._health:
                    self._health.step()
            self.flush()
        except psycopg.Error as error:
            if is_transient(error):
                raise TransientFault(f"the database stopped answering: {error}") from error
            raise
        finally:
            self._forget()
            self._port().close()

    def step(self) -> int:
        """Gather what has come, flush when it is time; gives how many messages were gathered."""
        messages = self._port().poll_batch(self._poll_messages, POLL_SECONDS)
        if messages:
            self._gather(messages)
        if self._is_due(idle=not messages):
            self.flush()
        if self._fold is None and self._monotonic() >= self._queue_at:
            self._queue_at = self._monotonic() + QUEUE_SECONDS
            self.decide_again()
        return len(messages)

    def flush(self) -> int:
        """
        Commit all that is gathered: this stage's one commit point.

        Returns:
            How many events were decided.
        """
        if self._fold is None or self._fence is None:
            return 0
        if not self._is_log_trusted:
            self._open_log()
            self._is_log_trusted = True
        folded = self._fold.folded
        moved = {p: row for p, row in self._progress.items() if row.offset_reached > row.offset_next}
        self._commit(self._fold, self._fence, moved)
        self._fold = None
        self._port().commit_hint({partition: row.offset_next for partition, row in moved.items()})
        LOGGER.info("flushed", extra={"action": "flush", "events": folded.event_count})
        return folded.event_count

    def decide_again(self) -> int:
        """
        Decide about queued events of our partitions anew, in a flush of their own: the same commit point.

        Returns:
            How many were decided about.
        """
        if self._fence is None or not self._progress:
            return 0
        waiting, numbers = queue.read_queue(self._connection, self._topic, sorted(self._progress), QUEUE_EVENTS)
        if not numbers:
            return 0
        self._refresh_catalogue()
        batch = [arrival_again(event) for event in waiting]
        self._know_epochs(batch)
        fold = EventFold(self._book, self._partition_count, self._epochs)
        changes = [
            fold.decide_again(event, arrival, self._progress[event.position.partition])
            for event, arrival in zip(waiting, batch, strict=True)
        ]
        moved = {p: self._progress[p] for p in sorted({event.position.partition for event in waiting})}
        fence = self._fence
        self._commit(fold, fence, moved, lambda: queue.write_changes(self._connection, fence, changes, numbers))
        LOGGER.info("decided again", extra={"action": "decide_again", "events": len(changes)})
        return len(changes)

    def _commit(
        self,
        fold: EventFold,
        fence: store.Fence,
        moved: Mapping[int, PartitionProgress],
        also: Callable[[], None] = lambda: None,
    ) -> None:
        """Write a fold and where it leaves its partitions; memory changes after the answer of COMMIT only."""
        if not self._is_log_trusted:
            self._open_log()
            self._is_log_trusted = True
        with metrics.FLUSH_SECONDS.labels(STAGE).time(), self._connection.transaction():
            store.hold_catalogue(self._connection, self._catalogue_number)
            store.write_flush(self._connection, fence, fold.folded, moved, fold.home, self._book, self._writer)
            also()
        for row in moved.values():
            for outcome, count in row.tally.items():
                # An event that is decided about again leaves the outcome it had.
                if outcome != "received" and count > 0:
                    metrics.RECORDS.labels(STAGE, outcome).inc(count)
            row.offset_next = row.offset_reached
            row.flush_number += 1
            row.tally = new_tally()

    def _gather(self, messages: Sequence[Message]) -> None:
        if self._fold is None:
            self._refresh_catalogue()
            self._fold = EventFold(self._book, self._partition_count, self._epochs)
            self._oldest_at = self._monotonic()
        batch = [arrival for message in messages if (record := self._record(message)) for arrival in arrivals(record)]
        self._know_epochs(batch)
        for arrival in batch:
            self._fold.add(arrival, self._progress[arrival.record.partition])
        self._poll_messages = max(1, POLL_EVENTS * len(messages) // max(len(batch), len(messages)))

    def _know_epochs(self, batch: Sequence[Arrival]) -> None:
        unknown = epochs_named(batch) - self._epochs.keys()
        if unknown:
            self._epochs.update(store.read_epochs(self._connection, unknown))

    def _record(self, message: Message) -> Record | None:
        partition, offset = message.partition(), message.offset()
        if partition is None or offset is None or partition not in self._progress:
            return None
        if offset < self._progress[partition].offset_reached:
            raise InvariantViolation(f"{self._topic}-{partition} went back to offset {offset}", "offset_went_back")
        kind, at_ms = message.timestamp()
        if kind != LOG_APPEND_TIME:
            raise InvariantViolation(
                f"{self._topic} does not stamp messages itself: set message.timestamp.type=LogAppendTime"
            )
        # Here and not after the fold, so that a position given twice in one fetch is noticed too.
        self._progress[partition].offset_reached = offset + 1
        return Record(partition, offset, at_ms * 1000, message.key(), message.value())

    def _refresh_catalogue(self) -> None:
        view = self._load_catalogue(self._connection)
        if view.catalogue_number != self._catalogue_number:
            self._book = MeterBook(view.meters, view.ignored_types, view.edge_us)
            self._catalogue_number = view.catalogue_number

    def _is_due(self, *, idle: bool) -> bool:
        if self._fold is None:
            return False
        waited = self._monotonic() - self._oldest_at
        return idle or self._fold.folded.event_count >= self._pace.flush_events or waited >= self._pace.flush_seconds

    def _forget(self) -> None:
        self._progress, self._epochs, self._fold = {}, {}, None

    def _port(self) -> LogReader:
        if self._reader is None:
            raise InvariantViolation("the aggregate worker was not given its consumer")
        return self._reader
