"""The archive stage's loop: gather messages, write files, list them, say how far we are."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import psycopg

from pipeline.archive import files, rules, store, twins
from pipeline.domain.errors import Fenced, InvariantViolation, TransientFault
from pipeline.runtime import metrics
from pipeline.runtime.postgres import Connection, is_transient

STAGE = "archive"
LOGGER = logging.getLogger("rackmeter.archive")

#: Broker timestamps of this type say when the log took the message (confluent_kafka.TIMESTAMP_LOG_APPEND_TIME).
LOG_APPEND_TIME = 2

POLL_SECONDS = 0.2
POLL_MESSAGES = 10_000
# How long duplicates wait at least for their next look while there is more to read.
BEHIND_SECONDS = 30.0


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
        """Value as sent; None where it is empty."""


class LogReader(Protocol):
    """The port to the log; runtime.consumer.LogConsumer has it."""

    def poll_batch(self, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """Give up to `messages_max` messages, in offset order within a partition."""

    def commit_hint(self, offsets_next: Mapping[int, int]) -> None:
        """Tell Kafka how far we are, for people who look at lag."""

    def close(self) -> None:
        """Leave the group."""


class Worker:
    """
    Archives the partitions it is assigned. Give `assign` and `revoke` to the consumer, then the consumer to `attach`.

    Args:
        connection: In autocommit mode, as runtime.postgres.connect gives it.
        topic: The topic read.
        archive_dir: The archive folder.
        verify_log: Raises InvariantViolation where topic and database do not belong together; asked at assignment.
        flush_messages: Messages gathered at most before files are written.
        flush_bytes: Bytes of keys and values gathered at most.
        flush_seconds: How long the oldest gathered message waits at most.
        settle_seconds: How often duplicates are looked at.
        monotonic: A clock that only goes forward, in seconds.
        health: Told about each turn of the loop.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        archive_dir: Path,
        *,
        verify_log: Callable[[], None] = lambda: None,
        flush_messages: int = 200_000,
        flush_bytes: int = 64_000_000,
        flush_seconds: float = 5.0,
        settle_seconds: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
        health: metrics.Health | None = None,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._archive_dir = archive_dir
        self._verify_log = verify_log
        self._flush_messages = flush_messages
        self._flush_bytes = flush_bytes
        self._flush_seconds = flush_seconds
        self._settle_seconds = settle_seconds
        self._settle_at = 0.0
        self._is_behind = False
        self._monotonic = monotonic
        self._health = health
        self._reader: LogReader | None = None
        self._log_id = ""
        self._stands: dict[int, store.Stand] = {}
        self._gathered: dict[int, list[rules.Record]] = {}
        self._count = 0
        self._bytes = 0
        self._oldest_at = 0.0
        self._is_log_trusted = True

    def attach(self, reader: LogReader) -> None:
        """Take the consumer that was given `assign` and `revoke`."""
        self._reader = reader

    def assign(self, partitions: Sequence[int]) -> dict[int, int]:
        """
        Take partitions over and give the offsets to read from. Fences whoever had them, then sweeps unlisted files.

        Raises:
            InvariantViolation: The topic is not the log the database knows.
        """
        self._forget()
        if not partitions:
            return {}
        self._verify_log()
        self._is_log_trusted = True
        self._log_id = store.read_log_id(self._connection, self._topic)
        self._stands = store.claim(self._connection, self._topic, self._log_id, sorted(partitions))
        for partition in partitions:
            self._sweep(partition)
        return {partition: stand.offset_next for partition, stand in self._stands.items()}

    def distrust(self) -> None:
        """Take note that the connection to the broker broke: the log is compared again before the next commit."""
        self._is_log_trusted = False

    def revoke(self, partitions: Sequence[int]) -> None:
        """Forget partitions; what is gathered of them will be read again by their next owner."""
        del partitions  # the range assignor takes all of them at once
        self._forget()

    def run(self, stop: threading.Event) -> None:
        """
        Work until told to stop; what is gathered is flushed at the end.

        Raises:
            InvariantViolation: A law does not hold; a person must look.
            TransientFault: Something did not answer, or a partition was taken over. Memory is forgotten; start the
                worker again, it goes on from the stored offset.
        """
        try:
            while not stop.is_set():
                self._guarded(self.step)
                self._guarded(self.settle)
                if self._health:
                    self._health.step()
            self._guarded(self.flush)
        finally:
            self._read_port().close()

    def step(self) -> int:
        """
        Gather what has come, flush when it is time.

        Returns:
            How many messages were gathered.

        Raises:
            Fenced: A partition was taken over.
            TransientFault: Broker or database does not answer.
        """
        messages = self._read_port().poll_batch(POLL_MESSAGES, POLL_SECONDS)
        self._is_behind = bool(messages)
        if not self._is_behind:
            self._settle_at = min(self._settle_at, self._monotonic() + self._settle_seconds)
        for message in messages:
            self._gather(message)
        if self._is_due():
            self.flush()
        return len(messages)

    def flush(self) -> int:
        """
        Write files of all that is gathered and commit; nothing in memory changes before the answer of COMMIT.

        Returns:
            How many messages were archived.
        """
        if not self._count:
            return 0
        if not self._is_log_trusted:
            self._verify_log()
            self._is_log_trusted = True
        plans = [
            plan
            for partition, records in sorted(self._gathered.items())
            for plan in rules.plan_files(
                self._topic, self._log_id, partition, self._stands[partition].offset_next, records
            )
        ]
        written = [files.write_file(self._archive_dir, plan) for plan in plans]
        moves = [
            store.Move(
                partition,
                self._stands[partition],
                records[-1].log_offset + 1,
                max(record.log_time_us for record in records),
            )
            for partition, records in sorted(self._gathered.items())
        ]
        with metrics.FLUSH_SECONDS.labels(STAGE).time():
            stands = store.commit_flush(self._connection, self._topic, self._log_id, moves, written)
        archived = self._count
        self._stands.update(stands)
        self._drop_gathered()
        metrics.RECORDS.labels(STAGE, "archived").inc(archived)
        self._read_port().commit_hint({partition: stand.offset_next for partition, stand in stands.items()})
        LOGGER.info("archived", extra={"action": "flush", "messages": archived, "files": len(written)})
        return archived

    def settle(self) -> int:
        """
        Give a verdict on archived duplicates of our partitions, if it is time to look again.

        Returns:
            How many were settled or found to be conflicts.
        """
        if self._monotonic() < self._settle_at or not self._stands:
            return 0
        began_at = self._monotonic()
        settled = twins.settle(self._connection, self._archive_dir, self._topic, sorted(self._stands))
        ended_at = self._monotonic()
        # A pass reads the partitions' archive anew, so behind a backlog it is rare: reading goes first.
        pause_seconds = max(BEHIND_SECONDS, 9 * (ended_at - began_at)) if self._is_behind else 0.0
        self._settle_at = ended_at + max(self._settle_seconds, pause_seconds)
        metrics.RECORDS.labels(STAGE, "settled").inc(settled.duplicates)
        metrics.RECORDS.labels(STAGE, "conflict").inc(settled.conflicts)
        return settled.duplicates + settled.conflicts

    def _guarded(self, work: Callable[[], int]) -> None:
        """Run a piece of work; whatever goes wrong, what is in memory is forgotten."""
        try:
            work()
        except Fenced as error:
            self._give_up("fenced", error)
        except (TransientFault, OSError) as error:
            self._give_up("transient", error)
        except psycopg.Error as error:
            if not is_transient(error):
                raise
            self._give_up("transient", error)

    def _give_up(self, kind: str, error: Exception) -> NoReturn:
        metrics.FAULTS.labels(STAGE, kind).inc()
        self._forget()
        raise TransientFault(f"archive goes on from its stored offset when started again ({kind}): {error}") from error

    def _gather(self, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if partition is None or offset is None or partition not in self._stands:
            return
        kind, at_ms = message.timestamp()
        if kind != LOG_APPEND_TIME:
            raise InvariantViolation(
                f"{self._topic} does not stamp messages itself: set message.timestamp.type=LogAppendTime"
            )
        record = rules.Record(offset, at_ms * 1000, message.key(), message.value())
        if not self._count:
            self._oldest_at = self._monotonic()
        self._gathered.setdefault(partition, []).append(record)
        self._count += 1
        self._bytes += record.byte_count

    def _is_due(self) -> bool:
        return self._count > 0 and (
            self._count >= self._flush_messages
            or self._bytes >= self._flush_bytes
            or self._monotonic() - self._oldest_at >= self._flush_seconds
        )

    def _sweep(self, partition: int) -> None:
        """Remove files that no row lists; only after the claim, from when on no other worker can list one of them."""
        listed = store.listed_paths(self._connection, self._topic, self._log_id, partition)
        on_disk = files.files_of_partition(self._archive_dir, self._topic, self._log_id, partition)
        strays = [path for path in on_disk if path not in listed]
        files.remove_files(self._archive_dir, strays)
        if strays:
            LOGGER.info("swept unlisted files", extra={"action": "sweep", "partition": partition, "files": strays})

    def _forget(self) -> None:
        self._stands = {}
        self._drop_gathered()

    def _drop_gathered(self) -> None:
        self._gathered = {}
        self._count = 0
        self._bytes = 0

    def _read_port(self) -> LogReader:
        if self._reader is None:
            raise InvariantViolation("the archive worker was not given its consumer")
        return self._reader
