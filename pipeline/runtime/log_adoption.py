"""Going on after a log was lost, re-created or rolled back: a person says that the log at the broker is the one now."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.domain.errors import InvariantViolation
from pipeline.runtime.known_log import known_log
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries
from pipeline.runtime.topics import LogIdentity, begin_log, read_log_identity, record_time, watermarks

QUERIES = load_queries("pipeline.runtime", "log_adoption.sql")


@dataclass(frozen=True, slots=True)
class LogAtBroker:
    """
    What the broker says of a topic.

    identity: From `read_log_identity`.
    available: From `watermarks`: first and next offset by partition.
    time_at: (partition, offset) -> when the log took that record; None where it has none.
    begin_again: Gives the topic a new log id and returns it; asked where the id is still the old one.
    """

    identity: LogIdentity
    available: Mapping[int, tuple[int, int]]
    time_at: Callable[[int, int], datetime | None]
    begin_again: Callable[[], LogIdentity]


@dataclass(frozen=True, slots=True)
class LostNumbers:
    """Numbers of a source's epoch that were counted and never archived; `numbers` as PostgreSQL writes a multirange."""

    source: str
    epoch: str
    numbers: str
    count: int


@dataclass(frozen=True, slots=True)
class MovedPosition:
    """Where a stage stood in a partition, and where it goes on."""

    stage: str
    partition: int
    offset_before: int
    offset_next: int


@dataclass(frozen=True, slots=True)
class Adoption:
    """
    What an adoption changes.

    is_from_start: Everything is read again from the log's beginning; identities make that harmless.
    positions: By stage and partition.
    sources: Sources that were read, with the log's time up to which they were; they should send again what came later.
    lost: Counted events whose bytes are gone; their sources must send them again, all of them.
    """

    log: LogIdentity
    is_from_start: bool
    positions: tuple[MovedPosition, ...]
    sources: tuple[tuple[str, datetime | None], ...]
    lost: tuple[LostNumbers, ...]


def look_at_log(bootstrap_servers: str, topic: str) -> LogAtBroker:
    """
    Ask the broker about a topic.

    Raises:
        InvariantViolation: The topic does not exist, or no log was begun for it.
        TransientFault: The broker does not answer.
    """

    def begin_again() -> LogIdentity:
        begin_log(bootstrap_servers, topic, "unclean_stop")
        return read_log_identity(bootstrap_servers, topic)

    return LogAtBroker(
        read_log_identity(bootstrap_servers, topic),
        watermarks(bootstrap_servers, topic),
        lambda partition, offset: record_time(bootstrap_servers, topic, partition, offset),
        begin_again,
    )


def adopt(
    connection: Connection,
    broker: LogAtBroker,
    find_lost: Callable[[Connection], Sequence[LostNumbers]],
    *,
    from_start: bool = False,
) -> Adoption:
    """
    Take the log at the broker for the one to read from now on, in one transaction.

    A log in which every stage finds the last record it read, taken at the same time, goes on. Any other is read from
    its beginning; the one before is set aside under `<topic>@<old log id>`, with its offsets, decisions and tallies.

    Args:
        connection: As rackmeter_app. The stages should be stopped; one that still runs is fenced.
        broker: What is there now.
        find_lost: Tells what was counted and never archived; asked in the transaction, before anything changes.
        from_start: Read from the beginning in any case.

    Raises:
        InvariantViolation: The number of partitions differs (it is for life), or the database never read the topic.
    """
    now = broker.identity
    with connection.transaction():
        rows = connection.execute(QUERIES["lock_positions"], {"topic": now.topic}).fetchall()
        stored = known_log(connection, now.topic)
        if now.partition_count != stored.partition_count:
            raise InvariantViolation(
                f"topic {now.topic} has {now.partition_count} partitions, it was read with {stored.partition_count}: "
                f"the number is for life. Make the topic with {stored.partition_count}, then adopt it.",
                "partition_count_changed",
            )
        again = from_start or now.kafka_topic_id != stored.kafka_topic_id or not _holds_all(broker, rows)
        if again and now.log_id == stored.log_id:
            # Two logs under one id could not be told apart.
            now = broker.begin_again()
        moved = [
            MovedPosition(stage, partition, offset, broker.available.get(partition, (0, 0))[0] if again else offset)
            for stage, partition, offset, _ in rows
        ]
        sources = connection.execute(QUERIES["sources_read"], {"topic": now.topic}).fetchall()
        lost = tuple(find_lost(connection)) if again else ()
        if again:
            _set_aside(connection, now, stored, lost)
        else:
            connection.execute(QUERIES["go_on_in_log"], _identity(now))
        _move(connection, now, moved, is_from_start=again)
        return Adoption(now, again, tuple(moved), tuple((source, until) for source, until in sources), lost)


def _holds_all(broker: LogAtBroker, rows: Sequence[tuple[str, int, int, datetime | None]]) -> bool:
    """
    Tell whether the log has everything that was read from it, at the same offsets.

    Looking at where it ends is not enough: it may have lost records and taken others since. A record that came to an
    offset later was taken later.
    """
    for _, partition, offset, log_time_max in rows:
        low, high = broker.available.get(partition, (0, 0))
        if offset == 0 and low == 0:
            continue
        if not low < offset <= high or log_time_max is None or broker.time_at(partition, offset - 1) != log_time_max:
            return False
    return True


def _set_aside(connection: Connection, now: LogIdentity, stored: LogIdentity, lost: Sequence[LostNumbers]) -> None:
    names = {"topic": now.topic, "old_name": f"{now.topic}@{stored.log_id}"}
    for query in ("count_log", "keep_log", "keep_positions", "set_aside_decisions", "set_aside_tallies"):
        connection.execute(QUERIES[query], names)
    connection.execute(QUERIES["begin_log"], _identity(now))
    connection.execute(
        QUERIES["add_lost_numbers"],
        {
            **names,
            "sources": [one.source for one in lost],
            "epochs": [one.epoch for one in lost],
            "numbers": [one.numbers for one in lost],
        },
    )


def _move(connection: Connection, now: LogIdentity, moved: Sequence[MovedPosition], *, is_from_start: bool) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            QUERIES["move_position"],
            [
                {
                    "topic": now.topic,
                    "log_id": now.log_id,
                    "stage": one.stage,
                    "partition": one.partition,
                    "offset_next": one.offset_next,
                    "is_from_start": is_from_start,
                }
                for one in moved
            ],
        )


def _identity(now: LogIdentity) -> dict[str, Any]:
    return {"topic": now.topic, "log_id": now.log_id, "kafka_topic_id": now.kafka_topic_id}
