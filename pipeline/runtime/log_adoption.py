"""Going on after a log was lost, re-created or rolled back: a person says that the log at the broker is the one now."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.errors import InvariantViolation
from pipeline.runtime.known_log import known_log
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries
from pipeline.runtime.topics import LogIdentity

QUERIES = load_queries("pipeline.runtime", "log_adoption.sql")


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
    """

    log: LogIdentity
    is_from_start: bool
    positions: tuple[MovedPosition, ...]
    sources: tuple[tuple[str, datetime | None], ...]


def adopt(
    connection: Connection,
    now: LogIdentity,
    available: Mapping[int, tuple[int, int]],
    *,
    from_start: bool = False,
) -> Adoption:
    """
    Take the log at the broker for the one to read from now on, in one transaction.

    A topic that was made again, or that ends before a stored position, is read from its beginning. The decisions and
    tallies of the old log are set aside under `<topic>@<old log id>`; its archive files stay listed under its id.

    Args:
        connection: As rackmeter_app. The stages should be stopped; one that still runs is fenced.
        now: From `read_log_identity`.
        available: From `watermarks`.
        from_start: Read from the beginning in any case.

    Raises:
        InvariantViolation: The number of partitions differs (it is for life), or the database never read the topic.
    """
    with connection.transaction():
        rows = connection.execute(QUERIES["lock_positions"], {"topic": now.topic}).fetchall()
        stored = known_log(connection, now.topic)
        if now.partition_count != stored.partition_count:
            raise InvariantViolation(
                f"topic {now.topic} has {now.partition_count} partitions, it was read with {stored.partition_count}: "
                f"the number is for life. Make the topic with {stored.partition_count}, then adopt it.",
                "partition_count_changed",
            )
        ends_early = any(offset > available.get(partition, (0, 0))[1] for _, partition, offset in rows)
        again = from_start or now.kafka_topic_id != stored.kafka_topic_id or ends_early
        moved = []
        for stage, partition, offset in rows:
            low, _ = available.get(partition, (0, 0))
            moved.append(MovedPosition(stage, partition, offset, low if again else max(offset, low)))
        sources = connection.execute(QUERIES["sources_read"], {"topic": now.topic}).fetchall()
        _write(connection, now, stored, moved, is_from_start=again)
        return Adoption(now, again, tuple(moved), tuple((source, until) for source, until in sources))


def _write(
    connection: Connection,
    now: LogIdentity,
    stored: LogIdentity,
    moved: list[MovedPosition],
    *,
    is_from_start: bool,
) -> None:
    topic = {"topic": now.topic}
    connection.execute(QUERIES["adopt_log"], {**topic, "log_id": now.log_id, "kafka_topic_id": now.kafka_topic_id})
    with connection.cursor() as cursor:
        cursor.executemany(
            QUERIES["move_position"],
            [
                {
                    **topic,
                    "log_id": now.log_id,
                    "stage": one.stage,
                    "partition": one.partition,
                    "offset_next": one.offset_next,
                }
                for one in moved
            ],
        )
    if is_from_start:
        connection.execute(QUERIES["forget_log_time"], topic)
        for query in ("set_aside_decisions", "set_aside_tallies"):
            connection.execute(QUERIES[query], {**topic, "old_name": f"{now.topic}@{stored.log_id}"})
